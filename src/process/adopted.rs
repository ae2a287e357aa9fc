//! Children we did not start: orphans of our descendants that the kernel handed to us. Finds them in
//! `/proc` and kills them. Called by the supervisor before it starts a server again.
use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};

use super::table::{Processes, Table};
use crate::base::lock::lock;

/// Children listed at a time; more are met in the next round.
const ROUND_MAX: usize = 4096;
/// Bytes of a stat line that matter; the name in it has at most 16 characters (64 for a kernel thread).
const STAT_BYTES: u64 = 512;
/// The longest wait between two rounds, for a reaped child whose wake-up we missed.
const ROUND_WAIT: Duration = Duration::from_millis(10);

pub(super) struct ChildOfOurs {
    pub(super) pid: i32,
    pub(super) group: i32,
    zombie: bool,
}

/// Our direct children, at most [`ROUND_MAX`]. Empty where `/proc` is missing.
pub(super) fn children() -> Vec<ChildOfOurs> {
    let us = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let mut stat = Vec::new();
            let file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
            file.take(STAT_BYTES).read_to_end(&mut stat).ok()?;
            let (zombie, parent, group) = parse_stat(&stat)?;
            (parent == us).then_some(ChildOfOurs { pid, group, zombie })
        })
        .take(ROUND_MAX)
        .collect()
}

/// (is a zombie, parent, group) of a `/proc/PID/stat` line, see `proc_pid_stat(5)`. The second field
/// is the process's name in parentheses and may itself hold any byte.
fn parse_stat(stat: &[u8]) -> Option<(bool, i32, i32)> {
    let after_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some((zombie, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// SIGKILLs adopted children under the table's lock, where none of them can be collected, and says
/// how many still run. Spares members of a group whose leader we started and have not given up,
/// unless `all`.
pub(super) fn kill_listed(table: &Table, all: bool) -> usize {
    let mut running = 0;
    for child in children() {
        let ours = table.entries.contains_key(&child.pid) || table.inherited.contains(&child.pid);
        let in_known_group =
            table.entries.contains_key(&child.group) || table.leaderless.contains_key(&child.group);
        if ours || (in_known_group && !all) {
            continue;
        }
        if in_known_group {
            let _ = killpg(nix::unistd::Pid::from_raw(child.group), Signal::SIGKILL);
        }
        // A zombie leader may still have running threads, so it is signalled as well.
        let _ = kill(nix::unistd::Pid::from_raw(child.pid), Signal::SIGKILL);
        running += usize::from(!child.zombie);
    }
    running
}

impl Processes {
    /// Kills adopted descendants until none is left, as each kill may bring us the next generation;
    /// false if some still run after `limit`. Spares what we started (also what it left in its own
    /// group: a shell's background jobs) and, always, children we had before we started.
    pub fn kill_adopted(&self, limit: Duration) -> bool {
        self.kill_strangers(limit, false)
    }

    /// Like [`Processes::kill_adopted`], but leaderless groups die too: for the shutdown.
    pub fn kill_all_adopted(&self, limit: Duration) -> bool {
        self.kill_strangers(limit, true)
    }

    fn kill_strangers(&self, limit: Duration, all: bool) -> bool {
        let until = Instant::now() + limit;
        let mut table = lock(&self.shared.table);
        loop {
            if kill_listed(&table, all) == 0 {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            let waited = self.shared.reaped.wait_timeout(table, ROUND_WAIT);
            table = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_stat;

    #[test]
    fn a_name_cannot_forge_its_stat_line() {
        assert_eq!(parse_stat(b"7 (sh) S 1 7 7 0"), Some((false, 1, 7)));
        assert_eq!(parse_stat(b"7 (a) Z 9 9 (b) Z 3 4 4 0"), Some((true, 3, 4)));
        assert_eq!(parse_stat(b"7 (\xff) R 3 4 4"), Some((false, 3, 4)));
        assert_eq!(parse_stat(b"7 (cut"), None);
        assert_eq!(parse_stat(b"7 (cut) S"), None);
    }
}
