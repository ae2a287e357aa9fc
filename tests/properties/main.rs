//! Bytes nobody would send on purpose, 100,000 for each rule, from seeds and a generator of our own: what
//! `tests/fuzz` searches for hours is looked at here for seconds, with nothing but Rust.
#![allow(clippy::expect_used, clippy::unwrap_used)]
mod numbers;
mod rules;

use numbers::Numbers;
use std::panic::catch_unwind;
use std::path::Path;

const CASES: usize = 100_000;
const LARGEST_BYTES: usize = 2048;

/// Pieces that matter to one parser or another.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\x7f",
    b"\xff",
    b"%2e",
    b"%2f",
    b"%25",
    b"..",
    b"/",
    b"\\",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\n",
    b"http://",
    b"*",
    b"-",
    b"18446744073709551616",
    b"ffffffffffffffff",
    b"bytes=",
    b"GET ",
    b"OPTIONS ",
    b"Bearer ",
    b"secret",
    b"{\"readOnly\":true}",
    b"{\"role\":\"admin\"}",
    b"\ni",
    b"\na",
    b"true",
    b"\"",
    b"5\r\nhello\r\n",
    b"1;a=b\r\n",
];

/// Changes a case in one to four places.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers, seeds: &[Vec<u8>]) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + 1 + numbers.below(16)).min(bytes.len());
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = numbers.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                // The rest of another.
                let other = &seeds[numbers.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
            }
            _ => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied())),
        }
    }
    bytes.truncate(LARGEST_BYTES);
}

fn holds(name: &str) {
    let rule = rules::RULES.iter().find(|rule| rule.0 == name).unwrap().1;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/properties/seeds").join(name);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 8, "{name} has seeds");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::new();
    for case in 0..CASES {
        // A few changes away from a seed, and now and then far away.
        if case % 3 == 0 {
            bytes.clone_from(&seeds[numbers.below(seeds.len())]);
        }
        if case >= seeds.len() {
            mutate(&mut bytes, &mut numbers, &seeds);
        } else {
            bytes.clone_from(&seeds[case]);
        }
        let fault = catch_unwind(|| rule(&bytes)).is_err();
        assert!(!fault, "{name}, case {case}: b\"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn heads_mean_what_a_plain_reading_means() {
    holds("head");
}

#[test]
fn chunks_decode_to_what_a_plain_reading_says() {
    holds("chunks");
}

#[test]
fn paths_stay_below_their_root() {
    holds("path");
}

#[test]
fn ranges_lie_within_their_file() {
    holds("range");
}

#[test]
fn nobody_gets_more_than_the_headers_give() {
    holds("auth");
}

#[test]
fn heads_of_answers_end_where_they_end() {
    holds("response");
}
