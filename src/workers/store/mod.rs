//! Where the runtime's records go: nowhere, or files. A store is told of each change before anybody
//! sees it; the runtime calls it from one thread at a time.
mod fs;
mod log;
mod memory;
mod record;
mod reopen;

pub(super) use fs::FsStore;
pub(super) use memory::MemoryStore;
pub use record::RuntimeLimits;
pub(super) use record::{EventKind, EventRecord, RuntimeRecord, Severity, WorkerRecord};
pub(super) use reopen::{Restored, RestoredWorker};

use super::transcript::TranscriptItem;
use std::{fmt, io};

/// Why something was not stored.
#[derive(Debug)]
pub enum StoreError {
    /// The system refused; the detail is for the log.
    Io(io::Error),
    /// What should be there is not.
    Missing(&'static str),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io(_) => f.write_str("the runtime's store failed: an I/O error, which is in the log"),
            StoreError::Missing(what) => write!(f, "the runtime's store lacks {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        StoreError::Io(error)
    }
}

/// What a store does with each kind of record. When it returns, the record lasts as far as the store
/// can make it last.
pub(super) trait Store: Send {
    /// The runtime itself: counters, bundles, diagnostics.
    fn save_runtime(&mut self, record: &RuntimeRecord) -> Result<(), StoreError>;

    /// A worker that is new or ended.
    fn save_worker(&mut self, record: &WorkerRecord) -> Result<(), StoreError>;

    /// Something happened. `runtime` is saved first when events are about to be dropped.
    fn append_event(&mut self, event: &EventRecord, runtime: &RuntimeRecord) -> Result<(), StoreError>;

    /// Something was said.
    fn append_item(&mut self, item: &TranscriptItem) -> Result<(), StoreError>;

    /// A worker is forgotten.
    fn forget_worker(&mut self, worker_id: &str);
}
