//! When artifacts expire. The clock is given, so tests need not wait; times are stored as text.
use crate::base::time::{rfc3339, unix_ms};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How long an artifact lives, by which clock.
#[derive(Clone)]
pub struct Ttl {
    time: Duration,
    clock: Clock,
}

impl fmt::Debug for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ttl").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Ttl {
    /// By the system's clock.
    pub fn new(time: Duration) -> Ttl {
        Ttl::with_clock(time, Arc::new(SystemTime::now))
    }

    /// By another clock.
    pub fn with_clock(time: Duration, clock: Clock) -> Ttl {
        Ttl { time, clock }
    }

    /// Now, and when what is looked at now expires.
    pub fn moment(&self) -> Moment {
        let now = (self.clock)();
        // A clock that runs past the end of time is not ours to mend.
        Moment { now, expires: now.checked_add(self.time).unwrap_or(now) }
    }
}

/// A point in time, and when an artifact looked at then expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    now: SystemTime,
    expires: SystemTime,
}

impl Moment {
    /// Between two times in milliseconds since 1970.
    #[cfg(test)]
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) fn between(now_ms: u64, expires_ms: u64) -> Moment {
        let at = |ms| std::time::UNIX_EPOCH + Duration::from_millis(ms);
        Moment { now: at(now_ms), expires: at(expires_ms) }
    }

    /// Now, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        unix_ms(self.now)
    }

    /// The end, in milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        unix_ms(self.expires)
    }

    /// Now, as it is stored: `2026-11-21T00:09:46.218Z`. Such texts sort as the times they stand for.
    pub fn now_text(&self) -> String {
        rfc3339(self.now)
    }

    /// The end, as it is stored.
    pub fn expires_text(&self) -> String {
        rfc3339(self.expires)
    }
}
