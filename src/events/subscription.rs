//! One listener's place in a stream, and how many listeners each stream has.
use super::bus::Shared;
use super::ring::{Frame, Stream};
use super::state::State;
use crate::base::lock::lock;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Events that may come while a listener takes the ones before; with more it is too slow.
const QUEUE: u64 = 256;
/// Bytes a listener is given at once, give or take one event.
const BATCH_BYTES: usize = 256 * 1024;

/// Where a listener begins.
#[derive(Debug)]
pub enum Start {
    /// After the event it named: nothing is missing.
    Resumed,
    /// With the state as it was at event number `last`.
    State {
        /// That number.
        last: u64,
        /// That state.
        state: State,
    },
    /// With whatever comes after event number `last`.
    Fresh {
        /// That number.
        last: u64,
    },
}

/// What a listener is to do.
#[derive(Debug)]
pub enum Next {
    /// Send these, in this order; the number is that of the last event they cover.
    Frames(Vec<Frame>, u64),
    /// Nothing: the time is over.
    Nothing,
    /// End: it was too slow, and is to begin where it stood.
    TooSlow,
    /// End: the bus has.
    Closed,
}

/// Who listens, and since when everything is kept for whom.
#[derive(Debug, Default)]
pub(super) struct Counts([Count; 3]);

#[derive(Debug, Default)]
struct Count {
    subscribers: usize,
    /// When the last one left.
    left: Option<Instant>,
    /// All events after this number are, or were, in the ring.
    recorded_since: Option<u64>,
    /// Events so far.
    pushed: u64,
}

impl Counts {
    pub(super) fn join(&mut self, stream: Stream, last: u64) {
        let count = &mut self.0[stream as usize];
        count.subscribers += 1;
        count.recorded_since.get_or_insert(last);
    }

    fn leave(&mut self, stream: Stream) {
        let count = &mut self.0[stream as usize];
        count.subscribers -= 1;
        count.left = Some(Instant::now());
    }

    pub(super) fn subscribers(&self, stream: Stream) -> usize {
        self.0[stream as usize].subscribers
    }

    pub(super) fn recorded_since(&self, stream: Stream) -> Option<u64> {
        self.0[stream as usize].recorded_since
    }

    /// Whether an event of the stream is to be kept; the recording ends when its time is over.
    pub(super) fn is_recorded(&mut self, stream: Stream, now: Instant, kept_for: Duration) -> bool {
        let count = &mut self.0[stream as usize];
        let over = |left: Instant| now.saturating_duration_since(left) > kept_for;
        if count.subscribers == 0 && count.left.is_none_or(over) {
            count.recorded_since = None;
        }
        count.recorded_since.is_some()
    }

    pub(super) fn count(&mut self, stream: Stream) {
        self.0[stream as usize].pushed += 1;
    }

    pub(super) fn pushed(&self, stream: Stream) -> u64 {
        self.0[stream as usize].pushed
    }
}

/// One listener; dropped, it listens no more.
pub struct Subscription {
    shared: Arc<Shared>,
    stream: Stream,
    /// The number of the last event it was given or passed over.
    at: u64,
    /// Events of the stream when it was last looked at.
    seen: u64,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?} at {})", self.stream, self.at)
    }
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, at: u64, seen: u64) -> Subscription {
        Subscription { shared, stream, at, seen }
    }

    /// The number of the last event it was given or passed over.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What came since the last call, waiting up to `timeout` for something to.
    pub fn next(&mut self, timeout: Duration) -> Next {
        let until = Instant::now() + timeout;
        let mut core = lock(&self.shared.core);
        // What came while the caller was busy counts as its queue.
        if core.counts.pushed(self.stream) - self.seen > QUEUE {
            return Next::TooSlow;
        }
        loop {
            if !core.ring.covers(self.at, self.stream) {
                return Next::TooSlow;
            }
            let (frames, at) = core.ring.after(self.at, self.stream, BATCH_BYTES);
            self.at = at;
            self.seen = core.counts.pushed(self.stream);
            if !frames.is_empty() {
                return Next::Frames(frames, at);
            }
            if core.closed {
                return Next::Closed;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            let arrived = &self.shared.arrived[self.stream as usize];
            core = arrived.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.shared.core).counts.leave(self.stream);
    }
}
