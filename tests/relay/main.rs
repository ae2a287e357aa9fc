//! The relay: requests, answers, tunnels, and what is held while the wrapped server restarts.
#![allow(clippy::unwrap_used)]
mod bad_upstream;
#[path = "../binary/mod.rs"]
mod binary;
mod bulk;
#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod hold;
mod informational;
mod requests;
mod responses;
mod restart_load;
mod tunnel;
mod tunnel_life;
