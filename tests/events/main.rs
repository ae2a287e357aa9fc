//! Events, runs, approvals and the journal.
#![cfg(feature = "runs")]
#![allow(clippy::unwrap_used)]
mod approvals;
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod journal;
mod observed;
mod runs;
mod streams;
