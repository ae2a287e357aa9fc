//! What the journal knows of runs that memory has forgotten. Reads the files beside the writer: of what
//! is being written it may miss the end.
use super::files::{Backwards, Lines, Places};
use super::lines::parse_record;
use crate::runs::run::Record;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fs::File;
use std::io;

/// Lines of `runs.jsonl` that one question looks at.
const LINES: usize = 100_000;
/// Bytes of a log that are given away at once.
const LOG_BYTES: usize = 4 * 1024 * 1024;

/// Of the sealed runs that `wanted` takes the `limit` that began last, and perhaps some more; those that
/// began before `since_ms` may be missing.
pub(super) fn latest(
    places: &Places,
    limit: usize,
    since_ms: u64,
    wanted: impl Fn(&Record) -> bool,
) -> io::Result<Vec<Record>> {
    let file = File::open(places.runs())?;
    // First lines stand in the order of the beginnings, and so we come by a run's last line before.
    let (mut found, mut ends) = (Vec::new(), HashMap::new());
    for line in Backwards::new(&file, file.metadata()?.len()).take(LINES) {
        let Some(record) = parse_record(&line?.1) else { continue };
        if record.seal.is_some() {
            ends.entry(record.id.clone()).or_insert(record);
            continue;
        }
        if found.len() >= limit || record.start_ms < since_ms {
            break;
        }
        found.extend(ends.remove(&record.id).filter(&wanted));
    }
    // Their first lines are further back than we look.
    found.extend(ends.into_values().filter(wanted));
    Ok(found)
}

/// A sealed run by its id.
pub(super) fn find(places: &Places, id: &str) -> io::Result<Option<Record>> {
    // Every run has a log, so most wrong ids cost one look.
    if !places.log(id).try_exists()? {
        return Ok(None);
    }
    let file = File::open(places.runs())?;
    for line in Backwards::new(&file, file.metadata()?.len()) {
        let record = parse_record(&line?.1);
        if record.as_ref().is_some_and(|record| record.id == id && record.seal.is_some()) {
            return Ok(record);
        }
    }
    Ok(None)
}

/// Bytes of a run's log that are given away.
pub(super) fn log_bytes(places: &Places, id: &str) -> usize {
    let bytes = places.log(id).metadata().map_or(0, |metadata| metadata.len());
    usize::try_from(bytes).unwrap_or(LOG_BYTES).min(LOG_BYTES)
}

/// The actions of a run's log from its beginning, and whether there are more than is given away at once. As text:
/// as values, small ones would be many times as large.
pub(super) fn actions(places: &Places, id: &str) -> io::Result<(Vec<Box<RawValue>>, bool)> {
    let (mut actions, mut bytes) = (Vec::new(), 0);
    for line in Lines::open(&places.log(id))? {
        let (line, whole) = line?;
        bytes += line.len();
        if bytes > LOG_BYTES {
            return Ok((actions, true));
        }
        let text = String::from_utf8(line).ok().filter(|_| whole);
        match text.and_then(|text| RawValue::from_string(text).ok()) {
            Some(action) => actions.push(action),
            None => break,
        }
    }
    Ok((actions, false))
}
