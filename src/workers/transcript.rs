//! What was said to a worker and by it, in order. Pure.
use super::model::{InputKind, WorkerRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Entries of one worker's transcript.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Bytes of their contents together.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that an entry costs beside its content, with two counts and the allocator's.
const PLACE_BYTES: usize = size_of::<Entry>() + size_of::<Arc<Entry>>() + 48;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum TranscriptRole {
    User,
    Assistant,
    System,
}

impl From<InputKind> for TranscriptRole {
    fn from(kind: InputKind) -> Self {
        match kind {
            InputKind::User => TranscriptRole::User,
            InputKind::System => TranscriptRole::System,
        }
    }
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) role: TranscriptRole,
    pub(super) content: String,
    /// The runtime's event it belongs to: the acceptance of an input, or for what the worker said, the
    /// last event of the worker before.
    pub(super) event_id: u64,
}

/// An entry with its place, as it stands on the wire and in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptItem {
    /// From 1, without gaps.
    pub sequence: u64,
    /// Whose transcript.
    pub worker_ref: WorkerRef,
    /// By whom.
    pub role: TranscriptRole,
    /// What.
    pub content: String,
    /// The runtime's event it belongs to.
    pub event_id: u64,
}

/// A part of a transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TranscriptProjection {
    /// Whose.
    pub worker_ref: WorkerRef,
    /// The index of the first item.
    pub start: usize,
    /// Items at most.
    pub limit: usize,
    /// Items of the whole.
    pub total_items: usize,
    /// The items.
    pub items: Vec<TranscriptItem>,
    /// Where to go on, if there is more.
    pub next_start: Option<usize>,
}

/// A worker's transcript.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
}

impl Transcript {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes it keeps in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * PLACE_BYTES
    }

    /// Whether something of this length still fits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < MAX_ENTRIES && self.bytes.saturating_add(bytes) <= MAX_BYTES
    }

    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.content.len();
        self.entries.push(entry);
    }

    /// The entries from `start` on, `limit` at most; cheap, so that it can be done under a lock.
    pub(super) fn part(&self, start: usize, limit: usize) -> Part {
        let total = self.entries.len();
        let begin = start.min(total);
        let end = begin.saturating_add(limit).min(total);
        Part { start, limit, total, begin, end, entries: self.entries[begin..end].to_vec() }
    }
}

/// Entries on their way to a client.
pub(super) struct Part {
    start: usize,
    limit: usize,
    total: usize,
    begin: usize,
    end: usize,
    entries: Vec<Arc<Entry>>,
}

impl Part {
    pub(super) fn project(self, worker_ref: &WorkerRef) -> TranscriptProjection {
        let items = self.entries.iter().zip(self.begin as u64 + 1..);
        TranscriptProjection {
            worker_ref: worker_ref.clone(),
            start: self.start,
            limit: self.limit,
            total_items: self.total,
            items: items.map(|(entry, sequence)| item(worker_ref, sequence, entry)).collect(),
            next_start: (self.end < self.total).then_some(self.end),
        }
    }
}

/// An entry with its place.
pub(super) fn item(worker_ref: &WorkerRef, sequence: u64, entry: &Entry) -> TranscriptItem {
    TranscriptItem {
        sequence,
        worker_ref: worker_ref.clone(),
        role: entry.role,
        content: entry.content.clone(),
        event_id: entry.event_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str) -> Arc<Entry> {
        Arc::new(Entry { role: TranscriptRole::User, content: content.to_owned(), event_id: 1 })
    }

    #[test]
    fn parts_say_where_to_go_on() {
        let worker_ref = WorkerRef { runtime_id: "r".to_owned(), worker_id: "w".to_owned() };
        let mut transcript = Transcript::default();
        (0..3).for_each(|n| transcript.push(entry(&n.to_string())));
        let part = |start, limit| {
            let part = transcript.part(start, limit).project(&worker_ref);
            let sequences: Vec<u64> = part.items.iter().map(|item| item.sequence).collect();
            (sequences, part.next_start)
        };
        assert_eq!(part(0, 256), (vec![1, 2, 3], None));
        assert_eq!(part(0, 1), (vec![1], Some(1)));
        assert_eq!(part(1, 2), (vec![2, 3], None));
        assert_eq!(part(1, 0), (vec![], Some(1)));
        assert_eq!(part(3, 0), (vec![], None));
        assert_eq!(part(99, 5), (vec![], None));
        assert_eq!(part(usize::MAX, usize::MAX), (vec![], None));
        assert_eq!(part(2, usize::MAX), (vec![3], None));
    }

    #[test]
    fn many_small_entries_weigh_what_they_cost() {
        let mut transcript = Transcript::default();
        (0..MAX_ENTRIES).for_each(|_| transcript.push(entry("x")));
        assert!(transcript.bytes() >= MAX_ENTRIES * size_of::<Entry>());
    }

    #[test]
    fn both_bounds_hold() {
        let mut transcript = Transcript::default();
        transcript.push(entry(&"x".repeat(MAX_BYTES - 1)));
        assert!(transcript.has_room(1) && !transcript.has_room(2));
        let mut transcript = Transcript::default();
        (0..MAX_ENTRIES).for_each(|_| transcript.push(entry("x")));
        assert!(!transcript.has_room(0));
    }
}
