//! The requests that last, and who of them makes room when they are too many, or have too much in memory.
use super::limits::WHOLE_BYTES;
use super::meter::Stats;
use super::overrun::Overrun;
use crate::base::lock::lock;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// How a request gets on, told by its thread.
#[derive(Debug, Default)]
pub(super) struct Pace {
    moved: AtomicU64,
    /// What it waited for last was its client, not the wrapped server.
    for_client: AtomicBool,
    /// Bytes of whole bodies it has in memory.
    whole: AtomicUsize,
    /// It is to end, to make room for others.
    cut: AtomicBool,
}

impl Pace {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.moved.store(0, Ordering::Relaxed);
        self.for_client.store(false, Ordering::Relaxed);
        self.cut.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Bytes went through, in either direction.
    pub(super) fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// It waits now for its client, or for the wrapped server; true when that is new.
    pub(super) fn wait_for(&self, client: bool) -> bool {
        self.for_client.swap(client, Ordering::Relaxed) != client
    }

    pub(super) fn waits_for_client(&self) -> bool {
        self.for_client.load(Ordering::Relaxed)
    }

    fn whole(&self) -> usize {
        self.whole.load(Ordering::Relaxed)
    }
}

/// A request counted as a stream.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Weak<TcpStream>,
    since: Instant,
    pace: Arc<Pace>,
    /// Not to be cut: it has been already and has not ended yet, or what it waits for has an end.
    spared: bool,
}

impl Stream {
    pub(super) fn new(socket: Weak<TcpStream>, since: Instant, pace: &Arc<Pace>, spared: bool) -> Stream {
        Stream { socket, since, pace: Arc::clone(pace), spared }
    }

    /// Bytes a second since the request began.
    fn rate(&self) -> u64 {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.pace.moved.load(Ordering::Relaxed).saturating_mul(1000) / ms
    }

    /// Wakes the request's thread, which ends it with its next step. From here on it counts as cut, and as that
    /// only once.
    ///
    /// All waits watch for the client's end. Only that is feigned: an orderly end of ours would make a body that
    /// has no length look complete before the reset comes.
    fn cut(&mut self) {
        self.spared = true;
        self.pace.cut.store(true, Ordering::Relaxed);
        // Fails where the client has left.
        let _ = self.socket.upgrade().map(|socket| socket.shutdown(Shutdown::Read));
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
    slow: Mutex<HashMap<u64, Stream>>,
    tunnels: Mutex<HashMap<u64, Weak<TcpStream>>>,
    /// Bytes of whole bodies in memory, of all requests.
    whole: AtomicUsize,
    overrun: Overrun,
    stats: Arc<Stats>,
}

impl Streams {
    pub(super) fn new(max: usize, stats: Arc<Stats>) -> Self {
        Streams {
            max,
            next: AtomicU64::new(1),
            for_clients: AtomicUsize::new(0),
            slow: Mutex::default(),
            tunnels: Mutex::default(),
            whole: AtomicUsize::new(0),
            overrun: Overrun::new(),
            stats,
        }
    }

