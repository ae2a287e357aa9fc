//! Workers end: because they are told to, by themselves, all of them with us, and in time they are
//! forgotten.
use super::commit::Commit;
use super::error::WorkersError;
use super::feed::Closing;
use super::model::{ExecutionBackend, Operation, Outcome, RunState, WorkerRef, WorkerStatus};
use super::observe::ChangeKind;
use super::protocol;
use super::runtime::Runtime;
use super::store::{EventKind, StoreError};
use super::worker::Worker;
use crate::base::lock::lock;
use crate::process::Exit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ended workers that are remembered.
const KEPT_ENDED: usize = 256;
/// Bytes they may keep together; above either the one that ended first is forgotten.
const KEPT_ENDED_BYTES: usize = 64 * 1024 * 1024;

/// A worker that has ended, now or before.
#[derive(Clone, Debug)]
pub struct LifecycleAck {
    /// Which.
    pub worker_ref: WorkerRef,
    /// How.
    pub status: WorkerStatus,
    /// The runtime's last event about it.
    pub event_id: u64,
}

/// How a worker is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Asked to end, then killed.
    Stop,
    /// Interrupted, asked to end, then killed.
    Cancel,
}

impl Ending {
    fn operation(self) -> Operation {
        if self == Ending::Stop { Operation::Stop } else { Operation::Cancel }
    }

    fn status(self) -> WorkerStatus {
        if self == Ending::Stop { WorkerStatus::Stopped } else { WorkerStatus::Cancelled }
    }
}

impl Runtime {
    /// Ends a worker and everything in its process's group. One that has ended stays as it is.
    ///
    /// # Errors
    /// There is no such worker, its process does not end, or that it ended could not be stored.
    pub fn end(
        &self,
        worker_id: &str,
        ending: Ending,
        reason: Option<&str>,
    ) -> Result<LifecycleAck, WorkersError> {
        self.check_running()?;
        let worker = self.find(worker_id)?;
        self.end_worker(&worker, ending, reason)
    }

    fn end_worker(
        &self,
        worker: &Worker,
        ending: Ending,
        reason: Option<&str>,
    ) -> Result<LifecycleAck, WorkersError> {
        let _operation = lock(&worker.operation);
        let process = lock(&worker.state).process.clone();
        if !worker.is_active() {
            return Ok(worker.ack());
        }
        if let Some(process) = process {
            let steps = match ending {
                Ending::Stop => self.programs.stop_steps(),
                Ending::Cancel => self.programs.cancel_steps(),
            };
            if !self.processes.end_group(process.pid, &steps) {
                return Err(WorkersError::ExecutionRejected {
                    worker: worker.worker_ref.worker_id.clone(),
                    operation: ending.operation(),
                    outcome: Outcome::Errored,
                    message: "the worker's processes do not end".to_owned(),
                });
            }
            if !process.wait_over() {
                let id = &worker.worker_ref.worker_id;
                log::warn!("the last words of worker {id} take too long to store: the rest is left out");
            }
        }
        let default = if ending == Ending::Stop { "worker stopped" } else { "worker cancelled" };
        let message = reason.unwrap_or(default).to_owned();
        let mut commit = self.commit.lock();
        worker.stored_end(&mut commit, ending.status(), message)?;
        drop(commit);
        let mut state = lock(&worker.state);
        // Where nothing runs it, nothing was asked to end it.
        if state.execution.backend == ExecutionBackend::Connected {
            state.note(ending.operation(), Outcome::Accepted, RunState::Stopped, None);
        }
        drop(state);
        self.has_ended(worker, ending.status());
        Ok(worker.ack())
    }

