//! The words in which the supervisor speaks: states, the snapshot of everything, errors.
use std::fmt;
use std::time::Duration;

use crate::process::Exit;

/// Where the wrapped server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, but does not answer yet (or no more).
    Starting,
    /// It answers.
    Ready,
    /// About to be stopped: what is in flight may finish, nothing new enters.
    Draining,
    /// It was told to end and has not quite.
    Stopping,
    /// Somebody stopped it; only a start or restart brings it back.
    Stopped,
    /// It ended by itself and will be started again.
    Backoff,
    /// It ended too often; an upload, a start or a restart brings it back.
    Failed,
    /// Somebody else listens on its port.
    PortBusy,
}

impl State {
    /// The word on wires.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
            State::Backoff => "backoff",
            State::Failed => "failed",
            State::PortBusy => "port_busy",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Whether requests may enter.
    pub ready: bool,
    /// Whether the process is alive.
    pub running: bool,
    /// Its number while it is.
    pub pid: Option<i32>,
    /// Processes started so far; the number of the present life.
    pub generation: u64,
    /// Processes started after the first.
    pub restarts: u64,
    /// Age of the living process.
    pub uptime: Option<Duration>,
    /// How the last process ended, 127 or 126 if it could not be started.
    pub exit: Option<Exit>,
    /// Time to the next start, if one is planned.
    pub next_retry: Option<Duration>,
    /// Why it is not running, for people.
    pub message: Option<String>,
}

/// The server takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// What it does instead.
    pub state: State,
}

/// Why a control request had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// There is no process, or somebody stopped it meanwhile.
    NotRunning,
    /// The command could not be started, and why.
    Spawn(String),
    /// It took too long; it may still happen.
    Deadline,
    /// The whole program ends.
    ShuttingDown,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NotRunning => f.write_str("the server is not running"),
            ControlError::Spawn(message) => f.write_str(message),
            ControlError::Deadline => f.write_str("the server took too long"),
            ControlError::ShuttingDown => f.write_str("shutting down"),
        }
    }
}

impl std::error::Error for ControlError {}