    pub(super) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Counts a request that is about to be admitted as a slow one.
    pub(super) fn reserve(&self) {
        self.stats.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// The same, but false where a quarter of the bound is taken or we are overrun: only else may requests become
    /// streams to make way for others.
    pub(super) fn reserve_of_few(&self) -> bool {
        !self.are_overrun() && self.count_below(self.max / 4)
    }

    /// Slow clients come faster than they can be had.
    pub(super) fn are_overrun(&self) -> bool {
        self.overrun.goes_on()
    }

    /// What was reserved is not needed.
    pub(super) fn cancel(&self) {
        self.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// A slow request that is counted already, and for which others may have to make room.
    pub(super) fn admit_slow(&self, stream: Stream) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.for_clients.fetch_add(usize::from(stream.pace.waits_for_client()), Ordering::Relaxed);
        lock(&self.slow).insert(key, stream);
        self.make_room(key);
        // It may be the first that can be cut for its bytes.
        self.make_memory();
        key
    }

    /// A slow request waits for its client now, or for the wrapped server, and did not before. What it was
    /// spared for is over with the first.
    pub(super) fn turn(&self, key: u64, to_client: bool) {
        if to_client {
            self.for_clients.fetch_add(1, Ordering::Relaxed);
            if let Some(stream) = lock(&self.slow).get_mut(&key) {
                stream.spared = stream.pace.is_cut();
            }
            self.make_room(key);
            self.make_memory();
        } else {
            self.for_clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A slow request is not to be cut from here on.
    pub(super) fn spare(&self, key: u64) {
        if let Some(stream) = lock(&self.slow).get_mut(&key) {
            stream.spared = true;
        }
    }

    /// A slow request is long-lived by design from here on. It keeps its place.
    pub(super) fn settle(&self, key: u64) {
        if let Some(stream) = lock(&self.slow).remove(&key) {
            self.for_clients.fetch_sub(usize::from(stream.pace.waits_for_client()), Ordering::Relaxed);
        }
    }

    /// A slow request is over.
    pub(super) fn release_slow(&self, key: u64) {
        self.settle(key);
        self.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one that is long-lived by design, if there is room.
    pub(super) fn admit_long_lived(&self) -> bool {
        self.count_below(self.max)
    }

    fn count_below(&self, bound: usize) -> bool {
        let admit = |now| (now < bound).then_some(now + 1);
        self.stats.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
    }

    /// One of those is a tunnel.
    pub(super) fn add_tunnel(&self, socket: Weak<TcpStream>) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.tunnels).insert(key, socket);
        key
    }

    /// One of those is over; 0 is the key of all that are no tunnels.
    pub(super) fn release_long_lived(&self, key: u64) {
        lock(&self.tunnels).remove(&key);
        self.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes the clients' ends of all tunnels: nothing else would end them.
    pub(super) fn end_tunnels(&self) {
        let sockets: Vec<_> = lock(&self.tunnels).values().filter_map(Weak::upgrade).collect();
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// A request has this much more of a whole body in memory; false when there is no room for that, not even
    /// after slower ones were cut.
    pub(super) fn keep(&self, pace: &Pace, bytes: usize) -> bool {
        pace.whole.fetch_add(bytes, Ordering::Relaxed);
        self.whole.fetch_add(bytes, Ordering::Relaxed);
        self.make_memory()
    }

    /// It has so much less of one, and had that before.
    pub(super) fn let_go(&self, pace: &Pace, bytes: usize) {
        pace.whole.fetch_sub(bytes, Ordering::Relaxed);
        self.whole.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// It has no more of one in memory.
    pub(super) fn forget(&self, pace: &Pace) {
        self.whole.fetch_sub(pace.whole.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Over the quarter of the bound that is theirs, the slowest of those that wait for their clients is cut:
    /// they take twice the memory of a tunnel, and nobody means to have so many. Who waits for the wrapped
    /// server is as slow as that is, and is cut only over the bound, when nobody else is left.
    ///
    /// Never the newcomer: it had no time to show how fast it is.
    fn make_room(&self, newcomer: u64) {
        let full = |going: usize| self.stats.streams.load(Ordering::Relaxed).saturating_sub(going) > self.max;
        let share = self.max.div_ceil(4);
        if !full(0) && self.for_clients.load(Ordering::Relaxed) <= share {
            return;
        }
        let mut slow = lock(&self.slow);
        // Those that were cut and have not ended yet do not count again.
        let full = full(slow.values().filter(|s| s.pace.is_cut()).count());
        let theirs = slow.values().filter(|s| !s.spared && s.pace.waits_for_client()).count();
        if !full && theirs <= share {
            return;
        }
        let candidates = slow.iter_mut().filter(|(key, s)| !s.spared && **key != newcomer);
        let slowest = candidates.min_by_key(|(_, s)| (!s.pace.waits_for_client(), s.rate(), s.since));
        if let Some((_, slowest)) = slowest {
            if theirs > share {
                self.overrun.note_cut(Instant::now());
            }
            self.shed(slowest);
        }
    }

    /// Where whole bodies take more memory than they may, the slowest requests that have some are cut until
    /// the rest fits; false when it does not.
    fn make_memory(&self) -> bool {
        if self.whole.load(Ordering::Relaxed) <= WHOLE_BYTES {
            return true;
        }
        let mut slow = lock(&self.slow);
        let going: usize = slow.values().filter(|s| s.pace.is_cut()).map(|s| s.pace.whole()).sum();
        let mut left = self.whole.load(Ordering::Relaxed).saturating_sub(going);
        while left > WHOLE_BYTES {
            let candidates = slow.values_mut().filter(|s| !s.spared && s.pace.whole() > 0);
            let Some(slowest) = candidates.min_by_key(|s| (s.rate(), s.since)) else { break };
            left = left.saturating_sub(slowest.pace.whole());
            self.shed(slowest);
        }
        left <= WHOLE_BYTES
    }

    /// The caller has the lock: the request cannot end meanwhile, and the next one on its connection be hit.
    fn shed(&self, stream: &mut Stream) {
        self.stats.shed.fetch_add(1, Ordering::Relaxed);
        stream.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::OVERRUN_CUTS;
    use super::super::socket::peer_gone;
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

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
        let socket = Arc::new(listener.accept().unwrap().0);
        streams.whole.fetch_add(pace.whole(), Ordering::Relaxed);
        let since = Instant::now() - Duration::from_secs(1);
        streams.reserve();
        let key = streams.admit_slow(Stream::new(Arc::downgrade(&socket), since, &Arc::new(pace), spared));
        (client, socket, key)
    }

    fn cut(pairs: &[(TcpStream, Arc<TcpStream>, u64)]) -> Vec<bool> {
        pairs.iter().map(|(_, socket, _)| peer_gone(socket)).collect()
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
        pairs.iter().take(4).for_each(|(.., key)| streams.release_slow(*key));
        assert!(streams.admit_long_lived());
    }

    #[test]
    fn many_cuts_of_slow_clients_are_an_overrun_and_those_for_other_reasons_are_not() {
        // Of the larger bound most places are taken by others, and not a quarter by slow clients.
        for (max, overrun) in [(4, true), (200, false)] {
            let streams = Streams::new(max, Arc::default());
            let _waiting: Vec<_> = (2..max).map(|_| admit(&streams, 0, false)).collect();
            let moved = |n| u64::from(n) << 32;
            let slow: Vec<_> = (0..OVERRUN_CUTS + 4).map(|n| admit(&streams, moved(n), true)).collect();
            assert!(cut(&slow).iter().filter(|cut| **cut).count() >= OVERRUN_CUTS as usize);
            assert_eq!(streams.are_overrun(), overrun, "{max}");
        }
        let streams = Streams::new(100, Arc::default());
        assert!(streams.reserve_of_few(), "there are few");
        (0..OVERRUN_CUTS).for_each(|_| streams.overrun.note_cut(Instant::now()));
        assert!(!streams.reserve_of_few(), "overrun");
    }

    #[test]
    fn who_waits_for_the_wrapped_server_is_cut_only_when_nobody_else_is_left() {
        let streams = Streams::new(4, Arc::default());
        let mut pairs = vec![admit(&streams, 0, false), admit(&streams, 0, false), admit(&streams, 9, true)];
        assert_eq!(cut(&pairs), [false; 3], "one slow client is within its quarter");
        pairs.push(admit(&streams, 1 << 20, true));
        assert_eq!(cut(&pairs), [false, false, true, false]);
        pairs.push(admit(&streams, 0, false));
        assert_eq!(cut(&pairs), [false, false, true, false, false], "the one that was cut makes room for it");
        pairs.push(admit(&streams, 0, false));
        assert_eq!(cut(&pairs), [false, false, true, true, false, false], "it makes no room itself");
        pairs.push(admit(&streams, 0, false));
        assert_eq!(cut(&pairs)[..2].iter().filter(|cut| **cut).count(), 1);
    }

    #[test]
    fn who_is_spared_or_has_settled_is_not_cut() {
        let streams = Streams::new(4, Arc::default());
        let pairs = [admit(&streams, 0, true)];
        streams.spare(pairs[0].2);
        let settled = [admit(&streams, 0, true)];
        streams.settle(settled[0].2);
        let others: Vec<_> = (1..4).map(|n| admit(&streams, n << 32, true)).collect();
        assert_eq!((cut(&pairs), cut(&settled)), (vec![false], vec![false]));
        assert_eq!(cut(&others), [true, true, false], "the slowest of the others make room");
    }

    #[test]
    fn nobody_is_spared_while_waiting_for_its_client() {
        let streams = Streams::new(4, Arc::default());
        let pairs = [0, 1].map(|n| {
            let one = admit(&streams, n << 32, true);
            streams.spare(one.2);
            one
        });
        assert_eq!(cut(&pairs), [false; 2]);
        for to_client in [false, true] {
            pairs.iter().for_each(|(.., key)| streams.turn(*key, to_client));
        }
        assert_eq!(cut(&pairs), [true, false], "the slower one makes room");
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
