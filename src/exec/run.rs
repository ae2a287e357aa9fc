//! One run: what everybody may know of it, and what its pump is asked to do. The pump writes its
//! output and its outcome here; readers, owners and stoppers come and go.
use super::outcome::{End, Outcome};
use super::stdin::Input;
use super::tail::Tail;
use crate::base::lock::lock;
use crate::process::Pid;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Bytes kept of each of a run's two output streams.
pub const TAIL_BYTES: usize = 1 << 20;

/// One of a run's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both, in the order in which offsets are given.
    pub const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
}

pub(super) struct State {
    pub(super) pid: Option<Pid>,
    pub(super) tails: [Tail; 2],
    /// What the pump is to end the run for, and the time from SIGTERM to SIGKILL.
    pub(super) stop: Option<(End, Duration)>,
    /// Up to where the reader has come that the pump waits for.
    pub(super) held: Option<[u64; 2]>,
    /// The pump waits for that reader.
    pub(super) paused: bool,
    pub(super) readers: usize,
    pub(super) input: Input,
    pub(super) outcome: Option<Outcome>,
    /// The pump is gone.
    pub(super) over: bool,
    /// What wakes the pump, while there is one.
    bell: Option<Arc<EventFd>>,
}

impl State {
    /// Whether nothing will change any more in what a reader sees.
    pub(super) fn is_final(&self) -> bool {
        self.outcome.is_some()
    }
}

/// A run, running or over.
pub struct Run {
    /// A UUID.
    pub id: String,
    /// The program's name or path.
    pub program: String,
    /// How many arguments it got.
    pub args: usize,
    /// When it was asked for.
    pub started_at: SystemTime,
    /// It goes on when whoever started it leaves.
    pub detached: bool,
    /// What it leaves running in its group lives on.
    pub keeps_background: bool,
    pub(super) began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn new(
        id: String,
        (program, args): (String, usize),
        detached: bool,
        keeps_background: bool,
        input: Input,
    ) -> Run {
        Run {
            id,
            program,
            args,
            started_at: SystemTime::now(),
            detached,
            keeps_background,
            began: Instant::now(),
            state: Mutex::new(State {
                pid: None,
                tails: [Tail::new(TAIL_BYTES), Tail::new(TAIL_BYTES)],
                stop: None,
                held: None,
                paused: false,
                readers: 0,
                input,
                outcome: None,
                over: false,
                bell: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and wakes everybody who waits for a change.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state());
        self.changed.notify_all();
        value
    }

    /// Waits until `is_so`, or for `time`; the state then.
    pub(super) fn wait(&self, time: Duration, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.state(), time, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes the pump look up from its wait.
    pub(super) fn ring(&self) {
        let bell = self.state().bell.clone();
        if let Some(bell) = bell {
            let _ = bell.write(1);
        }
    }

    /// What the pump waits on for [`ring`](Self::ring); rung before, it is not lost.
    pub(super) fn hang_bell(&self) -> io::Result<Arc<EventFd>> {
        let bell =
            Arc::new(EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        self.state().bell = Some(Arc::clone(&bell));
        Ok(bell)
    }

    /// Nothing more happens to the run. A hundred of them are kept, and no descriptor with them.
    pub(super) fn end(&self) {
        self.update(|state| {
            state.over = true;
            state.bell = None;
        });
    }

    /// The process's number, if it was started.
    pub fn pid(&self) -> Option<i32> {
        self.state().pid.map(Pid::as_raw)
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.state().outcome.clone()
    }

    /// Bytes it has written to each stream, as far as they were read.
    pub fn written(&self) -> [u64; 2] {
        let state = self.state();
        Stream::BOTH.map(|stream| state.tails[stream as usize].end())
    }

    /// How long it has run, or ran.
    pub fn duration(&self) -> Duration {
        self.outcome().map_or_else(|| self.began.elapsed(), |outcome| outcome.duration)
    }

    /// Waits for its end, for `time` at most; false if it has none by then.
    pub fn wait_end(&self, time: Duration) -> bool {
        self.wait(time, State::is_final).is_final()
    }

    /// What is kept of a stream, and whether that is all of it.
    pub fn kept(&self, stream: Stream) -> (Vec<u8>, bool) {
        let state = self.state();
        let tail = &state.tails[stream as usize];
        let mut bytes = Vec::with_capacity(tail.len());
        let from = tail.copy(0, TAIL_BYTES, &mut bytes);
        (bytes, from == 0)
    }

    /// Asks the pump to end it; the first reason counts.
    pub(super) fn request_stop(&self, end: End, grace: Duration) {
        {
            let mut state = self.state();
            if state.over {
                return;
            }
            state.stop.get_or_insert((end, grace));
        }
        self.ring();
    }

    /// For whoever started it: until the value is dropped somebody waits for the run. If it still runs
    /// then and was not detached, it is stopped.
    pub fn own(self: &Arc<Run>, grace: Duration) -> Owner {
        Owner { run: Arc::clone(self), grace }
    }
}

/// The presence of whoever started a run.
#[derive(Debug)]
pub struct Owner {
    run: Arc<Run>,
    grace: Duration,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.run.detached && self.run.outcome().is_none() {
            self.run.request_stop(End::ClientGone, self.grace);
        }
    }
}
