//! When an observer is pinged, and when it is given up. Pure: the time is told to it.
use std::time::{Duration, Instant};

/// Between two pings. A client that has not answered the one before is taken for gone.
const PING: Duration = Duration::from_secs(30);
/// How long a client may take none of what is queued for it.
const STALL: Duration = Duration::from_secs(30);
/// How often one that takes nothing looks whether what comes next for it is forgotten.
const STALL_LOOK: Duration = Duration::from_secs(1);

/// The signs of life of one observer.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the client last gave a sign.
    heard: Instant,
    /// When it was last pinged.
    pinged: Instant,
    /// When it last took something, and how much it had taken by then.
    moved: Instant,
    sent: u64,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Ping it, and ask again.
    Ping,
    /// It answers no more.
    Gone,
    /// It takes nothing any more.
    Stalled,
    /// Nothing, for this long.
    Wait(Duration),
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Pulse {
        Pulse { heard: now, pinged: now, moved: now, sent: 0 }
    }

    /// The client gave a sign.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// `pending`: something waits for the client to take it; `sent`: bytes it has taken so far.
    pub(super) fn beat(&mut self, now: Instant, pending: bool, sent: u64) -> Beat {
        if !pending && now >= self.pinged + PING {
            if self.heard < self.pinged {
                return Beat::Gone;
            }
            self.pinged = now;
            return Beat::Ping;
        }
        if !pending || sent != self.sent {
            (self.moved, self.sent) = (now, sent);
        }
        let until = if pending { self.moved + STALL } else { self.pinged + PING };
        match until.saturating_duration_since(now) {
            Duration::ZERO => Beat::Stalled,
            // Who takes nothing is not woken for each event, and looks now and then whether it is too late.
            left => Beat::Wait(if pending { left.min(STALL_LOOK) } else { left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_observer_is_pinged_every_half_minute_and_given_up_without_an_answer() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        assert_eq!(pulse.beat(began, false, 0), Beat::Wait(seconds(30)));
        assert_eq!(pulse.beat(began + seconds(29), false, 0), Beat::Wait(seconds(1)));
        for round in 1..=3 {
            let now = began + seconds(30 * round);
            assert_eq!(pulse.beat(now, false, 0), Beat::Ping);
            assert_eq!(pulse.beat(now, false, 2), Beat::Wait(seconds(30)));
            pulse.hear(now + seconds(29));
        }
        assert_eq!(pulse.beat(began + seconds(120), false, 0), Beat::Ping, "it answered at the last moment");
        assert_eq!(pulse.beat(began + seconds(149), false, 0), Beat::Wait(seconds(1)));
        assert_eq!(pulse.beat(began + seconds(150), false, 0), Beat::Gone);
    }

    #[test]
    fn who_takes_something_is_not_stalled_and_not_pinged_meanwhile() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        for (second, sent) in [(0, 10), (29, 11), (58, 12), (60, 12), (87, 12)] {
            assert_eq!(pulse.beat(began + seconds(second), true, sent), Beat::Wait(seconds(1)), "{second}");
        }
        assert_eq!(pulse.beat(began + seconds(88), true, 12), Beat::Stalled);
        // It took the rest just before that: now there is room for the ping that is due.
        assert_eq!(pulse.beat(began + seconds(88), false, 13), Beat::Ping);
        assert_eq!(pulse.beat(began + seconds(89), true, 13), Beat::Wait(seconds(1)));
        assert_eq!(
            pulse.beat(began + seconds(118) + Duration::from_millis(900), true, 13),
            Beat::Wait(Duration::from_millis(100))
        );
    }
}
