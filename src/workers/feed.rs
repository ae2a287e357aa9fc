//! The observed events of one worker: the last of them are kept, and whoever observes reads them at
//! its own pace. Publishing never waits: an observer that falls behind what is kept is told so.
//!
//! Numbers come from one counter of the runtime; a feed has some of them, in order. The ring's lock is
//! a leaf, and observers are woken without it.
use super::cursor::Cursor;
use crate::base::lock::lock;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Events kept for each worker.
const KEPT_EVENTS: usize = 1024;
/// Bytes of them, unless the newest alone is larger.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// An observed event.
#[derive(Debug)]
pub struct Event {
    /// Its number.
    pub cursor: Cursor,
    /// What happened: a JSON object.
    pub payload: Box<RawValue>,
}

/// Why a cursor is no place to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    /// No event has that number yet.
    Unknown,
    /// Events after it are forgotten.
    Expired,
}

/// Why a feed goes on no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The worker is forgotten.
    Forgotten,
    /// The runtime ends.
    Ending,
}

/// What there was to take.
#[derive(Debug)]
pub enum Taken {
    /// The next events, oldest first.
    Events(Vec<Arc<Event>>),
    /// None now; the observer will be woken.
    Nothing,
    /// The observer was too slow: what comes next is forgotten.
    Overrun,
    /// There will be no more.
    Closed(Closing),
}

/// Wakes an observer; called without a lock, and must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

struct Observer {
    wake: Wake,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The number of the newest event that was forgotten.
    forgotten: u64,
    observers: Vec<Arc<Observer>>,
    /// Those of them that wait for an event; each is woken once.
    waiting: Vec<Arc<Observer>>,
    /// Its worker's end is among the events, or was.
    ended: bool,
    closed: Option<Closing>,
}

/// A worker's events.
pub struct Feed {
    sequence: Arc<AtomicU64>,
    ring: Mutex<Ring>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

impl Feed {
    /// An empty feed that takes its numbers from `sequence`. Whatever had a number up to `forgotten`
    /// belonged to an earlier life.
    pub(super) fn new(sequence: Arc<AtomicU64>, forgotten: u64) -> Feed {
        let ring = Ring {
            events: VecDeque::new(),
            bytes: 0,
            forgotten,
            observers: Vec::new(),
            waiting: Vec::new(),
            ended: false,
            closed: None,
        };
        Feed { sequence, ring: Mutex::new(ring) }
    }

    /// Appends an event and wakes who waits for one. After the last one nothing happens.
    pub(super) fn publish(&self, payload: Box<RawValue>) {
        self.append(payload, false);
    }

    /// The same, and it is the last one.
    pub(super) fn publish_last(&self, payload: Box<RawValue>) {
        self.append(payload, true);
    }

    fn append(&self, payload: Box<RawValue>, last: bool) {
        let waiting = {
            let mut ring = lock(&self.ring);
            if ring.ended {
                return;
            }
            ring.ended = last;
            let number = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
            ring.bytes += payload.get().len();
            ring.events.push_back(Arc::new(Event { cursor: Cursor(number), payload }));
            while ring.events.len() > KEPT_EVENTS || (ring.bytes > KEPT_BYTES && ring.events.len() > 1) {
                if let Some(event) = ring.events.pop_front() {
                    ring.bytes -= event.payload.get().len();
                    ring.forgotten = event.cursor.0;
                }
            }
            std::mem::take(&mut ring.waiting)
        };
        waiting.iter().for_each(|observer| (observer.wake)());
    }

    /// Tells everybody that there will be no more.
    pub(super) fn close(&self, closing: Closing) {
        let observers = {
            let mut ring = lock(&self.ring);
            ring.closed.get_or_insert(closing);
            ring.observers.clone()
        };
        observers.iter().for_each(|observer| (observer.wake)());
    }

