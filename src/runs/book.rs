//! Where runs are kept: in memory, in the journal if there is one, and on the bus. Whatever happens in a
//! run goes through here, in one order for all three.
//!
//! Lock order: `history`, then the bus. Messages to the journal go out under `history`, and never wait.
use super::history::{Entry, History};
use super::journal::{Finish, Journal, Sealed, ending};
use super::run::{Kind, Record, RunStatus};
use crate::base::lock::lock;
use crate::events::{Action, Bus};
use serde_json::json;
use serde_json::value::RawValue;
use std::io;
use std::sync::{Arc, Mutex};

/// Which runs are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Those with this status.
    pub status: Option<RunStatus>,
    /// Those of this kind.
    pub kind: Option<Kind>,
}

impl Filter {
    fn takes(&self, record: &Record) -> bool {
        self.status.is_none_or(|status| status == record.status)
            && self.kind.is_none_or(|kind| kind == record.kind)
    }
}

/// A run in full.
#[derive(Clone, Debug)]
pub struct Run {
    /// In short.
    pub record: Record,
    /// Its actions, each an object with `seq`, `timestamp`, `type` and perhaps `payload`, as JSON.
    pub actions: Vec<Box<RawValue>>,
    /// Whether those are all of them.
    pub complete: bool,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) bus: Bus,
    pub(super) journal: Option<Journal>,
    history: Mutex<History>,
    /// The agent's run, in which whatever else happens is noted, too.
    current: Mutex<Option<String>>,
}

impl Book {
    pub(super) fn new(bus: Bus, journal: Option<Journal>, history_size: usize) -> Book {
        Book { bus, journal, history: Mutex::new(History::new(history_size)), current: Mutex::new(None) }
    }

    /// Begins the agent's run; false when the journal cannot be written, and then nothing has begun.
    pub(super) fn begin_agent(&self, id: &str, first: &Action) -> bool {
        lock(&self.history).begin(id, Kind::Agent, first);
        if let Some(journal) = &self.journal
            && !journal.begin_surely(id, Kind::Agent, first.clone())
        {
            lock(&self.history).forget(id);
            return false;
        }
        *lock(&self.current) = Some(id.to_owned());
        self.bus.dispatch(first, Some(id));
        self.bus.status("started", id, None, first.at_ms);
        true
    }

    /// How many runs of a kind stand there, see [`History::count`].
    pub(super) fn count(&self, kind: Kind, status: RunStatus) -> u64 {
        lock(&self.history).count(kind, status)
    }

    /// Begins another run; false if its id is taken.
    pub(super) fn begin(&self, id: &str, kind: Kind, first: &Action) -> bool {
        let mut history = lock(&self.history);
        if !history.begin(id, kind, first) {
            return false;
        }
        if let Some(journal) = &self.journal {
            journal.begin(id, kind, first.clone());
        }
        self.bus.dispatch(first, Some(id));
        true
    }

    /// Something happened in a run; nothing is noted if that is over.
    pub(super) fn record(&self, id: &str, action: &Action) {
        let mut history = lock(&self.history);
        self.note(&mut history, id, action);
        self.bus.dispatch(action, Some(id));
    }

    fn note(&self, history: &mut History, id: &str, action: &Action) {
        // A model's words come again, whole, in the action that ends them.
        if !action.kind.starts_with("AGENT_MODEL_STREAM_")
            && history.push(id, action)
            && let Some(journal) = &self.journal
        {
            journal.append(id, action.clone(), action.bytes());
        }
    }

    /// Something happened. While the agent runs it is a part of that run.
    pub(super) fn act(&self, action: &Action) {
        self.act_if(action, || true);
    }

    /// Something happened that says how things stand, as it will again. It is no part of a run for which
    /// the journal has no room: who tells of it cannot wait.
    pub(super) fn act_if_room(&self, action: &Action) {
        self.act_if(action, || self.journal.as_ref().is_none_or(Journal::has_room));
    }

    fn act_if(&self, action: &Action, is_noted: impl FnOnce() -> bool) {
        let current = lock(&self.current).clone();
        let mut history = lock(&self.history);
        let run = current.filter(|id| history.takes(id) && is_noted());
        if let Some(id) = &run {
            self.note(&mut history, id, action);
        }
        self.bus.dispatch(action, run.as_deref());
    }

