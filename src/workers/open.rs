//! How a runtime begins: from nothing, or from what an earlier life stored.
use super::commit::Commit;
use super::feed::Feed;
use super::model::{RunState, WorkerStatus};
use super::observe::{ChangeKind, OnChange};
use super::programs::Programs;
use super::runtime::{Backend, Parts, Runtime};
use super::store::{
    FsStore, MemoryStore, Restored, RestoredWorker, RuntimeLimits, RuntimeRecord, Severity, Store,
};
use super::worker::{Worker, unconnected};
use crate::process::Processes;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Items of one transcript answer, and events written to an observer at a time, unless told otherwise.
const LIMIT: usize = 256;
/// Bits of an observed event's number; above them stands which life of the runtime it is from.
const LIFE_SHIFT: u32 = 32;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// Nowhere.
    Memory,
    /// Files below this directory.
    Fs(PathBuf),
}

/// What the runtime is told at its start. What is not said is as it was stored, or the default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its id; not blank.
    pub runtime_id: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// Items of one transcript answer.
    pub max_transcript_items: Option<usize>,
    /// Events written to an observer at a time.
    pub max_event_batch: Option<usize>,
    /// Active workers.
    pub max_workers: usize,
    /// Where records go.
    pub store: StoreChoice,
    /// What runs workers.
    pub programs: Programs,
}

impl Runtime {
    /// Begins the runtime. Workers of an earlier life that still ran have stopped; what is broken in the
    /// store is left out. Both are diagnostics, and in the log.
    ///
    /// # Errors
    /// The store cannot be opened or written.
    pub fn open(settings: Settings, processes: Processes, on_change: OnChange) -> io::Result<Arc<Runtime>> {
        let id = settings.runtime_id.as_str();
        let (store, restored): (Box<dyn Store>, _) = match &settings.store {
            StoreChoice::Memory => (Box::new(MemoryStore), Restored::default()),
            StoreChoice::Fs(root) => {
                let (store, restored) = FsStore::open(root, id)?;
                (Box::new(store), restored)
            }
        };
        let backend = if settings.store == StoreChoice::Memory { Backend::Memory } else { Backend::FsStore };
        let Restored { runtime, workers, last_event_id, last_worker_sequence, problems } = restored;
        let is_new = runtime.is_none() && last_event_id == 0;
        let limits = RuntimeLimits { max_transcript_projection_items: LIMIT, max_event_batch_items: LIMIT };
        let mut record = runtime.unwrap_or_else(|| RuntimeRecord::new(id, backend.name(), limits));
        record.status = "running".to_owned();
        record.next_event_id = record.next_event_id.max(last_event_id + 1);
        record.next_worker_sequence = record.next_worker_sequence.max(last_worker_sequence + 1);
        record.earlier_lives += u64::from(!is_new);
        record.display_name = settings.display_name.or(record.display_name);
        let limits = &mut record.limits;
        limits.max_transcript_projection_items =
            settings.max_transcript_items.unwrap_or(limits.max_transcript_projection_items);
        limits.max_event_batch_items = settings.max_event_batch.unwrap_or(limits.max_event_batch_items);
        for problem in problems {
            log::warn!("the workers' store: {}", problem.message);
            record.diagnose(Severity::Warning, problem.code, problem.message, problem.worker_ref);
        }
        let first = record.earlier_lives << LIFE_SHIFT;
        let sequence = Arc::new(AtomicU64::new(first));
        let mut commit = Commit::begin(store, record).map_err(io::Error::other)?;
        let mut restored = BTreeMap::new();
        for worker in workers {
            let worker = restore(worker, Feed::new(Arc::clone(&sequence), first));
            restored.insert(worker.worker_ref.worker_id.clone(), Arc::new(worker));
        }
        let stopped = stop_restored(&mut commit, &restored)?;
        let runtime = Arc::new(Runtime::new(Parts {
            backend,
            commit,
            workers: restored,
            max_workers: settings.max_workers,
            sequence,
            first,
            programs: settings.programs,
            processes,
            on_change,
        }));
        runtime.forget_surplus();
        stopped.iter().for_each(|worker| runtime.tell(ChangeKind::Stopped, worker));
        Ok(runtime)
    }
}

fn restore(restored: RestoredWorker, feed: Feed) -> Worker {
    let RestoredWorker { record, entries } = restored;
    let worker = Worker::new(
        record.worker_ref,
        record.request,
        record.status,
        unconnected(RunState::Stopped),
        record.last_event_id,
        feed,
    );
    entries.into_iter().for_each(|entry| worker.push(entry));
    worker
}

/// Whatever ran has ended with the earlier life; which those are.
fn stop_restored(
    commit: &mut Commit,
    workers: &BTreeMap<String, Arc<Worker>>,
) -> io::Result<Vec<Arc<Worker>>> {
    let ran: Vec<Arc<Worker>> = workers.values().filter(|worker| worker.is_active()).cloned().collect();
    for worker in &ran {
        let message = format!("worker {} ended with the runtime's earlier life", worker.worker_ref.worker_id);
        log::warn!("{message}");
        commit.diagnose(Severity::Warning, "worker.stopped_by_restart", message.clone(), &worker.worker_ref);
        worker.stored_end(commit, WorkerStatus::Stopped, message).map_err(io::Error::other)?;
    }
    commit.save().map_err(io::Error::other)?;
    Ok(ran)
}
