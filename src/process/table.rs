//! The process table: which pids are ours, and the one lock that makes spawning, collecting and
//! signalling exclude each other. Everything in this directory acts through it.
//!
//! Lock order: the table is a leaf, no other lock of the program is taken while it is held. Forking,
//! `kill(2)` and reading `/proc` do happen under it; that is what it is for.
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, Condvar, Mutex};

use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill, killpg};

use super::spawn::{self, Spawn, SpawnError, Spawned};
use super::{adopted, reap, signal};
use crate::base::lock::lock;

/// A process we spawned. The serial tells it apart from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pid {
    pub(super) number: i32,
    pub(super) serial: u64,
}

impl Pid {
    /// The kernel's number, for people; also the number of the process group it leads.
    pub fn as_raw(self) -> i32 {
        self.number
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned or called `exit` with this code, 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The code a shell would report: the code itself, or 128 + the signal's number.
    pub fn shell_code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(number) => 128 + number,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// One process that is not collected yet.
pub(super) struct Entry {
    pub(super) serial: u64,
    pub(super) kill_group_on_exit: bool,
    pub(super) exit: Sender<Exit>,
    /// Closed when the process is collected, after its status was sent.
    pub(super) exit_pipe: Option<PipeWriter>,
}

#[derive(Default)]
pub(super) struct Table {
    /// Spawned by us and not collected, by pid number.
    pub(super) entries: HashMap<i32, Entry>,
    /// Groups that were let live when their leader was collected, with the leader's serial.
    pub(super) leaderless: HashMap<i32, u64>,
    /// Children we already had when we started (`sh -c 'redis & exec us'`): never ours to kill.
    pub(super) inherited: HashSet<i32>,
    last_serial: u64,
}

/// Leaderless groups remembered before the dead ones are swept out.
const SWEEP_AT: usize = 64;

impl Table {
    pub(super) fn register(&mut self, number: i32, kill_group_on_exit: bool, exit: Sender<Exit>) -> Pid {
        self.last_serial += 1;
        let serial = self.last_serial;
        // The kernel gave the number away again, so the old group is gone.
        self.leaderless.remove(&number);
        self.entries.insert(number, Entry { serial, kill_group_on_exit, exit, exit_pipe: None });
        Pid { number, serial }
    }

    /// Notes that `number` has just been collected.
    pub(super) fn collected(&mut self, number: i32) -> Option<Entry> {
        self.inherited.remove(&number);
        let entry = self.entries.remove(&number)?;
        // A group that was just killed is nobody's any more: what is left of it counts as adopted.
        if !entry.kill_group_on_exit && alive(number) {
            if self.leaderless.len() >= SWEEP_AT {
                self.leaderless.retain(|group, _| alive(*group));
            }
            self.leaderless.insert(number, entry.serial);
        }
        Some(entry)
    }

    fn is_registered(&self, pid: Pid) -> bool {
        self.entries.get(&pid.number).is_some_and(|entry| entry.serial == pid.serial)
    }

    /// Whether a signal to the group `pid` led cannot reach anybody else: its leader is not
    /// collected, or a child of ours, which only we could collect, is a member.
    fn owns_group(&self, pid: Pid) -> bool {
        self.is_registered(pid)
            || self.leaderless.get(&pid.number) == Some(&pid.serial) && reap::has_child_in(pid.number)
    }
}

/// Whether a process group has members, zombies included.
fn alive(group: i32) -> bool {
    killpg(nix::unistd::Pid::from_raw(group), None) != Err(Errno::ESRCH)
}

pub(super) struct Shared {
    pub(super) table: Mutex<Table>,
    /// Notified after every collected child, with `table`.
    pub(super) reaped: Condvar,
    spawner: Sender<spawn::Request>,
    nofile_soft: Option<u64>,
}

/// The handle to the process table: one per program, cheap to clone.
#[derive(Clone)]
pub struct Processes {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").finish_non_exhaustive()
    }
}

impl Processes {
    /// The program's process table; the first call starts the threads `spawner` and `signals`,
    /// takes SIGCHLD, and makes us the subreaper of our descendants. Call it before raising
    /// resource limits: what it sees is what children get back.
    ///
    /// From then on nobody may wait for a child in another way (`std::process::Child::wait`).
    ///
    /// # Errors
    /// When a pipe or a thread cannot be had; a later call may succeed.
    pub fn start() -> io::Result<Processes> {
        static STARTED: Mutex<Option<Processes>> = Mutex::new(None);
        let mut started = lock(&STARTED);
        if let Some(processes) = &*started {
            return Ok(processes.clone());
        }
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            // As PID 1 we are the reaper anyway.
            log::warn!("cannot adopt orphans (PR_SET_CHILD_SUBREAPER): {error}");
        }
        if !std::path::Path::new("/proc/self").exists() {
            log::warn!("no /proc: what a command leaves behind outside its group cannot be found and ended");
        }
        let inherited = adopted::children().iter().map(|child| child.pid).collect();
        let (spawner, requests) = crossbeam_channel::bounded(0);
        let shared = Arc::new(Shared {
            table: Mutex::new(Table { inherited, ..Table::default() }),
            reaped: Condvar::new(),
            spawner,
            nofile_soft: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        });
        let (for_spawner, for_reaper) = (Arc::clone(&shared), Arc::clone(&shared));
        crate::base::thread::spawn("spawner", move || spawn::serve(&for_spawner, &requests))?;
        signal::start(move || reap::reap_all(&for_reaper))?;
        let processes = Processes { shared };
        *started = Some(processes.clone());
        Ok(processes)
    }

