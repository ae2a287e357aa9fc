//! The control routes and the flags: life of the wrapped server, files, logs, shutdown.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
#[cfg(feature = "archive")]
mod archives;
#[path = "../binary/mod.rs"]
mod binary;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod lifecycle;
mod logs;
#[cfg(feature = "page")]
mod page;
mod shutdown;
mod uploads;
