//! The only place that collects children. Runs on the `signals` thread whenever SIGCHLD came.
#![allow(unsafe_code)]
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};

use super::table::{Exit, Shared};
use crate::base::lock::lock;

/// Collects every child that has ended. The lock is let go between two children, so that a storm of
/// orphans cannot keep others from spawning.
pub(super) fn reap_all(shared: &Shared) {
    while reap_one(shared) {}
}

/// Peek, kill the group, collect, under one hold of the table's lock: while the leader is a zombie
/// its number, and so its group's, cannot be given away.
fn reap_one(shared: &Shared) -> bool {
    let mut table = lock(&shared.table);
    let Ok(Some((pid, _))) = wait(libc::P_ALL, 0, libc::WNOWAIT) else { return false };
    if table.entries.get(&pid).is_some_and(|entry| entry.kill_group_on_exit) {
        let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
    let Ok(id) = libc::id_t::try_from(pid) else { return false };
    let exit = wait(libc::P_PID, id, 0).ok().flatten().map(|(_, exit)| exit);
    if let Some(entry) = table.collected(pid) {
        // Still under the lock: whoever finds no such process in the table finds its status. The channel
        // has room for the one message; an owner who left does not care. Without a status somebody broke
        // the rule and waited for our child: say it was killed.
        let _ = entry.exit.try_send(exit.unwrap_or(Exit::Signal(libc::SIGKILL)));
    }
    drop(table);
    shared.reaped.notify_all();
    true
}

/// Whether a child of ours, running or a zombie, is in this group. While the table's lock is held it
/// stays there, and so the group's number cannot be given away.
pub(super) fn has_child_in(group: i32) -> bool {
    libc::id_t::try_from(group).is_ok_and(|id| wait(libc::P_PGID, id, libc::WNOWAIT) != Err(Errno::ECHILD))
}

/// `waitid(2)`, never blocking. Not nix's: that one turns death by a real-time signal into an error,
/// and such a zombie would be met again and again.
fn wait(kind: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> nix::Result<Option<(i32, Exit)>> {
    // SAFETY: siginfo_t is plain old data, all zeroes is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` outlives the call, which writes nothing else.
        let result = unsafe { libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | flags) };
        match Errno::result(result) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: waitid succeeded, so it filled in the SIGCHLD members or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exit = if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
    Ok((pid != 0).then_some((pid, exit)))
}
