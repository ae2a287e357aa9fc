//! Threads that take complete requests from a queue, serve them, and wait a moment on the connection
//! for the next one: that wait saves two context switches a request on a busy connection.
use super::conn::{Conn, Found, Hold};
use super::door::{Door, Return};
use super::error::HttpError;
use super::exchange::{Exchange, Scratch, Served, Service};
use super::head::Head;
use super::limits::{CROWD_TICK, LINGER_ROUNDS, Limits, QUEUE, THREAD_IDLE};
use super::memory::give_back_free_memory;
use super::meter::Stats;
use super::scan::{Scan, scan};
use super::scheduling::become_batch_thread;
use super::seat::{Crew, Seat};
use super::streams::Streams;
use super::surplus::Surplus;
use super::weight::Weight;
use crate::base::stop::StopToken;
use crate::base::thread;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    queue: Sender<Conn>,
    jobs: Receiver<Conn>,
    /// Threads that serve or wait, without those that became streams'.
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

/// How a connection goes on after a request.
enum Next {
    Keep,
    /// Read what the client still sends, then close.
    Close,
    Hold(Duration),
    Gone,
    /// The response broke off, which its client must be able to tell.
    Cut,
}

impl Pool {
    /// Starts the pool with its least number of threads.
    pub(super) fn start(
        name: &'static str,
        min: usize,
        max: usize,
        shared: Arc<Shared>,
    ) -> io::Result<Arc<Pool>> {
        let (queue, jobs) = bounded(QUEUE);
        let pool = Arc::new(Pool {
            name,
            min,
            max: max.max(min),
            queue,
            jobs,
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
        self.queue.try_send(conn).map_err(|full| full.into_inner())?;
        self.surplus.note(self.spare.fetch_sub(1, Ordering::AcqRel) - 1);
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

    fn is_behind(&self) -> bool {
        self.spare.load(Ordering::Acquire) < 0
    }

    /// Whether the queue takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < QUEUE
    }

    fn is_full(&self) -> bool {
        self.threads.load(Ordering::Relaxed) >= self.max
    }

    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        if !self.enter() {
            return Ok(());
        }
        let pool = Arc::clone(self);
        self.spare.fetch_add(1, Ordering::AcqRel);
        let added = thread::spawn(self.name, move || Worker::new(pool).run());
        if added.is_err() {
            self.spare.fetch_sub(1, Ordering::AcqRel);
            self.leave();
        }
        added.map(drop)
    }

    /// Counts the calling (or coming) thread, unless there are enough.
    fn enter(&self) -> bool {
        let room = |now| (now < self.max).then_some(now + 1);
        let entered = self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if entered {
            self.shared.stats.threads.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Lets a thread nobody seems to need end, unless it is one of the least number or a request
    /// counts on it.
    fn dismiss(self: &Arc<Self>) -> bool {
        let stopping = self.shared.stopping.is_set();
        let one_less = |now: isize| (now > 0).then_some(now - 1);
        if self.spare.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_err() {
            return false;
        }
        let above = |now: usize| (now > self.min || stopping).then(|| now.saturating_sub(1));
        if self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, above).is_err() {
            self.spare.fetch_add(1, Ordering::AcqRel);
            return false;
        }
        self.shared.stats.threads.fetch_sub(1, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
        // A request that came in between found the pool full.
        self.grow();
        true
    }

    /// How many there were.
    fn leave(&self) -> usize {
        self.shared.stats.threads.fetch_sub(1, Ordering::Relaxed);
        self.threads.fetch_sub(1, Ordering::Relaxed)
    }

    /// The calling thread had left, and had to stay.
    fn stay(&self) {
        self.shared.stats.threads.fetch_add(1, Ordering::Relaxed);
        self.threads.fetch_add(1, Ordering::Relaxed);
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
        self.0.is_behind() && self.0.is_full()
    }
}

struct Worker {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    seat: Seat,
    scratch: Scratch,
}

impl Worker {
    fn new(pool: Arc<Pool>) -> Worker {
        let shared = Arc::clone(&pool.shared);
        let seat = Seat::new(Arc::new(Membership(Arc::clone(&pool))), Arc::clone(&shared.streams));
        Worker { pool, shared, seat, scratch: Scratch::default() }
    }

    fn run(mut self) {
        become_batch_thread();
        // Whoever started this thread has counted it as waiting already.
        loop {
            match self.pool.jobs.recv_timeout(THREAD_IDLE) {
                Ok(conn) => {
                    if !self.serve_connection(conn) {
                        // This thread was a stream's and the pool has filled its place.
                        self.pool.ended.store(true, Ordering::Relaxed);
                        return;
                    }
                    self.pool.spare.fetch_add(1, Ordering::AcqRel);
                    if self.pool.surplus.should_leave(self.pool.started.elapsed()) && self.pool.dismiss() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) if !self.pool.dismiss() => self.rest(),
                Err(_) => return,
            }
        }
    }

    /// Keeps no memory that nobody needs now.
    fn rest(&mut self) {
        self.scratch.copy.shrink();
        if self.pool.ended.swap(false, Ordering::Relaxed) {
            give_back_free_memory();
        }
    }

    /// Serves requests of one connection until it is handed on; true while this thread is the pool's.
    fn serve_connection(&mut self, mut conn: Conn) -> bool {
        loop {
            let next = self.serve_request(&mut conn);
            conn.weight = Weight::default();
            let ours = self.seat.end() || self.pool.enter();
            match next {
                Next::Keep => {}
                Next::Gone => return ours,
                Next::Cut => {
                    conn.cut();
                    return ours;
                }
                Next::Hold(time) => {
                    self.shared.door.send(Return::Held(conn, time));
                    return ours;
                }
                Next::Close => {
                    conn.end_writing();
                    self.shared.door.send(Return::Closing(conn));
                    return ours;
                }
            }
            if !ours || !self.has_next_request(&mut conn) {
                self.shared.door.send(Return::Idle(conn));
                return ours;
            }
        }
    }

    /// Whether the next request is complete and this thread should serve it. Others that wait in the
    /// queue go first, and a request for the other pool is not ours.
    fn has_next_request(&mut self, conn: &mut Conn) -> bool {
        if self.pool.is_behind() {
            return false;
        }
        if conn.buffer.is_empty() && !self.linger(conn) {
            return false;
        }
        conn.find_head() == Found::Complete
            && (self.pool.name == CONTROL) == self.shared.is_control(conn)
            && conn.weigh()
    }

    /// Waits a little for the next request, as long as the pool could have another thread if somebody
    /// came. In a full pool nobody does: who waits with a thread would go before all who wait at the
    /// listener thread, again and again. Nor when connections are as many as allowed: only those at
    /// the listener thread can make room.
    fn linger(&mut self, conn: &mut Conn) -> bool {
        let Shared { stats, limits, .. } = &*self.shared;
        let crowded = || stats.connections.load(Ordering::Relaxed) >= limits.max_connections;
        // A connection that is used now and then is not worth a thread for long.
        let rounds = if conn.busy { LINGER_ROUNDS } else { 1 };
        conn.busy = false;
        for _ in 0..rounds {
            if self.pool.is_full() || self.pool.is_behind() || crowded() {
                return false;
            }
            match conn.receive_soon(self.scratch.copy.get()) {
                Ok(Some(1..)) => {
                    conn.busy = true;
                    return true;
                }
                Ok(None) => {}
                // The listener thread sees the same end or error and closes.
                Ok(Some(0)) | Err(_) => return false,
            }
        }
        false
    }

    fn serve_request(&mut self, conn: &mut Conn) -> Next {
        self.seat.begin(&conn.stream);
        self.shared.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        let next = self.serve_head(conn);
        self.shared.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
        next
    }

    fn serve_head(&mut self, conn: &mut Conn) -> Next {
        let head = match take_head(conn) {
            Ok(head) => head,
            Err(error) => {
                let meter = self.seat.meter();
                meter.answered(error.status);
                self.shared.service.served(&meter.end(None, (conn.peer, conn.role), self.seat.age()));
                let response = error.response().to_final_bytes();
                // A client that does not even take this is not waited for.
                let once =
                    |moved, _| if moved > 0 { Ok(CROWD_TICK) } else { Err(io::ErrorKind::TimedOut.into()) };
                return match conn.write_all(&mut [io::IoSlice::new(&response)], once) {
                    Ok(()) => Next::Close,
                    Err(_) => Next::Gone,
                };
            }
        };
        let stopping = &self.shared.stopping;
        let (limits, scratch) = (&self.shared.limits, &mut self.scratch);
        let mut exchange = Exchange::new(head, conn, &self.seat, limits, scratch, stopping);
        let service = &self.shared.service;
        let served = catch_unwind(AssertUnwindSafe(|| service.serve(&mut exchange)));
        let served = served.unwrap_or_else(|_| {
            self.shared.stats.panics.fetch_add(1, Ordering::Relaxed);
            exchange.close_after();
            Err(HttpError::internal())
        });
        match served {
            Ok(Served::Gone) => {
                service.served(&exchange.record());
                return if exchange.is_cut() { Next::Cut } else { Next::Gone };
            }
            Ok(Served::Hold(time)) => {
                exchange.put_back();
                conn.hold.since.get_or_insert_with(Instant::now);
                conn.hold.began.get_or_insert_with(|| self.seat.began());
                return Next::Hold(time);
            }
            Ok(Served::Done) => {}
            Err(error) => {
                if exchange.is_unanswered() && exchange.respond(error.response()).is_err() {
                    service.served(&exchange.record());
                    return Next::Gone;
                }
            }
        }
        service.served(&exchange.record());
        let answered = !exchange.is_unanswered();
        let cut = exchange.is_cut();
        let kept = exchange.conclude();
        conn.hold = Hold::default();
        match (kept, answered && !cut) {
            (true, _) => Next::Keep,
            (false, true) => Next::Close,
            // Cut in the middle it must not look complete: no orderly end.
            (false, false) => Next::Cut,
        }
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

/// Takes the head off a connection's buffer and parses it.
fn take_head(conn: &mut Conn) -> Result<Head, HttpError> {
    let length = match scan(&conn.buffer, 0) {
        Scan::Complete(length) => length,
        // What cannot become a head is parsed whole, for its message.
        Scan::Broken | Scan::More => conn.buffer.len(),
    };
    let rest = conn.buffer.split_off(length);
    let bytes = std::mem::replace(&mut conn.buffer, rest);
    conn.scanned = 0;
    Head::parse(bytes).map_err(|(error, _)| error.into())
}
