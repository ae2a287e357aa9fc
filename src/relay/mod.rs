//! Floor 4: passes requests to the wrapped server and its responses back, both streamed.
mod buffers;
mod bulk;
mod call;
mod client;
mod failure;
mod forward;
mod headers;
mod informational;
mod raw;
mod target;
mod tunnel;
mod turn;
mod upgrade;
mod upstream;

pub use failure::FailureReport;
pub use forward::{Relay, RelaySettings};
