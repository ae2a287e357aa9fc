//! One invocation of the agent: where it stands, and the way to its standard input.
use super::input::Input;
use crate::base::lock::lock;
use crate::process::Pid;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Running(Pid),
    /// Told to end; the process, once there is one.
    Ending(Option<Pid>),
    /// The process has ended.
    Exited,
}

/// One invocation.
pub(super) struct Execution {
    pub(super) id: String,
    pub(super) phase: Mutex<Phase>,
    /// Its standard input, once there is a process.
    pub(super) input: Mutex<Option<Input>>,
    /// Why it was ended, if by us.
    pub(super) ended_because: Mutex<Option<&'static str>>,
    /// Everybody was told that it is over. Set under the lock of the agent's current invocation.
    pub(super) over: AtomicBool,
}

impl Execution {
    /// Gives the agent a line; false if it takes none.
    pub(super) fn say(&self, line: String) -> bool {
        lock(&self.input).as_ref().is_some_and(|input| input.send(line))
    }

    /// Gives the agent a decision; false if so many wait to be read that there is no room for it.
    pub(super) fn decide(&self, line: String) -> bool {
        lock(&self.input).as_ref().is_none_or(|input| input.decide(line))
    }
}
