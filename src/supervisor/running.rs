//! One life of the server: its process, its exit, the reader of its output. The watcher owns it.
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::Spec;
use super::child::Shared;
use super::logs::LogStream;
use crate::process::{Exit, Output, Pid, Signal, Spawn, Spawned, Stdin, Stream};

pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) exit: Receiver<Exit>,
    pub(super) started: Instant,
    /// Set by the watcher when `exit` told.
    pub(super) exited: Option<Exit>,
    output: Output,
}

impl Running {
    /// Spawns the command; else the exit code a shell would report, and why.
    pub(super) fn start(spec: &Spec, shared: &Arc<Shared>) -> Result<Running, (i32, String)> {
        let nofile_soft = shared.processes.nofile_soft();
        let Spawned { pid, exit, stdout, stderr, .. } = shared
            .processes
            .spawn(spawn(spec, nofile_soft))
            .map_err(|error| (error.shell_code(), error.to_string()))?;
        let to = Arc::clone(shared);
        let output = Output::start(stdout, stderr, spec.pass_output, move |stream, line| {
            let stream = match stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            to.logs.push(stream, line);
        });
        match output {
            Ok(output) => Ok(Running { pid, exit, started: Instant::now(), exited: None, output }),
            Err(error) => {
                // Unread, it would block on its first long write.
                shared.processes.signal_group(pid, Signal::SIGKILL);
                Err((126, format!("cannot read the command's output: {error}")))
            }
        }
    }

    /// Waits for its last words; how it ended, unless it was given up alive.
    pub(super) fn finish(self) -> Option<Exit> {
        self.output.finish();
        self.exited
    }
}

fn spawn(spec: &Spec, nofile_soft: Option<u64>) -> Spawn {
    let ours = std::env::vars_os();
    let kept = ours.filter(|(name, _)| name != "PORT" && !name.as_encoded_bytes().starts_with(b"FRAG_"));
    Spawn {
        argv: spec.command.iter().map(Into::into).collect(),
        env: kept.chain([("PORT".into(), spec.port.to_string().into())]).collect(),
        cwd: spec.cwd.clone(),
        stdin: Stdin::Null,
        user: spec.user,
        // A leader that dies by itself takes its workers along, or they would hold the port.
        kill_group_on_exit: true,
        nofile_soft,
    }
}
