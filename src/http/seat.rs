//! Who occupies a thread: a request that lasts gives up its place in the pool and is counted as a
//! stream instead, so that slow peers can never use the pool up.
use super::error::HttpError;
use super::limits::{CROWD_TICK, STREAM_AFTER, STREAM_TICK, WHOLE_BYTES};
use super::meter::{Counted, Meter};
use crate::base::lock::lock;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Counters of the front, each since its start unless said otherwise.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Failed accepts (out of descriptors, aborted connections).
    pub accept_errors: AtomicU64,
    /// Connections refused or closed because of a bound.
    pub shed: AtomicU64,
    /// Requests that are over, by [`Class`](super::Class).
    pub classes: [Counted; 3],
    /// Requests being served now, those that wait in the hold aside.
    pub in_flight: AtomicUsize,
    /// Requests whose handler panicked.
    pub panics: AtomicU64,
    /// Open connections now.
    pub connections: Arc<AtomicUsize>,
    /// Streams now.
    pub streams: AtomicUsize,
    /// Held requests now.
    pub held: AtomicUsize,
    /// Pool threads now, streams aside.
    pub threads: AtomicUsize,
}

/// A request counted as a stream.
#[derive(Debug)]
struct Stream {
    socket: Weak<TcpStream>,
    since: Instant,
    moved: Arc<AtomicU64>,
    /// Bytes of whole bodies it has in memory.
    whole: Arc<AtomicUsize>,
    /// Not to be cut: it has been already and has not ended yet, or what it waits for has an end.
    spared: bool,
    /// It has been cut and has not ended yet.
    cut: bool,
}

impl Stream {
    /// Bytes a second since the request began.
    fn rate(&self) -> u64 {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.moved.load(Ordering::Relaxed).saturating_mul(1000) / ms
    }

    fn whole(&self) -> usize {
        self.whole.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Slow {
    streams: HashMap<u64, Stream>,
    /// Those of them that may be cut.
    uncut: usize,
}

impl Slow {
    /// The slowest of those that may be cut counts as cut; its bytes in memory and its socket.
    fn cut_slowest(&mut self, among: impl Fn(&Stream) -> bool) -> Option<(usize, Weak<TcpStream>)> {
        let candidates = self.streams.values_mut().filter(|s| !s.spared && among(s));
        let slowest = candidates.min_by_key(|s| (s.rate(), s.since))?;
        (slowest.spared, slowest.cut) = (true, true);
        self.uncut -= 1;
        Some((slowest.whole(), slowest.socket.clone()))
    }
}

/// All streams of the front, both kinds: slow requests, which the slowest of make room for others,
/// and long-lived ones by design, which do not.
#[derive(Debug)]
pub(super) struct Streams {
    max: usize,
    next: AtomicU64,
    slow: Mutex<Slow>,
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
            slow: Mutex::default(),
            tunnels: Mutex::default(),
            whole: AtomicUsize::new(0),
            stats,
        }
    }

