//! Whether slow clients come faster than the front can do with, told by how many had to be cut.
use super::limits::{OVERRUN, OVERRUN_CUTS};
use crate::base::lock::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Overrun {
    front_began: Instant,
    /// The cuts since then, which is not longer ago than [`OVERRUN`].
    cuts: Mutex<(Instant, u32)>,
    /// When the last of too many was, in milliseconds since the front began; 0 is never.
    last: AtomicU64,
}

impl Overrun {
    pub(super) fn new() -> Overrun {
        let now = Instant::now();
        Overrun { front_began: now, cuts: Mutex::new((now, 0)), last: AtomicU64::new(0) }
    }

    /// A slow client was cut because such have more than their part.
    pub(super) fn note_cut(&self, now: Instant) {
        let mut cuts = lock(&self.cuts);
        if now.saturating_duration_since(cuts.0) > OVERRUN {
            *cuts = (now, 0);
        }
        cuts.1 = cuts.1.saturating_add(1);
        if cuts.1 >= OVERRUN_CUTS {
            self.last.store(self.at(now).max(1), Ordering::Relaxed);
        }
    }

    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.front_began).as_millis()).unwrap_or(u64::MAX)
    }

    /// It goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.goes_on_at(Instant::now)
    }

    /// Where there was none the time is not asked for: every request comes by here.
    fn goes_on_at(&self, now: impl FnOnce() -> Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && Duration::from_millis(self.at(now()).saturating_sub(last)) < OVERRUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The overrun of a front whose slow clients are cut at these times, in milliseconds.
    fn after(cuts: impl IntoIterator<Item = u64>) -> (Overrun, impl Fn(u64) -> Instant) {
        let overrun = Overrun::new();
        let start = overrun.front_began;
        let at = move |ms| start + Duration::from_millis(ms);
        cuts.into_iter().for_each(|ms| overrun.note_cut(at(ms)));
        (overrun, at)
    }

    #[test]
    fn many_cuts_in_a_second_are_one_and_it_ends_a_second_after_the_last() {
        let many = u64::from(OVERRUN_CUTS);
        let (overrun, at) = after(5000..5000 + many - 1);
        assert!(!overrun.goes_on_at(|| at(5100)), "one too few");
        overrun.note_cut(at(5900));
        assert!(overrun.goes_on_at(|| at(5900)) && overrun.goes_on_at(|| at(6899)));
        assert!(!overrun.goes_on_at(|| at(6900)));
        overrun.note_cut(at(6950));
        assert!(!overrun.goes_on_at(|| at(6950)), "one more does not renew it");
    }

    #[test]
    fn a_cut_now_and_then_is_none() {
        let (overrun, at) = after((0..100).map(|n| n * 1000));
        assert!(!overrun.goes_on_at(|| at(99_000)));
    }
}
