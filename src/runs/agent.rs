//! The agent's process: one an invocation, in a group of its own. What it prints becomes actions; what is
//! decided and said to it goes to its standard input.
//!
//! ```text
//! invoke ─▶ starting ─▶ running ──── exit ───▶ over (completed, failed)
//!               └──────────┴─ abort ─▶ ending ─▶ over (aborted)
//! ```
use super::RunError;
use super::asks::Asks;
use super::book::Book;
use super::execution::{Execution, Phase};
use super::input::Input;
use super::line::{self, Said};
use crate::base::lock::lock;
use crate::base::random::uuid_v4;
use crate::base::thread;
use crate::events::{Action, DEPTH, Json};
use crate::process::{Exit, Output, Processes, Signal, Spawn, Spawned, Stdin, Stream, User};
use serde_json::json;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after its group was killed a run may take to be over: for its last words and the disk.
const SLACK: Duration = Duration::from_secs(10);
/// Bytes of one run's lines that a journal takes; an agent that says more is ended.
const RUN_BYTES: usize = 64 * 1024 * 1024;
/// What a line costs there beside its text: number, time and type.
const LINE_COST_BYTES: usize = 96;

/// How the agent is run.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Program and arguments, run without a shell.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whom it runs as; None: whoever we are.
    pub user: Option<User>,
    /// From SIGINT to SIGKILL.
    pub grace: Duration,
}

/// Why an invocation did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvokeError {
    /// There is no agent.
    NoAgent,
    /// It runs: this run.
    Busy(String),
    /// The journal cannot be written.
    Journal,
    /// Its process did not start; this run has failed.
    Start(String),
    /// The kernel has no random number for an id.
    NoRandomness,
    /// This server ends.
    Ending,
}

#[derive(Default)]
struct Current {
    /// The latest invocation.
    latest: Option<Arc<Execution>>,
    /// It is under way: no other may begin.
    busy: bool,
    closed: bool,
}

