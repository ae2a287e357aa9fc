//! Runs of programs, put together: what the settings allow, where they take place, who is told.
use super::observers::Observers;
use crate::config::Config;
use crate::exec::{Exec, Host};
use crate::process::{Processes, User};
use std::time::Duration;

/// None unless `--exec` was given.
pub(super) fn exec(
    config: &Config,
    processes: &Processes,
    user: Option<User>,
    observers: &Observers,
) -> Option<Exec> {
    let host =
        Host { processes: processes.clone(), root: config.root.clone(), user, stop_grace: config.stop_grace };
    Some(Exec::new(config.exec.clone()?, host, observers.of_exec()))
}

/// Descriptors of as many runs as there may be: three pipes, the bell and the pipe of the exit.
pub(super) fn descriptors(config: &Config) -> u64 {
    config.exec.as_ref().map_or(0, |exec| (exec.max_concurrent as u64).saturating_mul(5))
}

/// How long runs may take to end by themselves when the server does: their clients get the end of
/// their streams within the time that all responses have.
pub(super) fn shutdown_grace(config: &Config) -> Duration {
    config.stop_grace.min(config.shutdown_grace / 2)
}
