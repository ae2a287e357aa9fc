//! Checks a journal that nobody writes: every line, every digest, the chain. What a run's second line
//! says is all written elsewhere, too, or follows from it, so that no byte can be another unseen.
mod log;

use super::digest::{NO_CHAIN, chain};
use super::journal::{Lines, Places, action_line, parse_approval, parse_record, record_line, state_line};
use super::run::{Record, is_id};
use crate::events::{Action, Json};
use log::Log;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Problems after which no more are told.
const PROBLEMS: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Runs that are as they were sealed.
    pub runs: u64,
    /// Runs that have begun and not ended: they run, or the next start ends them.
    pub unfinished: u64,
    /// The chain after the last run.
    pub head: String,
    /// What is wrong: the file, the line, and why. At most 100.
    pub problems: Vec<String>,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        write!(f, "{} runs as they were sealed, {} unfinished", self.runs, self.unfinished)?;
        match self.problems.len() {
            0 => write!(f, "; the chain ends with {}", self.head),
            n => write!(f, "; {n} problems"),
        }
    }
}

/// Verifies the journal in `dir`.
///
/// # Errors
/// The disk's; also when there is no journal.
pub fn verify(dir: &Path) -> io::Result<Verified> {
    std::fs::metadata(Places::new(dir).runs())?;
    let mut check = Check { places: Places::new(dir), ..Check::default() };
    check.states()?;
    check.runs()?;
    check.unfinished()?;
    check.leftovers()?;
    check.approvals()?;
    check.found.problems.truncate(PROBLEMS);
    Ok(check.found)
}

/// A line of `state.jsonl`. Its text is read again when it is needed: all of them are too much for memory.
struct State {
    number: usize,
    at_ms: u64,
    /// Where the line is, in bytes.
    place: u64,
    length: usize,
    /// A finished run refers to it.
    used: bool,
}

#[derive(Default)]
struct Check {
    places: Places,
    found: Verified,
    states: HashMap<String, State>,
    /// Runs with a first line: its number, and whether there was a second.
    begun: HashMap<String, (usize, Record, bool)>,
}

impl Check {
    fn problem(&mut self, file: &str, line: usize, what: &str) {
        self.found.problems.push(format!("{file}:{line}: {what}"));
    }

