//! What strangers see: connections, framing, limits, who may.
#![allow(clippy::expect_used, clippy::print_stderr, clippy::unwrap_used)]
mod auth;
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod framing;
mod limits;
mod streaming;
