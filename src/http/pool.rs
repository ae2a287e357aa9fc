//! A queue of complete requests and the threads that take from it: as many as wait, within two bounds.
use super::conn::Conn;
use super::door::Door;
use super::exchange::Service;
use super::limits::{Limits, OVERRUN_PART};
use super::meter::Stats;
use super::queue::Queue;
use super::seat::{Crew, Seat};
use super::streams::Streams;
use super::surplus::Surplus;
use super::worker::Worker;
use crate::base::stop::StopToken;
use crate::base::thread;
use crossbeam_channel::RecvTimeoutError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What both pools and the listener thread share.
pub(super) struct Shared {
    pub(super) service: Arc<dyn Service>,
    pub(super) limits: Limits,
    pub(super) stats: Arc<Stats>,
    pub(super) streams: Arc<Streams>,
    pub(super) door: Door,
    /// Responses end their connections, threads end when idle.
    pub(super) stopping: StopToken,
}

/// How often a shortage of threads is told, in seconds.
const SHORTAGE_SECONDS: u64 = 10;

/// A pool of threads and its queue.
pub(super) struct Pool {
    name: &'static str,
    min: usize,
    max: usize,
    queue: Queue<Conn>,
    /// Threads that serve or wait, without those that became streams'.
    ///
    /// Who changes this or `spare` looks at the other next, and one of two who do so at a time has to see the
    /// other's change: hence `SeqCst` for both.
    threads: AtomicUsize,
    /// Waiting threads less queued requests. Who queues a request takes one off at once, so that no
    /// two count on the same thread; below zero, requests wait that nobody is coming for.
    spare: AtomicIsize,
    surplus: Surplus,
    /// Threads have ended since free memory was given back.
    ended: AtomicBool,
    started: Instant,
    /// When a shortage of threads was last told, in seconds of the pool's life; 0 is never.
    told_shortage: AtomicU64,
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts the pool with its least number of threads.
    pub(super) fn start(
        name: &'static str,
        min: usize,
        max: usize,
        shared: Arc<Shared>,
    ) -> io::Result<Arc<Pool>> {
        let pool = Arc::new(Pool {
            name,
            min,
            max: max.max(min),
            queue: Queue::new(),
            threads: AtomicUsize::new(0),
            spare: AtomicIsize::new(0),
            surplus: Surplus::new(),
            ended: AtomicBool::new(false),
            started: Instant::now(),
            told_shortage: AtomicU64::new(0),
            shared,
        });
        for _ in 0..min {
            pool.add_thread()?;
        }
        Ok(pool)
    }

    /// Queues a connection with a complete head; gives it back when the queue is full.
    #[allow(clippy::result_large_err, reason = "what is given back is the connection itself")]
    pub(super) fn submit(self: &Arc<Self>, conn: Conn) -> Result<(), Conn> {
        let known = conn.known;
        self.queue.push(conn, known)?;
        self.surplus.note(self.spare.fetch_sub(1, Ordering::SeqCst) - 1);
        self.grow();
        Ok(())
    }

    /// Adds a thread if a request waits that none is coming for. Without one to be had, the pool
    /// serves with what it has.
    fn grow(self: &Arc<Self>) {
        if self.is_behind()
            && !self.is_full()
            && let Err(error) = self.add_thread()
        {
            self.tell_shortage(&error);
        }
    }

    /// Logs that there can be no further thread: now and then, for it is met again at every turn.
    fn tell_shortage(&self, error: &io::Error) {
        let now = self.started.elapsed().as_secs() + 1;
        let due = |last: u64| (last == 0 || now >= last + SHORTAGE_SECONDS).then_some(now);
        if self.told_shortage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok() {
            log::warn!("no further {} thread: {error}", self.name);
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn is_control(&self) -> bool {
        self.name == CONTROL
    }

    /// A seat for one of its threads.
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        Seat::new(Arc::new(Membership(Arc::clone(self))), Arc::clone(&self.shared.streams))
    }

    /// The next connection with a complete head, for a thread that counts as waiting.
    pub(super) fn next(&self, wait: Duration) -> Result<Conn, RecvTimeoutError> {
        self.queue.next(wait)
    }

    /// The calling thread has served a connection: it counts as waiting again, or is to end.
    pub(super) fn wants_again(self: &Arc<Self>) -> bool {
        self.spare.fetch_add(1, Ordering::SeqCst);
        // There may be more of them than when the last request came.
        self.grow();
        !(self.surplus.should_leave(self.started.elapsed()) && self.dismiss())
    }

    /// The calling thread ends.
    pub(super) fn note_end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether threads have ended since this was asked last.
    pub(super) fn took_ends(&self) -> bool {
        self.ended.swap(false, Ordering::Relaxed)
    }

    /// Requests wait that no thread is coming for.
    pub(super) fn is_behind(&self) -> bool {
        self.spare.load(Ordering::SeqCst) < 0
    }

    /// Whether the queue takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// There can be no more threads.
    pub(super) fn is_full(&self) -> bool {
        self.threads.load(Ordering::SeqCst) >= self.max()
    }

    /// How many threads there may be now.
    fn max(&self) -> usize {
        if !self.is_control() && self.shared.streams.are_overrun() {
            return (self.max / OVERRUN_PART as usize).max(self.min);
        }
        self.max
    }

    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        if !self.enter() {
            return Ok(());
        }
        let pool = Arc::clone(self);
        self.spare.fetch_add(1, Ordering::SeqCst);
        let added = thread::spawn(self.name, move || Worker::new(pool).run());
        if added.is_err() {
            self.spare.fetch_sub(1, Ordering::SeqCst);
            self.leave();
        }
        added.map(drop)
    }

