//! The minimum rate of a body: who makes us wait must keep moving. Pure; the waits are told to it.
use super::limits::RATE_WINDOW;
use std::time::Duration;

/// Counts what one direction of one body moved, and how long its client made us wait for it.
#[derive(Clone, Debug)]
pub(super) struct MinimumRate {
    bytes_per_second: u64,
    moved: u64,
    waited: Duration,
}

impl MinimumRate {
    /// No client is held to a rate of 0.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        MinimumRate { bytes_per_second, moved: 0, waited: Duration::ZERO }
    }

    /// `bytes` went through.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
    }

    /// The client was waited for; false once it was too slow over a whole window of such waits.
    /// Time spent on anything else (the wrapped server, the disk) does not count against it.
    pub(super) fn waited(&mut self, time: Duration) -> bool {
        self.waited += time;
        if self.waited < RATE_WINDOW {
            return true;
        }
        let enough = self.moved >= self.bytes_per_second.saturating_mul(RATE_WINDOW.as_secs());
        self.moved = 0;
        self.waited = Duration::ZERO;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_waiting_needs_its_bytes() {
        let mut rate = MinimumRate::new(1024);
        rate.moved(10 * 1024);
        assert!(rate.waited(RATE_WINDOW), "exactly enough");
        rate.moved(10 * 1024 - 1);
        assert!(rate.waited(RATE_WINDOW - Duration::from_millis(1)), "the window is not over");
        assert!(!rate.waited(Duration::from_millis(1)), "one byte short");
        assert!(MinimumRate::new(0).waited(RATE_WINDOW * 2), "0 asks for nothing");
    }
}