/// The agent.
pub(super) struct Agent {
    settings: AgentSettings,
    processes: Processes,
    book: Arc<Book>,
    current: Mutex<Current>,
    over: Condvar,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Agent {
    pub(super) fn new(settings: AgentSettings, processes: Processes, book: Arc<Book>) -> Agent {
        Agent { settings, processes, book, current: Mutex::default(), over: Condvar::new() }
    }

    /// The invocation under way.
    pub(super) fn current(&self) -> Option<Arc<Execution>> {
        let current = lock(&self.current);
        current.latest.clone().filter(|_| current.busy)
    }

    /// Begins an invocation and returns its id; the rest happens on threads of its own. `asks` gets the
    /// tool calls.
    pub(super) fn invoke(self: &Arc<Agent>, input: &str, asks: Arc<dyn Asks>) -> Result<String, InvokeError> {
        let id = uuid_v4().map_err(|_| InvokeError::NoRandomness)?;
        let execution = Arc::new(Execution {
            id: id.clone(),
            phase: Mutex::new(Phase::Starting),
            input: Mutex::new(None),
            ended_because: Mutex::new(None),
            over: AtomicBool::new(false),
        });
        {
            let mut current = lock(&self.current);
            if current.closed {
                return Err(InvokeError::Ending);
            }
            if let Some(running) = current.latest.as_ref().filter(|_| current.busy) {
                return Err(InvokeError::Busy(running.id.clone()));
            }
            current.latest = Some(Arc::clone(&execution));
            current.busy = true;
        }
        let first = Action::new("RUNTIME_EXECUTION_STARTED", json!({"executionId": id, "input": input}));
        if !self.book.begin_agent(&id, &first) {
            self.free(&mut || {});
            self.tell_over(&execution);
            return Err(InvokeError::Journal);
        }
        match self.start(&execution, input, &asks) {
            Ok(()) => Ok(id),
            Err(text) => {
                log::warn!("agent: {text}");
                self.end(&execution, "failed", Some(&text));
                Err(InvokeError::Start(id))
            }
        }
    }

    fn start(
        self: &Arc<Agent>,
        execution: &Arc<Execution>,
        input: &str,
        asks: &Arc<dyn Asks>,
    ) -> Result<(), String> {
        let Spawned { pid, stdin, stdout, stderr, exit } =
            self.processes.spawn(self.spawn()).map_err(|error| error.to_string())?;
        let kill = |what: &str, error: std::io::Error| {
            self.processes.signal_group(pid, Signal::SIGKILL);
            format!("{what}: {error}")
        };
        let stdin = stdin.ok_or_else(|| "it has no standard input".to_owned())?;
        let told = Input::start(stdin).map_err(|error| kill("no way to its standard input", error))?;
        // Before anybody can answer it: this is the first line it reads.
        told.send(line::invoke(input, &execution.id));
        *lock(&execution.input) = Some(told);
        let (agent, ours, asked) = (Arc::clone(self), Arc::clone(execution), Arc::clone(asks));
        let mut bytes = 0;
        let output = Output::start(stdout, stderr, false, line::LINE_BYTES, move |stream, text| {
            bytes += text.len() + LINE_COST_BYTES;
            agent.heard(&ours, &asked, stream, text);
            if bytes > RUN_BYTES && agent.book.journal.is_some() {
                bytes = 0;
                agent.end_because(&ours, "it said more than a run's log takes");
            }
        })
        .map_err(|error| kill("its output cannot be read", error))?;
        let (agent, ours, asked) = (Arc::clone(self), Arc::clone(execution), Arc::clone(asks));
        let watch = thread::spawn("agent", move || {
            // Every exit is sent; without one we would have lost it to a bug.
            let exit = exit.recv().unwrap_or(Exit::Signal(Signal::SIGKILL as i32));
            let was_ended =
                matches!(std::mem::replace(&mut *lock(&ours.phase), Phase::Exited), Phase::Ending(_));
            output.finish_all();
            *lock(&ours.input) = None;
            asked.run_ended(&ours.id);
            let because = *lock(&ours.ended_because);
            match (was_ended, exit) {
                (true, _) => agent.end(&ours, "aborted", because),
                (false, Exit::Code(0)) => agent.end(&ours, "completed", None),
                (false, exit) => agent.end(&ours, "failed", Some(&exit.to_string())),
            }
        });
        watch.map_err(|error| kill("nobody can wait for it", error))?;
        let mut phase = lock(&execution.phase);
        match *phase {
            Phase::Starting => *phase = Phase::Running(pid),
            // Somebody aborted it before it was there.
            Phase::Ending(None) => {
                *phase = Phase::Ending(Some(pid));
                self.processes.signal_group(pid, Signal::SIGKILL);
            }
            _ => {}
        }
        Ok(())
    }

    fn spawn(&self) -> Spawn {
        let AgentSettings { command, env, cwd, user, .. } = &self.settings;
        Spawn {
            argv: command.iter().map(Into::into).collect(),
            env: env.clone(),
            cwd: cwd.clone(),
            stdin: Stdin::Piped,
            user: *user,
            kill_group_on_exit: true,
            nofile_soft: self.processes.nofile_soft(),
        }
    }

    /// A line the agent wrote.
    fn heard(
        self: &Arc<Agent>,
        execution: &Arc<Execution>,
        asks: &Arc<dyn Asks>,
        stream: Stream,
        text: &str,
    ) {
        if let Some(journal) = &self.book.journal {
            journal.wait_for_room();
        }
        let id = &execution.id;
        let output = |kind: &'static str| self.book.record(id, &Action::new(kind, json!({"text": text})));
        if stream == Stream::Stderr {
            return output("AGENT_STDERR");
        }
        match line::parse(text) {
            Said::Output => output("AGENT_OUTPUT"),
            Said::Action(action) => self.book.record(id, &action),
            Said::Custom(data) => {
                let action = Action::of("CUSTOM_EVENT", Some(data.clone()));
                self.book.record(id, &action);
                self.book.bus.custom(&data, action.at_ms);
            }
            Said::ToolCall { id: call, tool, args } => asks.asked(execution, call, tool, args),
            Said::BadToolCall(call) => {
                output("AGENT_OUTPUT");
                let reason = format!(
                    "a tool call needs an id (letters, digits, - and _) and a toolName, and is nested {DEPTH} deep at most"
                );
                self.answer(execution, line::decision(false, call.unwrap_or(Json::Null), Some(&reason)));
            }
        }
    }

    /// Tells the agent what became of a tool call. One that reads none of so many is ended: it would wait for
    /// those it can no longer be told.
    pub(super) fn answer(self: &Arc<Agent>, execution: &Arc<Execution>, line: String) {
        if !execution.decide(line) {
            self.end_because(execution, "it does not read what it is told");
        }
    }

    fn end(self: &Arc<Agent>, execution: &Arc<Execution>, status: &str, error: Option<&str>) {
        let kind = match status {
            "completed" => "RUNTIME_EXECUTION_COMPLETED",
            "failed" => "RUNTIME_EXECUTION_FAILED",
            _ => "RUNTIME_EXECUTION_ABORTED",
        };
        let mut payload = json!({"executionId": execution.id});
        if let Some(error) = error {
            payload["error"] = json!(error);
        }
        let (agent, freed) = (Arc::clone(self), Arc::clone(self));
        let over = Arc::clone(execution);
        let told = move || agent.tell_over(&over);
        let freeing = move |publish: &mut dyn FnMut()| freed.free(publish);
        self.book.end_agent(&execution.id, Action::new(kind, payload), freeing, told);
    }

    /// Lets the next invocation begin, after everybody can know that this one has ended: whoever knows may
    /// begin the next, and the next one's news come behind this one's.
    fn free(&self, publish: &mut dyn FnMut()) {
        let mut current = lock(&self.current);
        publish();
        current.busy = false;
    }

    fn tell_over(&self, execution: &Execution) {
        let _current = lock(&self.current);
        execution.over.store(true, Ordering::Release);
        self.over.notify_all();
    }

    fn end_because(self: &Arc<Agent>, execution: &Arc<Execution>, why: &'static str) {
        {
            let mut because = lock(&execution.ended_because);
            if because.is_some() {
                return;
            }
            *because = Some(why);
        }
        let (agent, ours) = (Arc::clone(self), Arc::clone(execution));
        // Called where its output is read, which must go on for it to end.
        let ends = thread::spawn("agent-end", move || agent.signal(&ours, agent.settings.grace));
        if let Err(error) = ends {
            log::warn!("agent: cannot be ended: {error}");
            *lock(&execution.ended_because) = None;
        }
    }

    /// SIGINT, the grace, SIGKILL. False if it had ended before.
    fn signal(&self, execution: &Execution, grace: Duration) -> bool {
        let pid = {
            let mut phase = lock(&execution.phase);
            let pid = match *phase {
                Phase::Exited => return false,
                Phase::Starting => None,
                Phase::Running(pid) => Some(pid),
                Phase::Ending(pid) => pid,
            };
            *phase = Phase::Ending(pid);
            pid
        };
        if let Some(pid) = pid {
            self.processes.end_group(pid, &[(Signal::SIGINT, grace)]);
        }
        true
    }

    /// Ends an invocation and waits until it is over. False if it had ended by itself before.
    ///
    /// # Errors
    /// `Unfinished`.
    pub(super) fn abort(&self, execution: &Arc<Execution>) -> Result<bool, RunError> {
        self.abort_within(execution, self.settings.grace)
    }

    fn abort_within(&self, execution: &Arc<Execution>, grace: Duration) -> Result<bool, RunError> {
        let ended = self.signal(execution, grace);
        let until = Instant::now() + grace + SLACK;
        let mut current = lock(&self.current);
        while !execution.over.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RunError::Unfinished);
            }
            current = self.over.wait_timeout(current, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(ended)
    }

    /// Ends what runs, and lets nothing begin any more.
    pub(super) fn close(&self, grace: Duration) {
        let execution = {
            let mut current = lock(&self.current);
            current.closed = true;
            current.latest.clone()
        };
        if let Some(execution) = execution {
            lock(&execution.ended_because).get_or_insert("the server ended");
            if self.abort_within(&execution, grace).is_err() {
                log::warn!("agent: its run has not ended in time");
            }
        }
    }
}