    /// Counts a slow request; over the bound, or over the half of it that is theirs, the slowest of them is
    /// cut to make room. They take twice the memory of a tunnel, and nobody means to have so many.
    fn admit_slow(&self, stream: Stream) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let victim = {
            let mut slow = lock(&self.slow);
            slow.uncut += usize::from(!stream.spared);
            slow.streams.insert(key, stream);
            let all = self.stats.streams.fetch_add(1, Ordering::Relaxed);
            let is_over = all >= self.max || slow.uncut > self.max.div_ceil(2);
            if is_over { slow.cut_slowest(|_| true) } else { None }
        };
        self.cut(victim.map(|(_, socket)| socket));
        self.make_room();
        key
    }

    fn cut(&self, victims: impl IntoIterator<Item = Weak<TcpStream>>) {
        for socket in victims.into_iter().filter_map(|socket| socket.upgrade()) {
            self.stats.shed.fetch_add(1, Ordering::Relaxed);
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Where whole bodies take more memory than they may, the slowest requests that have some are cut until
    /// the rest fits; false when it does not.
    fn make_room(&self) -> bool {
        if self.whole.load(Ordering::Relaxed) <= WHOLE_BYTES {
            return true;
        }
        let mut victims = Vec::new();
        let fits = {
            let mut slow = lock(&self.slow);
            let going: usize = slow.streams.values().filter(|s| s.cut).map(Stream::whole).sum();
            let mut left = self.whole.load(Ordering::Relaxed).saturating_sub(going);
            while left > WHOLE_BYTES
                && let Some((bytes, socket)) = slow.cut_slowest(|s| s.whole() > 0)
            {
                left = left.saturating_sub(bytes);
                victims.push(socket);
            }
            left <= WHOLE_BYTES
        };
        self.cut(victims);
        fits
    }

    /// Whether many more streams fit: only then requests may become streams to make way for others.
    fn has_plenty(&self) -> bool {
        self.stats.streams.load(Ordering::Relaxed) < self.max / 2
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
        let mut slow = lock(&self.slow);
        match slow.streams.remove(&key) {
            Some(stream) => slow.uncut -= usize::from(!stream.spared),
            None => {
                drop(slow);
                lock(&self.tunnels).remove(&key);
            }
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
    /// A stream under this key, 0 for a long-lived one.
    Stream(u64),
}

struct Inner {
    crew: Arc<dyn Crew>,
    streams: Arc<Streams>,
    place: Cell<Place>,
    began: Cell<Instant>,
    socket: RefCell<Weak<TcpStream>>,
    moved: Arc<AtomicU64>,
    whole: Arc<AtomicUsize>,
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
            moved: Arc::new(AtomicU64::new(0)),
            whole: Arc::new(AtomicUsize::new(0)),
            meter,
        }))
    }

    /// A request begins.
    pub(super) fn begin(&self, socket: &Arc<TcpStream>) {
        self.0.began.set(Instant::now());
        *self.0.socket.borrow_mut() = Arc::downgrade(socket);
        self.0.moved.store(0, Ordering::Relaxed);
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

    /// The request goes on; one that has lasted a quarter of a second becomes a stream, whatever made
    /// it last: a fast client with a long body would otherwise keep its place in the pool, too. When
    /// others wait for a thread and there is none, it becomes one at once.
    ///
    /// Returns how long the request may wait before it is to tell again.
    pub fn tick(&self) -> Duration {
        let inner = &*self.0;
        let is_pools = || inner.place.get() == Place::Pool;
        if is_pools() && (self.age() >= STREAM_AFTER || (inner.crew.is_short() && inner.streams.has_plenty()))
        {
            self.become_slow(false);
        }
        if is_pools() { CROWD_TICK } else { STREAM_TICK }
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
        let key = inner.streams.admit_slow(Stream {
            socket: inner.socket.borrow().clone(),
            since: inner.began.get(),
            moved: Arc::clone(&inner.moved),
            whole: Arc::clone(&inner.whole),
            spared,
            cut: false,
        });
        inner.place.set(Place::Stream(key));
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

    /// A step of a body, perhaps with bytes.
    pub(super) fn step(&self, bytes: usize) {
        let _ = self.tick();
        self.moved(bytes);
    }

    /// Bytes went through, in either direction.
    pub fn moved(&self, bytes: usize) {
        if self.0.place.get() != Place::Pool {
            self.0.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The request has this much more of a whole body in memory until it is over; false when there is no
    /// room for that, not even after slower ones were cut.
    pub(super) fn keep(&self, bytes: usize) -> bool {
        self.0.whole.fetch_add(bytes, Ordering::Relaxed);
        self.0.streams.whole.fetch_add(bytes, Ordering::Relaxed);
        self.0.streams.make_room()
    }

    /// The request is over; false when the thread had become a stream's and is to ask for its place
    /// in the pool again.
    pub(super) fn end(&self) -> bool {
        self.0.streams.whole.fetch_sub(self.0.whole.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        match self.0.place.replace(Place::Pool) {
            Place::Pool => true,
            Place::Stream(key) => {
                self.0.streams.release(key);
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

    #[test]
    fn every_newcomer_above_the_bound_cuts_one_and_never_one_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = Arc::new(Stats::default());
        let streams = Streams::new(4, Arc::clone(&stats));
        let begin = Instant::now();
        let mut pairs = Vec::new();
        for n in 0..5 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nonblocking(true).unwrap();
            let socket = Arc::new(listener.accept().unwrap().0);
            let stream = Stream {
                socket: Arc::downgrade(&socket),
                since: begin,
                // The later, the faster.
                moved: Arc::new(AtomicU64::new(n << 32)),
                whole: Arc::default(),
                spared: false,
                cut: false,
            };
            pairs.push((client, socket, streams.admit_slow(stream)));
        }
        let is_cut = |mut client: &TcpStream| client.read(&mut [0]).is_ok();
        let cut: Vec<bool> = pairs.iter().map(|(client, ..)| is_cut(client)).collect();
        assert_eq!(cut, [true, true, true, false, false]);
        assert_eq!(stats.streams.load(Ordering::Relaxed), 5, "until those cut have ended");
        assert!(!streams.admit_long_lived());
        pairs.iter().take(4).for_each(|(.., key)| streams.release(*key));
        assert!(streams.admit_long_lived());
    }
    #[test]
    fn whole_bodies_make_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = Arc::new(Stats::default());
        let streams = Streams::new(100, Arc::clone(&stats));
        let begin = Instant::now();
        let slow = |n: u64, spared: bool, bytes: usize| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nonblocking(true).unwrap();
            let socket = Arc::new(listener.accept().unwrap().0);
            streams.whole.fetch_add(bytes, Ordering::Relaxed);
            let stream = Stream {
                socket: Arc::downgrade(&socket),
                since: begin,
                moved: Arc::new(AtomicU64::new(n << 32)),
                whole: Arc::new(AtomicUsize::new(bytes)),
                spared,
                cut: false,
            };
            let key = streams.admit_slow(stream);
            (client, socket, key)
        };
        let is_cut = |(client, ..): &(TcpStream, Arc<TcpStream>, u64)| {
            let mut client = client;
            client.read(&mut [0]).is_ok()
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
        assert_eq!(crowd.each_ref().map(is_cut), [false, false, false, true, false]);
        assert!(streams.make_room(), "what is cut will be gone");
        streams.whole.fetch_add(half, Ordering::Relaxed);
        assert!(streams.make_room());
        assert_eq!(crowd.each_ref().map(is_cut), [false, false, true, true, false]);
        streams.whole.fetch_add(half, Ordering::Relaxed);
        assert!(!streams.make_room(), "there is nobody left who would make enough");
    }
}
