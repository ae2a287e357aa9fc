//! What one listener has still to take. The thread `events` puts batches in and never waits for anybody;
//! each listener has a lock of its own, so that a thousand of them do not queue for one.
use super::ring::Frame;
use crate::base::lock::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Events that may wait for a listener that is still busy with those before.
const QUEUE: usize = 256;
/// Those that may wait for one that was woken and is still to get its turn of a processor.
const WOKEN_QUEUE: usize = 16 * QUEUE;
/// Bytes that may wait for either, as many as the ring holds: whoever is further behind has missed some.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Events that go out together, made once for all listeners.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) bytes: Frame,
    pub(super) events: usize,
    /// The number of the last event they cover.
    pub(super) last: u64,
}

/// What a listener is to do.
#[derive(Clone, Debug)]
pub enum Next {
    /// Send these bytes; the number is that of the last event they cover.
    Events(Frame, u64),
    /// Nothing: the time is over.
    Nothing,
    /// End: it was too slow, and is to begin where it stood.
    TooSlow,
    /// End: the bus has.
    Closed,
}

#[derive(Debug, Default)]
struct Inner {
    /// What came, each time together. The events and bytes in there are counted.
    waiting: VecDeque<Arc<[Batch]>>,
    events: usize,
    bytes: usize,
    /// What is being taken, and how far: it came at once, so to be at it is not to be slow.
    current: Option<(Arc<[Batch]>, usize)>,
    /// Its owner has taken something, and has not asked for more.
    busy: bool,
    too_slow: bool,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

impl Mailbox {
    /// Adds what came together. Into an empty box all of it goes; what does not fit ends the listening.
    pub(super) fn put(&self, batches: &Arc<[Batch]>) {
        let mut inner = lock(&self.inner);
        if inner.too_slow {
            return;
        }
        let most = if inner.busy { QUEUE } else { WOKEN_QUEUE };
        let (events, bytes) = size(batches);
        let (events, bytes) = (inner.events + events, inner.bytes + bytes);
        if !inner.waiting.is_empty() && (events > most || bytes > QUEUE_BYTES) {
            inner.fail();
        } else {
            (inner.events, inner.bytes) = (events, bytes);
            inner.waiting.push_back(Arc::clone(batches));
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Ends the listening: an event is lost.
    pub(super) fn fail(&self) {
        lock(&self.inner).fail();
        self.arrived.notify_one();
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        lock(&self.inner).closed = true;
        self.arrived.notify_one();
    }

    /// The next batch, waiting up to `timeout` for one.
    pub(super) fn next(&self, timeout: Duration) -> Next {
        let until = Instant::now() + timeout;
        let mut inner = lock(&self.inner);
        inner.busy = false;
        loop {
            if inner.too_slow {
                return Next::TooSlow;
            }
            if let Some(batch) = inner.take() {
                inner.busy = true;
                return Next::Events(batch.bytes, batch.last);
            }
            if inner.closed {
                return Next::Closed;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            inner = self.arrived.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Events and bytes.
fn size(batches: &[Batch]) -> (usize, usize) {
    batches.iter().fold((0, 0), |(events, bytes), b| (events + b.events, bytes + b.bytes.len()))
}

impl Inner {
    fn take(&mut self) -> Option<Batch> {
        let (batches, at) = match self.current.take() {
            Some(current) => current,
            None => {
                let batches = self.waiting.pop_front()?;
                let (events, bytes) = size(&batches);
                (self.events, self.bytes) = (self.events - events, self.bytes - bytes);
                (batches, 0)
            }
        };
        let batch = batches.get(at).cloned();
        if at + 1 < batches.len() {
            self.current = Some((batches, at + 1));
        }
        batch
    }

    fn fail(&mut self) {
        *self = Inner { too_slow: true, closed: self.closed, ..Inner::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: usize, last: u64) -> Batch {
        Batch { bytes: Frame::from(&b"x"[..]), events, last }
    }

    fn next(mailbox: &Mailbox) -> Result<u64, String> {
        match mailbox.next(Duration::ZERO) {
            Next::Events(_, last) => Ok(last),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_box_holds_its_bound_and_not_one_more() {
        let mailbox = Mailbox::default();
        mailbox.put(&[batch(QUEUE * 10, 0)].into());
        mailbox.put(&[batch(QUEUE * 6, 1)].into());
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(0), Ok(1)), "it was only to be woken");
        mailbox.put(&[batch(1, 1)].into());
        mailbox.put(&[batch(QUEUE - 1, 2)].into());
        assert_eq!(next(&mailbox), Ok(1));
        mailbox.put(&[batch(1, 3)].into());
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(2), Ok(3)));
        assert_eq!(next(&mailbox), Err("Nothing".to_owned()));
        mailbox.put(&[batch(QUEUE * 10, 4)].into());
        assert_eq!(next(&mailbox), Ok(4), "one of any size into an empty box");
        let never = Mailbox::default();
        never.put(&[batch(WOKEN_QUEUE, 1)].into());
        never.put(&[batch(1, 2)].into());
        assert_eq!(next(&never), Err("TooSlow".to_owned()), "nor may it sleep for ever");
        mailbox.put(&[batch(QUEUE, 5)].into());
        mailbox.put(&[batch(1, 6)].into());
        assert_eq!(next(&mailbox), Err("TooSlow".to_owned()));
        mailbox.put(&[batch(1, 7)].into());
        mailbox.close();
        assert_eq!(next(&mailbox), Err("TooSlow".to_owned()), "for good");
    }

    #[test]
    fn bytes_have_a_bound_of_their_own() {
        let of = |bytes: usize| Batch { bytes: Frame::from(vec![0; bytes]), events: 1, last: 1 };
        let mailbox = Mailbox::default();
        mailbox.put(&[of(QUEUE_BYTES), of(QUEUE_BYTES)].into());
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(1), Ok(1)), "all of it into an empty box");
        mailbox.put(&[of(1)].into());
        mailbox.put(&[of(QUEUE_BYTES - 1)].into());
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(1), Ok(1)));
        mailbox.put(&[of(1), of(QUEUE_BYTES)].into());
        assert_eq!(next(&mailbox), Ok(1));
        mailbox.put(&[of(1)].into());
        mailbox.put(&[of(QUEUE_BYTES - 1)].into());
        assert_eq!(next(&mailbox), Ok(1), "what is being taken counts no more");
        mailbox.put(&[of(1)].into());
        assert_eq!(next(&mailbox), Err("TooSlow".to_owned()));
    }

    #[test]
    fn what_came_before_the_end_is_taken_first() {
        let mailbox = Mailbox::default();
        mailbox.put(&[batch(1, 1)].into());
        mailbox.close();
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(1), Err("Closed".to_owned())));
    }
}
