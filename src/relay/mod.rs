//! Floor 4: passes requests to the wrapped server and its responses back, both streamed.
mod buffers;
mod call;
mod early;
mod failure;
mod forward;
mod headers;
mod target;
mod turn;
mod upstream;

pub use failure::FailureReport;
pub use forward::{Relay, RelaySettings};