    /// Looks at each whole line of a file, with its number and where it begins.
    fn each_line(
        &mut self,
        path: &Path,
        name: &str,
        mut look: impl FnMut(&mut Check, usize, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut place = 0;
        for (at, line) in Lines::open(path)?.enumerate() {
            match line? {
                (line, true) => {
                    look(self, at + 1, place, &line)?;
                    place += line.len() as u64 + 1;
                }
                (_, false) => self.problem(name, at + 1, "the line has no end; the next start cuts it"),
            }
        }
        Ok(())
    }

    fn states(&mut self) -> io::Result<()> {
        let path = self.places.state();
        self.each_line(&path, "state.jsonl", |check, number, place, line| {
            match parse_state(line) {
                Some((id, at_ms, _)) if !check.states.contains_key(&id) => {
                    let state = State { number, at_ms, place, length: line.len(), used: false };
                    check.states.insert(id, state);
                }
                Some((id, ..)) => {
                    check.problem("state.jsonl", number, &format!("a second state of {id}"));
                }
                None => check.problem("state.jsonl", number, "this is not what was written"),
            }
            Ok(())
        })
    }

    fn runs(&mut self) -> io::Result<()> {
        // After a line that does not fit, the next may fit what it says or what it should say.
        let mut heads = [NO_CHAIN.to_owned(), NO_CHAIN.to_owned()];
        let path = self.places.runs();
        self.each_line(&path, "runs.jsonl", |check, number, _, line| {
            let record = parse_record(line).filter(|record| record_line(record).as_bytes() == line);
            let Some(record) = record else {
                check.problem("runs.jsonl", number, "this is not what was written");
                return Ok(());
            };
            let Some(seal) = record.seal.clone() else {
                check.begin(number, record);
                return Ok(());
            };
            let chains = heads.clone().map(|head| chain(&head, &seal.digest));
            let linked = chains.contains(&seal.chain);
            if !linked {
                check.problem("runs.jsonl", number, "the chain breaks here");
            }
            let [expected, _] = chains;
            heads = [seal.chain.clone(), if linked { seal.chain.clone() } else { expected }];
            check.found.head.clone_from(&seal.chain);
            let before = check.found.problems.len();
            check.end(number, &record, linked)?;
            check.found.runs += u64::from(linked && check.found.problems.len() == before);
            Ok(())
        })
    }

    fn begin(&mut self, number: usize, record: Record) {
        if record.action_count != 0 || record.error.is_some() || self.begun.contains_key(&record.id) {
            return self.problem("runs.jsonl", number, "this is not how a run begins");
        }
        self.begun.insert(record.id.clone(), (number, record, false));
    }

    /// A run's second line against its first, its log and its state.
    fn end(&mut self, number: usize, record: &Record, linked: bool) -> io::Result<()> {
        match self.begun.get_mut(&record.id) {
            Some((_, first, ended @ false))
                if first.kind == record.kind && first.start_ms == record.start_ms =>
            {
                *ended = true;
            }
            Some((_, _, ended)) => {
                *ended = true;
                self.problem("runs.jsonl", number, "it does not fit the line with which the run begins");
            }
            None => self.problem("runs.jsonl", number, "the run has no line with which it begins"),
        }
        let name = format!("logs/{}.jsonl", record.id);
        let Some(log) = self.log(&record.id)? else { return Ok(()) };
        let Some(state) = self.states.get_mut(&record.id) else {
            self.problem("runs.jsonl", number, "state.jsonl has no state of this run");
            return Ok(());
        };
        state.used = true;
        let misfit = log.misfit(record);
        let (state_number, state_at, end_ms) = (state.number, state.at_ms, log.end_ms());
        let mut line = vec![0; state.length];
        let file = File::open(self.places.state())?;
        file.read_exact_at(&mut line, state.place)?;
        let text = parse_state(&line).map(|(_, _, text)| text).unwrap_or_default();
        let digest = log.digest(&text, record);
        if record.seal.as_ref().is_some_and(|seal| seal.digest == digest) {
            // Log and state are those that were sealed; what is left is the line itself.
            if let Some(what) = misfit {
                self.problem("runs.jsonl", number, &format!("{what} is not that of {name}"));
            }
            if Some(state_at) != end_ms {
                self.problem("state.jsonl", state_number, "it is not from the end of its run");
            }
        } else if linked {
            // The digest has its chain, and the state its sum: it is the log.
            self.problem(&name, 1, "the digest of the run is another");
        }
        Ok(())
    }

    /// Reads a log; `None` when it has no lines, or some that are not what was written.
    fn log(&mut self, id: &str) -> io::Result<Option<Log>> {
        let name = format!("logs/{id}.jsonl");
        let path = self.places.log(id);
        let before = self.found.problems.len();
        let mut log = Log::new(id);
        self.each_line(&path, &name, |check, number, _, line| {
            let action = parse_action(line).filter(|a| action_line(log.count, a).as_bytes() == line);
            match action {
                Some(action) => log.add(&String::from_utf8_lossy(line), action),
                None => check.problem(&name, number, "this is not what was written"),
            }
            Ok(())
        })?;
        if log.count == 0 && self.found.problems.len() == before {
            self.problem(&name, 1, "the log is empty or gone");
        }
        Ok((self.found.problems.len() == before).then_some(log))
    }

    /// Runs without a second line: their logs are there, and begin like them.
    fn unfinished(&mut self) -> io::Result<()> {
        let unfinished: Vec<(usize, Record)> = self
            .begun
            .values()
            .filter(|(_, _, ended)| !ended)
            .map(|(number, record, _)| (*number, record.clone()))
            .collect();
        for (number, record) in unfinished {
            self.found.unfinished += 1;
            if let Some(state) = self.states.get_mut(&record.id) {
                state.used = true;
            }
            let Some(log) = self.log(&record.id)? else { continue };
            if !log.begins_as(&record) {
                self.problem("runs.jsonl", number, &format!("logs/{}.jsonl begins otherwise", record.id));
            }
        }
        Ok(())
    }

    /// What belongs to no run.
    fn leftovers(&mut self) -> io::Result<()> {
        let unused: Vec<usize> = self.states.values().filter(|s| !s.used).map(|s| s.number).collect();
        for number in unused {
            self.problem("state.jsonl", number, "it belongs to no run");
        }
        for entry in std::fs::read_dir(self.places.logs())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let known = name.strip_suffix(".jsonl").is_some_and(|id| self.begun.contains_key(id));
            if !known {
                self.problem(&format!("logs/{name}"), 1, "it belongs to no run");
            }
        }
        Ok(())
    }

    fn approvals(&mut self) -> io::Result<()> {
        let path = self.places.approvals();
        self.each_line(&path, "approvals.jsonl", |check, number, _, line| {
            if parse_approval(line).is_none() {
                check.problem("approvals.jsonl", number, "this is not what was written");
            }
            Ok(())
        })
    }
}

/// Run, time and state of a line.
fn parse_state(line: &[u8]) -> Option<(String, u64, String)> {
    let json = Json::parse(line).ok()?;
    let id = json.get("executionId")?.as_str().filter(|id| is_id(id))?.to_owned();
    let at_ms = json.get("timestamp")?.as_u64()?;
    let state = json.get("state")?;
    let same = state_line(&id, at_ms, state).as_bytes() == line;
    same.then(|| (id, at_ms, state.text()))
}

fn parse_action(line: &[u8]) -> Option<Action> {
    let json = Json::parse(line).ok()?;
    let kind = json.get("type")?.as_str()?.to_owned();
    let at_ms = json.get("timestamp")?.as_u64()?;
    Some(Action { kind: kind.into(), at_ms, payload: json.get("payload").cloned() })
}
