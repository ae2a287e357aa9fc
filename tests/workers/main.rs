//! The worker runtime.
#![cfg(feature = "workers")]
#![allow(clippy::unwrap_used)]
#[path = "../binary/mod.rs"]
mod binary;
mod processes;
mod routes;
mod state;
mod store;
mod stream;
