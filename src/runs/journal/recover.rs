//! What an end in the middle left behind, put in order before anything new is written: torn lines are
//! cut, runs that were running are sealed, as what their logs say or else as aborted.
use super::approvals;
use super::files::{Growing, Lines, Places};
use super::lines::{ending, parse_record, state_line};
use super::writer::{Log, Writer};
use crate::events::{Action, Json};
use crate::runs::approval::Approval;
use crate::runs::digest::{Digest, NO_CHAIN};
use crate::runs::run::Record;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes of torn lines that were cut.
    pub torn_bytes: u64,
    /// Runs that were running and are aborted now.
    pub aborted: Vec<String>,
    /// Lines that are none; `verify` says which.
    pub broken_lines: u64,
}

/// Opens the journal at `places` and puts it in order.
pub(super) fn recover(places: Places) -> io::Result<(Writer, Recovered, Vec<Approval>)> {
    let mut found = Recovered::default();
    found.torn_bytes += Growing::open(&places.approvals())?.cut_torn_line()?;
    let (approvals_file, approvals) = approvals::open(&places)?;
    let mut writer = Writer {
        runs: Growing::open(&places.runs())?,
        state: Growing::open(&places.state())?,
        approvals: approvals_file,
        places,
        logs: Default::default(),
        head: NO_CHAIN.to_owned(),
        count: 0,
    };
    for file in [&mut writer.runs, &mut writer.state] {
        found.torn_bytes += file.cut_torn_line()?;
    }
    let unfinished = read_runs(&mut writer, &mut found)?;
    let mut ended = BTreeMap::new();
    for record in &unfinished {
        let (log, last, torn) = reopen(&writer.places, record)?;
        found.torn_bytes += torn;
        writer.logs.insert(record.id.clone(), log);
        ended.insert(record.id.clone(), last);
    }
    cut_orphaned_states(&mut writer, &ended)?;
    for Record { id, .. } in unfinished {
        let ending = match ended.remove(&id).flatten() {
            Some(last) => state_of(&writer.state, &id)?.map(|state| (last, state)),
            // To look for a state that is not there would be to read all of them.
            None => None,
        };
        let (last, state) = match ending {
            // It had ended; only its second line is missing.
            Some(ending) => ending,
            None => abort(&mut writer, &mut found, &id)?,
        };
        writer.seal(&id, &last, &state);
    }
    writer.runs.sync()?;
    writer.places.sync()?;
    Ok((writer, found, approvals))
}

/// Reads `runs.jsonl`: the chain's head, and who has no second line.
fn read_runs(writer: &mut Writer, found: &mut Recovered) -> io::Result<Vec<Record>> {
    let mut running: BTreeMap<String, (u64, Record)> = BTreeMap::new();
    let mut number = 0;
    for line in Lines::of(writer.runs.file())? {
        let Some(record) = parse_record(&line?.0) else {
            found.broken_lines += 1;
            continue;
        };
        match record.seal {
            Some(seal) => {
                running.remove(&record.id);
                (writer.head, writer.count) = (seal.chain, writer.count + 1);
            }
            None => {
                number += 1;
                running.insert(record.id.clone(), (number, record));
            }
        }
    }
    let mut unfinished: Vec<_> = running.into_values().collect();
    unfinished.sort_by_key(|(number, _)| *number);
    Ok(unfinished.into_iter().map(|(_, record)| record).collect())
}

/// Opens a log to go on with it; its last action too, if that ends a run, and bytes that were cut.
fn reopen(places: &Places, record: &Record) -> io::Result<(Log, Option<Action>, u64)> {
    let mut file = Growing::open(&places.log(&record.id))?;
    let torn = file.cut_torn_line()?;
    let (mut digest, mut count, mut last) = (Digest::new(&record.id), 0, None);
    for line in Lines::of(file.file())? {
        let line = line?.0;
        digest.add(&String::from_utf8_lossy(&line));
        count += 1;
        last = Json::parse(&line).ok();
    }
    let last = last.and_then(|json| {
        let kind = json.get("type")?.as_str()?.to_owned();
        let at_ms = json.get("timestamp")?.as_u64()?;
        let payload = json.get("payload").cloned();
        ending(&kind, payload.as_ref())?;
        Some(Action { kind: kind.into(), at_ms, payload })
    });
    Ok((Log { file, digest, kind: record.kind, start_ms: record.start_ms, count }, last, torn))
}

/// A state without an end in its log belongs to no run.
fn cut_orphaned_states(writer: &mut Writer, ended: &BTreeMap<String, Option<Action>>) -> io::Result<()> {
    let mut cut = None;
    for line in writer.state.backwards() {
        let (start, line) = line?;
        let id = Json::parse(&line).ok().and_then(|json| Some(json.get("executionId")?.as_str()?.to_owned()));
        match id.and_then(|id| ended.get(&id)) {
            Some(None) => cut = Some(start),
            // Others may lie between, of the runs that ended together.
            Some(Some(_)) => {}
            None => break,
        }
    }
    let Some(cut) = cut else { return Ok(()) };
    // Those between are written again.
    let mut kept = Vec::new();
    for line in writer.state.backwards() {
        let (start, line) = line?;
        if start < cut {
            break;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let id = Json::parse(&line).ok().and_then(|json| Some(json.get("executionId")?.as_str()?.to_owned()));
        if id.and_then(|id| ended.get(&id)).is_some_and(Option::is_some) {
            kept.push(text);
        }
    }
    writer.state.cut(cut)?;
    kept.iter().rev().for_each(|line| writer.state.push(line));
    writer.state.sync()
}

/// The last state of a run.
fn state_of(file: &Growing, id: &str) -> io::Result<Option<Json>> {
    for line in file.backwards() {
        let json = Json::parse(&line?.1).unwrap_or(Json::Null);
        if json.get("executionId").and_then(Json::as_str) == Some(id) {
            return Ok(json.get("state").cloned());
        }
    }
    Ok(None)
}

/// Ends a run whose end nobody saw. Of the state then nothing is known.
fn abort(writer: &mut Writer, found: &mut Recovered, id: &str) -> io::Result<(Action, Json)> {
    let payload = json!({"executionId": id, "error": "the server ended before the run"});
    let last = Action::new("RUNTIME_EXECUTION_ABORTED", payload);
    let state = Json::object([]);
    writer.state.push(&state_line(id, last.at_ms, &state));
    writer.state.sync()?;
    if let Some(log) = writer.logs.get_mut(id) {
        log.push(&last);
        log.file.sync()?;
    }
    found.aborted.push(id.to_owned());
    Ok((last, state))
}
