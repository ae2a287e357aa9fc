//! What happens, as actions through one reducer, and who listens. Knows nothing of HTTP, nor of whom the
//! actions come from; runs (floor 3) and the composition root dispatch them.
mod action;
mod bus;
mod event;
mod json;
mod mailbox;
mod patch;
mod ring;
mod slices;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod tick;

pub use action::{Action, is_kind, is_ours, now_ms};
pub use bus::{Bus, BusCounts, BusSettings};
pub use event::{Encode, Event};
pub use json::{DEPTH, Json, write_string};
pub use mailbox::Next;
pub use patch::{Change, Patches, change};
pub use ring::{Frame, Stream};
pub use slices::{Slice, Slices};
pub use state::State;
pub use subscription::{Start, Subscription};

/// Whether listeners get the action itself. What an agent writes to its stderr is for its log, and the
/// journal's own progress for the state.
fn is_public(action: &Action) -> bool {
    !matches!(action.kind.as_ref(), "AGENT_STDERR" | "JOURNAL_SEALED")
}