    /// Starts a process on the spawner thread and waits until its `exec` has succeeded or failed.
    ///
    /// # Errors
    /// Why it cannot run; no process is left behind then.
    pub fn spawn(&self, spawn: Spawn) -> Result<Spawned, SpawnError> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let gone = || SpawnError::Other(io::Error::other("the spawner thread is gone"));
        self.shared.spawner.send(spawn::Request { spawn, reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// The soft limit of open files we were started with.
    pub fn nofile_soft(&self) -> Option<u64> {
        self.shared.nofile_soft
    }

    /// Signals one process. False when it has been collected already or the kernel refuses.
    pub fn signal_process(&self, pid: Pid, signal: Signal) -> bool {
        let table = lock(&self.shared.table);
        table.is_registered(pid) && kill(nix::unistd::Pid::from_raw(pid.number), signal).is_ok()
    }

    /// Signals the group a process leads or led. False when nobody is there or the kernel refuses.
    pub fn signal_group(&self, pid: Pid, signal: Signal) -> bool {
        let table = lock(&self.shared.table);
        table.owns_group(pid) && killpg(nix::unistd::Pid::from_raw(pid.number), signal).is_ok()
    }

    /// Whether the group a process leads or led has members (zombies included).
    pub fn group_alive(&self, pid: Pid) -> bool {
        let mut table = lock(&self.shared.table);
        if table.is_registered(pid) {
            return true;
        }
        if table.leaderless.get(&pid.number) != Some(&pid.serial) {
            return false;
        }
        let alive = alive(pid.number);
        if !alive {
            table.leaderless.remove(&pid.number);
        }
        alive
    }

    /// A pipe that ends when the process has: for who waits for it and for other descriptors with one
    /// `poll(2)`. Its status can be taken from [`Spawned::exit`] then. One a process: a further call
    /// ends the pipe of the one before.
    ///
    /// # Errors
    /// When a pipe cannot be had.
    pub fn exit_pipe(&self, pid: Pid) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        if let Some(entry) = lock(&self.shared.table).entries.get_mut(&pid.number)
            && entry.serial == pid.serial
        {
            entry.exit_pipe = Some(writer);
        }
        Ok(reader)
    }

    /// Changes whether the rest of the group dies with its leader. Off, members outlive it until
    /// [`Processes::signal_group`] or the shutdown reaches them.
    pub fn set_kill_group_on_exit(&self, pid: Pid, kill: bool) {
        if let Some(entry) = lock(&self.shared.table).entries.get_mut(&pid.number)
            && entry.serial == pid.serial
        {
            entry.kill_group_on_exit = kill;
        }
    }
}
