//! Who occupies a thread: a request that lasts gives up its place in the pool and is counted as a
//! stream instead, so that slow peers can never use the pool up.
use super::error::HttpError;
use super::limits::{CROWD_TICK, STREAM_AFTER, STREAM_TICK, WAITED, WHOLE_BYTES};
use super::meter::{Meter, Stats};
use crate::base::lock::lock;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// A request counted as a stream.
#[derive(Debug)]
struct Stream {
    socket: Weak<TcpStream>,
    since: Instant,
    pace: Arc<Pace>,
    /// Not to be cut: it has been already and has not ended yet, or what it waits for has an end.
    spared: bool,
    /// It has been cut and has not ended yet.
    cut: bool,
}

/// How a request gets on, told by its thread.
#[derive(Debug, Default)]
struct Pace {
    moved: AtomicU64,
    /// What it waited for last was its client, not the wrapped server.
    for_client: AtomicBool,
    /// Bytes of whole bodies it has in memory.
    whole: AtomicUsize,
}

impl Stream {
    /// Bytes a second since the request began.
    fn rate(&self) -> u64 {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.pace.moved.load(Ordering::Relaxed).saturating_mul(1000) / ms
    }

    fn waits_for_client(&self) -> bool {
        self.pace.for_client.load(Ordering::Relaxed)
    }

    fn whole(&self) -> usize {
        self.pace.whole.load(Ordering::Relaxed)
    }

    /// From here on it counts as cut, and as that only once. Its socket is to be shut down.
    fn cut(&mut self) -> Weak<TcpStream> {
        (self.spared, self.cut) = (true, true);
        self.socket.clone()
    }
}

/// All streams of the front, both kinds: slow requests, which the slowest of make room for others,
/// and long-lived ones by design, which do not.
#[derive(Debug)]
pub(super) struct Streams {
    max: usize,
    next: AtomicU64,
    /// How many slow requests wait for their clients.
    for_clients: AtomicUsize,
    /// How many wait for the wrapped server.
    for_app: AtomicUsize,
    slow: Mutex<HashMap<u64, Stream>>,
    tunnels: Mutex<HashMap<u64, Weak<TcpStream>>>,
    /// Bytes of whole bodies in memory, of all requests.
    whole: AtomicUsize,
    stats: Arc<Stats>,
}

impl Streams {
    pub(super) fn new(max: usize, stats: Arc<Stats>) -> Self {
        Streams {
            max,
            next: AtomicU64::new(1),
            for_clients: AtomicUsize::new(0),
            for_app: AtomicUsize::new(0),
            slow: Mutex::default(),
            tunnels: Mutex::default(),
            whole: AtomicUsize::new(0),
            stats,
        }
    }

