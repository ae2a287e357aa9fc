//! Who occupies a thread: a request that lasts gives up its place in the pool and is counted as a
//! stream instead, so that slow peers can never use the pool up.
use super::error::HttpError;
use super::limits::{CROWD_TICK, OVERRUN_PART, STREAM_AFTER, STREAM_AFTER_IN_A_CROWD, STREAM_TICK, WAITED};
use super::meter::Meter;
use super::streams::{Pace, Stream, Streams};
use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What the pool does when one of its threads becomes a stream's.
pub(super) trait Crew {
    /// The calling thread no longer counts, and another may take its place; false when it has to stay, for
    /// it would be the last and there can be no other.
    fn leave(&self) -> bool;

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
        let meter = Meter::new(Arc::clone(streams.stats()));
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
        self.0.pace.begin();
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
    /// stream, in a crowd later. Not earlier, however many wait for a thread: the more requests an app has
    /// at a time, the longer each of them takes, and each in the place of a stream's takes a new thread with a
    /// new connection.
    ///
    /// Returns how long the request may wait before it is to tell again.
    pub fn tick(&self) -> Duration {
        let part = if self.0.streams.are_overrun() { OVERRUN_PART } else { 1 };
        self.get_on(false, false, STREAM_AFTER_IN_A_CROWD / part)
    }

    /// The request waits, or moves bytes: it becomes a stream after this long at the latest, and earlier while
    /// there are few; at once if it makes way and others wait for a thread.
    fn get_on(&self, for_client: bool, makes_way: bool, stream_after: Duration) -> Duration {
        let inner = &*self.0;
        let changed = inner.pace.wait_for(for_client);
        let age = self.age();
        match inner.place.get() {
            Place::Pool => {
                let makes_way = inner.crew.is_short() && makes_way;
                // A client that keeps us waiting always makes room for itself, by the slowest.
                if age >= stream_after || (makes_way && for_client) {
                    self.become_slow(false, false);
                } else if (makes_way || age >= STREAM_AFTER) && inner.streams.reserve_of_few() {
                    self.become_slow(false, true);
                }
            }
            Place::Slow(key) if changed => inner.streams.turn(key, for_client),
            _ => {}
        }
        match inner.place.get() {
            Place::Pool if age < STREAM_AFTER => CROWD_TICK,
            Place::Pool => STREAM_AFTER,
            _ => STREAM_TICK,
        }
    }

    /// The request is about to wait without telling: it becomes a stream now, and is never refused, nor
    /// cut for another.
    pub fn leave_pool_to_wait(&self) {
        let inner = &*self.0;
        let changed = inner.pace.wait_for(false);
        match inner.place.get() {
            Place::Pool => self.become_slow(true, false),
            Place::Slow(key) => {
                if changed {
                    inner.streams.turn(key, false);
                }
                inner.streams.spare(key);
            }
            Place::Stream(_) => {}
        }
    }

    fn become_slow(&self, spared: bool, reserved: bool) {
        let inner = &*self.0;
        let stream = Stream::new(inner.socket.borrow().clone(), inner.began.get(), &inner.pace, spared);
        if inner.crew.leave() {
            if !reserved {
                inner.streams.reserve();
            }
            inner.place.set(Place::Slow(inner.streams.admit_slow(stream)));
        } else if reserved {
            inner.streams.cancel();
        }
    }

    /// The request is long-lived by design (an event stream, a tunnel, a wait).
    ///
    /// # Errors
    /// 503 when there are as many streams as allowed, or there can be no other thread.
    pub fn leave_pool(&self) -> Result<(), HttpError> {
        let inner = &*self.0;
        match inner.place.get() {
            Place::Pool => {
                if !inner.streams.admit_long_lived() {
                    return Err(HttpError::overloaded("too many streams are open"));
                }
                if !inner.crew.leave() {
                    inner.streams.release_long_lived(0);
                    return Err(HttpError::overloaded("there can be no further thread"));
                }
                inner.place.set(Place::Stream(0));
            }
            Place::Slow(key) => {
                inner.streams.settle(key);
                inner.place.set(Place::Stream(0));
            }
            Place::Stream(_) => {}
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
            inner.place.set(Place::Stream(inner.streams.add_tunnel(inner.socket.borrow().clone())));
        }
        Ok(())
    }

