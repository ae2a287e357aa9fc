//! The handle to all runs: what routes and the composition root ask of them.
use super::agent::{Agent, InvokeError};
use super::approval::{Approval, Approvals, DecideError, Decision};
use super::asks::{Asks, requested};
use super::book::{Book, Filter, Run};
use super::execution::Execution;
use super::journal::{Found, Journal, Recovered};
use super::line;
use super::run::{Kind, Record, RunStatus, is_id};
use super::{Rule, RunError, RunsSettings};
use crate::base::thread;
use crate::events::{Action, Bus, Json};
use crate::process::Processes;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) book: Arc<Book>,
    pub(super) agent: Option<Arc<Agent>>,
    pub(super) approvals: Approvals,
    pub(super) rule: Rule,
    pub(super) approval_timeout: Option<Duration>,
    pub(super) ending: AtomicBool,
}

/// The handle to all runs; clones are the same.
#[derive(Clone, Debug)]
pub struct Runs(Arc<Inner>);

impl Runs {
    /// Opens the journal, if one is asked for, and takes up what it holds. What was found there, too.
    ///
    /// # Errors
    /// The journal's, or no thread to be had.
    pub fn start(
        bus: Bus,
        processes: Processes,
        settings: RunsSettings,
    ) -> io::Result<(Runs, Option<Recovered>)> {
        let opened = settings.journal.as_deref().map(Journal::open).transpose()?;
        let (journal, found) = opened.unzip();
        let book = Arc::new(Book::new(bus, journal, settings.history_size));
        let agent = settings.agent.map(|agent| Arc::new(Agent::new(agent, processes, Arc::clone(&book))));
        let runs = Runs(Arc::new(Inner {
            book,
            agent,
            approvals: Approvals::default(),
            rule: settings.rule,
            approval_timeout: settings.approval_timeout,
            ending: AtomicBool::new(false),
        }));
        let recovered = found.map(|found| runs.take_up(found));
        let inner = Arc::clone(&runs.0);
        thread::spawn("approvals", move || {
            while let Some(expired) = inner.approvals.next_expired() {
                for approval in expired {
                    inner.settle(&approval, false);
                }
            }
        })?;
        Ok((runs, recovered))
    }

    fn take_up(&self, found: Found) -> Recovered {
        let bus = &self.0.book.bus;
        bus.dispatch(&Action::new("JOURNAL_SEALED", json!({"head": found.head, "runs": found.runs})), None);
        for approval in found.approvals.iter().filter(|a| a.decision == Decision::Pending) {
            bus.dispatch(&requested(approval), Some(&approval.run));
        }
        self.0.approvals.restore(found.approvals);
        found.recovered
    }

    /// Something happened, outside of every run or within the agent's.
    pub fn act(&self, action: &Action) {
        self.0.book.act(action);
    }

    /// Something happened that says how things stand, as it will again; within the agent's run only while
    /// the journal has room. Never waits.
    pub fn act_if_room(&self, action: &Action) {
        self.0.book.act_if_room(action);
    }

    /// Whether the journal, if there is one, has room for much more.
    pub fn has_room(&self) -> bool {
        self.0.book.journal.as_ref().is_none_or(Journal::has_room)
    }

    /// Waits so long until it has; whether it has then.
    pub fn wait_for_room(&self, time: Duration) -> bool {
        self.0.book.journal.as_ref().is_none_or(|journal| journal.wait_for_room_until(Instant::now() + time))
    }

    /// A run of another kind than the agent's begins with its first action, whose payload is an object;
    /// it gets `executionId`. False if the id is no id, or taken. Never waits.
    pub fn begin(&self, id: &str, kind: Kind, first: Action) -> bool {
        is_id(id) && self.0.book.begin(id, kind, &with_id(first, id))
    }

    /// Something happened within such a run.
    pub fn record(&self, id: &str, action: Action) {
        self.0.book.record(id, &with_id(action, id));
    }

    /// Such a run ends with its last action, `EXEC_EXITED` or `SERVER_EXITED`; never waits.
    pub fn end(&self, id: &str, status: RunStatus, error: Option<&str>, last: Action) {
        let mut more = vec![("status".to_owned(), Json::String(status.as_str().to_owned()))];
        more.extend(error.map(|error| ("error".to_owned(), Json::String(error.to_owned()))));
        self.0.book.end(id, with(with_id(last, id), more));
    }

