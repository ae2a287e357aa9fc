//! Runs: what an agent, an exec session or the wrapped server did from beginning to end, noted as it
//! happens, sealed when it is over. And approvals, which a run may wait for.
//!
//! Knows the bus and processes, nothing of HTTP. The routes and the composition root hold a [`Runs`].
mod agent;
mod approval;
mod book;
mod contracts;
mod digest;
mod history;
mod input;
mod journal;
mod line;
mod run;
mod verify;

pub use agent::{AgentSettings, InvokeError};
pub use approval::{Approval, AskError, DecideError, Decision, HISTORY, MAX_PENDING};
pub use book::{Filter, Run};
pub use contracts::{Contract, Contracts, ContractsError, Emits};
pub use digest::{Digest, chain};
pub use journal::Recovered;
pub use run::{Kind, Record, RunStatus, Seal, is_id};
pub use verify::{Verified, verify};

use crate::base::thread;
use crate::events::{Action, Bus, Json, now_ms};
use crate::process::Processes;
use agent::{Agent, Execution};
use approval::Approvals;
use book::Book;
use journal::{Found, Journal};
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Which tool calls need somebody's leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these tools.
    Tools(Vec<String>),
}

impl Rule {
    fn asks(&self, tool: &str) -> bool {
        match self {
            Rule::None => false,
            Rule::All => true,
            Rule::Tools(tools) => tools.iter().any(|name| name == tool),
        }
    }
}

/// What is decided before the start.
#[derive(Clone, Debug, Default)]
pub struct RunsSettings {
    /// What `invoke` runs.
    pub agent: Option<AgentSettings>,
    /// Which tool calls need an approval.
    pub rule: Rule,
    /// How long an approval waits; `None` = for ever.
    pub approval_timeout: Option<Duration>,
    /// Ended runs of each kind that memory keeps.
    pub history_size: usize,
    /// Where the journal is; `None` = there is none.
    pub journal: Option<PathBuf>,
}

/// Why an invocation is not told to go on, or to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// There is no such run.
    NotFound,
    /// It is over: so.
    NotRunning(RunStatus),
    /// It runs, but is not the agent's.
    NotTheAgents(Kind),
    /// The agent does not read what it is told.
    Deaf,
    /// The journal cannot be read.
    Journal,
}

/// What becomes of an agent's tool calls.
trait Asks: Send + Sync {
    /// The agent wants to use a tool.
    fn asked(&self, execution: &Execution, id: String, tool: String, args: Json);
    /// Its run has ended.
    fn run_ended(&self, run: &str);
}

#[derive(Debug)]
struct Inner {
    book: Arc<Book>,
    agent: Option<Arc<Agent>>,
    approvals: Approvals,
    rule: Rule,
    approval_timeout: Option<Duration>,
    ending: AtomicBool,
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
                expired.into_iter().for_each(|approval| inner.settle(&approval, false));
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
    pub fn abort(&self) -> Option<String> {
        let agent = self.0.agent.as_ref()?;
        let execution = agent.current()?;
        agent.abort(&execution).then(|| execution.id.clone())
    }

    /// Ends this run of the agent and waits for that.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn cancel(&self, id: &str) -> Result<(), RunError> {
        let (agent, execution) = self.execution(id)?;
        if agent.abort(&execution) { Ok(()) } else { Err(self.over(id)) }
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

    /// Decides an approval; as it is then.
    ///
    /// # Errors
    /// [`DecideError`].
    pub fn decide(&self, id: &str, granted: bool, reason: Option<String>) -> Result<Approval, DecideError> {
        let decision = if granted { Decision::Approved } else { Decision::Rejected };
        let approval = self.0.approvals.decide(id, decision, reason)?;
        self.0.settle(&approval, true);
        Ok(approval)
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

fn requested(approval: &Approval) -> Action {
    let mut payload = json!({
        "id": approval.id, "executionId": approval.run, "toolName": approval.tool,
        "args": Value::from(&approval.args), "requestedAt": approval.requested_ms,
    });
    if let Some(at) = approval.expires_ms {
        payload["expiresAt"] = json!(at);
    }
    Action::new("HITL_APPROVAL_REQUESTED", payload)
}

impl Inner {
    /// Passes a decision on: to the disk, the run, the listeners, the agent.
    fn settle(&self, approval: &Approval, surely: bool) {
        if let Some(journal) = &self.book.journal {
            journal.approval(approval, surely);
        }
        let kind = match approval.decision {
            Decision::Approved => "HITL_APPROVAL_GRANTED",
            Decision::Rejected => "HITL_APPROVAL_REJECTED",
            Decision::Expired | Decision::Pending => "HITL_APPROVAL_EXPIRED",
        };
        self.note_decision(kind, &approval.run, &approval.id, approval.reason.as_deref());
        let Some(execution) = self.agent.as_ref().and_then(|agent| agent.current()) else { return };
        if execution.id == approval.run {
            let granted = approval.decision == Decision::Approved;
            let id = Json::String(approval.id.clone());
            execution.say(line::decision(granted, id, approval.reason.as_deref()));
        }
    }

    fn note_decision(&self, kind: &'static str, run: &str, id: &str, reason: Option<&str>) {
        let mut payload = json!({"id": id, "executionId": run});
        if let Some(reason) = reason {
            payload["reason"] = json!(reason);
        }
        self.book.record(run, &Action::new(kind, payload));
    }
}

impl Asks for Inner {
    fn asked(&self, execution: &Execution, id: String, tool: String, args: Json) {
        let payload = json!({"id": id, "toolName": tool, "args": Value::from(&args)});
        self.book.record(&execution.id, &Action::new("AGENT_TOOL_CALL_REQUESTED", payload));
        let own = Json::String(id.clone());
        let refuse = |reason| execution.say(line::decision(false, own.clone(), Some(reason)));
        // To note a decision would decide the one that is pending.
        if self.approvals.get(&id).is_some() {
            refuse("there is an approval with this id");
            return;
        }
        if !self.rule.asks(&tool) {
            self.note_decision("HITL_APPROVAL_GRANTED", &execution.id, &id, Some("not required"));
            execution.say(line::decision(true, own, Some("not required")));
            return;
        }
        let now = now_ms();
        let wait = self.approval_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let approval = Approval {
            id: id.clone(),
            run: execution.id.clone(),
            tool,
            args,
            decision: Decision::Pending,
            requested_ms: now,
            expires_ms: wait.map(|wait| now.saturating_add(wait)),
            decided_ms: None,
            reason: None,
        };
        let note = |approval: &Approval| {
            if let Some(journal) = &self.book.journal {
                journal.approval(approval, false);
            }
            self.book.record(&execution.id, &requested(approval));
        };
        if self.approvals.ask(approval, note).is_err() {
            let reason = "too many approvals are pending";
            self.note_decision("HITL_APPROVAL_REJECTED", &execution.id, &id, Some(reason));
            refuse(reason);
        }
    }

    fn run_ended(&self, run: &str) {
        // A server that ends leaves its approvals to its next life.
        if !self.ending.load(Ordering::Acquire) {
            self.approvals.end_run(run).iter().for_each(|approval| self.settle(approval, false));
        }
    }
}
