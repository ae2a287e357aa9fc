//! Sending: who listens gets what is new, every 50 ms at most. The thread `events` makes the changes of
//! the slices, puts what is new into one batch for each stream, and that into every listener's box.
//!
//! Lock order: `sending`, then `core`, then a box. Boxes are filled without `core`, so that a thousand
//! of them hold up no action.
use super::action::now_ms;
use super::bus::{Core, Shared};
use super::event::Event;
use super::mailbox::{Batch, Mailbox};
use super::patch::{self, Change};
use super::ring::{Frame, Stream, Streams};
use super::slices::{Slice, Slices};
use super::state::State;
use crate::base::lock::lock;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two rounds of sending: 20 a second.
const TICK: Duration = Duration::from_millis(50);
/// Bytes of events that go out in one piece; a longer event does by itself. A client that does not read
/// keeps a piece in memory.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// What is to go into some boxes.
pub(super) struct Delivery {
    boxes: Vec<Arc<Mailbox>>,
    /// None: an event is gone that was not sent.
    batches: Option<Arc<[Batch]>>,
}

impl Delivery {
    pub(super) fn deliver(self) {
        for mailbox in self.boxes {
            match &self.batches {
                Some(batches) => mailbox.put(batches),
                None => mailbox.fail(),
            }
        }
    }
}

impl Core {
    /// Takes out what is new in a stream, which counts as sent then.
    pub(super) fn take_new(&mut self, stream: Stream) -> Option<Delivery> {
        let last = self.ring.last();
        let listeners = &mut self.listeners[stream as usize];
        let after = std::mem::replace(&mut listeners.sent, last);
        let boxes = listeners.boxes().to_vec();
        if boxes.is_empty() {
            return None;
        }
        if !self.ring.covers(after, stream) {
            return Some(Delivery { boxes, batches: None });
        }
        let mut batches = Vec::new();
        let mut at = after;
        while let Some(batch) = self.piece(at, last, stream) {
            at = batch.last;
            batches.push(batch);
        }
        (!batches.is_empty()).then(|| Delivery { boxes, batches: Some(batches.into()) })
    }

    /// The first piece of a stream's events from number `after` up to number `last`; none if there are none.
    pub(super) fn piece(&self, after: u64, last: u64, stream: Stream) -> Option<Batch> {
        let mut frames = self.ring.between(after, last, stream).peekable();
        let (first_number, first) = frames.next()?;
        let mut batch = Batch { bytes: Arc::clone(first), events: 1, last: first_number };
        let mut joined = Vec::new();
        while let Some((number, frame)) =
            frames.next_if(|(_, frame)| joined.len().max(first.len()) + frame.len() <= PIECE_BYTES)
        {
            if joined.is_empty() {
                joined.extend_from_slice(first);
            }
            joined.extend_from_slice(frame);
            (batch.events, batch.last) = (batch.events + 1, number);
        }
        if !joined.is_empty() {
            batch.bytes = Frame::from(joined);
        }
        if frames.peek().is_none() {
            batch.last = last;
        }
        Some(batch)
    }

    /// Whether so much is new that the ring might lose some before the next tick.
    fn is_pressing(&self) -> bool {
        let new = |stream: Stream| self.ring.last() - self.listeners[stream as usize].sent;
        let most = Stream::ALL.into_iter().filter(|s| self.news[*s as usize]).map(new).max();
        self.ring.is_much(most.unwrap_or(0), self.unsent_bytes)
    }
}

impl Shared {
    /// Numbers and keeps an event, if somebody listens or did a moment ago.
    pub(super) fn push(&self, core: &mut Core, streams: Streams, at_ms: u64, event: &Event<'_>) {
        let now = Instant::now();
        let mut wanted = false;
        for stream in Stream::ALL.into_iter().filter(|stream| streams.has(*stream)) {
            if core.listeners[stream as usize].is_recorded(now) {
                core.news[stream as usize] = true;
                wanted = true;
            }
        }
        if wanted {
            core.unsent_bytes +=
                core.ring.push(streams, |id| Frame::from((self.settings.encode)(id, at_ms, event)));
        } else if core.listeners.iter().all(|listeners| listeners.recorded_since().is_none()) {
            core.ring.clear();
        }
    }

    pub(super) fn wake_if_needed(&self, core: &Core) {
        if core.news.contains(&true) || !core.dirty.is_empty() && core.is_state_recorded() {
            self.work.notify_one();
        }
    }

    /// The thread `events`.
    pub(super) fn send_changes(&self) {
        let mut last_tick: Option<Instant> = None;
        let mut states_tick: Option<Instant> = None;
        let since = |tick: Option<Instant>| {
            tick.map_or(Duration::ZERO, |tick: Instant| TICK.saturating_sub(tick.elapsed()))
        };
        let mut core = lock(&self.core);
        while !core.closed {
            let states = !core.dirty.is_empty() && core.is_state_recorded();
            if !core.news.contains(&true) && !states && !core.closing {
                core = self.work.wait(core).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let pause = since(last_tick);
            if !pause.is_zero() && !core.closing && !core.is_pressing() {
                core = self.work.wait_timeout(core, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let is_last = core.closing;
            last_tick = Some(Instant::now());
            drop(core);
            // Slices keep their pace also when actions press.
            if states && (is_last || since(states_tick).is_zero()) {
                states_tick = last_tick;
                self.push_changes();
            }
            self.send();
            core = lock(&self.core);
            if is_last {
                core.closed = true;
                core.listeners.iter().flat_map(|l| l.boxes()).for_each(|mailbox| mailbox.close());
            }
        }
    }

    /// Makes events of what became of the slices since they were sent.
    fn push_changes(&self) {
        let (before, after, dirty, epoch) = {
            let mut core = lock(&self.core);
            (core.sent.clone(), core.state.clone(), std::mem::take(&mut core.dirty), core.epoch)
        };
        let changes = changes(&before, &after, dirty);
        let _sending = lock(&self.sending);
        let mut core = lock(&self.core);
        // Else everybody has begun anew meanwhile.
        if core.epoch != epoch {
            return;
        }
        let at_ms = now_ms();
        for (slice, change) in &changes {
            self.push(&mut core, Streams::STATE, at_ms, &Event::Update { slice: *slice, change });
            core.sent.set(*slice, Arc::clone(after.get(*slice)));
        }
        // With the state they belong to: whoever joins from here on gets that, and not them.
        let deliveries = [Stream::Events, Stream::State].map(|stream| core.take_new(stream));
        drop(core);
        deliveries.into_iter().flatten().for_each(Delivery::deliver);
    }

    /// Puts what is new into all boxes.
    fn send(&self) {
        let _sending = lock(&self.sending);
        let mut core = lock(&self.core);
        let news = std::mem::take(&mut core.news);
        core.unsent_bytes = 0;
        let streams = Stream::ALL.into_iter().filter(|stream| news[*stream as usize]);
        let deliveries: Vec<Delivery> = streams.filter_map(|stream| core.take_new(stream)).collect();
        drop(core);
        deliveries.into_iter().for_each(Delivery::deliver);
    }
}

fn changes(before: &State, after: &State, dirty: Slices) -> Vec<(Slice, Change)> {
    let dirty = Slice::ALL.into_iter().filter(|slice| dirty.has(*slice));
    dirty.filter_map(|s| Some((s, patch::change(before.get(s), after.get(s))?))).collect()
}
