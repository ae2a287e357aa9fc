//! Events before they are encoded.
use super::action::Action;
use super::json::Json;
use super::patch::Change;
use super::slices::Slice;

/// An event before it is encoded.
#[derive(Debug)]
pub enum Event<'e> {
    /// A slice became another.
    Update {
        /// Its name.
        slice: Slice,
        /// How.
        change: &'e Change,
    },
    /// A run of the agent began or ended.
    Status {
        /// `started`, `completed`, `failed` or `aborted`.
        status: &'e str,
        /// The run.
        run: &'e str,
        /// Why it failed.
        error: Option<&'e str>,
    },
    /// Something an agent wants listeners to have.
    Custom {
        /// That.
        data: &'e Json,
    },
    /// Something happened.
    Action {
        /// That.
        action: &'e Action,
        /// The run it belongs to.
        run: Option<&'e str>,
    },
}

/// Makes what goes out of an event: its number, when it happened in milliseconds, itself.
pub type Encode = fn(u64, u64, &Event<'_>) -> Vec<u8>;
