//! After a life of the wrapped server ended, the requests that were under way in it are sent to the
//! next one by one: if one of them is what ends it, it does so alone, and the others get answers.
use crate::base::lock::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A request that was sent this long ago is not going to end the server, and the next may go; so no
/// slow answer keeps the others waiting.
const LONGEST: Duration = Duration::from_millis(250);
/// How long a thread waits for its request's turn before the request goes back to the hold.
const WAIT: Duration = Duration::from_millis(50);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    since: Mutex<Option<Instant>>,
    given_back: Condvar,
}

/// A turn, given back on drop.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    since: Instant,
}

impl Turns {
    /// A turn, unless others take theirs for longer than a request may wait here.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let until = Instant::now() + WAIT;
        let mut taken = lock(&self.since);
        loop {
            let now = Instant::now();
            if taken.is_none_or(|since| now.duration_since(since) >= LONGEST) {
                *taken = Some(now);
                return Some(Turn { turns: self, since: now });
            }
            if now >= until {
                return None;
            }
            let waited = self.given_back.wait_timeout(taken, until.duration_since(now));
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Turn<'_> {
    /// The server ended in this turn: nobody goes until that has shown.
    pub(super) fn lapse(self) {
        std::mem::forget(self);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.turns.since);
        if *taken == Some(self.since) {
            *taken = None;
            drop(taken);
            self.turns.given_back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_turn_until_it_gives_it_back_or_takes_too_long() {
        let turns = Turns::default();
        let first = turns.take();
        assert!(first.is_some());
        assert!(turns.take().is_none());
        drop(first);
        let second = turns.take().unwrap();
        second.lapse();
        assert!(turns.take().is_none(), "it was not given back");
        *lock(&turns.since) = Some(Instant::now() - LONGEST);
        let third = turns.take();
        assert!(third.is_some());
        // One that took too long gives back nothing that is another's by now.
        drop(Turn { turns: &turns, since: Instant::now() - LONGEST * 2 });
        assert!(turns.take().is_none());
    }
}
