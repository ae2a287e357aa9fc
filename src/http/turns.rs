//! Whether the wrapped server answers requests in the order in which they began: whoever waits for it then
//! waits for a turn, not for an answer that is long in coming.
use super::limits::{ANSWERING, OUT_OF_TURN};
use crate::base::lock::lock;
use std::sync::Mutex;
use std::time::Instant;

/// What was answered of late.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Option<Answers>>);

#[derive(Clone, Copy, Debug)]
struct Answers {
    /// When the last answer was begun.
    last: Instant,
    /// When the newest of all answered requests had begun.
    newest: Instant,
}

impl Turns {
    /// The wrapped server begins to answer a request that began then.
    pub(super) fn note_answer(&self, began: Instant, now: Instant) {
        let mut answers = lock(&self.0);
        let newest = answers.map_or(began, |answers| answers.newest.max(began));
        *answers = Some(Answers { last: now, newest });
    }

    /// It has begun to answer somebody a moment ago, and nobody who began well after this one.
    pub(super) fn has_yet_to_come(&self, began: Instant, now: Instant) -> bool {
        let answers = *lock(&self.0);
        answers.is_some_and(|answers| {
            now.saturating_duration_since(answers.last) <= ANSWERING
                && answers.newest.saturating_duration_since(began) <= OUT_OF_TURN
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_turn_is_to_come_while_others_are_answered_and_none_who_began_later() {
        let turns = Turns::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!turns.has_yet_to_come(at(0), at(0)), "nobody was answered ever");
        turns.note_answer(at(500), at(900));
        for (began, now, expected, what) in [
            (600, 1000, true, "after the one that was answered"),
            (450, 1000, true, "at about the same time"),
            (300, 1000, false, "overtaken"),
            (600, 1200, false, "nobody is answered any more"),
        ] {
            assert_eq!(turns.has_yet_to_come(at(began), at(now)), expected, "{what}");
        }
        turns.note_answer(at(100), at(1300));
        assert!(!turns.has_yet_to_come(at(300), at(1310)), "one who is late is answered at last");
        assert!(turns.has_yet_to_come(at(600), at(1310)));
    }
}