    /// Runs the agent; the id of its run.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub fn invoke(&self, input: &str) -> Result<String, InvokeError> {
        let agent = self.0.agent.as_ref().ok_or(InvokeError::NoAgent)?;
        let asks: Arc<dyn Asks> = Arc::clone(&self.0) as _;
        agent.invoke(input, asks)
    }

    /// Whether there is an agent.
    pub fn has_agent(&self) -> bool {
        self.0.agent.is_some()
    }

    /// Ends the agent's run and waits for that; its id, if it was under way.
    ///
    /// # Errors
    /// `Unfinished`.
    pub fn abort(&self) -> Result<Option<String>, RunError> {
        let running = self.0.agent.as_ref().and_then(|agent| Some((agent, agent.current()?)));
        let Some((agent, execution)) = running else { return Ok(None) };
        Ok(agent.abort(&execution)?.then(|| execution.id.clone()))
    }

    /// Ends this run of the agent and waits for that.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn cancel(&self, id: &str) -> Result<(), RunError> {
        let (agent, execution) = self.execution(id)?;
        if agent.abort(&execution)? { Ok(()) } else { Err(self.over(id)) }
    }

    /// Tells the agent to go on after somebody intervened.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn go_on(&self, id: &str, payload: Option<Json>) -> Result<(), RunError> {
        let (_, execution) = self.execution(id)?;
        if execution.say(line::go_on(payload)) { Ok(()) } else { Err(RunError::Deaf) }
    }

    /// The invocation of this id, if it is under way.
    fn execution(&self, id: &str) -> Result<(&Arc<Agent>, Arc<Execution>), RunError> {
        let running = self.0.agent.as_ref().and_then(|agent| Some((agent, agent.current()?)));
        running.filter(|(_, execution)| execution.id == id).ok_or_else(|| self.over(id))
    }

    fn over(&self, id: &str) -> RunError {
        match self.0.book.find(id) {
            Err(error) => journal_unreadable(&error),
            Ok(None) => RunError::NotFound,
            Ok(Some(run)) if run.status == RunStatus::Running => RunError::NotTheAgents(run.kind),
            Ok(Some(run)) => RunError::NotRunning(run.status),
        }
    }

    /// Whether such a list is looked for on the disk, too.
    pub fn reads_journal(&self, filter: Filter) -> bool {
        self.0.book.journal_of(filter).is_some()
    }

    /// Whether a run can be told of without the journal's files, on a disk that may be slow.
    pub fn remembers(&self, id: &str) -> bool {
        self.0.book.remembers(id)
    }

    /// Bytes of a run's actions that are read from the journal, if they are.
    pub fn log_bytes(&self, id: &str) -> usize {
        self.0.book.journal.as_ref().map_or(0, |journal| journal.log_bytes(id))
    }

    /// The runs asked for, the latest begun first.
    ///
    /// # Errors
    /// `Journal`.
    pub fn list(&self, filter: Filter, limit: usize) -> Result<Vec<Record>, RunError> {
        self.0.book.list(filter, limit).map_err(|error| journal_unreadable(&error))
    }

    /// A run with its actions.
    ///
    /// # Errors
    /// `NotFound`, `Journal`.
    pub fn get(&self, id: &str) -> Result<Run, RunError> {
        let run = self.0.book.get(id).map_err(|error| journal_unreadable(&error))?;
        run.ok_or(RunError::NotFound)
    }

    /// Decides an approval, of this run if that is said; as it is then.
    ///
    /// # Errors
    /// [`DecideError`].
    pub fn decide(
        &self,
        id: &str,
        run: Option<&str>,
        granted: bool,
        reason: Option<String>,
    ) -> Result<Approval, DecideError> {
        let decision = if granted { Decision::Approved } else { Decision::Rejected };
        let before = self.current();
        let approval = self.0.approvals.decide(id, run, decision, reason)?;
        if self.0.settle(&approval, true) {
            return Ok(approval);
        }
        self.0.approvals.undo(&approval);
        // Its end did not find it among those that wait.
        if before.is_some_and(|run| run == approval.run) && self.current().as_ref() != Some(&approval.run) {
            self.0.run_ended(&approval.run);
        }
        Err(DecideError::Journal)
    }

    /// The agent's run.
    fn current(&self) -> Option<String> {
        self.0.agent.as_ref().and_then(|agent| agent.current()).map(|execution| execution.id.clone())
    }

    /// Pending approvals, the oldest first.
    pub fn pending(&self) -> Vec<Approval> {
        self.0.approvals.pending()
    }

    /// Decided approvals, the latest first.
    pub fn decided(&self) -> Vec<Approval> {
        self.0.approvals.history()
    }

    /// One of either.
    pub fn approval(&self, id: &str) -> Option<Approval> {
        self.0.approvals.get(id)
    }

    /// Waits until an approval is pending, for `time` at most; false when this server ends.
    pub fn wait_pending(&self, time: Duration) -> bool {
        self.0.approvals.wait_pending(time)
    }

    /// Whether the journal, if there is one, is written.
    pub fn is_well(&self) -> bool {
        self.0.book.journal.as_ref().is_none_or(Journal::is_well)
    }

    /// Runs of a kind that ended in that way since we started; those that run now, if that is `Running`.
    pub fn count(&self, kind: Kind, status: RunStatus) -> u64 {
        self.0.book.count(kind, status)
    }

    /// Runs the journal has sealed, all lives together, and bytes of its files, the logs of single runs
    /// aside; none without a journal.
    pub fn journal_size(&self) -> Option<(u64, u64)> {
        self.0.book.journal.as_ref().map(Journal::size)
    }

    /// Ends the agent's run, with this long from SIGINT to SIGKILL, and lets none begin. What is pending
    /// stays so, for the next life.
    pub fn end_agent(&self, grace: Duration) {
        self.0.ending.store(true, Ordering::Release);
        self.0.approvals.close();
        if let Some(agent) = &self.0.agent {
            agent.close(grace);
        }
    }

    /// Writes the rest of the journal. What comes later is not in it.
    pub fn close(&self) {
        if let Some(journal) = &self.0.book.journal {
            journal.close();
        }
    }
}

fn journal_unreadable(error: &io::Error) -> RunError {
    log::warn!("the journal cannot be read: {error}");
    RunError::Journal
}

/// The payload with the id of its run.
fn with_id(action: Action, id: &str) -> Action {
    with(action, vec![("executionId".to_owned(), Json::String(id.to_owned()))])
}

fn with(mut action: Action, more: Vec<(String, Json)>) -> Action {
    let fields = match action.payload.take() {
        Some(Json::Object(fields)) => fields,
        _ => Vec::new(),
    };
    action.payload = Some(Json::object(fields.into_iter().chain(more)));
    action
}
