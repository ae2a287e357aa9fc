//! What operators and their programs read: metrics, ids, the access log; and tickets.
#![allow(clippy::expect_used, clippy::unwrap_used)]
mod access;
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod exposition;
mod ids;
mod metrics;
#[cfg(feature = "openapi")]
mod openapi;
mod tickets;
