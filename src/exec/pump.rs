//! The thread of one run: reads its output, writes its input, and ends it when its time is over, by a
//! clock of its own that no client and no pipe can stop.
//!
//! ```text
//!              exit                   both pipes at their end, or 500 ms later
//!  running ───────────▶ draining ──────────────────────────────────────────────▶ over
//!     │ deadline, output limit: SIGKILL            ▲   (the rest of the group is killed,
//!     └ told to stop: SIGTERM, grace, SIGKILL ─────┘    or drained on if it may stay)
//! ```
use super::outcome::End;
use super::registry::Registry;
use super::run::{Run, Stream, TAIL_BYTES};
use super::waiting::{readable, wait};
use crate::base::thread;
use crate::process::{Exit, Pid, Signal, Spawned};
use crossbeam_channel::Receiver;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after the exit a pipe is read that somebody else still holds open.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone before its end is told without it.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Bytes read or written at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How far ahead of the reader it waits for the program may get: what is in its pipe when it exits
/// (64 KiB) must still find room, with some left to see the pipe's end.
const AHEAD_BYTES: usize = TAIL_BYTES - 2 * CHUNK_BYTES;

pub(super) struct Pump {
    pub(super) registry: Arc<Registry>,
    pub(super) run: Arc<Run>,
    pub(super) pid: Pid,
    pub(super) pipes: [Option<File>; 2],
    pub(super) stdin: Option<File>,
    pub(super) bell: Arc<EventFd>,
    /// Ends with the process.
    exit_pipe: Option<PipeReader>,
    status: Receiver<Exit>,
    pub(super) exit: Option<Exit>,
    /// Why we end it.
    pub(super) end: Option<End>,
    deadline: Instant,
    pub(super) timeout: Duration,
    /// When SIGKILL follows on SIGTERM.
    kill_at: Option<Instant>,
    killed_at: Option<Instant>,
    exited_at: Option<Instant>,
    /// Bytes it may still write.
    allowance: u64,
    pub(super) truncated: bool,
    pub(super) buffer: Vec<u8>,
}

/// What can be done without waiting.
#[derive(Default)]
struct Ready {
    pipes: [bool; 2],
    stdin: bool,
    bell: bool,
    exited: bool,
}

impl Pump {
    pub(super) fn new(
        registry: &Arc<Registry>,
        run: &Arc<Run>,
        spawned: Spawned,
        (deadline, timeout): (Instant, Duration),
    ) -> io::Result<Pump> {
        let stdin = spawned.stdin.map(|pipe| File::from(OwnedFd::from(pipe)));
        if let Some(pipe) = &stdin {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Pump {
            registry: Arc::clone(registry),
            run: Arc::clone(run),
            pid: spawned.pid,
            pipes: [OwnedFd::from(spawned.stdout), OwnedFd::from(spawned.stderr)].map(|fd| Some(fd.into())),
            stdin,
            bell: run.hang_bell()?,
            exit_pipe: Some(registry.host.processes.exit_pipe(spawned.pid)?),
            status: spawned.exit,
            exit: None,
            end: None,
            deadline,
            timeout,
            kill_at: None,
            killed_at: None,
            exited_at: None,
            allowance: registry.settings.max_output,
            truncated: false,
            buffer: vec![0; CHUNK_BYTES],
        })
    }

    pub(super) fn start(self) -> io::Result<()> {
        thread::spawn("exec", move || self.pump()).map(drop)
    }

    fn pump(mut self) {
        while !self.is_over() {
            self.keep_time();
            self.tend_stdin();
            let ready = self.wait();
            if ready.bell {
                let _ = self.bell.read();
            }
            for stream in Stream::BOTH {
                if ready.pipes[stream as usize] {
                    self.read(stream);
                }
            }
            if ready.stdin {
                self.write();
            }
            if ready.exited {
                self.exit_pipe = None;
                // The status was sent before the pipe was closed.
                self.exit = Some(self.status.try_recv().unwrap_or(Exit::Signal(Signal::SIGKILL as i32)));
                self.exited_at = Some(Instant::now());
            }
        }
        self.finish();
    }

