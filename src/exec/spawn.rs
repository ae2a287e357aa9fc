//! From what a caller wants to a process with its pump, or to a run that is over before it began.
use super::environment::inherited;
use super::pump::Pump;
use super::registry::{Change, Registry};
use super::run::Run;
use super::stdin::Input;
use super::wanted::Wanted;
use crate::base::random::uuid_v4;
use crate::process::{Spawn, SpawnError, Stdin};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The code of a program that could not be started.
const NOT_STARTED: i32 = 1;
/// The code of a program whose time was over.
const KILLED: i32 = -1;

pub(super) fn new_run(argv: &[OsString], wanted: &Wanted) -> io::Result<Run> {
    let program = argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let input = Input::new(wanted.stdin.clone(), wanted.keep_stdin);
    let command = (program, argv.len().saturating_sub(1));
    let run = Run::new(uuid_v4()?, command, wanted.detach, wanted.keep_background, input);
    run.state().held = wanted.awaits_reader.then_some([0; 2]);
    Ok(run)
}

/// Starts the process of an admitted run, and its pump.
pub(super) fn start(registry: &Arc<Registry>, run: &Arc<Run>, argv: Vec<OsString>, wanted: Wanted) {
    if wanted.timeout.is_zero() {
        return registry.never_began(run, timeout_text(wanted.timeout.as_secs()), KILLED, true);
    }
    let host = &registry.host;
    log::debug!("run {}: {argv:?}", run.id);
    let has_input = run.state().input.is_used();
    let spawned = host.processes.spawn(Spawn {
        argv,
        env: environment(registry, &wanted),
        cwd: wanted.cwd.unwrap_or_else(|| host.root.clone()),
        stdin: if has_input { Stdin::Piped } else { Stdin::Null },
        user: host.user,
        // Its last words may come from others in its group: the pump decides.
        kill_group_on_exit: false,
        nofile_soft: host.processes.nofile_soft(),
    });
    let deadline = Instant::now() + wanted.timeout;
    let spawned = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            log::info!("run {}: not started", run.id);
            return registry.never_began(run, system_text(&error), NOT_STARTED, false);
        }
    };
    let pid = spawned.pid;
    log::info!("run {}: pid {pid}, {} arguments", run.id, run.args);
    run.update(|state| state.pid = Some(pid));
    registry.tell(&Change::Started(run));
    let started = Pump::new(registry, run, spawned, (deadline, wanted.timeout)).and_then(Pump::start);
    if let Err(error) = started {
        log::warn!("run {}: nothing to read its output with: {error}", run.id);
        host.processes.end_group(pid, &[]);
        registry.never_began(run, error.to_string(), NOT_STARTED, false);
    }
}

fn environment(registry: &Registry, wanted: &Wanted) -> Vec<(OsString, OsString)> {
    let mut env = inherited(std::env::vars_os(), &registry.settings.env);
    // Ours last: the last of two counts.
    let added = wanted.env.iter().chain(&wanted.our_env);
    env.extend(added.map(|(name, value)| (name.into(), value.into())));
    env
}

pub(super) fn timeout_text(seconds: u64) -> String {
    format!("Timeout after {seconds}s")
}

/// What the system said, without names of the host.
fn system_text(error: &SpawnError) -> String {
    match error {
        SpawnError::NotFound(_) => io::Error::from(nix::errno::Errno::ENOENT).to_string(),
        SpawnError::NotExecutable(_, error)
        | SpawnError::Directory(_, error)
        | SpawnError::Resources(error)
        | SpawnError::Other(error) => error.to_string(),
    }
}
