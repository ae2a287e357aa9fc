//! Reads what an earlier life left in the files: torn ends are cut, a broken worker is left out, and
//! each such thing is told. Nothing that is merely broken keeps the runtime from starting.
use super::fs::{EVENTS, RUNTIME, TRANSCRIPT, WORKER, WORKERS, id_of};
use super::log::{Log, open_regular};
use super::record::{EventRecord, RuntimeRecord, SCHEMA_VERSION, WorkerRecord};
use crate::workers::model::WorkerRef;
use crate::workers::transcript::{Entry, TranscriptItem};
use crate::workers::worker_sequence;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Bytes of a record's file: bundles of the largest size, and then some.
const RECORD_BYTES: u64 = 256 * 1024 * 1024;

/// A worker of an earlier life.
#[derive(Debug)]
pub(in crate::workers) struct RestoredWorker {
    pub(in crate::workers) record: WorkerRecord,
    pub(in crate::workers) entries: Vec<Entry>,
}

/// Something that was broken.
#[derive(Debug)]
pub(in crate::workers) struct Problem {
    pub(in crate::workers) code: &'static str,
    pub(in crate::workers) message: String,
    pub(in crate::workers) worker_ref: Option<WorkerRef>,
}

/// What was read.
#[derive(Debug, Default)]
pub(in crate::workers) struct Restored {
    pub(in crate::workers) runtime: Option<RuntimeRecord>,
    /// In the order of their ids.
    pub(in crate::workers) workers: Vec<RestoredWorker>,
    /// The highest ids seen anywhere, those of left-out workers included.
    pub(in crate::workers) last_event_id: u64,
    pub(in crate::workers) last_worker_sequence: u64,
    pub(in crate::workers) problems: Vec<Problem>,
}

impl Restored {
    fn note(&mut self, code: &'static str, message: String, worker_ref: Option<&WorkerRef>) {
        self.problems.push(Problem { code, message, worker_ref: worker_ref.cloned() });
    }
}

pub(super) type Read3 = (Log, HashMap<String, Log>, Restored);

pub(super) fn read(dir: &Path, runtime_id: &str) -> io::Result<Read3> {
    let mut restored = Restored::default();
    remove_temporaries(dir);
    read_runtime(dir, runtime_id, &mut restored)?;
    let mut last = 0;
    let mut open = || {
        Log::open(dir.join(EVENTS), |event: EventRecord| -> Option<()> {
            last = last.max(event.id);
            None
        })
    };
    let (events, lines) = match open() {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            set_aside(dir, EVENTS, &error.to_string(), &mut restored)?;
            open()?
        }
        opened => opened?,
    };
    restored.last_event_id = last;
    if lines.cut > 0 {
        restored.note("store.torn_line_cut", format!("{} bytes cut from the event log", lines.cut), None);
    }
    if lines.broken > 0 {
        restored.note("store.broken_lines", format!("{} broken lines in the event log", lines.broken), None);
    }
    let mut transcripts = HashMap::new();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(dir.join(WORKERS))?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        read_worker(&folder, runtime_id, &mut transcripts, &mut restored)?;
    }
    restored.workers.sort_by(|a, b| a.record.worker_id.cmp(&b.record.worker_id));
    Ok((events, transcripts, restored))
}

fn read_runtime(dir: &Path, runtime_id: &str, restored: &mut Restored) -> io::Result<()> {
    let path = dir.join(RUNTIME);
    let problem = match record::<RuntimeRecord>(&path)? {
        None => return Ok(()),
        Some(Ok(record)) if record.schema_version != SCHEMA_VERSION => "of another layout".to_owned(),
        Some(Ok(record)) if record.runtime_id != runtime_id => "of another runtime".to_owned(),
        Some(Ok(record)) => {
            restored.runtime = Some(record);
            return Ok(());
        }
        Some(Err(why)) => why,
    };
    set_aside(dir, RUNTIME, &problem, restored)
}

