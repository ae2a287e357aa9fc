//! The artifact store and its viewer.
#![cfg(feature = "artifacts")]
#![allow(clippy::unwrap_used)]
#[path = "../binary/mod.rs"]
mod binary;
mod crowds;
mod links;
mod stores;
mod tables;
mod times;
mod views;
