//! Changes on their way to the store: numbers are given out here, and what was stored here may be seen.
//! One change at a time; the lock around it is held over I/O, and nobody who only reads takes it.
use super::bundle::ConfigBundle;
use super::model::{CreateWorkerRequest, WorkerRef, WorkerStatus};
use super::store::{EventKind, EventRecord, RuntimeRecord, Severity, Store, StoreError, WorkerRecord};
use super::transcript::{Entry, item};
use super::worker::{Worker, worker_id};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Commit {
    store: Box<dyn Store>,
    record: RuntimeRecord,
    /// Set once: from then on nothing begins.
    pub(super) stopped: bool,
}

impl Commit {
    /// Begins a life of the runtime: its record is stored, and that it started.
    pub(super) fn begin(store: Box<dyn Store>, record: RuntimeRecord) -> Result<Commit, StoreError> {
        let mut commit = Commit { store, record, stopped: false };
        commit.store.save_runtime(&commit.record)?;
        commit.event(None, EventKind::RuntimeStarted, "runtime started".to_owned())?;
        Ok(commit)
    }

    pub(super) fn record(&self) -> &RuntimeRecord {
        &self.record
    }

    /// The id the next worker gets.
    pub(super) fn next_worker_id(&self) -> String {
        worker_id(self.record.next_worker_sequence)
    }

    /// The id the next event gets.
    pub(super) fn next_event_id(&self) -> u64 {
        self.record.next_event_id
    }

    /// Notes something for operators; it is stored with the next change.
    pub(super) fn diagnose(&mut self, severity: Severity, code: &str, message: String, worker: &WorkerRef) {
        self.record.diagnose(severity, code, message, Some(worker.clone()));
    }

    /// Stores a worker that begins, under the next ids of both kinds.
    pub(super) fn create(
        &mut self,
        worker: &WorkerRef,
        request: &CreateWorkerRequest,
    ) -> Result<(), StoreError> {
        let id = &worker.worker_id;
        let event_id = self.record.next_event_id;
        let mut next = self.record.clone();
        next.next_worker_sequence += 1;
        next.next_event_id += 1;
        if request.config_bundle.is_none() {
            let message = format!("worker {id} runs with the runtime's own resources");
            next.diagnose(Severity::Info, "runtime.local_default_resources", message, Some(worker.clone()));
        }
        if request.requested_capabilities.is_empty() {
            let message = format!("worker {id} asked for no capabilities");
            next.diagnose(Severity::Info, "worker.tools_less", message, Some(worker.clone()));
        }
        self.store.save_runtime(&next)?;
        // From here on its id is used up, whatever happens.
        self.record = next;
        let record = WorkerRecord::new(worker, WorkerStatus::Running, request, 1, event_id);
        let event = EventRecord {
            id: event_id,
            worker_ref: Some(worker.clone()),
            kind: EventKind::WorkerCreated,
            message: format!("worker {id} created"),
        };
        let stored =
            self.store.save_worker(&record).and_then(|()| self.store.append_event(&event, &self.record));
        if stored.is_err() {
            self.store.forget_worker(id);
        }
        stored
    }

    /// Stores that something happened; the event's id.
    pub(super) fn event(
        &mut self,
        worker_ref: Option<&WorkerRef>,
        kind: EventKind,
        message: String,
    ) -> Result<u64, StoreError> {
        let id = self.record.next_event_id;
        let event = EventRecord { id, worker_ref: worker_ref.cloned(), kind, message };
        self.store.append_event(&event, &self.record)?;
        self.record.next_event_id += 1;
        Ok(id)
    }

    /// Stores something that was said; `sequence` is its place.
    pub(super) fn said(
        &mut self,
        worker: &WorkerRef,
        sequence: u64,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        self.store.append_item(&item(worker, sequence, entry))
    }

    /// Stores that a worker ended; the event's id.
    pub(super) fn end(
        &mut self,
        worker: &Worker,
        status: WorkerStatus,
        kind: EventKind,
        message: String,
    ) -> Result<u64, StoreError> {
        self.store.save_worker(&worker.record(status, self.record.next_event_id))?;
        self.event(Some(&worker.worker_ref), kind, message)
    }

    /// Stores another set of bundles.
    pub(super) fn set_bundles(
        &mut self,
        bundles: BTreeMap<String, Arc<ConfigBundle>>,
    ) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut self.record.config_bundles, bundles);
        self.store.save_runtime(&self.record).inspect_err(|_| self.record.config_bundles = before)
    }

    /// Drops a worker's files.
    pub(super) fn forget(&mut self, worker_id: &str) {
        self.store.forget_worker(worker_id);
    }

    /// Stores what was only noted so far.
    pub(super) fn save(&mut self) -> Result<(), StoreError> {
        self.store.save_runtime(&self.record)
    }

    /// Ends this life of the runtime.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        self.event(None, EventKind::RuntimeStopped, "runtime stopped".to_owned())?;
        self.record.status = "stopped".to_owned();
        self.save()
    }
}
