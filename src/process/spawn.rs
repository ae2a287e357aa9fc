//! The only place that forks: the `spawner` thread. It never ends before the program does, because
//! the kernel sends PR_SET_PDEATHSIG when the *thread* that forked is gone (`prctl(2)`).
#![allow(unsafe_code)]
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use crossbeam_channel::{Receiver, Sender};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::table::{Exit, Pid, Shared};
use crate::base::lock::lock;

/// What the child reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: `/dev/null`, or its like where there is none.
    Null,
    /// A pipe from us, see [`Spawned::stdin`].
    Piped,
}

/// Whom the child runs as; needs root. Supplementary groups are reduced to `gid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A process to be started, as the leader of a new process group.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The program, looked up in `env`'s PATH if it has no slash, and its arguments.
    pub argv: Vec<OsString>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Where standard input comes from.
    pub stdin: Stdin,
    /// None: whoever we are.
    pub user: Option<User>,
    /// Whether the rest of its group is killed when it ends.
    pub kill_group_on_exit: bool,
    /// Soft limit of open files; None leaves ours.
    pub nofile_soft: Option<u64>,
}

/// A running process. Its output pipes must be read; its exit comes over a channel.
#[derive(Debug)]
pub struct Spawned {
    /// For signalling, also of the group.
    pub pid: Pid,
    /// With [`Stdin::Piped`].
    pub stdin: Option<ChildStdin>,
    /// Standard output.
    pub stdout: ChildStdout,
    /// Standard error.
    pub stderr: ChildStderr,
    /// Gets exactly one message.
    pub exit: Receiver<Exit>,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum SpawnError {
    /// No such program.
    NotFound(String),
    /// The program exists but may not be, or is nothing that can be, executed.
    NotExecutable(String, io::Error),
    /// The working directory cannot be entered.
    Directory(PathBuf, io::Error),
    /// Out of processes, memory or descriptors: trying later may help.
    Resources(io::Error),
    /// Anything else, such as a NUL in an argument or a user we may not become.
    Other(io::Error),
}

impl SpawnError {
    /// The code a shell would report: 127 for a missing program, else 126.
    pub fn shell_code(&self) -> i32 {
        if matches!(self, SpawnError::NotFound(_)) { 127 } else { 126 }
    }

    fn new(error: io::Error, spawn: &Spawn) -> SpawnError {
        let program = || spawn.argv.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        match error.raw_os_error().map(Errno::from_raw) {
            // exec and chdir report alike.
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) if !spawn.cwd.is_dir() => {
                SpawnError::Directory(spawn.cwd.clone(), error)
            }
            // A script's interpreter, or the loader of a program that is not static.
            Some(Errno::ENOENT) if program().contains('/') && spawn.cwd.join(program()).exists() => {
                let missing = io::Error::new(io::ErrorKind::NotFound, "its interpreter or loader is missing");
                SpawnError::NotExecutable(program(), missing)
            }
            Some(Errno::ENOENT | Errno::ENOTDIR) => SpawnError::NotFound(program()),
            Some(Errno::EACCES | Errno::ENOEXEC | Errno::EISDIR) => {
                SpawnError::NotExecutable(program(), error)
            }
            Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
                SpawnError::Resources(error)
            }
            _ => SpawnError::Other(error),
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::NotFound(program) => write!(f, "command not found: {program}"),
            SpawnError::NotExecutable(program, error) => write!(f, "cannot execute {program}: {error}"),
            SpawnError::Directory(cwd, error) => {
                write!(f, "cannot enter the working directory {}: {error}", cwd.display())
            }
            SpawnError::Resources(error) => write!(f, "out of resources for a process: {error}"),
            SpawnError::Other(error) => write!(f, "cannot start the command: {error}"),
        }
    }
}

impl std::error::Error for SpawnError {}

pub(super) struct Request {
    pub(super) spawn: Spawn,
    pub(super) reply: Sender<Result<Spawned, SpawnError>>,
}

/// The body of the spawner thread.
pub(super) fn serve(shared: &Shared, requests: &Receiver<Request>) {
    for Request { spawn, reply } in requests {
        // The thread must outlive anything std does: its end would kill every child.
        let result = catch_unwind(AssertUnwindSafe(|| start(shared, &spawn)))
            .unwrap_or_else(|_| Err(SpawnError::Other(io::Error::other("spawning panicked"))));
        let _ = reply.send(result);
    }
}

fn start(shared: &Shared, spawn: &Spawn) -> Result<Spawned, SpawnError> {
    let Some((program, arguments)) = spawn.argv.split_first() else {
        return Err(SpawnError::Other(io::Error::new(io::ErrorKind::InvalidInput, "empty command")));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spawn.env.iter().map(|(k, v)| (k, v)));
    command.current_dir(&spawn.cwd).process_group(0);
    let stdin = match spawn.stdin {
        Stdin::Piped => Ok(Stdio::piped()),
        Stdin::Null => nothing(),
    };
    command.stdin(stdin.map_err(|error| SpawnError::new(error, spawn))?);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (parent, user, nofile_soft) = (std::process::id(), spawn.user, spawn.nofile_soft);
    // SAFETY: `prepare` makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(move || prepare(parent, user, nofile_soft)) };

    // From the fork to the registration nobody may collect: a program that fails in exec is waited
    // for by std itself, and one that ends at once must find its entry.
    let mut table = lock(&shared.table);
    let mut child = command.spawn().map_err(|error| SpawnError::new(error, spawn))?;
    let (send, exit) = crossbeam_channel::bounded(1);
    let number = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let pid = table.register(number, spawn.kill_group_on_exit, send);
    drop(table);
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok(Spawned { pid, stdin: child.stdin.take(), stdout, stderr, exit }),
        _ => Err(SpawnError::Other(io::Error::other("the child has no pipes"))),
    }
}

/// An input that has ended. Not `Stdio::null`: an empty chroot or image has no `/dev/null`.
fn nothing() -> io::Result<Stdio> {
    match File::open("/dev/null") {
        Ok(null) => Ok(null.into()),
        Err(_) => io::pipe().map(|(reader, _)| reader.into()),
    }
}

/// Runs in the child between fork and exec; its error is reported by `Command::spawn`. std has
/// already set the group, the directory and the three descriptors.
fn prepare(parent: u32, user: Option<User>, nofile_soft: Option<u64>) -> io::Result<()> {
    // The kernel's struct sigaction, all zeroes: SIG_DFL. Longer than any architecture has it.
    static DEFAULT: [u64; 8] = [0; 8];
    const KERNEL_SIGSET_BYTES: usize = 8;
    // SAFETY: async-signal-safe calls (signal-safety(7)) on live data. The plain system call, as libc
    // refuses to reset 32 and 33, which a parent may have left ignored. KILL and STOP answer an error,
    // which is right to ignore.
    unsafe {
        for number in 1..=64 as libc::c_long {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(libc::SYS_rt_sigaction, number, &raw const DEFAULT, none, KERNEL_SIGSET_BYTES);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
    if let Some(soft) = nofile_soft {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?;
    }
    if let Some(User { uid, gid }) = user {
        // SAFETY: plain system calls; the child has one thread, so libc's broadcast is trivial.
        unsafe {
            Errno::result(libc::setgroups(1, &gid))?;
            Errno::result(libc::setgid(gid))?;
            Errno::result(libc::setuid(uid))?;
        }
    }
    // After the change of user, which clears it.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if std::os::unix::process::parent_id() != parent {
        // We died before the line above could tell us.
        // SAFETY: `_exit` runs no handlers and is async-signal-safe.
        unsafe { libc::_exit(1) };
    }
    Ok(())
}
