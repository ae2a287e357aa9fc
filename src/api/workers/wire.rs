//! The JSON of the worker runtime, keys in the contract's order.
use crate::workers::{
    Backend, ConfigBundle, ConfigBundleProvenance, ConfigBundleRef, InputAck, LifecycleAck, NamedRef,
    ProfileSelector, RequestedCapability, RuntimeLimits, Summary, TranscriptProjection,
    WorkerExecutionStatus, WorkerIntent, WorkerRef, WorkerStatus, WorkerView,
};
use serde::Serialize;

/// The one key around an answer.
#[derive(Serialize)]
pub(super) struct RuntimeAnswer {
    pub(super) runtime: RuntimeSummary,
}

#[derive(Serialize)]
pub(super) struct RuntimeSummary {
    runtime_id: String,
    display_name: Option<String>,
    backend: Backend,
    status: &'static str,
    worker_count: usize,
    active_worker_count: usize,
    stopped_worker_count: usize,
    cancelled_worker_count: usize,
    diagnostic_count: u64,
    limits: RuntimeLimits,
}

impl From<Summary> for RuntimeSummary {
    fn from(summary: Summary) -> Self {
        let [active, stopped, cancelled] = summary.workers;
        RuntimeSummary {
            runtime_id: summary.runtime_id,
            display_name: summary.display_name,
            backend: summary.backend,
            status: if summary.running { "running" } else { "stopped" },
            worker_count: active + stopped + cancelled,
            active_worker_count: active,
            stopped_worker_count: stopped,
            cancelled_worker_count: cancelled,
            diagnostic_count: summary.diagnostic_count,
            limits: summary.limits,
        }
    }
}

#[derive(Serialize)]
pub(super) struct BundlesAnswer<'b> {
    pub(super) bundles: Vec<BundleSummary<'b>>,
}

#[derive(Serialize)]
pub(super) struct BundleSummary<'b> {
    id: &'b str,
    digest: &'b str,
    digest_algorithm: &'static str,
    revision: &'b str,
    workspace_id: &'b str,
    created_at: &'b str,
    provenance: &'b ConfigBundleProvenance,
    profile_count: usize,
    declaration_count: usize,
}

impl<'b> From<&'b ConfigBundle> for BundleSummary<'b> {
    fn from(bundle: &'b ConfigBundle) -> Self {
        let meta = &bundle.metadata;
        BundleSummary {
            id: &meta.id,
            digest: &meta.digest,
            digest_algorithm: "sha256",
            revision: &meta.revision,
            workspace_id: &meta.workspace_id,
            created_at: &meta.created_at,
            provenance: &meta.provenance,
            profile_count: bundle.profiles.len(),
            declaration_count: bundle.declarations.len(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct AvailabilityAnswer<'b> {
    availability: Availability<'b>,
}

#[derive(Serialize)]
struct Availability<'b> {
    reference: ConfigBundleRef,
    summary: BundleSummary<'b>,
}

impl<'b> From<&'b ConfigBundle> for AvailabilityAnswer<'b> {
    fn from(bundle: &'b ConfigBundle) -> Self {
        AvailabilityAnswer {
            availability: Availability { reference: bundle.reference(), summary: bundle.into() },
        }
    }
}

#[derive(Serialize)]
pub(super) struct WorkersAnswer<'w> {
    pub(super) workers: Vec<WorkerSummary<'w>>,
}

#[derive(Serialize)]
pub(super) struct WorkerSummary<'w> {
    worker_ref: &'w WorkerRef,
    runtime_id: &'w str,
    worker_id: &'w str,
    status: WorkerStatus,
    execution: &'w WorkerExecutionStatus,
    intent: &'w WorkerIntent,
    profile: &'w ProfileSelector,
    requested_capability_count: usize,
    has_config_bundle: bool,
    transcript_len: usize,
    last_event_id: u64,
}

impl<'w> From<&'w WorkerView> for WorkerSummary<'w> {
    fn from(view: &'w WorkerView) -> Self {
        WorkerSummary {
            worker_ref: &view.worker_ref,
            runtime_id: &view.worker_ref.runtime_id,
            worker_id: &view.worker_ref.worker_id,
            status: view.status,
            execution: &view.execution,
            intent: &view.request.intent,
            profile: &view.request.profile,
            requested_capability_count: view.request.requested_capabilities.len(),
            has_config_bundle: view.request.config_bundle.is_some(),
            transcript_len: view.transcript_len,
            last_event_id: view.last_event_id,
        }
    }
}

#[derive(Serialize)]
pub(super) struct WorkerAnswer<'w> {
    worker: WorkerDetail<'w>,
}

#[derive(Serialize)]
struct WorkerDetail<'w> {
    worker_ref: &'w WorkerRef,
    runtime_id: &'w str,
    worker_id: &'w str,
    status: WorkerStatus,
    execution: &'w WorkerExecutionStatus,
    intent: &'w WorkerIntent,
    profile: &'w ProfileSelector,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_bundle: Option<&'w ConfigBundleRef>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    requested_capabilities: &'w [RequestedCapability],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    workspace_refs: &'w [NamedRef],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mount_refs: &'w [NamedRef],
    transcript_len: usize,
    last_event_id: u64,
}

impl<'w> From<&'w WorkerView> for WorkerAnswer<'w> {
    fn from(view: &'w WorkerView) -> Self {
        let request = &view.request;
        WorkerAnswer {
            worker: WorkerDetail {
                worker_ref: &view.worker_ref,
                runtime_id: &view.worker_ref.runtime_id,
                worker_id: &view.worker_ref.worker_id,
                status: view.status,
                execution: &view.execution,
                intent: &request.intent,
                profile: &request.profile,
                config_bundle: request.config_bundle.as_ref(),
                requested_capabilities: &request.requested_capabilities,
                workspace_refs: &request.workspace_refs,
                mount_refs: &request.mount_refs,
                transcript_len: view.transcript_len,
                last_event_id: view.last_event_id,
            },
        }
    }
}

#[derive(Serialize)]
pub(super) struct AckAnswer<A> {
    pub(super) ack: A,
}

#[derive(Serialize)]
pub(super) struct InputAckJson {
    worker_ref: WorkerRef,
    status: WorkerStatus,
    transcript_sequence: u64,
    event_id: u64,
}

impl From<InputAck> for InputAckJson {
    fn from(ack: InputAck) -> Self {
        let InputAck { worker_ref, status, transcript_sequence, event_id } = ack;
        InputAckJson { worker_ref, status, transcript_sequence, event_id }
    }
}

#[derive(Serialize)]
pub(super) struct LifecycleAckJson {
    worker_ref: WorkerRef,
    status: WorkerStatus,
    event_id: u64,
}

impl From<LifecycleAck> for LifecycleAckJson {
    fn from(ack: LifecycleAck) -> Self {
        let LifecycleAck { worker_ref, status, event_id } = ack;
        LifecycleAckJson { worker_ref, status, event_id }
    }
}

#[derive(Serialize)]
pub(super) struct TranscriptAnswer {
    pub(super) transcript: TranscriptProjection,
}
