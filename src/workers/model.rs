//! What workers are made of: requests, references and states, as they stand on wires and in stores.
//! The names of the types are part of the contract: a client sees them in the text of a refusal.
use super::profile::ProfileSelector;
use serde::{Deserialize, Serialize};

/// A worker of a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRef {
    /// The runtime's id.
    pub runtime_id: String,
    /// The worker's id.
    pub worker_id: String,
}

/// What a worker is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkerIntent {
    /// Somebody to talk to.
    Assistant {
        /// About what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    /// One piece of work.
    Task {
        /// What is to be reached; not blank.
        objective: String,
    },
    /// A part in something larger.
    Role {
        /// Which part.
        role: String,
        /// To what end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
}

/// One state of a config bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundleRef {
    /// The bundle's id.
    pub id: String,
    /// The digest of that state: 64 lower-case hexadecimal digits.
    pub digest: String,
}

/// Something a worker asks to be allowed. Recorded, not enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedCapability {
    /// What; not blank.
    pub name: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A workspace or mount by name. Recorded, not enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRef {
    /// What the worker calls it.
    pub name: String,
    /// What it is.
    pub reference: String,
}

/// A request for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateWorkerRequest {
    /// What it is for.
    pub intent: WorkerIntent,
    /// Its profile.
    pub profile: ProfileSelector,
    /// The bundle that declares the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_bundle: Option<ConfigBundleRef>,
    /// What it asks to be allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_capabilities: Vec<RequestedCapability>,
    /// Workspaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspace_refs: Vec<NamedRef>,
    /// Mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_refs: Vec<NamedRef>,
}

impl CreateWorkerRequest {
    /// Bytes of text in it, for bounds.
    pub(super) fn weight(&self) -> usize {
        serde_json::to_string(self).map_or(0, |text| text.len())
    }
}

/// Where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// From a person.
    User,
    /// From the system around the worker.
    System,
}

/// Something said to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInput {
    /// By whom.
    pub kind: InputKind,
    /// What; not blank, kept as it is.
    pub content: String,
}

/// A worker's life. Only `running` is active; the others are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum WorkerStatus {
    Running,
    Stopped,
    Cancelled,
}

/// Whether anything runs a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ExecutionBackend {
    Unconnected,
    Connected,
}

/// What the running of a worker is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum RunState {
    Unconnected,
    Idle,
    Busy,
    Rejected,
    Errored,
    Stopped,
}

/// What was asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Operation {
    Spawn,
    Input,
    Stop,
    Cancel,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Outcome {
    Accepted,
    Busy,
    Rejected,
    Errored,
}

/// The last thing asked of the backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastResult {
    /// What.
    pub operation: Operation,
    /// What came of it.
    pub outcome: Outcome,
    /// The state after it.
    pub run_state: RunState,
    /// Why, when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a worker is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerExecutionStatus {
    /// Whether anything runs it.
    pub backend: ExecutionBackend,
    /// What that is at.
    pub run_state: RunState,
    /// The last thing asked of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
}
