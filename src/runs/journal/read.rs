//! What the journal knows of runs that memory has forgotten. Reads the files beside the writer: of what
//! is being written it may miss the end.
use super::files::{Backwards, Lines, Places};
use super::lines::parse_record;
use crate::events::Json;
use crate::runs::run::Record;
use std::collections::HashSet;
use std::fs::File;
use std::io;

/// Lines of `runs.jsonl` that one question looks at.
const LINES: usize = 100_000;
/// Bytes of a log that are given away at once.
const LOG_BYTES: usize = 4 * 1024 * 1024;

/// Sealed runs from the newest on, as far as `wanted` takes them, at most `limit`.
pub(super) fn newest(
    places: &Places,
    limit: usize,
    wanted: impl Fn(&Record) -> bool,
) -> io::Result<Vec<Record>> {
    let file = File::open(places.runs())?;
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for line in Backwards::new(&file, file.metadata()?.len()).take(LINES) {
        let Some(record) = parse_record(&line?.1).filter(|record| record.seal.is_some()) else { continue };
        if seen.insert(record.id.clone()) && wanted(&record) {
            found.push(record);
            if found.len() >= limit {
                break;
            }
        }
    }
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

/// The actions of a run's log from its beginning, and whether there are more than is given away at once.
pub(super) fn actions(places: &Places, id: &str) -> io::Result<(Vec<Json>, bool)> {
    let (mut actions, mut bytes) = (Vec::new(), 0);
    for line in Lines::open(&places.log(id))? {
        let (line, whole) = line?;
        bytes += line.len();
        if bytes > LOG_BYTES {
            return Ok((actions, true));
        }
        match Json::parse(&line) {
            Ok(action) if whole => actions.push(action),
            _ => break,
        }
    }
    Ok((actions, false))
}
