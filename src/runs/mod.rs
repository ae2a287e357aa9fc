//! Runs: what an agent, an exec session or the wrapped server did from beginning to end, noted as it
//! happens, sealed when it is over. And approvals, which a run may wait for.
//!
//! Knows the bus and processes, nothing of HTTP. The routes and the composition root hold a [`Runs`].
mod agent;
mod approval;
mod asks;
mod book;
mod contracts;
mod digest;
mod execution;
mod handle;
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
pub use handle::Runs;
pub use journal::Recovered;
pub use run::{Kind, Record, RunStatus, Seal, is_id};
pub use verify::{Verified, verify};

use std::path::PathBuf;
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
    pub(super) fn asks(&self, tool: &str) -> bool {
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
    /// It has been told to end, or its process has ended, and the run is not over in time.
    Unfinished,
    /// The agent does not read what it is told.
    Deaf,
    /// The journal cannot be read.
    Journal,
}