    /// A worker's process is gone without having been told to end.
    pub(super) fn process_ended(&self, worker: &Worker, exit: Exit) {
        let _operation = lock(&worker.operation);
        if !worker.is_active() {
            return;
        }
        let clean = exit == Exit::Code(0);
        let message = format!("the worker's process {exit}");
        let mut commit = self.commit.lock();
        if let Err(error) = worker.stored_end(&mut commit, WorkerStatus::Stopped, message.clone()) {
            // It is gone all the same; opening the store again will say so, too.
            log::error!("the end of worker {} is not stored: {error:?}", worker.worker_ref.worker_id);
            lock(&worker.state).status = WorkerStatus::Stopped;
        }
        drop(commit);
        let mut state = lock(&worker.state);
        state.execution.run_state = if clean { RunState::Stopped } else { RunState::Errored };
        drop(state);
        if !clean {
            worker.feed.publish(protocol::error(&message));
        }
        self.has_ended(worker, WorkerStatus::Stopped);
    }

    fn has_ended(&self, worker: &Worker, status: WorkerStatus) {
        lock(&worker.state).process = None;
        worker.feed.publish_last(protocol::shutdown());
        let cancelled = status == WorkerStatus::Cancelled;
        self.tell(if cancelled { ChangeKind::Cancelled } else { ChangeKind::Stopped }, worker);
        self.forget_surplus();
    }

    /// Forgets those that ended first while there are too many, or too large ones.
    pub(super) fn forget_surplus(&self) {
        let mut commit = self.commit.lock();
        let mut ended: Vec<Arc<Worker>> = self.all();
        ended.retain(|worker| !worker.is_active());
        ended.sort_by_key(|worker| lock(&worker.state).last_event_id);
        let mut bytes: usize = ended.iter().map(|worker| worker.weight()).sum();
        let mut count = ended.len();
        for worker in ended {
            if count <= KEPT_ENDED && bytes <= KEPT_ENDED_BYTES {
                return;
            }
            bytes -= worker.weight().min(bytes);
            count -= 1;
            let id = &worker.worker_ref.worker_id;
            lock(&self.workers).remove(id);
            worker.feed.close(Closing::Forgotten);
            commit.forget(id);
        }
    }

    /// Ends everything: no new work, every worker's process with its group, then the observers. Blocks for
    /// the grace and a few seconds at most.
    pub fn shutdown(self: &Arc<Self>) {
        {
            let mut commit = self.commit.lock();
            if std::mem::replace(&mut commit.stopped, true) {
                return;
            }
            self.stopped.store(true, Ordering::Release);
        }
        let mut ends = Vec::new();
        for worker in self.all() {
            let end = {
                let (runtime, worker) = (Arc::clone(self), Arc::clone(&worker));
                move || runtime.end_at_shutdown(&worker)
            };
            match crate::base::thread::spawn("worker-end", end) {
                Ok(thread) => ends.push(thread),
                Err(_) => self.end_at_shutdown(&worker),
            }
        }
        for end in ends {
            let _ = end.join();
        }
        if let Err(error) = self.commit.lock().finish() {
            log::error!("the end of the worker runtime is not stored: {error:?}");
        }
        self.all().iter().for_each(|worker| worker.feed.close(Closing::Ending));
    }

    fn end_at_shutdown(&self, worker: &Worker) {
        if let Err(error) = self.end_worker(worker, Ending::Stop, Some("runtime stopped")) {
            log::error!("at the end: {error}");
        }
    }
}

impl Worker {
    fn ack(&self) -> LifecycleAck {
        let state = lock(&self.state);
        LifecycleAck {
            worker_ref: self.worker_ref.clone(),
            status: state.status,
            event_id: state.last_event_id,
        }
    }

    /// Stores that it has ended, then it has.
    pub(super) fn stored_end(
        &self,
        commit: &mut Commit,
        status: WorkerStatus,
        message: String,
    ) -> Result<(), StoreError> {
        let kind = match status {
            WorkerStatus::Cancelled => EventKind::WorkerCancelled,
            _ => EventKind::WorkerStopped,
        };
        let event_id = commit.end(self, status, kind, message)?;
        let mut state = lock(&self.state);
        (state.status, state.last_event_id) = (status, event_id);
        Ok(())
    }
}