    /// Ends the agent's run with its last action: on the disk first, then for everybody. `freeing` is handed
    /// what lets everybody know, and frees the agent behind that and before the news that it is free; `told`
    /// comes behind all of it.
    pub(super) fn end_agent(
        self: &Arc<Book>,
        id: &str,
        last: Action,
        freeing: impl FnOnce(&mut dyn FnMut()) + Send + 'static,
        told: impl FnOnce() + Send + 'static,
    ) {
        let (status, error) = how(&last);
        let state = {
            let mut history = lock(&self.history);
            // What comes while the disk writes the end would be in memory and not in the log.
            history.ending(id);
            self.bus.preview(&last)
        };
        let (book, run, action) = (Arc::clone(self), id.to_owned(), last.clone());
        let done: Box<dyn FnOnce(Option<Sealed>) + Send> = Box::new(move |mut sealed| {
            freeing(&mut || {
                *lock(&book.current) = None;
                let seal = sealed.as_ref().map(|sealed| sealed.seal.clone());
                lock(&book.history).end(&run, &action, status, error.clone(), seal);
                book.bus.dispatch(&action, Some(&run));
                book.tell_head(sealed.take());
            });
            book.bus.status(status.as_str(), &run, error.as_deref(), action.at_ms);
            told();
        });
        match &self.journal {
            Some(journal) => journal.finish(Finish { id: id.to_owned(), last, state, done }),
            None => done(None),
        }
    }

    /// Ends another run with its last action: for everybody at once, on the disk soon.
    pub(super) fn end(self: &Arc<Book>, id: &str, last: Action) {
        let (status, error) = how(&last);
        lock(&self.history).end(id, &last, status, error, None);
        self.bus.dispatch(&last, Some(id));
        let Some(journal) = &self.journal else { return };
        let state = self.bus.state();
        let (book, run) = (Arc::clone(self), id.to_owned());
        let done = Box::new(move |sealed: Option<Sealed>| {
            if let Some(sealed) = &sealed {
                lock(&book.history).seal(&run, sealed.seal.clone());
            }
            book.tell_head(sealed);
        });
        journal.finish(Finish { id: id.to_owned(), last, state, done });
    }

    fn tell_head(&self, sealed: Option<Sealed>) {
        if let Some(sealed) = sealed {
            let head = json!({"head": sealed.seal.chain, "runs": sealed.runs});
            self.bus.dispatch(&Action::new("JOURNAL_SEALED", head), None);
        }
    }

    /// The journal, if it can hold runs that are asked for: all of its runs are over.
    pub(super) fn journal_of(&self, filter: Filter) -> Option<&Journal> {
        self.journal.as_ref().filter(|_| filter.status.is_none_or(RunStatus::is_end))
    }

    /// The runs asked for, the latest begun first, at most `limit`.
    pub(super) fn list(&self, filter: Filter, limit: usize) -> io::Result<Vec<Record>> {
        let known: Vec<Record> = lock(&self.history).all().map(|entry| entry.record.clone()).collect();
        let mut found: Vec<Record> = known.iter().filter(|record| filter.takes(record)).cloned().collect();
        sort_and_cut(&mut found, limit);
        if let Some(journal) = self.journal_of(filter) {
            // Memory keeps those that ended last. Others may have begun after them.
            let least = if found.len() < limit { None } else { found.last() };
            let since_ms = least.map_or(0, |record| record.start_ms);
            let is_new = |record: &Record| known.iter().all(|known| known.id != record.id);
            found.extend(journal.latest(limit, since_ms, |record| filter.takes(record) && is_new(record))?);
            sort_and_cut(&mut found, limit);
        }
        Ok(found)
    }

    /// Whether memory has all of a run, or there is nothing else to look into.
    pub(super) fn remembers(&self, id: &str) -> bool {
        self.journal.is_none() || lock(&self.history).get(id).is_some_and(Entry::is_whole)
    }

