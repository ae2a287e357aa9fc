//! The store that keeps nothing: what the runtime holds is all there is.
use super::{EventRecord, RuntimeRecord, Store, StoreError, WorkerRecord};
use crate::workers::transcript::TranscriptItem;

/// Everything succeeds, nothing lasts.
pub(in crate::workers) struct MemoryStore;

impl Store for MemoryStore {
    fn save_runtime(&mut self, _: &RuntimeRecord) -> Result<(), StoreError> {
        Ok(())
    }

    fn save_worker(&mut self, _: &WorkerRecord) -> Result<(), StoreError> {
        Ok(())
    }

    fn append_event(&mut self, _: &EventRecord, _: &RuntimeRecord) -> Result<(), StoreError> {
        Ok(())
    }

    fn append_item(&mut self, _: &TranscriptItem) -> Result<(), StoreError> {
        Ok(())
    }

    fn forget_worker(&mut self, _: &str) {}
}
