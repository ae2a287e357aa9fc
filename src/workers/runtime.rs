//! The runtime: its workers and bundles, and everything that only looks at them. What changes workers
//! is in `lifecycle`.
use super::bundle::{ConfigBundle, check_reference};
use super::commit::Commit;
use super::error::WorkersError;
use super::feed::Feed;
use super::model::{ConfigBundleRef, WorkerStatus};
use super::observe::{Brief, Change, ChangeKind, OnChange, Overview};
use super::process::Programs;
use super::store::RuntimeLimits;
use super::transcript::TranscriptProjection;
use super::worker::{Worker, WorkerView};
use crate::base::lock::lock;
use crate::process::Processes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Bundles kept.
const MAX_BUNDLES: usize = 256;
/// Bytes of them together.
const MAX_BUNDLES_BYTES: usize = 16 * 1024 * 1024;

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

/// The runtime. Lock order: a worker's `operation`, `commit`, then one of the leaves.
pub struct Runtime {
    pub(super) id: String,
    display_name: Option<String>,
    backend: Backend,
    limits: RuntimeLimits,
    pub(super) max_workers: usize,
    pub(super) commit: Mutex<Commit>,
    pub(super) workers: Mutex<BTreeMap<String, Arc<Worker>>>,
    bundles: Mutex<Bundles>,
    diagnostics: AtomicU64,
    pub(super) stopped: AtomicBool,
    pub(super) sequence: Arc<AtomicU64>,
    /// The number before the first observed event of this life.
    pub(super) first: u64,
    pub(super) programs: Programs,
    pub(super) processes: Processes,
    on_change: OnChange,
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
            commit: Mutex::new(parts.commit),
            workers: Mutex::new(parts.workers),
            stopped: AtomicBool::new(false),
            sequence: parts.sequence,
            first: parts.first,
            programs: parts.programs,
            processes: parts.processes,
            on_change: parts.on_change,
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

    /// Every bundle, in the order of their ids.
    pub fn bundles(&self) -> Vec<Arc<ConfigBundle>> {
        lock(&self.bundles).values().cloned().collect()
    }

    pub(super) fn bundle(&self, id: &str) -> Result<Arc<ConfigBundle>, WorkersError> {
        lock(&self.bundles).get(id).cloned().ok_or_else(|| WorkersError::BundleMissing(id.to_owned()))
    }

    /// The bundle of this reference, if it is here in that state.
    ///
    /// # Errors
    /// The reference has not the form of one, there is no such bundle, or it is in another state.
    pub fn available(&self, reference: &ConfigBundleRef) -> Result<Arc<ConfigBundle>, WorkersError> {
        check_reference(reference)?;
        let bundle = self.bundle(&reference.id)?;
        if bundle.metadata.digest != reference.digest {
            return Err(WorkersError::DigestMismatch {
                bundle: reference.id.clone(),
                expected: reference.digest.clone(),
                got: bundle.metadata.digest.clone(),
            });
        }
        Ok(bundle)
    }

    /// Takes a bundle in the place of any other of its id.
    ///
    /// # Errors
    /// It is not one we take, there are too many, or it could not be stored.
    pub fn sync_bundle(&self, bundle: ConfigBundle) -> Result<Arc<ConfigBundle>, WorkersError> {
        self.check_running()?;
        bundle.check()?;
        let bundle = Arc::new(bundle);
        let mut commit = lock(&self.commit);
        let mut bundles = commit.record().config_bundles.clone();
        bundles.insert(bundle.metadata.id.clone(), Arc::clone(&bundle));
        let bytes: usize = bundles.values().map(|bundle| weight(bundle)).sum();
        if bundles.len() > MAX_BUNDLES || bytes > MAX_BUNDLES_BYTES {
            let why = format!(
                "the runtime keeps at most {MAX_BUNDLES} config bundles of {MAX_BUNDLES_BYTES} bytes together"
            );
            return Err(WorkersError::Invalid(why));
        }
        commit.set_bundles(bundles.clone())?;
        *lock(&self.bundles) = bundles;
        self.count_diagnostics(&commit);
        Ok(bundle)
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
        (self.on_change)(&Change { kind, worker: Brief::of(worker) });
    }
}

fn weight(bundle: &ConfigBundle) -> usize {
    serde_json::to_string(bundle).map_or(0, |text| text.len())
}
