//! `tests/properties/rules.rs`, its rule `response`.
#![no_main]
#[path = "../../properties/rules.rs"]
#[allow(dead_code)]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::response(bytes));