    /// A step of a body to or from the client, perhaps with bytes, and how long it took. Whatever made
    /// the request last, it becomes a stream: a fast client with a long body would otherwise keep its place
    /// in the pool, too. At once if others wait for a thread and it `makes_way`. Returns as [`tick`](Self::tick)
    /// does.
    pub(super) fn step(&self, bytes: usize, took: Duration, makes_way: bool) -> Duration {
        self.moved(bytes);
        let for_client = bytes == 0 || took >= WAITED || self.waited_for_client();
        self.get_on(for_client, makes_way, STREAM_AFTER)
    }

    /// Whether what the request waited for last was its client.
    pub(super) fn waited_for_client(&self) -> bool {
        self.0.pace.waits_for_client()
    }

    /// Whether the request was cut to make room for others.
    pub(super) fn is_cut(&self) -> bool {
        self.0.pace.is_cut()
    }

    /// Bytes went through, in either direction.
    pub fn moved(&self, bytes: usize) {
        self.0.pace.moved(bytes);
    }

    /// The request has this much more of a whole body in memory until it is over; false when there is no
    /// room for that, not even after slower ones were cut.
    pub fn keep(&self, bytes: usize) -> bool {
        self.0.streams.keep(&self.0.pace, bytes)
    }

    /// It has so much less of one.
    pub fn let_go(&self, bytes: usize) {
        self.0.streams.let_go(&self.0.pace, bytes);
    }

    /// The request is over; false when the thread had become a stream's and is to ask for its place
    /// in the pool again.
    pub(super) fn end(&self) -> bool {
        let inner = &*self.0;
        inner.streams.forget(&inner.pace);
        match inner.place.replace(Place::Pool) {
            Place::Pool => true,
            Place::Slow(key) => {
                inner.streams.release_slow(key);
                false
            }
            Place::Stream(key) => {
                inner.streams.release_long_lived(key);
                false
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::meter::Stats;
    use std::sync::atomic::Ordering;

    /// Whose threads cannot be replaced, or can.
    struct Replaceable(bool);

    impl Crew for Replaceable {
        fn leave(&self) -> bool {
            self.0
        }

        fn is_short(&self) -> bool {
            true
        }
    }

    /// A request that has begun while others wait for a thread.
    pub(in crate::http) fn in_a_crowd() -> Seat {
        let seat = Seat::new(Arc::new(Replaceable(true)), Arc::new(Streams::new(8, Arc::default())));
        seat.begin(&a_socket());
        seat
    }

    fn a_socket() -> Arc<TcpStream> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    }

    #[test]
    fn the_last_thread_stays_where_there_can_be_no_other() {
        let socket = a_socket();
        for replaceable in [false, true] {
            let stats = Arc::new(Stats::default());
            let streams = Arc::new(Streams::new(8, Arc::clone(&stats)));
            let seat = || Seat::new(Arc::new(Replaceable(replaceable)), Arc::clone(&streams));
            let (waiting, told, long) = (seat(), seat(), seat());
            waiting.begin(&socket);
            waiting.tick();
            assert_eq!(stats.streams.load(Ordering::Relaxed), 0, "the app has a quarter of a second");
            waiting.step(0, WAITED, true);
            told.leave_pool_to_wait();
            let refused = long.leave_pool().err().map(|error| error.status);
            assert_eq!(refused, (!replaceable).then_some(503));
            let expected = if replaceable { 3 } else { 0 };
            assert_eq!(stats.streams.load(Ordering::Relaxed), expected);
            for seat in [waiting, told, long] {
                assert_eq!(seat.end(), !replaceable, "whether it is the pool's still");
            }
            assert_eq!(stats.streams.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_slow_request_that_becomes_long_lived_is_not_cut_as_a_slow_one() {
        let socket = a_socket();
        for (settles, cut) in [(true, 0), (false, 1)] {
            let stats = Arc::new(Stats::default());
            let streams = Arc::new(Streams::new(4, Arc::clone(&stats)));
            let seats = [(); 2].map(|()| Seat::new(Arc::new(Replaceable(true)), Arc::clone(&streams)));
            for (n, seat) in seats.iter().enumerate() {
                seat.begin(&socket);
                seat.step(0, WAITED, true);
                if settles && n == 0 {
                    seat.leave_pool().unwrap();
                }
            }
            assert_eq!(stats.shed.load(Ordering::Relaxed), cut, "one slow client of four has a place");
            assert!(seats.iter().all(|seat| !seat.end()), "none of the two threads is the pool's");
            assert_eq!(stats.streams.load(Ordering::Relaxed), 0);
        }
    }
}
