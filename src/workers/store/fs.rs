//! The store of files. Records are written whole under a temporary name and renamed; what happens is
//! appended to logs. Everything is on disk before the call returns.
//!
//! ```text
//! ROOT/runtimes/id-{hex of the runtime's id}/runtime.json
//!                                           /events.jsonl     (events.1.jsonl: what was before)
//!                                           /workers/id-{hex of the worker's id}/worker.json
//!                                                                               /transcript.jsonl
//! ```
use super::log::{Log, open_regular, sync_dir};
use super::reopen::{self, Restored};
use super::{EventRecord, RuntimeRecord, Store, StoreError, WorkerRecord};
use crate::base::hex::hex;
use crate::workers::transcript::TranscriptItem;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the log of events, after which it begins anew; the one before is kept.
const EVENTS_BYTES: u64 = 8 * 1024 * 1024;
pub(super) const RUNTIME: &str = "runtime.json";
pub(super) const WORKER: &str = "worker.json";
pub(super) const WORKERS: &str = "workers";
pub(super) const EVENTS: &str = "events.jsonl";
pub(super) const TRANSCRIPT: &str = "transcript.jsonl";
const EARLIER_EVENTS: &str = "events.1.jsonl";

/// The files of one runtime, which nobody else writes while this is open.
#[derive(Debug)]
pub(in crate::workers) struct FsStore {
    dir: PathBuf,
    _lock: Flock<File>,
    events: Log,
    transcripts: HashMap<String, Log>,
    temporaries: u64,
}

impl FsStore {
    /// Opens or makes the files of this runtime below `root`, and reads what is there. What makes no
    /// sense is left out and told.
    ///
    /// # Errors
    /// The directory cannot be made, read or written, or another process has it open.
    pub(in crate::workers) fn open(root: &Path, runtime_id: &str) -> io::Result<(FsStore, Restored)> {
        let dir = root.join("runtimes").join(folder(runtime_id));
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join(WORKERS))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = open_regular(&mut options, &dir.join(".lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => {
                io::Error::new(ErrorKind::ResourceBusy, "another process has this runtime open")
            }
            errno => errno.into(),
        })?;
        // What was made just now is to last, up to what was there before.
        for made in [&dir, &root.join("runtimes"), root] {
            sync_dir(made)?;
        }
        let (events, transcripts, restored) = reopen::read(&dir, runtime_id)?;
        Ok((FsStore { dir, _lock: lock, events, transcripts, temporaries: 0 }, restored))
    }

    fn worker_dir(&self, worker_id: &str) -> PathBuf {
        self.dir.join(WORKERS).join(folder(worker_id))
    }

    /// Replaces a file with this record, whole or not at all.
    fn replace(&mut self, dir: &Path, name: &str, record: &impl Serialize) -> Result<(), StoreError> {
        self.temporaries += 1;
        let temporary = dir.join(format!(".{name}.tmp-{}-{}", std::process::id(), self.temporaries));
        let written = (|| {
            let mut bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
            bytes.push(b'\n');
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(name))?;
            sync_dir(dir)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        Ok(written?)
    }
}

impl Store for FsStore {
    fn save_runtime(&mut self, record: &RuntimeRecord) -> Result<(), StoreError> {
        let dir = self.dir.clone();
        self.replace(&dir, RUNTIME, record)
    }

    fn save_worker(&mut self, record: &WorkerRecord) -> Result<(), StoreError> {
        let dir = self.worker_dir(&record.worker_id);
        if !self.transcripts.contains_key(&record.worker_id) {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            sync_dir(&self.dir.join(WORKERS))?;
            let log = Log::new(dir.join(TRANSCRIPT));
            self.transcripts.insert(record.worker_id.clone(), log);
        }
        self.replace(&dir, WORKER, record)
    }

    fn append_event(&mut self, event: &EventRecord, runtime: &RuntimeRecord) -> Result<(), StoreError> {
        if self.events.len() >= EVENTS_BYTES {
            // The next event's id must survive the events it was counted from.
            self.save_runtime(runtime)?;
            fs::rename(self.dir.join(EVENTS), self.dir.join(EARLIER_EVENTS))?;
            self.events = Log::new(self.dir.join(EVENTS));
        }
        Ok(self.events.append(event)?)
    }

    fn append_item(&mut self, item: &TranscriptItem) -> Result<(), StoreError> {
        let log = self.transcripts.get_mut(&item.worker_ref.worker_id);
        Ok(log.ok_or(StoreError::Missing("the worker's transcript"))?.append(item)?)
    }

    fn forget_worker(&mut self, worker_id: &str) {
        self.transcripts.remove(worker_id);
        let dir = self.worker_dir(worker_id);
        if let Err(error) = fs::remove_dir_all(&dir) {
            log::warn!("a forgotten worker's files stay at {}: {error}", dir.display());
        }
    }
}

/// The folder of an id, whatever characters that has.
fn folder(id: &str) -> String {
    format!("id-{}", hex(id.as_bytes()))
}

/// The id of a folder.
pub(super) fn id_of(folder: &str) -> Option<String> {
    let digits = folder.strip_prefix("id-")?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let id = String::from_utf8(bytes?).ok()?;
    (!id.is_empty() && self::folder(&id) == folder).then_some(id)
}