    /// Counts the calling (or coming) thread, unless there are enough.
    pub(super) fn enter(&self) -> bool {
        let room = |now| (now < self.max()).then_some(now + 1);
        let entered = self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_ok();
        if entered {
            self.shared.stats.threads.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Lets a thread nobody seems to need end, unless it is one of the least number or a request
    /// counts on it.
    pub(super) fn dismiss(self: &Arc<Self>) -> bool {
        let stopping = self.shared.stopping.is_set();
        let one_less = |now: isize| (now > 0).then_some(now - 1);
        if self.spare.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
            return false;
        }
        let above = |now: usize| (now > self.min || stopping).then(|| now.saturating_sub(1));
        if self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, above).is_err() {
            self.spare.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        self.shared.stats.threads.fetch_sub(1, Ordering::Relaxed);
        self.note_end();
        // A request that came in between found the pool full.
        self.grow();
        true
    }

    /// How many there were.
    fn leave(&self) -> usize {
        self.shared.stats.threads.fetch_sub(1, Ordering::Relaxed);
        self.threads.fetch_sub(1, Ordering::SeqCst)
    }

    /// The calling thread had left, and had to stay.
    fn stay(&self) {
        self.shared.stats.threads.fetch_add(1, Ordering::Relaxed);
        self.threads.fetch_add(1, Ordering::SeqCst);
    }
}

/// The pool as a seat sees it: a thread left, a job may be waiting.
struct Membership(Arc<Pool>);

impl Crew for Membership {
    fn leave(&self) -> bool {
        if self.0.leave() > 1 {
            self.0.grow();
            return true;
        }
        let added = self.0.add_thread();
        if let Err(error) = &added {
            self.0.tell_shortage(error);
            self.0.stay();
        }
        added.is_ok()
    }

    fn is_short(&self) -> bool {
        // There may be more threads than when the last request came.
        self.0.grow();
        self.0.is_behind() && self.0.is_full()
    }
}

/// The name of the pool kept for control requests.
pub(super) const CONTROL: &str = "control";

impl Shared {
    /// Which pool the complete request at the front of a connection's buffer goes to.
    pub(super) fn is_control(&self, conn: &Conn) -> bool {
        let mut words = conn.buffer.split(|&b| b == b' ' || b == b'\r');
        words.nth(1).is_some_and(|target| self.service.is_control(conn.role, target))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{Exchange, Served};
    use super::super::streams::{Pace, Stream};
    use super::super::{HttpError, Role};
    use super::*;
    use std::sync::Weak;

    struct Nothing;

    impl Service for Nothing {
        fn serve(&self, _: &mut Exchange<'_>) -> Result<Served, HttpError> {
            Ok(Served::Gone)
        }

        fn is_control(&self, _: Role, _: &[u8]) -> bool {
            false
        }

        fn can_resume(&self) -> bool {
            false
        }
    }

    fn admit_slow_client(streams: &Streams) {
        let pace = Arc::<Pace>::default();
        pace.wait_for(true);
        streams.reserve();
        streams.admit_slow(Stream::new(Weak::new(), Instant::now(), &pace, false));
    }

    #[test]
    fn overrun_by_slow_clients_a_pool_takes_a_quarter_of_its_threads_and_that_of_control_all() {
        let limits = Limits { max_streams: 4, ..Limits::default() };
        let stats = Arc::<Stats>::default();
        let shared = Arc::new(Shared {
            service: Arc::new(Nothing),
            streams: Arc::new(Streams::new(limits.max_streams, Arc::clone(&stats))),
            limits,
            stats,
            door: Door::open().unwrap().0,
            stopping: StopToken::default(),
        });
        let pools = ["worker", CONTROL].map(|name| Pool::start(name, 1, 8, Arc::clone(&shared)).unwrap());
        let room = || {
            pools.each_ref().map(|pool| {
                let room = (0..9).take_while(|_| pool.enter()).count();
                (0..room).for_each(|_| _ = pool.leave());
                room
            })
        };
        admit_slow_client(&shared.streams);
        assert_eq!(room(), [7, 7], "one slow client is within its quarter");
        let deadline = Instant::now() + Duration::from_secs(20);
        while room() != [1, 7] {
            assert!(Instant::now() < deadline, "{:?}", room());
            admit_slow_client(&shared.streams);
        }
        shared.stopping.set();
    }
}
