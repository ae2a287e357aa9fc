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
#[allow(dead_code)]
#[path = "../properties/numbers.rs"]
mod numbers;
#[allow(dead_code)]
#[path = "../properties/rules.rs"]
mod rules;
mod smuggling;
mod streaming;