    fn is_over(&self) -> bool {
        let passed = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() >= time);
        match self.exit {
            Some(_) => self.pipes.iter().all(Option::is_none) || passed(self.exited_at, DRAIN),
            None => passed(self.killed_at, GIVE_UP),
        }
    }

    /// Signals that are due.
    fn keep_time(&mut self) {
        if self.exit.is_some() || self.killed_at.is_some() {
            return;
        }
        let now = Instant::now();
        if let (None, Some((end, grace))) = (self.kill_at, self.run.state().stop) {
            self.end = Some(end);
            self.kill_at = Some(now + grace);
            self.registry.host.processes.signal_group(self.pid, Signal::SIGTERM);
        }
        if now >= self.deadline {
            self.kill(End::Timeout);
        } else if self.kill_at.is_some_and(|at| now >= at) {
            self.kill(End::Stopped);
        }
    }

    /// Kills the group; `end` is why, unless it was being ended already.
    fn kill(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.killed_at = Some(Instant::now());
        self.registry.host.processes.signal_group(self.pid, Signal::SIGKILL);
    }

    /// When to look up, whatever comes.
    fn next_look(&self) -> Option<Instant> {
        match (self.exited_at, self.killed_at) {
            (Some(exited), _) => Some(exited + DRAIN),
            (None, Some(killed)) => Some(killed + GIVE_UP),
            (None, None) => self.kill_at.into_iter().chain([self.deadline]).min(),
        }
    }

    /// Bytes that may be read from each pipe now.
    fn room(&self) -> [usize; 2] {
        let mut state = self.run.state();
        let Some(held) = state.held else { return [CHUNK_BYTES; 2] };
        let most = if self.exit.is_some() { TAIL_BYTES } else { AHEAD_BYTES };
        let room = Stream::BOTH.map(|stream| {
            let ahead = state.tails[stream as usize].end().saturating_sub(held[stream as usize]);
            most.saturating_sub(usize::try_from(ahead).unwrap_or(usize::MAX)).min(CHUNK_BYTES)
        });
        state.paused = room.contains(&0);
        room
    }

    fn wait(&self) -> Ready {
        let room = self.room();
        let open = |s: usize| self.pipes[s].as_ref().filter(|_| room[s] > 0);
        let input = self.stdin.as_ref().filter(|_| !self.run.state().input.pending.is_empty());
        let sources = [
            readable(open(0)),
            readable(open(1)),
            input.map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)),
            readable(Some(&*self.bell)),
            readable(self.exit_pipe.as_ref()),
        ];
        let [out, err, stdin, bell, exited] = wait(sources, self.next_look());
        Ready { pipes: [out, err], stdin, bell, exited }
    }

    fn read(&mut self, stream: Stream) {
        let room = self.room()[stream as usize];
        let Some(pipe) = &mut self.pipes[stream as usize] else { return };
        match pipe.read(&mut self.buffer[..room]) {
            Ok(0) if room > 0 => self.end_of(stream),
            Ok(count) => {
                let allowed = count.min(usize::try_from(self.allowance).unwrap_or(usize::MAX));
                self.allowance -= allowed as u64;
                let data = &self.buffer[..allowed];
                self.run.update(|state| state.tails[stream as usize].push(data));
                if allowed < count {
                    self.truncated = true;
                    self.kill(End::OutputLimit);
                    Stream::BOTH.into_iter().for_each(|stream| self.end_of(stream));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.end_of(stream),
        }
    }

    fn end_of(&mut self, stream: Stream) {
        self.pipes[stream as usize] = None;
        self.run.update(|state| state.tails[stream as usize].close());
    }

    /// Closes standard input once everything is written and nothing more may come.
    fn tend_stdin(&mut self) {
        if self.stdin.is_some() && !self.run.state().input.is_used() {
            self.stdin = None;
        }
    }

    fn write(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        let count = {
            let state = self.run.state();
            let next = state.input.pending.as_slices().0;
            let count = next.len().min(CHUNK_BYTES);
            self.buffer[..count].copy_from_slice(&next[..count]);
            count
        };
        match pipe.write(&self.buffer[..count]) {
            Ok(written) => self.run.update(|state| drop(state.input.pending.drain(..written))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => {
                // The program has closed it.
                self.stdin = None;
                self.run.update(|state| state.input.end());
            }
        }
    }
}
