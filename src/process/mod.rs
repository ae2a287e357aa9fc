//! Child processes of the whole program: one place forks, one place reaps, one place signals.
//!
//! Knows nothing of the product. The supervisor and every other floor that runs commands call it.
mod adopted;
mod end;
mod output;
mod reap;
mod signal;
mod spawn;
mod table;

pub use nix::sys::signal::Signal;
pub use output::{Output, Stream};
pub use signal::install as install_signals;
pub use spawn::{Spawn, SpawnError, Spawned, Stdin, User};
pub use table::{Exit, Pid, Processes};

/// Makes `/proc/self` unreadable for, and ptrace impossible by, processes of the same user
/// (`PR_SET_DUMPABLE` 0, see `prctl(2)`). Apart from [`Processes::start`] so that tests keep their
/// core dumps and debuggers.
///
/// # Errors
/// When the kernel refuses.
pub fn forbid_inspection() -> std::io::Result<()> {
    nix::sys::prctl::set_dumpable(false).map_err(Into::into)
}