/// Gives a file another name, for whoever can make sense of it: bundles may be in there.
fn set_aside(dir: &Path, name: &str, problem: &str, restored: &mut Restored) -> io::Result<()> {
    fs::rename(dir.join(name), dir.join(format!("{name}.set-aside-{}", std::process::id())))?;
    restored.note("store.set_aside", format!("{name} was set aside: it is {problem}"), None);
    Ok(())
}

fn read_worker(
    folder: &Path,
    runtime_id: &str,
    transcripts: &mut HashMap<String, Log>,
    restored: &mut Restored,
) -> io::Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let known = id_of(name).and_then(|id| worker_sequence(&id).map(|sequence| (id, sequence)));
    let Some((worker_id, sequence)) = known else {
        restored.note("store.strange_entry", "an entry among the workers is none of them".to_owned(), None);
        return Ok(());
    };
    // Its number is taken, whatever is in it.
    restored.last_worker_sequence = restored.last_worker_sequence.max(sequence);
    remove_temporaries(folder);
    // Made for a worker that never came to be; what is in use is not empty.
    if fs::remove_dir(folder).is_ok() {
        return Ok(());
    }
    let worker_ref = WorkerRef { runtime_id: runtime_id.to_owned(), worker_id };
    match load_worker(folder, &worker_ref, restored) {
        Ok((log, worker)) => {
            let last = worker.record.last_event_id;
            restored.last_event_id = restored.last_event_id.max(last);
            transcripts.insert(worker_ref.worker_id, log);
            restored.workers.push(worker);
        }
        Err(why) => {
            let message = format!("worker {} was left out: {why}", worker_ref.worker_id);
            restored.note("store.worker_skipped", message, Some(&worker_ref));
        }
    }
    Ok(())
}

fn load_worker(
    folder: &Path,
    worker_ref: &WorkerRef,
    restored: &mut Restored,
) -> Result<(Log, RestoredWorker), String> {
    let unreadable = |error: io::Error| format!("it cannot be read ({})", error.kind());
    let record = record::<WorkerRecord>(&folder.join(WORKER)).map_err(unreadable)?;
    let mut record =
        record.unwrap_or(Err("without a record".to_owned())).map_err(|why| format!("it is {why}"))?;
    if !record.is_of(worker_ref) {
        return Err("its record is another's".to_owned());
    }
    let (log, read) = Log::open(folder.join(TRANSCRIPT), Some::<TranscriptItem>).map_err(unreadable)?;
    if read.broken > 0 {
        return Err(format!("{} broken lines in its transcript", read.broken));
    }
    let in_order =
        read.lines.iter().zip(1..).all(|(item, n)| item.sequence == n && item.worker_ref == *worker_ref);
    if !in_order {
        return Err("its transcript has gaps".to_owned());
    }
    if read.cut > 0 {
        let message = format!("{} bytes cut from the transcript of {}", read.cut, worker_ref.worker_id);
        restored.note("store.torn_line_cut", message, Some(worker_ref));
    }
    let last = read.lines.iter().map(|item| item.event_id).max().unwrap_or(0);
    record.last_event_id = record.last_event_id.max(last);
    record.next_transcript_sequence = read.lines.len() as u64 + 1;
    let entry =
        |item: TranscriptItem| Entry { role: item.role, content: item.content, event_id: item.event_id };
    Ok((log, RestoredWorker { record, entries: read.lines.into_iter().map(entry).collect() }))
}

/// A record's file; `None` if there is none, an inner error if it makes no sense.
fn record<T: DeserializeOwned>(path: &Path) -> io::Result<Option<Result<T, String>>> {
    let file = match open_regular(fs::OpenOptions::new().read(true), path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Some(Err(error.to_string()))),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes).map_err(|error| format!("broken at line {}", error.line()))))
}

/// What was being written when an earlier life ended.
fn remove_temporaries(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") && name.to_string_lossy().contains(".json.tmp-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