    /// The number of the newest event, 0 before the first.
    pub fn latest(&self) -> Cursor {
        lock(&self.ring).latest()
    }

    /// Bytes of the events kept.
    pub(super) fn weight(&self) -> usize {
        lock(&self.ring).bytes
    }

    /// Observes from a cursor on, or from now.
    ///
    /// # Errors
    /// The cursor is no place to go on from.
    pub fn observe(self: &Arc<Feed>, from: Option<Cursor>, wake: Wake) -> Result<Observing, CursorFault> {
        let mut ring = lock(&self.ring);
        let after = match from {
            None => ring.latest(),
            // Everything that is kept, whatever is forgotten.
            Some(Cursor(0)) => Cursor(ring.forgotten),
            Some(cursor) if cursor.0 > self.sequence.load(Ordering::Relaxed) => {
                return Err(CursorFault::Unknown);
            }
            Some(cursor) if cursor.0 < ring.forgotten => return Err(CursorFault::Expired),
            Some(cursor) => cursor,
        };
        let observer = Arc::new(Observer { wake });
        ring.observers.push(Arc::clone(&observer));
        drop(ring);
        Ok(Observing { feed: Arc::clone(self), observer, after })
    }
}

impl Ring {
    fn latest(&self) -> Cursor {
        self.events.back().map_or(Cursor(self.forgotten), |event| event.cursor)
    }
}

/// One observer's place in a feed.
pub struct Observing {
    feed: Arc<Feed>,
    observer: Arc<Observer>,
    after: Cursor,
}

impl fmt::Debug for Observing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observing").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Observing {
    /// The number after which events come.
    pub fn after(&self) -> Cursor {
        self.after
    }

    /// Looks, without taking anything, whether there is a reason to stop: the observer was too slow, or
    /// there will be no more. It is woken when there will be no more, even if it does not take.
    pub fn over(&self) -> Option<Taken> {
        let ring = lock(&self.feed.ring);
        if self.after.0 < ring.forgotten { Some(Taken::Overrun) } else { ring.closed.map(Taken::Closed) }
    }

