//! The process of a worker: started in a group of its own, told one line at a time, read line by line.
//! One thread writes to it and waits for its end, another reads what it says.
use super::model::Outcome;
use crate::process::{Exit, Output, Pid, Processes, Signal, Spawn, SpawnError, Spawned, Stream};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, select};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::convert::Infallible;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of a line of output; a longer one is more than one.
pub(super) const LINE_BYTES: usize = 256 * 1024;
/// How often a write that the process does not read looks whether the process still is.
const WRITE_LOOK_MS: u8 = 100;
/// How long one that reads no more may take to have ended.
const LAST_BREATH: Duration = Duration::from_millis(200);
/// How long the last words of a process may take to be read; the output's thread has its own bound.
const DRAIN: Duration = Duration::from_secs(2);

/// Why no process runs.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    /// For clients: nothing of the host.
    pub(super) message: &'static str,
}

impl Failure {
    pub(super) fn errored(message: &'static str) -> Failure {
        Failure { outcome: Outcome::Errored, message }
    }
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        let message = match error {
            SpawnError::NotFound(_) => "the worker's command was not found",
            SpawnError::NotExecutable(..) => "the worker's command cannot be executed",
            SpawnError::Directory(..) => "the worker's directory cannot be entered",
            SpawnError::Resources(_) => {
                return Failure { outcome: Outcome::Rejected, message: "out of resources for a process" };
            }
            SpawnError::Other(_) => "the worker's command cannot be started",
        };
        Failure::errored(message)
    }
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    input: Sender<Vec<u8>>,
    /// Closes when the process is gone and its last words are read.
    over: Receiver<Infallible>,
    is_deaf: Arc<AtomicBool>,
}

/// Who hears of a process.
pub(super) trait Ear: Send + 'static {
    /// It wrote a line.
    fn line(&self, stream: Stream, line: &str);

    /// It has closed its standard input, which it was to be told something by.
    fn deaf(&self);

    /// It is gone, and there are no more lines.
    fn silence(&self);

    /// The same, once everybody who waited for that knows; this may take its time.
    fn ended(&self, exit: Exit);
}

impl Process {
    /// Starts it and the threads `worker` and `output`.
    pub(super) fn start<E: Ear + Clone>(
        processes: &Processes,
        spawn: Spawn,
        ear: E,
    ) -> Result<Process, Failure> {
        let Spawned { pid, stdin, stdout, stderr, exit } = processes.spawn(spawn).map_err(|error| {
            log::warn!("a worker's process: {error}");
            Failure::from(error)
        })?;
        let unwatched = |error: std::io::Error| {
            log::warn!("a worker's process cannot be watched: {error}");
            processes.signal_group(pid, Signal::SIGKILL);
            Failure { outcome: Outcome::Rejected, message: "out of resources for a process" }
        };
        let listener = ear.clone();
        let output = Output::start(stdout, stderr, false, LINE_BYTES, move |stream, line| {
            listener.line(stream, line);
        })
        .map_err(unwatched)?;
        let (input, lines) = bounded(1);
        let (ending, over) = bounded(0);
        let is_deaf = Arc::new(AtomicBool::new(false));
        let turned_deaf = Arc::clone(&is_deaf);
        let body = move || {
            let exit = attend(stdin, &lines, &exit, &|| {
                turned_deaf.store(true, Ordering::Release);
                ear.deaf();
            });
            // Its last words may be its answer, and storing them may take a while.
            output.finish_all();
            ear.silence();
            drop(ending);
            ear.ended(exit);
        };
        crate::base::thread::spawn("worker-process", body).map_err(unwatched)?;
        Ok(Process { pid, input, over, is_deaf })
    }

    /// Whether it reads nothing any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::Acquire)
    }

    /// Whether it can be told something now: one line waits for it at most, besides the one it reads.
    pub(super) fn has_room(&self) -> bool {
        !self.input.is_full()
    }

    /// Whether it is gone.
    pub(super) fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Tells it a line, without waiting until it reads it; one that is gone does not mind.
    pub(super) fn tell(&self, line: Vec<u8>) {
        let _ = self.input.try_send(line);
    }

    /// Waits until it is gone and what it said is read; false when that takes too long.
    pub(super) fn wait_over(&self) -> bool {
        self.over.recv_timeout(DRAIN) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Writes what it is told and waits for its end.
fn attend(
    stdin: Option<ChildStdin>,
    lines: &Receiver<Vec<u8>>,
    exit: &Receiver<Exit>,
    deaf: &dyn Fn(),
) -> Exit {
    let mut stdin = stdin.filter(|stdin| match fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
        Ok(_) => true,
        Err(errno) => {
            log::warn!("a worker cannot be told anything: {errno}");
            false
        }
    });
    let nothing = never();
    let mut open = true;
    // Every exit is sent; without one we would have lost it to a bug.
    let lost = Exit::Signal(Signal::SIGKILL as i32);
    loop {
        let next = if open { lines } else { &nothing };
        select! {
            recv(next) -> line => match line {
                Ok(line) => {
                    if stdin.as_mut().is_none_or(|stdin| write(stdin, &line, exit).is_err()) {
                        stdin = None;
                        // One that has ended says so itself, in a moment.
                        match exit.recv_timeout(LAST_BREATH) {
                            Ok(exit) => return exit,
                            Err(RecvTimeoutError::Disconnected) => return lost,
                            Err(RecvTimeoutError::Timeout) => deaf(),
                        }
                    }
                }
                Err(_) => open = false,
            },
            recv(exit) -> exit => return exit.unwrap_or(lost),
        }
    }
}

/// Writes a line as fast as the process reads it, until it is gone.
fn write(stdin: &mut ChildStdin, mut line: &[u8], exit: &Receiver<Exit>) -> Result<(), ()> {
    while !line.is_empty() {
        match stdin.write(line) {
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut polled, PollTimeout::from(WRITE_LOOK_MS)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return Err(()),
                }
                if !exit.is_empty() {
                    return Err(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
        }
    }
    Ok(())
}