    /// Counts a slow request, for which others may have to make room.
    fn admit_slow(&self, stream: Stream) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.slow).insert(key, stream);
        self.stats.streams.fetch_add(1, Ordering::Relaxed);
        self.make_room(key);
        // It may be the first that can be cut for its bytes.
        self.make_memory();
        key
    }

    /// Over the quarter of the bound that is theirs, the slowest of those that wait for their clients is cut:
    /// they take twice the memory of a tunnel, and nobody means to have so many. Who waits for the wrapped
    /// server is as slow as that is, and is cut only over the bound, when nobody else is left.
    ///
    /// Never the newcomer: it had no time to show how fast it is.
    fn make_room(&self, newcomer: u64) {
        let full = self.stats.streams.load(Ordering::Relaxed) > self.max;
        let share = self.max.div_ceil(4);
        if !full && self.for_clients.load(Ordering::Relaxed) <= share {
            return;
        }
        let victim = {
            let mut slow = lock(&self.slow);
            // Those that were cut and have not ended yet do not count again.
            let theirs = slow.values().filter(|s| !s.spared && s.waits_for_client()).count();
            if !full && theirs <= share {
                return;
            }
            let candidates = slow.iter_mut().filter(|(key, s)| !s.spared && **key != newcomer);
            let slowest = candidates.min_by_key(|(_, s)| (!s.waits_for_client(), s.rate(), s.since));
            slowest.map(|(_, s)| s.cut())
        };
        self.shut_down(victim);
    }

    /// Where whole bodies take more memory than they may, the slowest requests that have some are cut until
    /// the rest fits; false when it does not.
    fn make_memory(&self) -> bool {
        if self.whole.load(Ordering::Relaxed) <= WHOLE_BYTES {
            return true;
        }
        let mut victims = Vec::new();
        let fits = {
            let mut slow = lock(&self.slow);
            let going: usize = slow.values().filter(|s| s.cut).map(Stream::whole).sum();
            let mut left = self.whole.load(Ordering::Relaxed).saturating_sub(going);
            while left > WHOLE_BYTES {
                let candidates = slow.values_mut().filter(|s| !s.spared && s.whole() > 0);
                let Some(slowest) = candidates.min_by_key(|s| (s.rate(), s.since)) else { break };
                left = left.saturating_sub(slowest.whole());
                victims.push(slowest.cut());
            }
            left <= WHOLE_BYTES
        };
        self.shut_down(victims);
        fits
    }

    fn shut_down(&self, victims: impl IntoIterator<Item = Weak<TcpStream>>) {
        for socket in victims.into_iter().filter_map(|socket| socket.upgrade()) {
            self.stats.shed.fetch_add(1, Ordering::Relaxed);
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How many slow requests wait for their clients, or for the wrapped server.
    fn waiting(&self, for_client: bool) -> &AtomicUsize {
        if for_client { &self.for_clients } else { &self.for_app }
    }

    /// Whether a request may become a stream because of the wrapped server: half of all streams may. The next
    /// ones keep their threads of the pool, and those behind them the queue, which costs a tenth.
    fn has_room_for_waits(&self) -> bool {
        self.for_app.load(Ordering::Relaxed) < self.max.div_ceil(2)
    }

    fn admit_long_lived(&self) -> bool {
        let admit = |now| (now < self.max).then_some(now + 1);
        self.stats.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
    }

    /// Closes the clients' ends of all tunnels: nothing else would end them.
    pub(super) fn end_tunnels(&self) {
        let sockets: Vec<_> = lock(&self.tunnels).values().filter_map(Weak::upgrade).collect();
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn release(&self, key: u64) {
        if lock(&self.slow).remove(&key).is_none() {
            lock(&self.tunnels).remove(&key);
        }
        self.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the pool does when one of its threads becomes a stream's.
pub(super) trait Crew {
    /// The calling thread no longer counts; another may take its place.
    fn left(&self);

    /// Requests wait for a thread, and there can be no more of them.
    fn is_short(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pool,
    /// A slow request under this key.
    Slow(u64),
    /// A long-lived one; a tunnel has a key, others 0.
    Stream(u64),
}

struct Inner {
    crew: Arc<dyn Crew>,
    streams: Arc<Streams>,
    place: Cell<Place>,
    began: Cell<Instant>,
    socket: RefCell<Weak<TcpStream>>,
    pace: Arc<Pace>,
    meter: Meter,
}

/// A thread's place, in the pool or among the streams. Clones are the same seat; it stays on its thread.
#[derive(Clone)]
pub struct Seat(Rc<Inner>);

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.0.place.get()).finish()
    }
}

impl Seat {
    pub(super) fn new(crew: Arc<dyn Crew>, streams: Arc<Streams>) -> Seat {
        let meter = Meter::new(Arc::clone(&streams.stats));
        Seat(Rc::new(Inner {
            crew,
            streams,
            place: Cell::new(Place::Pool),
            began: Cell::new(Instant::now()),
            socket: RefCell::new(Weak::new()),
            pace: Arc::default(),
            meter,
        }))
    }

    /// A request begins.
    pub(super) fn begin(&self, socket: &Arc<TcpStream>) {
        self.0.began.set(Instant::now());
        *self.0.socket.borrow_mut() = Arc::downgrade(socket);
        self.0.pace.moved.store(0, Ordering::Relaxed);
        self.0.pace.for_client.store(false, Ordering::Relaxed);
        self.0.meter.begin();
    }

    /// When the request began.
    pub(super) fn began(&self) -> Instant {
        self.0.began.get()
    }

    /// What is counted of the request.
    pub fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// How long the request has lasted.
    pub fn age(&self) -> Duration {
        self.0.began.get().elapsed()
    }

    /// The request waits for the wrapped server; one that has lasted a quarter of a second becomes a
    /// stream, if there is room. When others wait for a thread and there is none, it becomes one at once.
    ///
    /// Returns how long the request may wait before it is to tell again.
    pub fn tick(&self) -> Duration {
        self.get_on(false)
    }

    fn get_on(&self, for_client: bool) -> Duration {
        let inner = &*self.0;
        let changed = inner.pace.for_client.swap(for_client, Ordering::Relaxed) != for_client;
        match inner.place.get() {
            Place::Pool => {
                // A client that keeps us waiting always makes room for itself, by the slowest.
                let may_leave = for_client || inner.streams.has_room_for_waits();
                if may_leave && (self.age() >= STREAM_AFTER || inner.crew.is_short()) {
                    self.become_slow(false);
                }
            }
            Place::Slow(key) if changed => {
                inner.streams.waiting(for_client).fetch_add(1, Ordering::Relaxed);
                inner.streams.waiting(!for_client).fetch_sub(1, Ordering::Relaxed);
                if for_client {
                    inner.streams.make_room(key);
                }
            }
            _ => {}
        }
        match inner.place.get() {
            Place::Pool if self.age() < STREAM_AFTER => CROWD_TICK,
            Place::Pool => STREAM_AFTER,
            _ => STREAM_TICK,
        }
    }

    /// The request is about to wait without telling: it becomes a stream now, and is never refused, nor
    /// cut for another.
    pub fn leave_pool_to_wait(&self) {
        if self.0.place.get() == Place::Pool {
            self.become_slow(true);
        }
    }

    fn become_slow(&self, spared: bool) {
        let inner = &*self.0;
        let stream = Stream {
            socket: inner.socket.borrow().clone(),
            since: inner.began.get(),
            pace: Arc::clone(&inner.pace),
            spared,
            cut: false,
        };
        inner.streams.waiting(stream.waits_for_client()).fetch_add(1, Ordering::Relaxed);
        inner.place.set(Place::Slow(inner.streams.admit_slow(stream)));
        inner.crew.left();
    }

    /// The request is long-lived by design (an event stream, a tunnel, a wait).
    ///
    /// # Errors
    /// 503 when there are as many streams as allowed.
    pub fn leave_pool(&self) -> Result<(), HttpError> {
        let inner = &*self.0;
        if inner.place.get() == Place::Pool {
            if !inner.streams.admit_long_lived() {
                return Err(HttpError::overloaded("too many streams are open"));
            }
            inner.place.set(Place::Stream(0));
            inner.crew.left();
        }
        Ok(())
    }

    /// The connection becomes a tunnel: long-lived, and closed when the server ends.
    ///
    /// # Errors
    /// As for [`leave_pool`](Self::leave_pool).
    pub fn become_tunnel(&self) -> Result<(), HttpError> {
        self.leave_pool()?;
        let inner = &*self.0;
        if inner.place.get() == Place::Stream(0) {
            let key = inner.streams.next.fetch_add(1, Ordering::Relaxed);
            lock(&inner.streams.tunnels).insert(key, inner.socket.borrow().clone());
            inner.place.set(Place::Stream(key));
        }
        Ok(())
    }

    /// A step of a body to or from the client, perhaps with bytes, and how long it took. Whatever made
    /// the request last, it becomes a stream: a fast client with a long body would otherwise keep its place
    /// in the pool, too. Returns as [`tick`](Self::tick) does.
    pub(super) fn step(&self, bytes: usize, took: Duration) -> Duration {
        self.moved(bytes);
        let for_client = bytes == 0 || took >= WAITED || self.0.pace.for_client.load(Ordering::Relaxed);
        self.get_on(for_client)
    }

    /// Bytes went through, in either direction.
    pub fn moved(&self, bytes: usize) {
        self.0.pace.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The request has this much more of a whole body in memory until it is over; false when there is no
    /// room for that, not even after slower ones were cut.
    pub(super) fn keep(&self, bytes: usize) -> bool {
        self.0.pace.whole.fetch_add(bytes, Ordering::Relaxed);
        self.0.streams.whole.fetch_add(bytes, Ordering::Relaxed);
        self.0.streams.make_memory()
    }

    /// The request is over; false when the thread had become a stream's and is to ask for its place
    /// in the pool again.
    pub(super) fn end(&self) -> bool {
        let inner = &*self.0;
        inner.streams.whole.fetch_sub(inner.pace.whole.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        match inner.place.replace(Place::Pool) {
            Place::Pool => true,
            Place::Slow(key) => {
                let for_client = inner.pace.for_client.load(Ordering::Relaxed);
                inner.streams.waiting(for_client).fetch_sub(1, Ordering::Relaxed);
                inner.streams.release(key);
                false
            }
            Place::Stream(key) => {
                inner.streams.release(key);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    /// Both ends of a stream's connection, and its key.
    type Admitted = (TcpStream, Arc<TcpStream>, u64);

    /// Admits a stream that moved so many bytes.
    fn admit(streams: &Streams, moved: u64, for_client: bool) -> Admitted {
        admit_with(
            streams,
            Pace { moved: moved.into(), for_client: for_client.into(), ..Pace::default() },
            false,
        )
    }

    fn admit_with(streams: &Streams, pace: Pace, spared: bool) -> Admitted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let socket = Arc::new(listener.accept().unwrap().0);
        streams
            .for_clients
            .fetch_add(usize::from(pace.for_client.load(Ordering::Relaxed)), Ordering::Relaxed);
        streams.whole.fetch_add(pace.whole.load(Ordering::Relaxed), Ordering::Relaxed);
        let stream = Stream {
            socket: Arc::downgrade(&socket),
            since: Instant::now() - Duration::from_secs(1),
            pace: Arc::new(pace),
            spared,
            cut: false,
        };
        let key = streams.admit_slow(stream);
        (client, socket, key)
    }

    fn cut(pairs: &[(TcpStream, Arc<TcpStream>, u64)]) -> Vec<bool> {
        pairs.iter().map(|(client, ..)| (&*client).read(&mut [0]).is_ok()).collect()
    }

    #[test]
    fn every_newcomer_above_the_share_cuts_the_slowest_and_never_one_twice() {
        let stats = Arc::new(Stats::default());
        let streams = Streams::new(4, Arc::clone(&stats));
        // The later, the faster.
        let pairs: Vec<_> = (0..5).map(|n| admit(&streams, n << 32, true)).collect();
        assert_eq!(cut(&pairs), [true, true, true, true, false]);
        assert_eq!(stats.streams.load(Ordering::Relaxed), 5, "until those cut have ended");
        assert!(!streams.admit_long_lived());
        pairs.iter().take(4).for_each(|(.., key)| streams.release(*key));
        assert!(streams.admit_long_lived());
    }

    #[test]
    fn who_waits_for_the_wrapped_server_is_cut_only_when_nobody_else_is_left() {
        let streams = Streams::new(4, Arc::default());
        let mut pairs = vec![admit(&streams, 0, false), admit(&streams, 0, false), admit(&streams, 9, true)];
        assert_eq!(cut(&pairs), [false; 3], "one slow client is within its quarter");
        pairs.push(admit(&streams, 1 << 20, true));
        assert_eq!(cut(&pairs), [false, false, true, false]);
        // All four places are taken now, by one that was cut.
        pairs.push(admit(&streams, 0, false));
        assert_eq!(cut(&pairs), [false, false, true, true, false], "the newcomer makes no room itself");
        pairs.push(admit(&streams, 0, false));
        assert_eq!(cut(&pairs)[..2].iter().filter(|cut| **cut).count(), 1);
    }

    #[test]
    fn whole_bodies_make_room_for_others() {
        let streams = Streams::new(100, Arc::default());
        let slow = |moved: u64, spared: bool, bytes: usize| {
            let pace = Pace { moved: (moved << 32).into(), whole: bytes.into(), ..Pace::default() };
            admit_with(&streams, pace, spared)
        };
        let half = WHOLE_BYTES / 2 - 1;
        // The slowest has nothing in memory, the next may not be cut.
        let crowd = [
            slow(0, false, 0),
            slow(1, true, half),
            slow(3, false, half),
            slow(2, false, half),
            slow(4, false, 1),
        ];
        assert_eq!(cut(&crowd), [false, false, false, true, false]);
        assert!(streams.make_memory(), "what is cut will be gone");
        streams.whole.fetch_add(half, Ordering::Relaxed);
        assert!(streams.make_memory());
        assert_eq!(cut(&crowd), [false, false, true, true, false]);
        streams.whole.fetch_add(half, Ordering::Relaxed);
        assert!(!streams.make_memory(), "there is nobody left who would make enough");
    }
}
