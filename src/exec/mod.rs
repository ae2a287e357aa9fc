//! Floor 2: runs of programs that callers ask for. `policy` says which are allowed, `registry` counts
//! and keeps them, `pump` gives each a thread that reads its output and ends it in time, whoever
//! listens. Knows nothing of HTTP.
//!
//! ```text
//!  registry ──starts──> pump (a thread a run) ──bytes──> Run: two tails, its state
//!                         ^                                    │
//!                         └── stop, stdin, room in a tail ── Reader, Owner (anybody's threads)
//! ```
//!
//! Lock order: `Registry`, then a run's `State`; nothing else is taken under either, and no signal is
//! sent, no observer called and no pipe read while one is held.
mod environment;
mod finish;
mod outcome;
mod policy;
mod pump;
mod reader;
mod registry;
mod run;
mod spawn;
mod stdin;
mod tail;
mod text;
mod waiting;
mod wanted;

pub use environment::inherited;
pub use outcome::{End, Outcome};
pub use policy::{Program, Refused, argv, check_env};
pub use reader::{Batch, Gap, Piece, Reader};
pub use registry::{Change, Exec};
pub use run::{Owner, Run, Stream, TAIL_BYTES};
pub use stdin::StdinError;
pub use wanted::{Host, Settings, StartError, Wanted};
