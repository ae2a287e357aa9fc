//! When a server that ended is started again. Pure: time and chance come in as arguments. Called by
//! the watcher only.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A longer life was a success: counting starts anew after it.
pub(super) const LONG_LIFE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Jitter shortens a pause by up to this part, so that servers that died together part ways.
const JITTER: f64 = 0.25;

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Retry(Duration),
    GiveUp,
}

pub(super) struct Policy {
    /// None: no limit.
    max_restarts: Option<u32>,
    /// Short lives in a row.
    short_lives: u32,
    /// Starts in a row that did not happen because the port was taken.
    blocked: u32,
}

impl Policy {
    pub(super) fn new(max_restarts: Option<u32>) -> Policy {
        Policy { max_restarts, short_lives: 0, blocked: 0 }
    }

    /// The server ended, or could not be started, after `life`. `chance` is in 0 ..= 1.
    pub(super) fn ended(&mut self, life: Duration, chance: f64) -> Verdict {
        if life > LONG_LIFE {
            self.short_lives = 0;
        }
        self.short_lives = self.short_lives.saturating_add(1);
        if self.max_restarts.is_some_and(|max| self.short_lives > max) {
            return Verdict::GiveUp;
        }
        // The first time at once: most single crashes are just that.
        Verdict::Retry(self.short_lives.checked_sub(2).map_or(Duration::ZERO, |n| pause(n, chance)))
    }

    /// The port was taken, so nothing was started: that never counts against the server.
    pub(super) fn blocked(&mut self, chance: f64) -> Duration {
        self.blocked = self.blocked.saturating_add(1);
        pause(self.blocked - 1, chance)
    }

    pub(super) fn unblocked(&mut self) {
        self.blocked = 0;
    }

    /// Somebody changed something or asked for a start: it gets a fresh row of chances.
    pub(super) fn forgive(&mut self) {
        (self.short_lives, self.blocked) = (0, 0);
    }
}

/// Chance enough for jitter, the one thing here that is not pure: from the seed of std's hash tables.
pub(super) fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

fn pause(doublings: u32, chance: f64) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LAST_PAUSE);
    full.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(ms: u64) -> Verdict {
        Verdict::Retry(Duration::from_millis(ms))
    }

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn pauses_double_from_nothing_to_ten_seconds() {
        let mut policy = Policy::new(None);
        for ms in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(policy.ended(SHORT, 0.0), retry(ms));
        }
        policy.short_lives = u32::MAX;
        assert_eq!(policy.ended(SHORT, 1.0), retry(7500));
        assert_eq!(policy.ended(LONG_LIFE, 0.5), retry(8750), "ten seconds are not longer than ten");
        assert_eq!(policy.ended(LONG_LIFE + SHORT, 1.0), retry(0));
        assert_eq!(policy.ended(SHORT, 1.0), retry(75));
        policy.forgive();
        assert_eq!(policy.ended(SHORT, 0.0), retry(0));
    }

    #[test]
    fn gives_up_after_the_allowed_restarts_in_a_row() {
        assert_eq!(Policy::new(Some(0)).ended(LONG_LIFE * 2, 0.0), Verdict::GiveUp);
        let mut policy = Policy::new(Some(2));
        assert_eq!((policy.ended(SHORT, 0.0), policy.ended(SHORT, 0.0)), (retry(0), retry(100)));
        assert_eq!(policy.ended(LONG_LIFE * 2, 0.0), retry(0));
        assert_eq!(policy.ended(SHORT, 0.0), retry(100));
        assert_eq!(policy.ended(SHORT, 0.0), Verdict::GiveUp);
    }

    #[test]
    fn a_taken_port_backs_off_without_counting() {
        let mut policy = Policy::new(Some(1));
        let pauses: Vec<_> = (0..9).map(|_| policy.blocked(0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        policy.unblocked();
        assert_eq!(policy.blocked(0.0).as_millis(), 100);
        assert_eq!(policy.ended(SHORT, 0.0), retry(0));
    }
}
