//! Ends a process with everything it started in its group: asked first, killed in the end.
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};

use super::table::{Pid, Processes};
use crate::base::lock::lock;

/// How long SIGKILL may take: a process inside a system call dies when that ends.
const KILL_TIME: Duration = Duration::from_millis(500);
/// The longest wait between two looks: the end of a process that is not our child tells us nothing.
const LOOK: Duration = Duration::from_millis(10);

impl Processes {
    /// Ends the group that `pid` leads or led. Each signal is sent in turn and given its time; whoever
    /// is left after the last one gets SIGKILL. Blocks for the sum of the times and half a second at
    /// most, and until then does not let the rest of the group die with its leader.
    ///
    /// Returns whether the group is gone.
    pub fn end_group(&self, pid: Pid, steps: &[(Signal, Duration)]) -> bool {
        self.set_kill_group_on_exit(pid, false);
        let kill = [(Signal::SIGKILL, KILL_TIME)];
        steps.iter().chain(&kill).any(|(signal, time)| {
            self.signal_group(pid, *signal);
            self.group_ends_within(pid, *time)
        })
    }

    fn group_ends_within(&self, pid: Pid, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if !self.group_alive(pid) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let table = lock(&self.shared.table);
            let waited = self.shared.reaped.wait_timeout(table, left.min(LOOK));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// SIGKILLs every group we ever started, then everything that their ends leave to us; takes at
    /// most a second.
    pub fn kill_everything(&self) {
        let until = Instant::now() + KILL_TIME;
        let mut table = lock(&self.shared.table);
        for number in table.entries.keys() {
            let _ = killpg(nix::unistd::Pid::from_raw(*number), Signal::SIGKILL);
        }
        // Only once they are collected are their orphans ours to find.
        while !table.entries.is_empty() && Instant::now() < until {
            let waited = self.shared.reaped.wait_timeout(table, LOOK);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(table);
        self.kill_all_adopted(KILL_TIME);
    }
}
