//! The runtime: its workers, and everything that only looks at them. `lifecycle` and `ending` change
//! them, `bundles` has the rest.
use super::bundle::ConfigBundle;
use super::commit::Commit;
use super::error::WorkersError;
use super::feed::Feed;
use super::model::WorkerStatus;
use super::observe::{Brief, Change, ChangeKind, OnChange, Overview};
use super::programs::Programs;
use super::store::RuntimeLimits;
use super::transcript::TranscriptProjection;
use super::turns::InTurn;
use super::worker::{Worker, WorkerView};
use crate::base::lock::lock;
use crate::process::Processes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Where records go, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Backend {
    Memory,
    FsStore,
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::FsStore => "fs_store",
        }
    }
}

/// What [`Runtime::new`] joins.
pub(super) struct Parts {
    pub(super) backend: Backend,
    pub(super) commit: Commit,
    pub(super) workers: BTreeMap<String, Arc<Worker>>,
    pub(super) max_workers: usize,
    pub(super) sequence: Arc<AtomicU64>,
    pub(super) first: u64,
    pub(super) programs: Programs,
    pub(super) processes: Processes,
    pub(super) on_change: OnChange,
}

pub(super) type Bundles = BTreeMap<String, Arc<ConfigBundle>>;

/// The runtime. Lock order: a worker's `operation`, then `commit` or `on_change`, then one of the leaves.
pub struct Runtime {
    pub(super) id: String,
    display_name: Option<String>,
    backend: Backend,
    limits: RuntimeLimits,
    pub(super) max_workers: usize,
    pub(super) commit: InTurn<Commit>,
    pub(super) workers: Mutex<BTreeMap<String, Arc<Worker>>>,
    pub(super) bundles: Mutex<Bundles>,
    diagnostics: AtomicU64,
    pub(super) stopped: AtomicBool,
    pub(super) sequence: Arc<AtomicU64>,
    /// The number before the first observed event of this life.
    pub(super) first: u64,
    pub(super) programs: Programs,
    pub(super) processes: Processes,
    /// Held while a change is told.
    on_change: Mutex<OnChange>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The runtime in numbers.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its id.
    pub runtime_id: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// Where records go.
    pub backend: Backend,
    /// Whether it still takes work.
    pub running: bool,
    /// Its workers by status: running, stopped, cancelled.
    pub workers: [usize; 3],
    /// Diagnostics since its first life.
    pub diagnostic_count: u64,
    /// Bounds of answers.
    pub limits: RuntimeLimits,
}

impl Runtime {
    pub(super) fn new(parts: Parts) -> Runtime {
        let record = parts.commit.record();
        Runtime {
            id: record.runtime_id.clone(),
            display_name: record.display_name.clone(),
            backend: parts.backend,
            limits: record.limits,
            max_workers: parts.max_workers,
            bundles: Mutex::new(record.config_bundles.clone()),
            diagnostics: AtomicU64::new(record.diagnostic_count()),
            commit: InTurn::new(parts.commit),
            workers: Mutex::new(parts.workers),
            stopped: AtomicBool::new(false),
            sequence: parts.sequence,
            first: parts.first,
            programs: parts.programs,
            processes: parts.processes,
            on_change: Mutex::new(parts.on_change),
        }
    }

    /// The runtime in numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            runtime_id: self.id.clone(),
            display_name: self.display_name.clone(),
            backend: self.backend,
            running: !self.stopped.load(Ordering::Acquire),
            workers: self.counts(),
            diagnostic_count: self.diagnostics.load(Ordering::Relaxed),
            limits: self.limits,
        }
    }

    fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for worker in self.all() {
            counts[match lock(&worker.state).status {
                WorkerStatus::Running => 0,
                WorkerStatus::Stopped => 1,
                WorkerStatus::Cancelled => 2,
            }] += 1;
        }
        counts
    }

    /// All workers in few words, for the rest of the program.
    pub fn overview(&self) -> Overview {
        let [active, stopped, cancelled] = self.counts();
        let workers = self.all().into_iter().filter(|worker| worker.is_active());
        Overview { active, stopped, cancelled, workers: workers.map(|worker| Brief::of(&worker)).collect() }
    }

    /// The bounds of answers.
    pub fn limits(&self) -> RuntimeLimits {
        self.limits
    }

    /// Workers in the order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<Worker>> {
        lock(&self.workers).values().cloned().collect()
    }

    pub(super) fn find(&self, worker_id: &str) -> Result<Arc<Worker>, WorkersError> {
        lock(&self.workers).get(worker_id).cloned().ok_or_else(|| WorkersError::WorkerNotFound {
            worker: worker_id.to_owned(),
            runtime: self.id.clone(),
        })
    }

    /// Every worker, in the order of their ids.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.all().iter().map(|worker| worker.view()).collect()
    }

    /// One worker.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn worker(&self, worker_id: &str) -> Result<WorkerView, WorkersError> {
        Ok(self.find(worker_id)?.view())
    }

    /// A part of a worker's transcript.
    ///
    /// # Errors
    /// More items than an answer has, or no worker of that id.
    pub fn transcript(
        &self,
        worker_id: &str,
        start: usize,
        limit: usize,
    ) -> Result<TranscriptProjection, WorkersError> {
        let max = self.limits.max_transcript_projection_items;
        if limit > max {
            return Err(WorkersError::LimitTooLarge { limit, max });
        }
        let worker = self.find(worker_id)?;
        let part = lock(&worker.state).transcript.part(start, limit);
        Ok(part.project(&worker.worker_ref))
    }

    /// A worker's events.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn feed(&self, worker_id: &str) -> Result<Arc<Feed>, WorkersError> {
        Ok(Arc::clone(&self.find(worker_id)?.feed))
    }

    pub(super) fn check_running(&self) -> Result<(), WorkersError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(WorkersError::RuntimeStopped(self.id.clone()));
        }
        Ok(())
    }

    pub(super) fn count_diagnostics(&self, commit: &Commit) {
        self.diagnostics.store(commit.record().diagnostic_count(), Ordering::Relaxed);
    }

    /// Tells the rest of the program of a change.
    pub(super) fn tell(&self, kind: ChangeKind, worker: &Worker) {
        let on_change = lock(&self.on_change);
        on_change(&Change { kind, worker: Brief::of(worker), overview: self.overview() });
    }
}
