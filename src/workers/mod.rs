//! Floor 3: a runtime for workers. A worker is an operating-system process that is told things, says
//! things, and ends; the runtime keeps what was said, publishes what happens to whoever observes, and
//! stores it. Knows nothing of HTTP; `api/workers` is its face.
//!
//! ```text
//!  create, input, stop ──▶ lifecycle, ending ──▶ commit ──▶ store (memory, files)
//!                             │     ▲
//!                             ▼     │ lines
//!                           process, talk ──▶ feed ──▶ observers
//! ```
mod bundle;
mod bundle_rules;
mod bundles;
mod commit;
mod cursor;
mod ending;
mod error;
mod feed;
mod lifecycle;
mod model;
mod observe;
mod open;
mod process;
mod profile;
mod programs;
mod protocol;
mod runtime;
mod store;
mod talk;
mod transcript;
mod turns;
mod worker;

pub use bundle::{
    ConfigBundle, ConfigBundleMetadata, ConfigBundleProvenance, ConfigDeclaration, ConfigProfile,
    DeclarationKind,
};
pub use cursor::Cursor;
pub use ending::{Ending, LifecycleAck};
pub use error::WorkersError;
pub use feed::{Closing, CursorFault, Event, Feed, Observing, Taken, Wake};
pub use lifecycle::InputAck;
pub use model::{
    ConfigBundleRef, CreateWorkerRequest, ExecutionBackend, InputKind, LastResult, NamedRef, Operation,
    Outcome, RequestedCapability, RunState, WorkerExecutionStatus, WorkerInput, WorkerIntent, WorkerRef,
    WorkerStatus,
};
pub use observe::{Brief, Change, ChangeKind, OnChange, Overview};
pub use open::{Settings, StoreChoice};
pub use profile::ProfileSelector;
pub use programs::{Program, Programs};
pub use runtime::{Backend, Runtime, Summary};
pub use store::{RuntimeLimits, StoreError};
pub use transcript::{TranscriptItem, TranscriptProjection, TranscriptRole};
pub use worker::WorkerView;

use worker::worker_sequence;
