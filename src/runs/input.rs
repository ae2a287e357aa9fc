//! The way to an agent's standard input: a bounded queue, and a thread that waits for the pipe in place
//! of whoever has something to say.
use crate::base::stop::StopToken;
use crate::base::thread;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ChildStdin;

/// Lines that wait to be read by an agent.
const QUEUE: usize = 4096;
/// When more than these wait, only decisions are added.
const OTHERS: usize = 128;
/// How often a writer that waits looks whether its agent is still there.
const LOOK_MS: u16 = 250;

/// The queue; dropped, the pipe is closed.
#[derive(Debug)]
pub(super) struct Input {
    queue: Sender<String>,
    over: StopToken,
}

impl Input {
    /// Starts the thread `agent-input`.
    pub(super) fn start(stdin: ChildStdin) -> io::Result<Input> {
        // Somebody the agent left behind may hold the pipe and never read it.
        fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (queue, lines) = bounded(QUEUE);
        let over = StopToken::default();
        let ours = over.clone();
        thread::spawn("agent-input", move || write_lines(stdin, &lines, &ours))?;
        Ok(Input { queue, over })
    }

    /// Adds a line; false if many wait already, or the agent reads no more.
    pub(super) fn send(&self, line: String) -> bool {
        self.queue.len() < OTHERS && self.queue.try_send(line).is_ok()
    }

    /// Adds a decision; false if there is no room even for that.
    pub(super) fn decide(&self, line: String) -> bool {
        !matches!(self.queue.try_send(line), Err(TrySendError::Full(_)))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.over.set();
    }
}

fn write_lines(mut stdin: ChildStdin, lines: &Receiver<String>, over: &StopToken) {
    for line in lines {
        let mut left = line.as_bytes();
        while !left.is_empty() {
            match stdin.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if over.is_set() {
                        return;
                    }
                    let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut watched, PollTimeout::from(LOOK_MS)).is_err_and(|e| e != Errno::EINTR) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}
