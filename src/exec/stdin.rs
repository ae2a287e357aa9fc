//! What callers write to a run's standard input, until the pump passes it on.
use super::run::{Run, State};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Bytes that wait for the program to read them before whoever writes has to wait.
const PENDING_BYTES: usize = 64 * 1024;

/// A run's standard input.
#[derive(Debug)]
pub(super) struct Input {
    /// Not yet written to the pipe.
    pub(super) pending: VecDeque<u8>,
    /// The pipe is there, and more may be written.
    pub(super) open: bool,
}

impl Input {
    /// No input, or this one, after which more may come if it is `kept`.
    pub(super) fn new(text: Option<String>, kept: bool) -> Input {
        Input { pending: text.unwrap_or_default().into_bytes().into(), open: kept }
    }

    /// Whether the pump still has use for the pipe.
    pub(super) fn is_used(&self) -> bool {
        self.open || !self.pending.is_empty()
    }

    /// Nobody reads any more.
    pub(super) fn end(&mut self) {
        self.open = false;
        self.pending = VecDeque::new();
    }
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinError {
    /// It was never open, or has been closed.
    Closed,
    /// The program reads nothing for now.
    Full,
}

impl fmt::Display for StdinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StdinError::Closed => {
                "stdin is not open: the run has ended, closed it, or was started without keep_stdin"
            }
            StdinError::Full => "the program does not read its stdin",
        })
    }
}

impl std::error::Error for StdinError {}

impl Run {
    /// Writes to standard input as much as there is room for, after waiting `time` at most for some;
    /// how much it was.
    ///
    /// # Errors
    /// [`StdinError`]; after `Full` it may be tried again.
    pub fn write_stdin(&self, data: &[u8], time: Duration) -> Result<usize, StdinError> {
        let has_room = |state: &State| !state.input.open || state.input.pending.len() < PENDING_BYTES;
        let mut state = self.wait(time, has_room);
        if !state.input.open {
            return Err(StdinError::Closed);
        }
        let room = PENDING_BYTES.saturating_sub(state.input.pending.len());
        if room == 0 {
            return Err(StdinError::Full);
        }
        let taken = data.len().min(room);
        state.input.pending.extend(&data[..taken]);
        drop(state);
        self.ring();
        Ok(taken)
    }

    /// Ends standard input behind what was written.
    ///
    /// # Errors
    /// `Closed` if it is not open.
    pub fn close_stdin(&self) -> Result<(), StdinError> {
        if !std::mem::take(&mut self.state().input.open) {
            return Err(StdinError::Closed);
        }
        self.ring();
        Ok(())
    }
}
