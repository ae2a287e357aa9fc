//! What could not be sent, or deleted, while everything else was: it is told once, until the file or the
//! reason is another one, and tried again with the next change.
use super::failure::{Failure, Refusal};
use super::output::note;
use super::scan::{Snapshot, State};
use std::collections::BTreeMap;

/// Lines of one round.
const LINES: usize = 10;

/// Paths with the reason in words.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// In this round.
    now: BTreeMap<String, String>,
    /// In the last one, and how the file was then.
    before: BTreeMap<String, (Option<State>, String)>,
}

/// Whether a failure is about what was to be sent or deleted, and the next may do better: not one about
/// us or the server.
pub(super) fn is_about_one(failure: &Failure) -> bool {
    match failure {
        Failure::Local(_) => true,
        Failure::Refused(Refusal { status: 400 | 409 | 413, code, .. }) => code.is_some(),
        Failure::Refused(Refusal { status: 403, code: Some(code), .. }) => {
            ["denied", "outside_root"].contains(&&**code)
        }
        _ => false,
    }
}

impl Refused {
    /// Begins a round.
    pub(super) fn begin(&mut self) {
        self.now.clear();
    }

    /// `what` was not done to it.
    pub(super) fn add(&mut self, path: &str, what: &str, failure: &Failure) {
        self.now.insert(path.to_owned(), format!("{path} is not {what}: {failure}"));
    }

    /// Ends a round: tells what is new in it. What the server has then, as far as it can be known from what
    /// is here, and whether it has to be asked all the same.
    pub(super) fn end(&mut self, here: &Snapshot) -> (Snapshot, bool) {
        let mut there = here.clone();
        let mut ask = false;
        let mut told = 0;
        let mut before = BTreeMap::new();
        for (path, text) in std::mem::take(&mut self.now) {
            ask |= !there.forget(&path);
            let entry = (here.files.get(&path).copied(), text);
            if self.before.get(&path) != Some(&entry) {
                told += 1;
                if told <= LINES {
                    note(&entry.1);
                }
            }
            before.insert(path, entry);
        }
        if told > LINES {
            note(format_args!("and so with {} more", told - LINES));
        }
        self.before = before;
        (there, ask)
    }
}
