//! What one listener has still to take. The thread `events` puts batches in and never waits for anybody;
//! each listener has a lock of its own, so that a thousand of them do not queue for one.
use super::ring::Frame;
use crate::base::lock::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Events that may wait for a listener that is still busy with those before.
const QUEUE: usize = 256;
/// Those that may wait for one that was woken and is still to get its turn of a processor.
const WOKEN_QUEUE: usize = 16 * QUEUE;

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
    batches: VecDeque<Batch>,
    events: usize,
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
    /// Adds a batch. Into an empty box one of any size goes; one that does not fit ends the listening.
    pub(super) fn put(&self, batch: &Batch) {
        let mut inner = lock(&self.inner);
        if inner.too_slow {
            return;
        }
        let most = if inner.busy { QUEUE } else { WOKEN_QUEUE };
        if !inner.batches.is_empty() && inner.events + batch.events > most {
            inner.fail();
        } else {
            inner.events += batch.events;
            inner.batches.push_back(batch.clone());
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
            if let Some(batch) = inner.batches.pop_front() {
                inner.events -= batch.events;
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

impl Inner {
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
        mailbox.put(&batch(QUEUE * 10, 0));
        mailbox.put(&batch(QUEUE * 6, 1));
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(0), Ok(1)), "it was only to be woken");
        mailbox.put(&batch(1, 1));
        mailbox.put(&batch(QUEUE - 1, 2));
        assert_eq!(next(&mailbox), Ok(1));
        mailbox.put(&batch(1, 3));
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(2), Ok(3)));
        assert_eq!(next(&mailbox), Err("Nothing".to_owned()));
        mailbox.put(&batch(QUEUE * 10, 4));
        assert_eq!(next(&mailbox), Ok(4), "one of any size into an empty box");
        let never = Mailbox::default();
        never.put(&batch(WOKEN_QUEUE, 1));
        never.put(&batch(1, 2));
        assert_eq!(next(&never), Err("TooSlow".to_owned()), "nor may it sleep for ever");
        mailbox.put(&batch(QUEUE, 5));
        mailbox.put(&batch(1, 6));
        assert_eq!(next(&mailbox), Err("TooSlow".to_owned()));
        mailbox.put(&batch(1, 7));
        mailbox.close();
        assert_eq!(next(&mailbox), Err("TooSlow".to_owned()), "for good");
    }

    #[test]
    fn what_came_before_the_end_is_taken_first() {
        let mailbox = Mailbox::default();
        mailbox.put(&batch(1, 1));
        mailbox.close();
        assert_eq!((next(&mailbox), next(&mailbox)), (Ok(1), Err("Closed".to_owned())));
    }
}
