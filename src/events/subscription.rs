//! Who listens to which stream, and one listener's place in it.
use super::bus::Shared;
use super::mailbox::{Batch, Mailbox, Next};
use super::ring::Stream;
use super::state::State;
use crate::base::lock::lock;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after its last listener left a stream's events are still kept for one who comes back.
const KEPT_FOR: Duration = Duration::from_secs(60);

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

/// The listeners of one stream.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    boxes: Vec<Arc<Mailbox>>,
    /// When the last one left.
    left: Option<Instant>,
    /// All events after this number are, or were, in the ring.
    recorded_since: Option<u64>,
    /// The number of the last event that went into the boxes.
    pub(super) sent: u64,
}

impl Listeners {
    /// A new one; `last` is the number of the newest event.
    pub(super) fn join(&mut self, last: u64) -> Arc<Mailbox> {
        if self.recorded_since.is_none() {
            (self.recorded_since, self.sent) = (Some(last), last);
        }
        let mailbox = Arc::new(Mailbox::default());
        self.boxes.push(Arc::clone(&mailbox));
        mailbox
    }

    fn leave(&mut self, mailbox: &Arc<Mailbox>) {
        if let Some(place) = self.boxes.iter().position(|other| Arc::ptr_eq(other, mailbox)) {
            self.boxes.swap_remove(place);
        }
        self.left = Some(Instant::now());
    }

    /// As if whoever left had done so long ago, and something had happened since.
    #[cfg(test)]
    pub(super) fn pass_a_minute(&mut self) {
        self.left = None;
        self.is_recorded(Instant::now());
    }

    pub(super) fn boxes(&self) -> &[Arc<Mailbox>] {
        &self.boxes
    }

    pub(super) fn recorded_since(&self) -> Option<u64> {
        self.recorded_since
    }

    /// Whether an event is to be kept; the recording ends when its time is over.
    pub(super) fn is_recorded(&mut self, now: Instant) -> bool {
        let over = |left: Instant| now.saturating_duration_since(left) > KEPT_FOR;
        if self.boxes.is_empty() && self.left.is_none_or(over) {
            self.recorded_since = None;
        }
        self.recorded_since.is_some()
    }
}

/// One listener; dropped, it listens no more.
pub struct Subscription {
    shared: Arc<Shared>,
    stream: Stream,
    mailbox: Arc<Mailbox>,
    at: u64,
    /// What came before this number and after `at` is still to be taken out of the ring: a copy for each of
    /// many who come back, and do not read, would be as many rings.
    missed_until: u64,
    /// It was too slow, and is counted.
    dropped: bool,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?} at {})", self.stream, self.at)
    }
}

impl Subscription {
    /// One that has still to be given the events after `missed.start` up to `missed.end`.
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: Stream,
        mailbox: Arc<Mailbox>,
        missed: Range<u64>,
    ) -> Subscription {
        let (at, missed_until) = (missed.start, missed.end);
        Subscription { shared, stream, mailbox, at, missed_until, dropped: false }
    }

    /// The number of the last event it was given or passed over.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What came since the last call, waiting up to `timeout` for something to.
    pub fn next(&mut self, timeout: Duration) -> Next {
        let missed = if self.at < self.missed_until { self.missed() } else { None };
        let next = missed.unwrap_or_else(|| self.mailbox.next(timeout));
        match next {
            Next::Events(_, last) => self.at = last,
            Next::TooSlow if !self.dropped => {
                self.dropped = true;
                lock(&self.shared.core).dropped += 1;
            }
            _ => {}
        }
        next
    }

    /// A piece of what it missed; none when there is no more. The ring may have lost some meanwhile.
    fn missed(&mut self) -> Option<Next> {
        let core = lock(&self.shared.core);
        if !core.ring.covers(self.at, self.stream) {
            return Some(Next::TooSlow);
        }
        let piece = core.piece(self.at, self.missed_until, self.stream);
        self.at = piece.as_ref().map_or(self.missed_until, |batch| batch.last);
        piece.map(|Batch { bytes, last, .. }| Next::Events(bytes, last))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.shared.core).listeners[self.stream as usize].leave(&self.mailbox);
    }
}
