//! The records of a store, in their stored form. Field order is the file's.
use crate::workers::bundle::ConfigBundle;
use crate::workers::model::{CreateWorkerRequest, WorkerRef, WorkerStatus};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The only layout there is.
pub(super) const SCHEMA_VERSION: u32 = 1;
/// Diagnostics that are kept; the count goes on.
const MAX_DIAGNOSTICS: usize = 256;

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(in crate::workers) enum Severity {
    Info,
    Warning,
    Error,
}

/// Something an operator may want to know. Clients see the number of them only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::workers) struct Diagnostic {
    pub(in crate::workers) id: u64,
    pub(in crate::workers) severity: Severity,
    pub(in crate::workers) code: String,
    pub(in crate::workers) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::workers) worker_ref: Option<WorkerRef>,
}

/// Bounds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeLimits {
    /// Items of one transcript answer.
    pub max_transcript_projection_items: usize,
    /// Events written to an observer at a time.
    pub max_event_batch_items: usize,
}

/// `runtime.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::workers) struct RuntimeRecord {
    pub(super) schema_version: u32,
    pub(in crate::workers) runtime_id: String,
    pub(in crate::workers) display_name: Option<String>,
    backend: String,
    pub(in crate::workers) status: String,
    pub(in crate::workers) limits: RuntimeLimits,
    pub(in crate::workers) next_worker_sequence: u64,
    pub(in crate::workers) next_event_id: u64,
    pub(in crate::workers) next_diagnostic_id: u64,
    #[serde(default, with = "shared_bundles")]
    pub(in crate::workers) config_bundles: BTreeMap<String, Arc<ConfigBundle>>,
    #[serde(default)]
    pub(in crate::workers) diagnostics: VecDeque<Diagnostic>,
    /// How often the runtime was opened before: observed events of one life are told from another's.
    #[serde(default)]
    pub(in crate::workers) earlier_lives: u64,
}

impl RuntimeRecord {
    /// A runtime without a past.
    pub(in crate::workers) fn new(runtime_id: &str, backend: &str, limits: RuntimeLimits) -> RuntimeRecord {
        RuntimeRecord {
            schema_version: SCHEMA_VERSION,
            runtime_id: runtime_id.to_owned(),
            display_name: None,
            backend: backend.to_owned(),
            status: "running".to_owned(),
            limits,
            next_worker_sequence: 1,
            next_event_id: 1,
            next_diagnostic_id: 1,
            config_bundles: BTreeMap::new(),
            diagnostics: VecDeque::new(),
            earlier_lives: 0,
        }
    }

    /// Notes something an operator may want to know.
    pub(in crate::workers) fn diagnose(
        &mut self,
        severity: Severity,
        code: &str,
        message: String,
        worker_ref: Option<WorkerRef>,
    ) {
        let id = self.next_diagnostic_id;
        self.next_diagnostic_id += 1;
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            self.diagnostics.pop_front();
        }
        self.diagnostics.push_back(Diagnostic { id, severity, code: code.to_owned(), message, worker_ref });
    }

    /// How many there were.
    pub(in crate::workers) fn diagnostic_count(&self) -> u64 {
        self.next_diagnostic_id.saturating_sub(1)
    }
}

/// serde shares nothing by itself, so that nobody is surprised; here each bundle stands once.
mod shared_bundles {
    use super::{Arc, BTreeMap, ConfigBundle};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bundles: &BTreeMap<String, Arc<ConfigBundle>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(bundles.iter().map(|(id, bundle)| (id, bundle.as_ref())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Arc<ConfigBundle>>, D::Error> {
        let bundles = BTreeMap::<String, ConfigBundle>::deserialize(deserializer)?;
        Ok(bundles.into_iter().map(|(id, bundle)| (id, Arc::new(bundle))).collect())
    }
}

/// `worker.json`. The two numbers are those of its last writing; the transcript may know better.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::workers) struct WorkerRecord {
    schema_version: u32,
    pub(in crate::workers) worker_ref: WorkerRef,
    pub(in crate::workers) worker_id: String,
    pub(in crate::workers) status: WorkerStatus,
    pub(in crate::workers) request: CreateWorkerRequest,
    pub(in crate::workers) next_transcript_sequence: u64,
    pub(in crate::workers) last_event_id: u64,
}

impl WorkerRecord {
    pub(in crate::workers) fn new(
        worker_ref: &WorkerRef,
        status: WorkerStatus,
        request: &CreateWorkerRequest,
        next_transcript_sequence: u64,
        last_event_id: u64,
    ) -> WorkerRecord {
        WorkerRecord {
            schema_version: SCHEMA_VERSION,
            worker_ref: worker_ref.clone(),
            worker_id: worker_ref.worker_id.clone(),
            status,
            request: request.clone(),
            next_transcript_sequence,
            last_event_id,
        }
    }

    /// Whether it is the record of this worker, in a layout we know.
    pub(super) fn is_of(&self, worker_ref: &WorkerRef) -> bool {
        self.schema_version == SCHEMA_VERSION
            && self.worker_ref == *worker_ref
            && self.worker_id == worker_ref.worker_id
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)]
pub(in crate::workers) enum EventKind {
    RuntimeStarted,
    RuntimeStopped,
    WorkerCreated,
    WorkerInputAccepted,
    WorkerStopped,
    WorkerCancelled,
}

/// A line of `events.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::workers) struct EventRecord {
    pub(in crate::workers) id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::workers) worker_ref: Option<WorkerRef>,
    pub(in crate::workers) kind: EventKind,
    pub(in crate::workers) message: String,
}
