//! The bus: actions in, the state and three streams of events out.
//!
//! An action changes the state at once. Who follows the state gets the changes of a slice since it was
//! last sent, every 50 ms at most; one thread makes them, once for everybody. When nobody listens, nor
//! did a minute ago, nothing is made at all.
//!
//! Lock order: `core` is a leaf. Encoding a small event happens under it, nothing that waits does.
use super::action::Action;
use super::json::Json;
use super::patch::{self, Change};
use super::ring::{EventRing, Frame, Stream, Streams};
use super::state::{Slice, Slices, State};
use super::subscription::{Counts, Start, Subscription};
use crate::base::lock::lock;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The least time between two rounds of sending: 20 a second.
const TICK: Duration = Duration::from_millis(50);
/// Bytes of the kept events together.
const RING_BYTES: usize = 4 * 1024 * 1024;
/// How long after its last subscriber left a stream's events are still kept for one who comes back.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Numbers of events a millisecond may use up, so that those of a later life are always higher.
const NUMBERS_PER_MS: u64 = 1000;

/// An event before it is encoded.
#[derive(Debug)]
pub enum Event<'e> {
    /// A slice became another.
    Update {
        /// Its name.
        slice: Slice,
        /// How.
        change: &'e Change,
    },
    /// A run of the agent began or ended.
    Status {
        /// `started`, `completed`, `failed` or `aborted`.
        status: &'e str,
        /// The run.
        run: &'e str,
        /// Why it failed.
        error: Option<&'e str>,
    },
    /// Something an agent wants listeners to have.
    Custom {
        /// That.
        data: &'e Json,
    },
    /// Something happened.
    Action {
        /// That.
        action: &'e Action,
        /// The run it belongs to.
        run: Option<&'e str>,
    },
}

/// Makes what goes out of an event: its number, when it happened in milliseconds, itself.
pub type Encode = fn(u64, u64, &Event<'_>) -> Vec<u8>;

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

pub(super) struct Core {
    state: State,
    /// The state as subscribers know it, while it is recorded.
    sent: State,
    /// Slices whose state differs from what was sent.
    dirty: Slices,
    pub(super) ring: EventRing,
    pub(super) counts: Counts,
    /// Streams with events nobody was woken for.
    news: [bool; 3],
    /// Counts the times recording of the state began.
    epoch: u64,
    /// Told to end: one more round.
    closing: bool,
    pub(super) closed: bool,
}

pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// Wakes the thread `events`.
    work: Condvar,
    /// Wakes the subscribers of each stream.
    pub(super) arrived: [Condvar; 3],
    settings: BusSettings,
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
        let last = super::action::now_ms().saturating_mul(NUMBERS_PER_MS);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                state: State::default(),
                sent: State::default(),
                dirty: Slices::default(),
                ring: EventRing::new(settings.ring, RING_BYTES, last),
                counts: Counts::default(),
                news: [false; 3],
                epoch: 0,
                closing: false,
                closed: false,
            }),
            work: Condvar::new(),
            arrived: Default::default(),
            settings,
        });
        let for_thread = Arc::clone(&shared);
        let thread = crate::base::thread::spawn("events", move || for_thread.send_changes())?;
        Ok(Bus { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Changes the state as the action says and tells the listeners. Never waits.
    pub fn dispatch(&self, action: &Action, run: Option<&str>) {
        let mut core = lock(&self.shared.core);
        let touched = core.state.reduce(action);
        core.dirty = core.dirty.or(touched.and(self.shared.settings.streamed));
        if super::is_public(action) {
            self.push(&mut core, Streams::ACTION, action.at_ms, &Event::Action { action, run });
        }
        self.shared.wake_if_needed(&mut core);
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
        self.shared.wake_if_needed(&mut core);
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

    /// Listeners now, of all streams.
    pub fn subscribers(&self) -> usize {
        Stream::ALL.iter().map(|stream| lock(&self.shared.core).counts.subscribers(*stream)).sum()
    }

    /// Begins to listen: to what comes after event number `after`, if everything since is still kept,
    /// else from now on.
    pub fn subscribe(&self, stream: Stream, after: Option<u64>) -> (Subscription, Start) {
        let mut core = lock(&self.shared.core);
        let state_recorded = core.is_state_recorded();
        let last = core.ring.last();
        core.counts.join(stream, last);
        if !state_recorded && core.is_state_recorded() {
            core.sent = core.state.clone();
            core.dirty = Slices::default();
            core.epoch += 1;
        }
        let since = core.counts.recorded_since(stream).unwrap_or(last);
        let covered = after.filter(|after| *after >= since && core.ring.covers(*after, stream));
        let start = match (covered, after) {
            (Some(_), _) => Start::Resumed,
            (None, None) if stream == Stream::Actions => Start::Fresh { last },
            // Nobody keeps what was sent of the state for the sake of actions.
            (None, _) if stream == Stream::Actions => Start::State { last, state: core.state.clone() },
            (None, _) => Start::State { last, state: core.sent.clone() },
        };
        let seen = core.counts.pushed(stream);
        drop(core);
        (Subscription::new(Arc::clone(&self.shared), stream, covered.unwrap_or(last), seen), start)
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
    fn is_state_recorded(&self) -> bool {
        [Stream::Events, Stream::State].iter().any(|s| self.counts.recorded_since(*s).is_some())
    }
}

impl Shared {
    /// Numbers and keeps an event, if somebody listens or did a moment ago.
    fn push(&self, core: &mut Core, streams: Streams, at_ms: u64, event: &Event<'_>) {
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

    fn wake_if_needed(&self, core: &mut Core) {
        if core.news.contains(&true) || !core.dirty.is_empty() && core.is_state_recorded() {
            self.work.notify_one();
        }
    }

    /// The thread `events`: every tick in which something happened it makes the changes of the slices
    /// and wakes who waits.
    fn send_changes(&self) {
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
                    let at_ms = super::action::now_ms();
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