    /// The next events: at most `items`, and no further one once they have `bytes`. If there are none the
    /// observer is woken at the next one; it may be woken without one.
    pub fn take(&mut self, items: usize, bytes: usize) -> Taken {
        let mut ring = lock(&self.feed.ring);
        if self.after.0 < ring.forgotten {
            return Taken::Overrun;
        }
        let first = ring.events.partition_point(|event| event.cursor <= self.after);
        let mut sum = 0;
        let next = ring.events.iter().skip(first).take(items).take_while(|event| {
            let fits = sum < bytes;
            sum += event.payload.get().len();
            fits
        });
        let next: Vec<Arc<Event>> = next.cloned().collect();
        if let Some(last) = next.last() {
            self.after = last.cursor;
            return Taken::Events(next);
        }
        if let Some(closing) = ring.closed {
            return Taken::Closed(closing);
        }
        if !ring.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, &self.observer)) {
            ring.waiting.push(Arc::clone(&self.observer));
        }
        Taken::Nothing
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        let mut ring = lock(&self.feed.ring);
        ring.observers.retain(|observer| !Arc::ptr_eq(observer, &self.observer));
        ring.waiting.retain(|waiting| !Arc::ptr_eq(waiting, &self.observer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn feed() -> Arc<Feed> {
        Arc::new(Feed::new(Arc::default(), 0))
    }

    fn publish(feed: &Feed, count: usize) {
        (0..count).for_each(|n| feed.publish(RawValue::from_string(n.to_string()).unwrap()));
    }

    fn numbers(taken: Taken) -> Vec<u64> {
        match taken {
            Taken::Events(events) => events.iter().map(|event| event.cursor.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_observer_reads_at_its_own_pace() {
        let feed = feed();
        publish(&feed, 3);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut now = feed.observe(None, wake).unwrap();
        let mut all = feed.observe(Some(Cursor(0)), Box::new(|| {})).unwrap();
        let mut some = feed.observe(Some(Cursor(2)), Box::new(|| {})).unwrap();
        assert!(matches!(now.take(9, 9), Taken::Nothing));
        assert_eq!(numbers(all.take(2, 99)), [1, 2]);
        assert_eq!(numbers(some.take(2, 99)), [3]);
        publish(&feed, 2);
        assert_eq!(woken.load(Ordering::Relaxed), 1, "once, however many came");
        assert_eq!(numbers(now.take(9, 1)), [4], "one at least, whatever its size");
        assert_eq!(numbers(now.take(9, 99)), [5]);
        assert_eq!(numbers(all.take(9, 99)), [3, 4, 5]);
        feed.close(Closing::Ending);
        assert!(matches!(now.take(9, 9), Taken::Closed(Closing::Ending)));
    }

    #[test]
    fn a_cursor_is_expired_only_if_something_after_it_is_forgotten() {
        let feed = feed();
        publish(&feed, KEPT_EVENTS);
        assert!(feed.observe(Some(Cursor(1)), Box::new(|| {})).is_ok());
        publish(&feed, 2);
        let observe = |cursor| feed.observe(Some(Cursor(cursor)), Box::new(|| {}));
        assert_eq!(observe(1).unwrap_err(), CursorFault::Expired);
        assert_eq!(observe(KEPT_EVENTS as u64 + 3).unwrap_err(), CursorFault::Unknown);
        assert_eq!(numbers(observe(2).unwrap().take(1, 9)), [3]);
        assert_eq!(numbers(observe(0).unwrap().take(1, 9)), [3]);
        assert_eq!(observe(KEPT_EVENTS as u64 + 2).unwrap().after(), feed.latest());
    }

    #[test]
    fn another_workers_noise_expires_nothing() {
        let sequence: Arc<AtomicU64> = Arc::default();
        let (quiet, noisy) =
            (Arc::new(Feed::new(Arc::clone(&sequence), 0)), Feed::new(Arc::clone(&sequence), 0));
        publish(&quiet, 2);
        publish(&noisy, 100_000);
        publish(&quiet, 1);
        let mut observing = quiet.observe(Some(Cursor(1)), Box::new(|| {})).unwrap();
        assert_eq!(numbers(observing.take(9, 99)), [2, 100_003]);
    }

    #[test]
    fn a_slow_observer_is_told_and_bytes_are_bounded() {
        let feed = feed();
        let mut slow = feed.observe(None, Box::new(|| {})).unwrap();
        let large = format!("\"{}\"", "x".repeat(KEPT_BYTES));
        feed.publish(RawValue::from_string(large).unwrap());
        assert_eq!(numbers(feed.observe(Some(Cursor(0)), Box::new(|| {})).unwrap().take(9, 9)), [1]);
        publish(&feed, 1);
        assert!(matches!(slow.take(9, 9), Taken::Overrun));
        assert!(feed.weight() <= KEPT_BYTES);
    }

    #[test]
    fn nothing_comes_after_the_last_one() {
        let feed = feed();
        feed.publish_last(RawValue::NULL.to_owned());
        publish(&feed, 1);
        assert_eq!(numbers(feed.observe(Some(Cursor(0)), Box::new(|| {})).unwrap().take(9, 9)), [1]);
    }

    #[test]
    fn numbers_of_an_earlier_life_are_expired() {
        let feed = Arc::new(Feed::new(Arc::new(AtomicU64::new(1 << 32)), 1 << 32));
        assert_eq!(feed.observe(Some(Cursor(7)), Box::new(|| {})).unwrap_err(), CursorFault::Expired);
        publish(&feed, 1);
        let mut all = feed.observe(Some(Cursor(0)), Box::new(|| {})).unwrap();
        assert_eq!(numbers(all.take(9, 9)), [(1 << 32) + 1]);
    }
}