    /// A run's record, from memory or the journal.
    pub(super) fn find(&self, id: &str) -> io::Result<Option<Record>> {
        if let Some(entry) = lock(&self.history).get(id) {
            return Ok(Some(entry.record.clone()));
        }
        match &self.journal {
            Some(journal) if super::is_id(id) => journal.find(id),
            _ => Ok(None),
        }
    }

    /// A run with its actions.
    pub(super) fn get(&self, id: &str) -> io::Result<Option<Run>> {
        let entry = lock(&self.history).get(id).cloned();
        if let Some(entry) = &entry {
            let (actions, complete) = entry.actions();
            if complete || self.journal.is_none() {
                return Ok(Some(Run { record: entry.record.clone(), actions, complete }));
            }
        }
        let record =
            entry.map(|entry| entry.record).map_or_else(|| self.find(id), |record| Ok(Some(record)))?;
        let (Some(record), Some(journal)) = (record, &self.journal) else { return Ok(None) };
        let (actions, more) = journal.actions(id)?;
        // Of a run that goes on the log may be behind, or ahead of what we have just looked up.
        let complete = !more && actions.len() as u64 >= record.action_count;
        Ok(Some(Run { record, actions, complete }))
    }
}

fn sort_and_cut(runs: &mut Vec<Record>, limit: usize) {
    runs.sort_by_key(|record| std::cmp::Reverse(record.start_ms));
    runs.truncate(limit);
}

/// How a run ended, by its last action.
fn how(last: &Action) -> (RunStatus, Option<String>) {
    ending(&last.kind, last.payload.as_ref()).unwrap_or((RunStatus::Aborted, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{BusSettings, Slices};
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    /// Whose journal hangs where it writes the state of a run that ends: in a pipe that nobody reads.
    fn hanging(dir: &std::path::Path) -> Arc<Book> {
        let state = dir.join("state.jsonl");
        nix::unistd::mkfifo(&state, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut pipe = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&state).unwrap();
        while pipe.write(&[0; 4096]).is_ok() {}
        let journal = Journal::open(dir).unwrap().0;
        // Without a reader its thread would not hang.
        std::mem::forget(pipe);
        let bus = BusSettings { ring: 8, streamed: Slices::all(), encode: |_, _, _| Vec::new() };
        Arc::new(Book::new(Bus::start(bus).unwrap(), Some(journal), 1))
    }

    #[test]
    fn ends_that_wait_share_the_state() {
        const RUNS: usize = 500;
        let dir = tempfile::tempdir().unwrap();
        let book = hanging(dir.path());
        for _ in 0..100 {
            book.act(&Action::new("NOTE", json!({"text": "x".repeat(2048)})));
        }
        for n in 0..RUNS {
            let id = n.to_string();
            assert!(book.begin(&id, Kind::Exec, &Action::new("EXEC_STARTED", json!({}))));
            book.end(&id, Action::new("EXEC_EXITED", json!({"status": "completed"})));
        }
        let messages = Arc::clone(book.bus.state().get(crate::events::Slice::Agent));
        assert!(Arc::strong_count(&messages) > RUNS, "{}", Arc::strong_count(&messages));
        std::mem::forget(book);
    }

    #[test]
    fn how_things_stand_does_not_fill_a_journal_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let book = hanging(dir.path());
        assert!(book.begin_agent("agent", &Action::new("RUNTIME_EXECUTION_STARTED", json!({}))));
        assert!(book.begin("server", Kind::Server, &Action::new("SERVER_STARTED", json!({}))));
        book.end("server", Action::new("SERVER_EXITED", json!({"status": "failed"})));
        for n in 0..10_000 {
            book.act_if_room(&Action::new("ARTIFACT_COUNTED", json!({"counts": {"rows": n}})));
        }
        assert!(book.journal.as_ref().is_some_and(Journal::is_well));
        assert_eq!(book.bus.state().get(crate::events::Slice::Artifacts)["rows"], 9999, "it is known");
        let noted = book.find("agent").unwrap().unwrap().action_count;
        assert!((1000..4096).contains(&noted), "and a part of the run while there is room: {noted}");
        // The thread that hangs would hold us up.
        std::mem::forget(book);
    }
}
