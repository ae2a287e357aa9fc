//! The exec gateway.
#![allow(clippy::unwrap_used)]
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod gateway;
mod refusals;
mod resume;
mod weaknesses;
