//! Where runs are kept: in memory, in the journal if there is one, and on the bus. Whatever happens in a
//! run goes through here, in one order for all three.
//!
//! Lock order: `history`, then the bus. Messages to the journal go out under `history`, and never wait.
use super::history::History;
use super::journal::{Finish, Journal, Sealed, ending};
use super::run::{Kind, Record, RunStatus};
use crate::base::lock::lock;
use crate::events::{Action, Bus, Json, Slices};
use serde_json::json;
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
    /// Its actions, each as an object with `seq`, `timestamp`, `type` and perhaps `payload`.
    pub actions: Vec<Json>,
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
        // A model's words come again, whole, in the action that ends them.
        if !action.kind.starts_with("AGENT_MODEL_STREAM_")
            && history.push(id, action)
            && let Some(journal) = &self.journal
        {
            journal.append(id, action.clone(), action.bytes());
        }
        self.bus.dispatch(action, Some(id));
    }

    /// Something happened. While the agent runs it is a part of that run.
    pub(super) fn act(&self, action: &Action) {
        let current = lock(&self.current).clone();
        match current {
            Some(id) => self.record(&id, action),
            None => self.bus.dispatch(action, None),
        }
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
        let state = self.bus.preview(&last).json(Slices::all());
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
        let state = self.bus.state().json(Slices::all());
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

    /// The runs asked for, the latest begun first, at most `limit`.
    pub(super) fn list(&self, filter: Filter, limit: usize) -> io::Result<Vec<Record>> {
        let known: Vec<Record> = lock(&self.history).all().map(|entry| entry.record.clone()).collect();
        let mut found: Vec<Record> = known.iter().filter(|record| filter.takes(record)).cloned().collect();
        if let Some(journal) = &self.journal
            && found.len() < limit
        {
            let is_new = |record: &Record| known.iter().all(|known| known.id != record.id);
            found.extend(journal.newest(limit, |record| filter.takes(record) && is_new(record))?);
        }
        found.sort_by_key(|record| std::cmp::Reverse(record.start_ms));
        found.truncate(limit);
        Ok(found)
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
        Ok(Some(Run { record, actions, complete: !more }))
    }
}

/// How a run ended, by its last action.
fn how(last: &Action) -> (RunStatus, Option<String>) {
    ending(&last.kind, last.payload.as_ref()).unwrap_or((RunStatus::Aborted, None))
}
