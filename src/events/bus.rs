//! The bus: actions in, the state and three streams of events out.
//!
//! An action changes the state at once. Who follows the state gets the changes of a slice since it was
//! last sent, every 50 ms at most; one thread makes them, once for everybody. When nobody listens, nor
//! did a minute ago, nothing is made at all.
//!
//! Lock order: see tick.rs. Encoding a small event happens under `core`, nothing that waits does.
use super::action::{Action, now_ms};
use super::event::{Encode, Event};
use super::json::Json;
use super::ring::{EventRing, Stream, Streams};
use super::slices::Slices;
use super::state::State;
use super::subscription::{Listeners, Start, Subscription};
use super::tick::Delivery;
use crate::base::lock::lock;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Bytes of the kept events together.
const RING_BYTES: usize = 4 * 1024 * 1024;
/// Numbers of events a millisecond may use up, so that those of a later life are always higher.
const NUMBERS_PER_MS: u64 = 1000;

/// How the bus behaves.
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// Events kept for those who come back.
    pub ring: usize,
    /// The slices that are sent.
    pub streamed: Slices,
    /// How events look on the wire.
    pub encode: Encode,
}

/// The bus in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusCounts {
    /// Actions so far.
    pub actions: u64,
    /// Events made of them so far; none are made while nobody listens.
    pub events: u64,
    /// Listeners now, by stream, in the order of [`Stream::ALL`].
    pub listeners: [usize; 3],
    /// Listeners so far that were too slow and whose stream was ended.
    pub dropped: u64,
}

pub(super) struct Core {
    pub(super) state: State,
    /// The state as listeners know it, while it is recorded.
    pub(super) sent: State,
    /// Slices whose state differs from what was sent.
    pub(super) dirty: Slices,
    pub(super) ring: EventRing,
    /// Actions so far.
    pub(super) actions: u64,
    /// Listeners that were too slow.
    pub(super) dropped: u64,
    pub(super) listeners: [Listeners; 3],
    /// Streams with events that were not sent.
    pub(super) news: [bool; 3],
    /// Bytes of those events.
    pub(super) unsent_bytes: usize,
    /// Counts the times recording of the state began.
    pub(super) epoch: u64,
    /// Told to end: one more round.
    pub(super) closing: bool,
    pub(super) closed: bool,
}

pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// Held while boxes are filled, so that what is older comes first.
    pub(super) sending: Mutex<()>,
    /// Wakes the thread `events`.
    pub(super) work: Condvar,
    pub(super) settings: BusSettings,
}

