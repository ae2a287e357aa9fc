//! What a log says of its run, and whether the run's second line says the same.
use crate::events::Action;
use crate::runs::digest::Digest;
use crate::runs::journal::ending;
use crate::runs::run::{Kind, Record, RunStatus};

/// What a log says of its run.
pub(super) struct Log {
    pub(super) first: Option<Action>,
    pub(super) last: Option<Action>,
    pub(super) count: u64,
    pub(super) digest: Digest,
}

impl Log {
    pub(super) fn new(id: &str) -> Log {
        Log { first: None, last: None, count: 0, digest: Digest::new(id) }
    }

    /// Adds an action with its line.
    pub(super) fn add(&mut self, line: &str, action: Action) {
        self.digest.add(line);
        self.count += 1;
        self.first.get_or_insert_with(|| action.clone());
        self.last = Some(action);
    }

    /// Whether it begins as the record says. A run whose log was lost with its server has its end alone.
    pub(super) fn begins_as(&self, record: &Record) -> bool {
        let Some(first) = &self.first else { return false };
        let begun = Kind::begun_by(&first.kind) == Some(record.kind) && first.at_ms == record.start_ms;
        begun || self.count == 1 && first.kind == "RUNTIME_EXECUTION_ABORTED"
    }

    pub(super) fn end_ms(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.at_ms)
    }

    /// The digest of the run, with the times of its log: those of the record may be what was changed.
    pub(super) fn digest(&self, state: &str, record: &Record) -> String {
        let begun = self.first.as_ref().filter(|first| Kind::begun_by(&first.kind).is_some());
        let start_ms = begun.map_or(record.start_ms, |first| first.at_ms);
        self.digest.clone().finish(state, start_ms, self.end_ms().unwrap_or(0))
    }

    /// What of the record is not as the log says.
    pub(super) fn misfit(&self, record: &Record) -> Option<&'static str> {
        let ending = self.last.as_ref().and_then(|last| ending(&last.kind, last.payload.as_ref()));
        let (status, error) = ending.unwrap_or((RunStatus::Running, None));
        [
            (!self.begins_as(record), "the beginning"),
            (self.count != record.action_count, "the number of actions"),
            (status != record.status, "the status"),
            (error != record.error, "the error"),
            (self.end_ms() != record.end_ms, "the end"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}
