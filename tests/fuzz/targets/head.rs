//! `tests/properties/rules.rs`, its rule `head`.
#![no_main]
#[path = "../../properties/rules.rs"]
#[allow(dead_code)]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::head(bytes));
