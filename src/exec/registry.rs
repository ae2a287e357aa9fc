//! All runs: how many there may be at once, the last ones that are over, and their common end.
use super::outcome::{End, Outcome};
use super::policy;
use super::run::Run;
use super::spawn;
use super::wanted::{Host, Settings, StartError, Wanted};
use crate::base::lock::lock;
use crate::process::Signal;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Runs that are over and can still be asked for.
const KEPT_RUNS: usize = 100;
/// Bytes of output kept of all runs that are over; the oldest ones' go first.
const KEPT_OUTPUT_BYTES: usize = 16 << 20;
/// What killing takes, beyond the time a program has to end by itself.
const KILL_TIME: Duration = Duration::from_secs(3);

/// What became of a run; told once each, without a lock held. One that could not be started has only
/// its end.
#[derive(Clone, Copy, Debug)]
pub enum Change<'r> {
    /// Its process runs.
    Started(&'r Run),
    /// It is over.
    Exited(&'r Run, &'r Outcome),
}

/// Is told of every [`Change`], by the thread that made it; must not block.
type Observer = Box<dyn Fn(&Change<'_>) + Send + Sync>;

#[derive(Default)]
struct Table {
    /// Oldest first.
    runs: VecDeque<Arc<Run>>,
    /// Runs that count against the bound.
    slots: usize,
    /// Runs that are not over.
    alive: usize,
    closing: bool,
}

pub(super) struct Registry {
    pub(super) settings: Settings,
    pub(super) host: Host,
    observer: Observer,
    table: Mutex<Table>,
    /// Notified whenever a run is over.
    idle: Condvar,
}

/// The handle to all runs; cheap to clone.
#[derive(Clone)]
pub struct Exec(Arc<Registry>);

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Exec {
    /// No runs yet.
    pub fn new(settings: Settings, host: Host, observer: Observer) -> Exec {
        let (table, idle) = (Mutex::default(), Condvar::new());
        Exec(Arc::new(Registry { settings, host, observer, table, idle }))
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Starts a run. A program that cannot be started is a run too, one that is over.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, wanted: Wanted) -> Result<Arc<Run>, StartError> {
        policy::check_env(&self.0.settings.program, &wanted.env).map_err(StartError::Refused)?;
        let argv =
            policy::argv(&self.0.settings.program, wanted.args.clone()).map_err(StartError::Refused)?;
        let run = Arc::new(spawn::new_run(&argv, &wanted).map_err(StartError::System)?);
        self.0.admit(&run)?;
        spawn::start(&self.0, &run, argv, wanted);
        Ok(run)
    }

    /// The run of this id, if it is kept.
    pub fn get(&self, id: &str) -> Option<Arc<Run>> {
        lock(&self.0.table).runs.iter().find(|run| run.id == id).cloned()
    }

    /// All that are kept, newest first.
    pub fn list(&self) -> Vec<Arc<Run>> {
        lock(&self.0.table).runs.iter().rev().cloned().collect()
    }

    /// The working directory of runs without their own.
    pub fn root(&self) -> &Path {
        &self.0.host.root
    }

    /// The time between SIGTERM and SIGKILL.
    pub fn stop_grace(&self) -> Duration {
        self.0.host.stop_grace
    }

    /// Ends a run, and what one that is over has left in its group, and waits until it has ended.
    pub fn stop(&self, run: &Run) {
        let Host { processes, stop_grace, .. } = &self.0.host;
        run.request_stop(End::Stopped, *stop_grace);
        let pid = run.wait(*stop_grace + KILL_TIME, |state| state.over).pid;
        if let (Some(pid), true) = (pid, run.keeps_background) {
            processes.end_group(pid, &[(Signal::SIGTERM, *stop_grace)]);
        }
    }

    /// Lets no further run start, and tells the ones there to end: SIGTERM, and SIGKILL after `grace`.
    /// Returns at once; whoever reads a run's output still gets all of it, and its outcome.
    pub fn begin_shutdown(&self, grace: Duration) {
        let runs = {
            let mut table = lock(&self.0.table);
            table.closing = true;
            table.runs.clone()
        };
        for run in runs {
            run.request_stop(End::Shutdown, grace);
        }
    }

    /// Waits until no run is left, for `time` at most; false if there still is one.
    pub fn wait_idle(&self, time: Duration) -> bool {
        let table = lock(&self.0.table);
        let waited = self.0.idle.wait_timeout_while(table, time, |table| table.alive > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.alive == 0
    }
}

impl Registry {
    fn admit(&self, run: &Arc<Run>) -> Result<(), StartError> {
        let mut table = lock(&self.table);
        if table.closing {
            return Err(StartError::ShuttingDown);
        }
        if table.slots >= self.settings.max_concurrent {
            return Err(StartError::TooMany(self.settings.max_concurrent));
        }
        table.slots += 1;
        table.alive += 1;
        table.runs.push_back(Arc::clone(run));
        Ok(())
    }

    /// The run no longer counts against the bound.
    pub(super) fn give_slot_back(&self) {
        lock(&self.table).slots -= 1;
    }

    /// Nothing of the run is left but what is kept.
    pub(super) fn over(&self, run: &Run) {
        run.end();
        let mut table = lock(&self.table);
        table.alive -= 1;
        forget_old(&mut table.runs);
        drop(table);
        self.idle.notify_all();
    }

    pub(super) fn tell(&self, change: &Change<'_>) {
        // The pump outlives whatever an observer does.
        if catch_unwind(AssertUnwindSafe(|| (self.observer)(change))).is_err() {
            log::error!("an observer of runs panicked");
        }
    }

    /// Ends a run that has no process.
    pub(super) fn never_began(&self, run: &Run, error: String, code: i32, timed_out: bool) {
        let duration = Instant::now().saturating_duration_since(run.began);
        let outcome = Outcome {
            code,
            signal: None,
            end: None,
            error: Some(error),
            timed_out,
            truncated: false,
            duration,
        };
        self.give_slot_back();
        self.publish(run, outcome);
        self.over(run);
    }

    /// Makes a run's outcome known.
    pub(super) fn publish(&self, run: &Run, outcome: Outcome) {
        let told = outcome.clone();
        run.update(|state| {
            state.tails.iter_mut().for_each(super::tail::Tail::close);
            state.input.end();
            state.outcome = Some(outcome);
        });
        self.tell(&Change::Exited(run, &told));
    }
}

/// Forgets the oldest of the runs that are over, and the output of the oldest of those that stay, but
/// not while somebody reads it.
fn forget_old(runs: &mut VecDeque<Arc<Run>>) {
    let over = runs.iter().filter(|run| run.state().over).count();
    let mut surplus = over.saturating_sub(KEPT_RUNS);
    runs.retain(|run| {
        let goes = surplus > 0 && run.state().over;
        surplus -= usize::from(goes);
        !goes
    });
    let mut left = KEPT_OUTPUT_BYTES;
    for run in runs.iter().rev() {
        let mut state = run.state();
        if !state.over {
            continue;
        }
        let kept: usize = state.tails.iter().map(super::tail::Tail::len).sum();
        match left.checked_sub(kept) {
            Some(rest) => left = rest,
            None if state.readers == 0 => state.tails.iter_mut().for_each(super::tail::Tail::forget),
            None => {}
        }
    }
}
