//! The command-line client against a running server with a child of its own.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]
#[path = "../binary/mod.rs"]
mod binary;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod ctl;
mod exec;
mod logs;
#[cfg(feature = "archive")]
mod sync;
mod uploads;
