//! Floor 1: the front. Accepts connections, reads requests strictly, runs a [`Service`] on a pool of
//! threads, writes responses. Knows nothing of the wrapped server or of any route.
//!
//! ```text
//! clients ──> listener thread ──(complete heads)──> worker pool ──> Service
//!                  ^                                    │
//!                  └──── idle, parked, closing ─────────┘
//! ```
mod accept;
#[cfg(feature = "workers")]
mod bell;
mod body;
mod buffer;
mod chunked;
mod conn;
mod copy_error;
mod date;
mod door;
mod doorman;
mod error;
mod exchange;
#[cfg(feature = "workers")]
mod handshake;
mod head;
mod head_rules;
pub mod limits;
mod listener;
mod memory;
mod meter;
mod overrun;
mod pool;
mod queue;
mod rate;
mod request_id;
mod response;
mod response_head;
mod scan;
mod scheduling;
mod seat;
mod server;
mod slab;
mod socket;
mod splice;
pub mod sse;
mod streams;
mod surplus;
#[cfg(test)]
mod tests;
mod unsent;
mod waiting;
#[cfg(feature = "workers")]
mod websocket;
mod weight;
mod worker;

#[cfg(feature = "workers")]
pub use bell::Bell;
pub use body::{BodyError, BodyReader};
pub use buffer::{Buffer, FIRST_BYTES};
pub use chunked::{ChunkError, Decoder};
pub use conn::{Attempts, Role};
pub use copy_error::CopyError;
pub use error::HttpError;
pub use exchange::{Exchange, Served, Service};
#[cfg(feature = "workers")]
pub use handshake::{NoHandshake, handshake_key};
pub use head::{Framing, Head, HeadError, Method, Version, list_elements};
pub use head_rules::parse_length;
pub use limits::{CONTROL_CONNECTIONS, Limits};
pub use listener::bind;
pub use meter::{BUCKETS_US, Class, Counted, Meter, Record, Stats};
pub use request_id::{REQUEST_ID, REQUEST_ID_BYTES};
pub use response::{Body, Response, ResponseWriter, reason};
pub use response_head::{Length, ResponseHead, body_length, read_response_head, response_head_length};
pub use scan::{Scan, leading_empty_lines, scan};
pub use seat::Seat;
pub use server::{Resume, Server};
#[cfg(any(feature = "runs", feature = "workers"))]
pub use socket::bound_send_buffer;
pub use socket::{
    IO_TICK, Peek, Readiness, begin_connect, close_with_reset, finish_connect, peek, peer_gone, wait,
};
#[cfg(feature = "workers")]
pub use websocket::{CloseReason, Received, WebSocket};
