//! The minimum rate of a body: who makes us wait must keep moving. Pure; the waits are told to it.
use super::limits::RATE_WINDOW;
use std::time::Duration;

/// Counts what one direction of one body moved, and how long its client made us wait for it.
#[derive(Clone, Debug)]
pub(super) struct MinimumRate {
    /// Bytes to move in each window of waiting.
    quota: u64,
    moved: u64,
    waited: Duration,
}

impl MinimumRate {
    /// No client is held to a rate of 0.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let quota = bytes_per_second.saturating_mul(RATE_WINDOW.as_secs());
        MinimumRate { quota, moved: 0, waited: Duration::ZERO }
    }

    /// `bytes` went through after the client was waited for that long; false once a whole window of
    /// such waits has passed since it last had its quota. Time spent on anything else (the wrapped
    /// server, the disk) does not count against it.
    pub(super) fn step(&mut self, bytes: usize, waited: Duration) -> bool {
        self.moved = self.moved.saturating_add(bytes as u64);
        self.waited += waited;
        if self.moved >= self.quota {
            // What was more is no credit: a burst must not pay for a stall.
            self.moved = 0;
            self.waited = Duration::ZERO;
        }
        self.waited < RATE_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_waiting_needs_its_bytes() {
        let mut rate = MinimumRate::new(1024);
        assert!(rate.step(10 * 1024, RATE_WINDOW), "exactly enough");
        assert!(rate.step(10 * 1024 - 1, RATE_WINDOW - Duration::from_millis(1)), "the window is not over");
        assert!(!rate.step(0, Duration::from_millis(1)), "one byte short");
        assert!(MinimumRate::new(0).step(0, RATE_WINDOW * 2), "0 asks for nothing");
    }

    #[test]
    fn a_burst_pays_for_no_later_stall() {
        let mut rate = MinimumRate::new(1024);
        assert!(rate.step(1 << 30, Duration::ZERO));
        assert!(!rate.step(0, RATE_WINDOW));
    }
}
