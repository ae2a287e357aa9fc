//! Threads a pool no longer needs although each is busy now and then: the queue wakes waiting threads
//! in turn, so that a trickle of requests keeps all of them from ever waiting long. Pure.
use super::limits::THREAD_IDLE;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Counts how many threads waited at the least over a window of time: those were not needed in it.
#[derive(Debug)]
pub(super) struct Surplus {
    window_end_ms: AtomicU64,
    least: AtomicIsize,
    to_leave: AtomicUsize,
}

impl Surplus {
    pub(super) fn new() -> Surplus {
        Surplus {
            window_end_ms: AtomicU64::new(millis(THREAD_IDLE)),
            least: AtomicIsize::new(isize::MAX),
            to_leave: AtomicUsize::new(0),
        }
    }

    /// A request was queued; this many threads wait beside the one that takes it.
    pub(super) fn note(&self, waiting: isize) {
        self.least.fetch_min(waiting, Ordering::Relaxed);
    }

    /// Whether the calling thread should leave rather than wait for work; `age` is the pool's.
    pub(super) fn should_leave(&self, age: Duration) -> bool {
        let (now, end) = (millis(age), self.window_end_ms.load(Ordering::Relaxed));
        let next = now + millis(THREAD_IDLE);
        let relaxed = Ordering::Relaxed;
        if now >= end && self.window_end_ms.compare_exchange(end, next, relaxed, relaxed).is_ok() {
            let least = self.least.swap(isize::MAX, relaxed);
            // Without a single request in the window, waiting in vain ends threads by itself.
            let spare = if least == isize::MAX { 0 } else { usize::try_from(least).unwrap_or(0) };
            self.to_leave.store(spare, relaxed);
        }
        self.to_leave.fetch_update(relaxed, relaxed, |n| n.checked_sub(1)).is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_leave_as_were_never_needed() {
        let surplus = Surplus::new();
        for waiting in [9, 3, 7] {
            surplus.note(waiting);
        }
        assert!(!surplus.should_leave(THREAD_IDLE - Duration::from_millis(1)), "the window is not over");
        let left = (0..10).filter(|_| surplus.should_leave(THREAD_IDLE)).count();
        assert_eq!(left, 3);
        surplus.note(-2);
        assert!(!surplus.should_leave(THREAD_IDLE * 2), "all were needed, and more");
        assert!(!surplus.should_leave(THREAD_IDLE * 3), "nothing happened");
    }
}
