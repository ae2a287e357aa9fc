//! What is counted of requests: each once at its end, by class, status and time; its bytes as they move.
//! Relaxed atomics only: counting never makes a request wait.
use super::conn::Role;
use super::head::Head;
use super::limits::CONTROL_CONNECTIONS;
use crate::base::time::micros;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Upper bounds of the time a request took, in microseconds; what took longer has a bucket more.
pub const BUCKETS_US: [u64; 8] = [1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000];
const BUCKETS: usize = BUCKETS_US.len() + 1;
/// No answer, and the first digits of a status.
const CODES: usize = 6;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing yet, or a head nobody could read.
    Unread,
    /// The wrapped server.
    Relay,
    /// Us.
    Control,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 3] = [Class::Unread, Class::Relay, Class::Control];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Unread => "unread",
            Class::Relay => "relay",
            Class::Control => "control",
        }
    }
}

/// The counters of one class.
#[derive(Debug, Default)]
pub struct Counted {
    served: [[AtomicU64; BUCKETS]; CODES],
    micros: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counted {
    /// Requests by the first digit of their status (0: the client left before there was one) and the
    /// bucket of their time.
    pub fn served(&self) -> Vec<[u64; BUCKETS]> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.served.iter().map(|buckets| buckets.each_ref().map(load)).collect()
    }

    /// Time of all requests together, in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }

    /// Bytes of request bodies, and what came through tunnels.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of response bodies, and what went through tunnels.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, status: u16, took: Duration) {
        let micros = micros(took);
        let bucket = BUCKETS_US.iter().position(|&bound| micros <= bound).unwrap_or(BUCKETS - 1);
        let code = usize::from(status / 100).min(CODES - 1);
        self.served[code][bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Counters of the front, each since its start unless said otherwise.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Failed accepts (out of descriptors, aborted connections).
    pub accept_errors: AtomicU64,
    /// Connections refused or closed because of a bound.
    pub shed: AtomicU64,
    /// Requests that are over, by [`Class`].
    pub classes: [Counted; 3],
    /// Requests being served now, those that wait in the hold aside.
    pub in_flight: AtomicUsize,
    /// Requests whose handler panicked.
    pub panics: AtomicU64,
    /// Open connections now.
    pub connections: AtomicUsize,
    /// Those among them to the control listener.
    pub control_connections: AtomicUsize,
    /// Streams now.
    pub streams: AtomicUsize,
    /// Held requests now.
    pub held: AtomicUsize,
    /// Pool threads now, streams aside.
    pub threads: AtomicUsize,
}

impl Stats {
    /// Open connections that count against the bound on them: the first ones to the control listener do not.
    pub(super) fn bounded_connections(&self) -> usize {
        let control = self.control_connections.load(Ordering::Relaxed).min(CONTROL_CONNECTIONS);
        self.connections.load(Ordering::Relaxed).saturating_sub(control)
    }
}

/// The measure of the request a thread serves.
#[derive(Debug)]
pub struct Meter {
    stats: Arc<Stats>,
    class: Cell<Class>,
    status: Cell<u16>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Meter {
    pub(super) fn new(stats: Arc<Stats>) -> Meter {
        let class = Cell::new(Class::Unread);
        Meter { stats, class, status: Cell::new(0), received: Cell::new(0), sent: Cell::new(0) }
    }

    pub(super) fn begin(&self) {
        self.class.set(Class::Unread);
        self.status.set(0);
        self.received.set(0);
        self.sent.set(0);
    }

    fn counted(&self) -> &Counted {
        &self.stats.classes[self.class.get() as usize]
    }

    pub(super) fn set_class(&self, class: Class) {
        self.class.set(class);
    }

    /// What the client was answered; the last one counts.
    pub fn answered(&self, status: u16) {
        self.status.set(status);
    }

    /// Bytes of a body, or of a tunnel, came from the client.
    pub fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.counted().received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// And went to it.
    pub fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.counted().sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The request is over.
    pub(super) fn end<'r>(
        &self,
        head: Option<(&'r Head, &'r [u8])>,
        (peer, role): (SocketAddr, Role),
        took: Duration,
    ) -> Record<'r> {
        let status = self.status.get();
        self.counted().count(status, took);
        Record {
            head: head.map(|(head, _)| head),
            id: head.map_or(b"", |(_, id)| id),
            peer,
            role,
            class: self.class.get(),
            status,
            received: self.received.get(),
            sent: self.sent.get(),
            took,
        }
    }
}

/// A request that is over.
#[derive(Debug)]
pub struct Record<'r> {
    /// Its head, if it could be read.
    pub head: Option<&'r Head>,
    /// Its id; empty without a head.
    pub id: &'r [u8],
    /// Who sent it.
    pub peer: SocketAddr,
    /// The listener it came through.
    pub role: Role,
    /// What it was about.
    pub class: Class,
    /// What it was answered; 0 when the client left before that.
    pub status: u16,
    /// Bytes of its body, or from the client's end of a tunnel.
    pub received: u64,
    /// Bytes of the response's body, or to that end.
    pub sent: u64,
    /// From its complete head to the end of its response, holds included.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_one_bucket_and_bounds_belong_to_theirs() {
        let counted = Counted::default();
        for (status, micros) in [(200, 0), (200, 1_000), (204, 1_001), (503, 60_000_000), (0, 60_000_001)] {
            counted.count(status, Duration::from_micros(micros));
        }
        let served = counted.served();
        assert_eq!((served[2][0], served[2][1], served[5][7], served[0][8]), (2, 1, 1, 1));
        assert_eq!(served.iter().flatten().sum::<u64>(), 5);
        assert_eq!(counted.micros(), 120_002_002);
        // What no standard knows has a place, too.
        counted.count(999, Duration::ZERO);
        assert_eq!(counted.served()[5][0], 1);
    }
}
