//! Workers are made, are told something, and say something. Each change is stored before it can be seen,
//! and everything that is done to one worker is done in turn.
use super::commit::Commit;
use super::error::{NO_BACKEND, WorkersError};
use super::feed::Feed;
use super::model::{
    CreateWorkerRequest, Operation, Outcome, RunState, WorkerInput, WorkerIntent, WorkerRef, WorkerStatus,
};
use super::observe::ChangeKind;
use super::process::{Failure, Process};
use super::profile::ProfileSelector;
use super::programs::Program;
use super::protocol;
use super::runtime::Runtime;
use super::store::{EventKind, Severity, StoreError};
use super::talk::{DEAF, Talk};
use super::transcript::{Entry, TranscriptRole};
use super::worker::{Worker, WorkerView, connected, unconnected};
use crate::base::lock::lock;
use std::sync::Arc;

/// An accepted input.
#[derive(Clone, Debug)]
pub struct InputAck {
    /// Whose.
    pub worker_ref: WorkerRef,
    /// The worker's status.
    pub status: WorkerStatus,
    /// Its place in the transcript, from 1.
    pub transcript_sequence: u64,
    /// The runtime's event.
    pub event_id: u64,
}

impl Runtime {
    /// Makes a worker. That its process could not be started is in its state, and no error.
    ///
    /// # Errors
    /// The request makes no sense, there are too many workers, or it could not be stored.
    pub fn create(self: &Arc<Self>, request: CreateWorkerRequest) -> Result<WorkerView, WorkersError> {
        self.check_running()?;
        check_request(&request)?;
        self.check_profile(&request)?;
        let program = self.programs.of(&request.profile);
        let mut commit = self.commit.lock();
        let worker_ref = WorkerRef { runtime_id: self.id.clone(), worker_id: commit.next_worker_id() };
        if commit.stopped {
            return Err(WorkersError::RuntimeStopped(self.id.clone()));
        }
        if self.all().iter().filter(|worker| worker.is_active()).count() >= self.max_workers {
            return Err(WorkersError::ExecutionRejected {
                worker: worker_ref.worker_id,
                operation: Operation::Spawn,
                outcome: Outcome::Rejected,
                message: format!("the runtime has {} active workers already", self.max_workers),
            });
        }
        let event_id = commit.next_event_id();
        let execution = program.map_or(unconnected(RunState::Unconnected), |_| connected());
        let feed = Feed::new(Arc::clone(&self.sequence), self.first);
        let status = WorkerStatus::Running;
        let worker = Arc::new(Worker::new(worker_ref, request, status, execution, event_id, feed));
        commit.create(&worker.worker_ref, &worker.request)?;
        // Nobody does anything to it before its process runs; nor is its end told, which may be quick.
        let _operation = lock(&worker.operation);
        lock(&self.workers).insert(worker.worker_ref.worker_id.clone(), Arc::clone(&worker));
        self.count_diagnostics(&commit);
        drop(commit);
        worker.feed.publish(protocol::idle());
        // Before its process runs: what that says is told at once, by another thread.
        self.tell(ChangeKind::Created, &worker);
        if let Some(program) = program {
            self.start_process(&worker, program);
        }
        Ok(worker.view())
    }

    fn check_profile(&self, request: &CreateWorkerRequest) -> Result<(), WorkersError> {
        let profile = &request.profile;
        let refuse = |why| {
            let bundle = request.config_bundle.as_ref().map(|reference| reference.id.clone());
            Err(WorkersError::InvalidProfile { profile: profile.to_string(), bundle, why })
        };
        match &request.config_bundle {
            _ if profile.is_blank() => refuse("profile selector must not be empty"),
            Some(reference) if self.available(reference)?.declares(profile) => Ok(()),
            Some(_) => refuse("profile selector is not declared by synced config bundle"),
            None if matches!(profile, ProfileSelector::Named(_)) => {
                refuse("named profiles require a synced config bundle reference")
            }
            None => Ok(()),
        }
    }

    fn start_process(self: &Arc<Self>, worker: &Arc<Worker>, program: &Program) {
        let nofile_soft = self.processes.nofile_soft();
        let spawn = self.programs.spawn(program, &worker.worker_ref, &worker.request, nofile_soft);
        match spawn.and_then(|spawn| Process::start(&self.processes, spawn, Talk::new(self, worker))) {
            Ok(process) => lock(&worker.state).process = Some(Arc::new(process)),
            Err(Failure { outcome, message }) => {
                let run_state =
                    if outcome == Outcome::Rejected { RunState::Rejected } else { RunState::Errored };
                lock(&worker.state).note(Operation::Spawn, outcome, run_state, Some(message));
                worker.feed.publish(protocol::error(message));
                self.tell(ChangeKind::StateChanged, worker);
            }
        }
    }

