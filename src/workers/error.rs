//! Why the runtime refuses. The texts are the contract's; codes and statuses are the API's business.
use super::model::{Operation, Outcome};
use super::store::StoreError;
use std::fmt;

/// A refusal, or a failure to store.
#[derive(Debug)]
pub enum WorkersError {
    /// No worker of that id.
    WorkerNotFound {
        /// The id asked for.
        worker: String,
        /// This runtime's.
        runtime: String,
    },
    /// More items asked for than one answer has.
    LimitTooLarge {
        /// Asked for.
        limit: usize,
        /// At most.
        max: usize,
    },
    /// The request makes no sense, and why.
    Invalid(String),
    /// No bundle of that id.
    BundleMissing(String),
    /// The digest is another.
    DigestMismatch {
        /// The bundle.
        bundle: String,
        /// As asked for, or as declared.
        expected: String,
        /// As stored, or as computed.
        got: String,
    },
    /// The profile cannot be used.
    InvalidProfile {
        /// The selector, as one word.
        profile: String,
        /// The bundle it was looked up in.
        bundle: Option<String>,
        /// Why not.
        why: &'static str,
    },
    /// A declaration of a kind we do not take, or without its prefix.
    UnsupportedDeclaration {
        /// The bundle.
        bundle: String,
        /// The kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The runtime is at its end.
    RuntimeStopped(String),
    /// Nothing runs the worker.
    ExecutionUnavailable(String),
    /// What runs it, or a bound, refuses.
    ExecutionRejected {
        /// The worker.
        worker: String,
        /// What was asked.
        operation: Operation,
        /// What came of it.
        outcome: Outcome,
        /// Why.
        message: String,
    },
    /// It could not be stored; nothing was changed.
    Store(StoreError),
}

impl fmt::Display for WorkersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkersError::WorkerNotFound { worker, runtime } => {
                write!(f, "worker {worker} was not found in runtime {runtime}")
            }
            WorkersError::LimitTooLarge { limit, max } => write!(f, "limit {limit} exceeds maximum {max}"),
            WorkersError::Invalid(why) => write!(f, "invalid request: {why}"),
            WorkersError::BundleMissing(id) => write!(f, "config bundle `{id}` was not found"),
            WorkersError::DigestMismatch { bundle, expected, got } => {
                write!(f, "config bundle `{bundle}` digest mismatch: expected {expected}, got {got}")
            }
            WorkersError::InvalidProfile { profile, bundle, why } => {
                write!(f, "invalid profile selector `{profile}` for config bundle {bundle:?}: {why}")
            }
            WorkersError::UnsupportedDeclaration { bundle, kind, name } => {
                write!(f, "config bundle `{bundle}` contains unsupported declaration `{kind}` named `{name}`")
            }
            WorkersError::RuntimeStopped(runtime) => write!(f, "runtime {runtime} is stopped"),
            WorkersError::ExecutionUnavailable(worker) => {
                write!(f, "worker {worker} has no execution backend: {NO_BACKEND}")
            }
            WorkersError::ExecutionRejected { worker, operation, outcome, message } => {
                write!(f, "worker {worker} execution {operation:?} returned {outcome:?}: {message}")
            }
            WorkersError::Store(error) => error.fmt(f),
        }
    }
}

/// What is said of a worker that nothing runs.
pub(super) const NO_BACKEND: &str = "worker has no execution backend";

impl std::error::Error for WorkersError {}

impl From<StoreError> for WorkersError {
    fn from(error: StoreError) -> Self {
        WorkersError::Store(error)
    }
}