/// The handle to the bus; clones are the same bus. It ends with [`Bus::close`].
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl Bus {
    /// A bus with the state of a server that has just begun, and its thread `events`.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn start(settings: BusSettings) -> io::Result<Bus> {
        // Ids of an earlier life of this program must not be taken for ids of this one.
        let last = now_ms().saturating_mul(NUMBERS_PER_MS);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                state: State::default(),
                sent: State::default(),
                dirty: Slices::default(),
                ring: EventRing::new(settings.ring, RING_BYTES, last),
                actions: 0,
                dropped: 0,
                listeners: Default::default(),
                news: [false; 3],
                unsent_bytes: 0,
                epoch: 0,
                closing: false,
                closed: false,
            }),
            sending: Mutex::new(()),
            work: Condvar::new(),
            settings,
        });
        let for_thread = Arc::clone(&shared);
        let thread = crate::base::thread::spawn("events", move || for_thread.send_changes())?;
        Ok(Bus { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Changes the state as the action says and tells the listeners. Never waits.
    pub fn dispatch(&self, action: &Action, run: Option<&str>) {
        let mut core = lock(&self.shared.core);
        core.actions += 1;
        let touched = core.state.reduce(action);
        core.dirty = core.dirty.or(touched.and(self.shared.settings.streamed));
        if super::is_public(action) {
            self.push(&mut core, Streams::ACTION, action.at_ms, &Event::Action { action, run });
        }
        self.shared.wake_if_needed(&core);
    }

    /// Tells the listeners that a run of the agent began or ended.
    pub fn status(&self, status: &str, run: &str, error: Option<&str>, at_ms: u64) {
        self.tell(at_ms, &Event::Status { status, run, error });
    }

    /// Tells the listeners what an agent wants them to have.
    pub fn custom(&self, data: &Json, at_ms: u64) {
        self.tell(at_ms, &Event::Custom { data });
    }

    fn tell(&self, at_ms: u64, event: &Event<'_>) {
        let mut core = lock(&self.shared.core);
        self.push(&mut core, Streams::STATUS, at_ms, event);
        self.shared.wake_if_needed(&core);
    }

    fn push(&self, core: &mut Core, streams: Streams, at_ms: u64, event: &Event<'_>) {
        self.shared.push(core, streams, at_ms, event);
    }

    /// The state as it is now.
    pub fn state(&self) -> State {
        lock(&self.shared.core).state.clone()
    }

    /// The state as it would be after an action.
    pub fn preview(&self, action: &Action) -> State {
        let mut state = self.state();
        state.reduce(action);
        state
    }

    /// The slices that are sent.
    pub fn streamed(&self) -> Slices {
        self.shared.settings.streamed
    }

    /// The bus in numbers.
    pub fn counts(&self) -> BusCounts {
        let core = lock(&self.shared.core);
        BusCounts {
            actions: core.actions,
            events: core.ring.count(),
            listeners: Stream::ALL.map(|stream| core.listeners[stream as usize].boxes().len()),
            dropped: core.dropped,
        }
    }

    /// Begins to listen: to what comes after event number `after`, if everything since is still kept,
    /// else from now on.
    pub fn subscribe(&self, stream: Stream, after: Option<u64>) -> (Subscription, Start) {
        let sending = lock(&self.shared.sending);
        let mut core = lock(&self.shared.core);
        let state_recorded = core.is_state_recorded();
        // What nobody kept took no number. Whoever was here before that is not to take it for nothing.
        if core.listeners[stream as usize].recorded_since().is_none() {
            core.ring.skip();
        }
        let last = core.ring.last();
        // Whoever has an event that others of this stream are still to get is not to get it again.
        let early = after.is_some_and(|after| after > core.listeners[stream as usize].sent);
        let delivery = if early { core.take_new(stream) } else { None };
        let mailbox = core.listeners[stream as usize].join(last);
        // Who comes back while we end must not hold up the end.
        if core.closed {
            mailbox.close();
        }
        if !state_recorded && core.is_state_recorded() {
            core.sent = core.state.clone();
            core.dirty = Slices::default();
            core.epoch += 1;
        }
        let listeners = &core.listeners[stream as usize];
        let (since, sent) = (listeners.recorded_since().unwrap_or(last), listeners.sent);
        let covered = after.filter(|after| *after >= since && core.ring.covers(*after, stream));
        let start = match (covered, after) {
            (Some(_), _) => Start::Resumed,
            (None, None) if stream == Stream::Actions => Start::Fresh { last: sent },
            // Nobody keeps what was sent of the state for the sake of actions.
            (None, _) if stream == Stream::Actions => Start::State { last: sent, state: core.state.clone() },
            (None, _) => Start::State { last: sent, state: core.sent.clone() },
        };
        drop(core);
        delivery.into_iter().for_each(Delivery::deliver);
        drop(sending);
        let missed = covered.unwrap_or(sent)..sent;
        (Subscription::new(Arc::clone(&self.shared), stream, mailbox, missed), start)
    }

    /// Holds up the sending, as a busy processor would.
    #[cfg(test)]
    pub(super) fn hold_sending(&self) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.shared.sending)
    }

    /// Ends the recording for those who have left, as a minute would.
    #[cfg(test)]
    pub(super) fn pass_a_minute(&self) {
        lock(&self.shared.core).listeners.iter_mut().for_each(Listeners::pass_a_minute);
    }

    /// Sends what is left, then ends all streams and the thread; the state still follows.
    pub fn close(&self) {
        lock(&self.shared.core).closing = true;
        self.shared.work.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Core {
    pub(super) fn is_state_recorded(&self) -> bool {
        [Stream::Events, Stream::State].iter().any(|s| self.listeners[*s as usize].recorded_since().is_some())
    }
}
