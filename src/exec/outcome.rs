//! How a run ended. Pure.
use std::time::Duration;

/// Why a run ended other than by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Timeout,
    /// It wrote more than it may.
    OutputLimit,
    /// Somebody asked for it.
    Stopped,
    /// Whoever started it has left.
    ClientGone,
    /// The server ends.
    Shutdown,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The program's own code; 1 when it could not be started, -1 when it was killed or its time was
    /// over.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why, if not by itself.
    pub end: Option<End>,
    /// What made us end it, or keep it from starting, for people.
    pub error: Option<String>,
    /// Its time was over.
    pub timed_out: bool,
    /// Some of its output was not read.
    pub truncated: bool,
    /// From its start to its end.
    pub duration: Duration,
}
