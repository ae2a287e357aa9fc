//! Which command runs which workers, and how. Pure.
use super::model::{CreateWorkerRequest, WorkerRef};
use super::process::Failure;
use super::profile::ProfileSelector;
use crate::process::{Signal, Spawn, Stdin, User};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of the intent in the environment: the kernel takes 128 KiB a variable.
const INTENT_BYTES: usize = 120 * 1024;
/// From SIGTERM to SIGKILL when a cancelled worker did not end at SIGINT.
const CANCEL_TERM: Duration = Duration::from_secs(1);

/// What runs the workers of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The profile.
    pub profile: ProfileSelector,
    /// The command and its arguments; run without a shell.
    pub argv: Vec<String>,
}

/// How the processes of workers are run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Which command for which profile.
    pub programs: Vec<Program>,
    /// Their working directory.
    pub cwd: PathBuf,
    /// Whom they run as; None: whoever we are.
    pub user: Option<User>,
    /// From the first signal to the next one.
    pub grace: Duration,
}

impl Programs {
    /// What runs this profile, if anything does.
    pub(super) fn of(&self, profile: &ProfileSelector) -> Option<&Program> {
        self.programs.iter().find(|program| program.profile.means(profile))
    }

    /// The signals that stop a group, each with its time.
    pub(super) fn stop_steps(&self) -> Vec<(Signal, Duration)> {
        vec![(Signal::SIGTERM, self.grace)]
    }

    /// The signals that cancel one.
    pub(super) fn cancel_steps(&self) -> Vec<(Signal, Duration)> {
        vec![(Signal::SIGINT, self.grace), (Signal::SIGTERM, self.grace.min(CANCEL_TERM))]
    }

    /// The process of a worker.
    ///
    /// # Errors
    /// The intent does not fit into an environment.
    pub(super) fn spawn(
        &self,
        program: &Program,
        worker: &WorkerRef,
        request: &CreateWorkerRequest,
        nofile_soft: Option<u64>,
    ) -> Result<Spawn, Failure> {
        let intent = serde_json::to_string(&request.intent).unwrap_or_default();
        if intent.len() > INTENT_BYTES {
            return Err(Failure::errored("the intent is too large for a process's environment"));
        }
        let ours = [
            ("WORKER_ID", worker.worker_id.clone()),
            ("RUNTIME_ID", worker.runtime_id.clone()),
            ("WORKER_PROFILE", request.profile.to_string()),
            ("WORKER_INTENT", intent),
        ];
        let inherited = std::env::vars_os().filter(|(name, _)| {
            !name.as_encoded_bytes().starts_with(b"FRAG_") && !ours.iter().any(|(ours, _)| name == *ours)
        });
        let set = ours.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Ok(Spawn {
            argv: program.argv.iter().map(OsString::from).collect(),
            env: inherited.chain(set).collect(),
            cwd: self.cwd.clone(),
            stdin: Stdin::Piped,
            user: self.user,
            // A worker that ends by itself takes along what it started.
            kill_group_on_exit: true,
            nofile_soft,
        })
    }
}