    /// Tells a worker something.
    ///
    /// # Errors
    /// It makes no sense, there is no such worker, it is not running or nothing runs it, it is busy, its
    /// transcript is full, or it could not be stored. Then it was not told.
    pub fn input(&self, worker_id: &str, input: &WorkerInput) -> Result<InputAck, WorkersError> {
        self.check_running()?;
        if input.content.trim().is_empty() {
            return Err(WorkersError::Invalid("worker input content must not be empty".to_owned()));
        }
        let worker = self.find(worker_id)?;
        let _operation = lock(&worker.operation);
        self.check_running()?;
        let process = reserve(&worker, input)?;
        let accepted = self.accept(&worker, input);
        let mut state = lock(&worker.state);
        let Ok(ack) = accepted else {
            state.turn(RunState::Idle);
            return accepted;
        };
        state.note(Operation::Input, Outcome::Accepted, RunState::Busy, None);
        drop(state);
        worker.feed.publish(protocol::said_to(input));
        process.tell(protocol::input_line(input));
        self.tell(ChangeKind::InputAccepted, &worker);
        Ok(ack)
    }

    fn accept(&self, worker: &Worker, input: &WorkerInput) -> Result<InputAck, WorkersError> {
        let worker_ref = &worker.worker_ref;
        let mut commit = self.commit.lock();
        let message = format!("worker {} accepted input", worker_ref.worker_id);
        let event_id = commit.event(Some(worker_ref), EventKind::WorkerInputAccepted, message)?;
        let entry = Entry { role: input.kind.into(), content: input.content.clone(), event_id };
        let transcript_sequence = append(&mut commit, worker, entry)?;
        lock(&worker.state).last_event_id = event_id;
        Ok(InputAck {
            worker_ref: worker_ref.clone(),
            status: WorkerStatus::Running,
            transcript_sequence,
            event_id,
        })
    }

    /// A worker has said something: it becomes part of the transcript, unless it is blank or comes after the
    /// worker's end, which waits for a slow store only so long.
    pub(super) fn said(&self, worker: &Worker, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let mut commit = self.commit.lock();
        let (active, has_room, event_id) = {
            let state = lock(&worker.state);
            let active = state.status == WorkerStatus::Running;
            (active, state.transcript.has_room(text.len()), state.last_event_id)
        };
        if !active {
            return;
        }
        let id = &worker.worker_ref.worker_id;
        if has_room {
            let entry = Entry { role: TranscriptRole::Assistant, content: text.to_owned(), event_id };
            if let Err(error) = append(&mut commit, worker, entry) {
                log::error!("what worker {id} said is not in its transcript: {error:?}");
                let message = format!("what worker {id} said could not be stored");
                commit.diagnose(Severity::Error, "store.not_stored", message, &worker.worker_ref);
            }
        } else if !std::mem::replace(&mut lock(&worker.state).told_full, true) {
            let message = format!("the transcript of worker {id} is full");
            log::warn!("{message}");
            commit.diagnose(Severity::Warning, "worker.transcript_full", message, &worker.worker_ref);
        }
        self.count_diagnostics(&commit);
    }
}

/// Stores an entry, then it is in the transcript; its place there.
fn append(commit: &mut Commit, worker: &Worker, entry: Entry) -> Result<u64, StoreError> {
    // Nobody else appends: whoever does holds the commit.
    let sequence = lock(&worker.state).transcript.len() as u64 + 1;
    commit.said(&worker.worker_ref, sequence, &entry)?;
    worker.push(entry);
    Ok(sequence)
}

/// Makes the worker busy with an input, if it can be told something now.
fn reserve(worker: &Worker, input: &WorkerInput) -> Result<Arc<Process>, WorkersError> {
    let id = &worker.worker_ref.worker_id;
    let mut state = lock(&worker.state);
    if state.status != WorkerStatus::Running {
        return Err(WorkersError::Invalid(format!("worker {id} is not running")));
    }
    let Some(process) = state.process.clone() else {
        let run_state = match state.execution.run_state {
            RunState::Unconnected => RunState::Rejected,
            other => other,
        };
        state.note(Operation::Input, Outcome::Rejected, run_state, Some(NO_BACKEND));
        return Err(WorkersError::ExecutionUnavailable(id.clone()));
    };
    let refusal = if process.is_over() {
        Some((Outcome::Errored, "the worker's process has ended"))
    } else if process.is_deaf() {
        Some((Outcome::Errored, DEAF))
    } else if state.execution.run_state == RunState::Busy || !process.has_room() {
        Some((Outcome::Busy, "worker is already running"))
    } else if !state.transcript.has_room(input.content.len()) {
        Some((Outcome::Rejected, "the worker's transcript is full"))
    } else {
        None
    };
    if let Some((outcome, message)) = refusal {
        let run_state = state.execution.run_state;
        state.note(Operation::Input, outcome, run_state, Some(message));
        return Err(WorkersError::ExecutionRejected {
            worker: id.clone(),
            operation: Operation::Input,
            outcome,
            message: message.to_owned(),
        });
    }
    // Before it is told: its answer may be quick.
    state.execution.run_state = RunState::Busy;
    Ok(process)
}

fn check_request(request: &CreateWorkerRequest) -> Result<(), WorkersError> {
    let empty = |what: &str| Err(WorkersError::Invalid(format!("{what} must not be empty")));
    if matches!(&request.intent, WorkerIntent::Task { objective } if objective.trim().is_empty()) {
        return empty("task objective");
    }
    if request.requested_capabilities.iter().any(|capability| capability.name.trim().is_empty()) {
        return empty("capability name");
    }
    Ok(())
}
