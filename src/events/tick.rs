//! Sending: who listens gets what is new, every 50 ms at most. One thread makes the changes of the
//! slices, once for everybody, and wakes who waits.
use super::action::now_ms;
use super::bus::{Core, Shared};
use super::event::Event;
use super::patch::{self, Change};
use super::ring::{Frame, Stream, Streams};
use super::slices::{Slice, Slices};
use super::state::State;
use crate::base::lock::lock;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two rounds of sending: 20 a second.
const TICK: Duration = Duration::from_millis(50);
/// How long after its last subscriber left a stream's events are still kept for one who comes back.
const KEPT_FOR: Duration = Duration::from_secs(60);

impl Shared {
    /// Numbers and keeps an event, if somebody listens or did a moment ago.
    pub(super) fn push(&self, core: &mut Core, streams: Streams, at_ms: u64, event: &Event<'_>) {
        let now = Instant::now();
        let mut wanted = false;
        for stream in Stream::ALL.into_iter().filter(|stream| streams.has(*stream)) {
            if core.counts.is_recorded(stream, now, KEPT_FOR) {
                core.counts.count(stream);
                core.news[stream as usize] = true;
                wanted = true;
            }
        }
        if wanted {
            core.ring.push(streams, |id| Frame::from((self.settings.encode)(id, at_ms, event)));
        } else if Stream::ALL.iter().all(|stream| core.counts.recorded_since(*stream).is_none()) {
            core.ring.clear();
        }
    }

    pub(super) fn wake_if_needed(&self, core: &mut Core) {
        if core.news.contains(&true) || !core.dirty.is_empty() && core.is_state_recorded() {
            self.work.notify_one();
        }
    }

    /// The thread `events`: every tick in which something happened it makes the changes of the slices
    /// and wakes who waits.
    pub(super) fn send_changes(&self) {
        let mut last_tick: Option<Instant> = None;
        let mut core = lock(&self.core);
        while !core.closed {
            let recorded = core.is_state_recorded();
            let nothing = !core.news.contains(&true) && (core.dirty.is_empty() || !recorded);
            if nothing && !core.closing {
                core = self.work.wait(core).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let pause = last_tick.map_or(Duration::ZERO, |tick| TICK.saturating_sub(tick.elapsed()));
            if !pause.is_zero() && !core.closing {
                core = self.work.wait_timeout(core, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            last_tick = Some(Instant::now());
            let is_last = core.closing;
            if recorded && !core.dirty.is_empty() {
                let dirty = std::mem::take(&mut core.dirty);
                let (before, after, epoch) = (core.sent.clone(), core.state.clone(), core.epoch);
                drop(core);
                let changes = changes(&before, &after, dirty);
                core = lock(&self.core);
                // Else everybody has begun anew meanwhile.
                if core.epoch == epoch {
                    let at_ms = now_ms();
                    for (slice, change) in &changes {
                        let update = Event::Update { slice: *slice, change };
                        self.push(&mut core, Streams::STATE, at_ms, &update);
                        core.sent.set(*slice, Arc::clone(after.get(*slice)));
                    }
                }
            }
            core.closed = is_last;
            let news = if is_last { [true; 3] } else { core.news };
            core.news = [false; 3];
            for (_, arrived) in news.iter().zip(&self.arrived).filter(|(news, _)| **news) {
                arrived.notify_all();
            }
        }
    }
}

fn changes(before: &State, after: &State, dirty: Slices) -> Vec<(Slice, Change)> {
    let dirty = Slice::ALL.into_iter().filter(|slice| dirty.has(*slice));
    dirty.filter_map(|s| Some((s, patch::change(before.get(s), after.get(s))?))).collect()
}
