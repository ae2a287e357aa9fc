//! What operators and callers say of runs, and why there is none.
use super::policy::{Program, Refused};
use crate::process::{Processes, User};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What may be run.
    pub program: Program,
    /// Longest time of a run.
    pub max_timeout: Duration,
    /// Bytes of output of a run, both streams together.
    pub max_output: u64,
    /// Runs at once.
    pub max_concurrent: usize,
    /// Names of our variables that runs get besides those every program may have.
    pub env: Vec<String>,
}

/// Where and how runs take place.
#[derive(Clone, Debug)]
pub struct Host {
    /// What starts and ends processes.
    pub processes: Processes,
    /// The working directory unless a run has its own.
    pub root: PathBuf,
    /// Whom runs run as; None: whoever we are.
    pub user: Option<User>,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
}

/// A run as its caller wants it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The arguments; with any program allowed, the first is the program.
    pub args: Vec<String>,
    /// How long it may take; zero is over before it begins.
    pub timeout: Duration,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// Variables the caller adds.
    pub env: Vec<(String, String)>,
    /// Variables we add: they go before the caller's and are not checked.
    pub our_env: Vec<(String, String)>,
    /// What it reads.
    pub stdin: Option<String>,
    /// Standard input stays open for more.
    pub keep_stdin: bool,
    /// It goes on without its caller.
    pub detach: bool,
    /// A reader that holds it will be there in a moment: its output waits for that one from the first byte.
    pub awaits_reader: bool,
    /// What it leaves running in its group lives on.
    pub keep_background: bool,
}

/// Why there is no run.
#[derive(Debug)]
pub enum StartError {
    /// The command is not let through.
    Refused(Refused),
    /// As many as may run do; how many.
    TooMany(usize),
    /// The server ends.
    ShuttingDown,
    /// The system has no descriptor or random number for it.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Refused(refused) => refused.fmt(f),
            StartError::TooMany(most) => write!(f, "too many runs at once (max {most})"),
            StartError::ShuttingDown => f.write_str("the server is shutting down"),
            StartError::System(_) => f.write_str("the system has no room for another run"),
        }
    }
}

impl std::error::Error for StartError {}
