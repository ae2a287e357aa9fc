//! One worker: its state behind a lock, its feed of events, its process.
//!
//! Lock order: `operation` is held over whatever is done *to* a worker (input, stop, the notice of its
//! end), and over the store; `state` is a leaf.
use super::feed::Feed;
use super::model::{
    CreateWorkerRequest, ExecutionBackend, LastResult, Operation, Outcome, RunState, WorkerExecutionStatus,
    WorkerRef, WorkerStatus,
};
use super::process::Process;
use super::store::WorkerRecord;
use super::transcript::{Entry, Transcript};
use crate::base::lock::lock;
use std::sync::{Arc, Mutex};

/// `worker-` and at least eight hexadecimal digits.
pub(super) fn worker_id(sequence: u64) -> String {
    format!("worker-{sequence:08x}")
}

/// The number in a worker's id.
pub(super) fn worker_sequence(id: &str) -> Option<u64> {
    let sequence = u64::from_str_radix(id.strip_prefix("worker-")?, 16).ok()?;
    (sequence > 0 && worker_id(sequence) == id).then_some(sequence)
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) status: WorkerStatus,
    pub(super) execution: WorkerExecutionStatus,
    pub(super) transcript: Transcript,
    pub(super) last_event_id: u64,
    pub(super) process: Option<Arc<Process>>,
    /// That its transcript is full was told.
    pub(super) told_full: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) worker_ref: WorkerRef,
    pub(super) request: Arc<CreateWorkerRequest>,
    pub(super) operation: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) feed: Arc<Feed>,
}

/// A worker as others see it at one moment.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Its id and the runtime's.
    pub worker_ref: WorkerRef,
    /// Whether it is active.
    pub status: WorkerStatus,
    /// How it is run.
    pub execution: WorkerExecutionStatus,
    /// The request it came from.
    pub request: Arc<CreateWorkerRequest>,
    /// Items of its transcript.
    pub transcript_len: usize,
    /// The runtime's last event about it.
    pub last_event_id: u64,
}

impl Worker {
    pub(super) fn new(
        worker_ref: WorkerRef,
        request: CreateWorkerRequest,
        status: WorkerStatus,
        execution: WorkerExecutionStatus,
        last_event_id: u64,
        feed: Feed,
    ) -> Worker {
        let state = State {
            status,
            execution,
            transcript: Transcript::default(),
            last_event_id,
            process: None,
            told_full: false,
        };
        Worker {
            worker_ref,
            request: Arc::new(request),
            operation: Mutex::new(()),
            state: Mutex::new(state),
            feed: Arc::new(feed),
        }
    }

    pub(super) fn view(&self) -> WorkerView {
        let state = lock(&self.state);
        WorkerView {
            worker_ref: self.worker_ref.clone(),
            status: state.status,
            execution: state.execution.clone(),
            request: Arc::clone(&self.request),
            transcript_len: state.transcript.len(),
            last_event_id: state.last_event_id,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        lock(&self.state).status == WorkerStatus::Running
    }

    /// Its record once it has this status, since this event.
    pub(super) fn record(&self, status: WorkerStatus, last_event_id: u64) -> WorkerRecord {
        let next = lock(&self.state).transcript.len() as u64 + 1;
        WorkerRecord::new(&self.worker_ref, status, &self.request, next, last_event_id)
    }

    /// Bytes it keeps in memory.
    pub(super) fn weight(&self) -> usize {
        lock(&self.state).transcript.bytes() + self.feed.weight() + self.request.weight()
    }

    pub(super) fn push(&self, entry: Entry) {
        lock(&self.state).transcript.push(Arc::new(entry));
    }
}

impl State {
    /// Notes what came of an operation.
    pub(super) fn note(
        &mut self,
        operation: Operation,
        outcome: Outcome,
        run_state: RunState,
        message: Option<&str>,
    ) {
        self.execution.run_state = run_state;
        let message = message.map(str::to_owned);
        self.execution.last_result = Some(LastResult { operation, outcome, run_state, message });
    }

    /// Takes over what the process says of itself; whether that is news.
    pub(super) fn turn(&mut self, run_state: RunState) -> bool {
        let runs = matches!(self.execution.run_state, RunState::Idle | RunState::Busy);
        let news = runs && self.status == WorkerStatus::Running && self.execution.run_state != run_state;
        if news {
            self.execution.run_state = run_state;
        }
        news
    }
}

/// How a worker is run that nothing runs.
pub(super) fn unconnected(run_state: RunState) -> WorkerExecutionStatus {
    WorkerExecutionStatus { backend: ExecutionBackend::Unconnected, run_state, last_result: None }
}

/// How a worker is run whose process starts.
pub(super) fn connected() -> WorkerExecutionStatus {
    let (operation, outcome, run_state) = (Operation::Spawn, Outcome::Accepted, RunState::Idle);
    WorkerExecutionStatus {
        backend: ExecutionBackend::Connected,
        run_state,
        last_result: Some(LastResult { operation, outcome, run_state, message: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_eight_digits_or_more() {
        assert_eq!(worker_id(1), "worker-00000001");
        assert_eq!(worker_sequence("worker-000000ff"), Some(255));
        assert_eq!(worker_sequence("worker-1ffffffff"), Some(0x1_ffff_ffff));
        for id in
            ["worker-00000000", "worker-1", "worker-000000FF", "worker-+0000001", "x", "worker-0000000001"]
        {
            assert_eq!(worker_sequence(id), None, "{id}");
        }
    }
}
