//! What the rest of the program hears of workers: each change as it happens, and a summary at any time.
use super::model::{RunState, WorkerStatus};
use super::worker::Worker;
use serde::Serialize;

/// What happened to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// There is a new one.
    Created,
    /// It was told something.
    InputAccepted,
    /// It began or ended to work, or cannot.
    StateChanged,
    /// It has ended, by itself or because it was told to.
    Stopped,
    /// It was cancelled.
    Cancelled,
}

impl ChangeKind {
    /// The name of the change as a public action.
    pub fn action(self) -> &'static str {
        match self {
            ChangeKind::Created => "WORKER_CREATED",
            ChangeKind::InputAccepted => "WORKER_INPUT_ACCEPTED",
            ChangeKind::StateChanged => "WORKER_STATE_CHANGED",
            ChangeKind::Stopped => "WORKER_STOPPED",
            ChangeKind::Cancelled => "WORKER_CANCELLED",
        }
    }

    /// Every action there is.
    pub const ACTIONS: [&'static str; 5] = [
        "WORKER_CREATED",
        "WORKER_INPUT_ACCEPTED",
        "WORKER_STATE_CHANGED",
        "WORKER_STOPPED",
        "WORKER_CANCELLED",
    ];
}

/// A worker in few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Brief {
    /// Its id.
    pub worker_id: String,
    /// Whether it is active.
    pub status: WorkerStatus,
    /// What it is at.
    pub run_state: RunState,
    /// Its profile, as one word.
    pub profile: String,
    /// Items of its transcript.
    pub transcript_len: usize,
}

impl Brief {
    pub(super) fn of(worker: &Worker) -> Brief {
        let view = worker.view();
        Brief {
            worker_id: view.worker_ref.worker_id,
            status: view.status,
            run_state: view.execution.run_state,
            profile: view.request.profile.to_string(),
            transcript_len: view.transcript_len,
        }
    }
}

/// A change of one worker.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The worker after it.
    pub worker: Brief,
    /// All of them after it.
    pub overview: Overview,
}

/// Hears of changes, one at a time, so that the last overview told is the newest; on whatever thread made
/// the change. It must neither block nor ask the runtime anything.
pub type OnChange = Box<dyn Fn(&Change) + Send + Sync>;

/// All workers in few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// How many are active.
    pub active: usize,
    /// How many have stopped.
    pub stopped: usize,
    /// How many were cancelled.
    pub cancelled: usize,
    /// Those that are active, in the order of their ids.
    pub workers: Vec<Brief>,
}
