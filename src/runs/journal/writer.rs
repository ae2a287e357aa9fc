//! Writes the journal: the one owner of its files. What comes together is written together, so that
//! many runs share the waits for the disk.
//!
//! The order makes every crash recoverable: a run's first line stands in `runs.jsonl` before its log
//! exists; its last state is on the disk before the action that ends its log, and that before its
//! second line in `runs.jsonl`. Only then is anybody told that it ended.
use super::files::{Growing, Places};
use super::lines::{action_line, ending, record_line, state_line};
use super::{Finish, Message};
use crate::events::{Action, Json, Slices};
use crate::runs::digest::{Digest, chain};
use crate::runs::run::{Kind, Record, RunStatus, Seal};
use std::collections::HashMap;
use std::io;

/// Bytes of one log, or of states, that wait in memory at most.
const PENDING_BYTES: usize = 256 * 1024;

/// What sealing a run gave.
#[derive(Clone, Debug)]
pub(in crate::runs) struct Sealed {
    pub(in crate::runs) seal: Seal,
    /// Runs sealed so far.
    pub(in crate::runs) runs: u64,
}

/// A log that grows, and its digest.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: Growing,
    pub(super) digest: Digest,
    pub(super) kind: Kind,
    pub(super) start_ms: u64,
    pub(super) count: u64,
}

impl Log {
    /// Adds an action.
    pub(super) fn push(&mut self, action: &Action) {
        let line = action_line(self.count, action);
        self.count += 1;
        self.digest.add(&line);
        self.file.push(&line);
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) places: Places,
    pub(super) runs: Growing,
    pub(super) state: Growing,
    pub(super) approvals: Growing,
    pub(super) logs: HashMap<String, Log>,
    /// The chain after the last sealed run.
    pub(super) head: String,
    /// Sealed runs.
    pub(super) count: u64,
}

impl Writer {
    /// Writes what came together; the seals of the runs that ended, in the order of their ends.
    ///
    /// # Errors
    /// The disk's; then nothing of it counts as written.
    pub(super) fn write(&mut self, batch: &[Message]) -> io::Result<Vec<(String, Sealed)>> {
        self.begin(batch)?;
        let mut finished: Vec<&Finish> = Vec::new();
        for message in batch {
            match message {
                Message::Begin { .. } => {}
                Message::Append { id, action, .. } => self.append(id, action)?,
                Message::Approval { line, .. } => self.approvals.push(line),
                Message::Finish(finish) if self.logs.contains_key(&finish.id) => finished.push(finish),
                Message::Finish(_) => {}
            }
        }
        self.approvals.sync_if_pending()?;
        for finish in &finished {
            let state = finish.state.json(Slices::all());
            self.state.push(&state_line(&finish.id, finish.last.at_ms, &state));
            self.state.flush_if_much()?;
        }
        if !finished.is_empty() {
            // Also what was flushed above.
            self.state.sync()?;
        }
        for finish in &finished {
            self.append(&finish.id, &finish.last)?;
            if let Some(log) = self.logs.get_mut(&finish.id) {
                log.file.sync()?;
            }
        }
        let sealed = finished.iter().filter_map(|Finish { id, last, state, .. }| {
            Some((id.clone(), self.seal(id, last, &state.json(Slices::all()))?))
        });
        let sealed = sealed.collect();
        self.runs.sync_if_pending()?;
        for log in self.logs.values_mut() {
            log.file.flush()?;
        }
        Ok(sealed)
    }

    /// The first lines, then the logs they promise.
    fn begin(&mut self, batch: &[Message]) -> io::Result<()> {
        let mut new = Vec::new();
        for message in batch {
            let Message::Begin { id, kind, first, .. } = message else { continue };
            let record = Record {
                id: id.clone(),
                kind: *kind,
                start_ms: first.at_ms,
                end_ms: None,
                status: RunStatus::Running,
                action_count: 0,
                error: None,
                seal: None,
            };
            self.runs.push(&record_line(&record));
            new.push((id, *kind, first));
        }
        if new.is_empty() {
            return Ok(());
        }
        self.runs.sync()?;
        for (id, kind, first) in new {
            let file = Growing::open(&self.places.log(id))?;
            let digest = Digest::new(id);
            let mut log = Log { file, digest, kind, start_ms: first.at_ms, count: 0 };
            log.push(first);
            log.file.sync()?;
            self.logs.insert(id.clone(), log);
        }
        self.places.sync()
    }

    fn append(&mut self, id: &str, action: &Action) -> io::Result<()> {
        let Some(log) = self.logs.get_mut(id) else { return Ok(()) };
        log.push(action);
        log.file.flush_if_much()
    }

    /// Closes a run's log and adds its second line.
    pub(super) fn seal(&mut self, id: &str, last: &Action, state: &Json) -> Option<Sealed> {
        let log = self.logs.remove(id)?;
        let (status, error) = ending(&last.kind, last.payload.as_ref()).unwrap_or((RunStatus::Aborted, None));
        let digest = log.digest.finish(&state.text(), log.start_ms, last.at_ms);
        let seal = Seal { chain: chain(&self.head, &digest), digest };
        self.head.clone_from(&seal.chain);
        self.count += 1;
        self.runs.push(&record_line(&Record {
            id: id.to_owned(),
            kind: log.kind,
            start_ms: log.start_ms,
            end_ms: Some(last.at_ms),
            status,
            action_count: log.count,
            error,
            seal: Some(seal.clone()),
        }));
        Some(Sealed { seal, runs: self.count })
    }
}

impl Growing {
    fn sync_if_pending(&mut self) -> io::Result<()> {
        if self.pending() == 0 { Ok(()) } else { self.sync() }
    }

    fn flush_if_much(&mut self) -> io::Result<()> {
        if self.pending() > PENDING_BYTES { self.flush() } else { Ok(()) }
    }
}
