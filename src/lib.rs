//! A small synchronous server that wraps another web server.
//!
//! The modules in reading order, from the ground up. Imports only point down this list: a module
//! may use the floors below its own, never its own floor or one above (`tests/tidy.rs` checks).

// floor 0: the standard library's gaps, no product words
pub mod base;

// floor 1: wires and processes; and, on its own, the command-line client
#[cfg(feature = "client")]
pub mod client;
pub mod http;
pub mod logger;
pub mod metrics;
pub mod process;

// floor 2: what the product is about, each ignorant of HTTP
#[cfg(feature = "artifacts")]
pub mod artifacts;
pub mod auth;
#[cfg(feature = "runs")]
pub mod events;
pub mod exec;
pub mod files;
pub mod supervisor;

// floor 3: what uses several of them
#[cfg(feature = "runs")]
pub mod runs;
#[cfg(feature = "workers")]
pub mod workers;

// floor 4: one file a resource, and the relay
pub mod api;
pub mod relay;

// the top: flags, settings, and the one place that knows all the parts
pub mod app;
pub mod cli;
pub mod config;
