//! One life of the server: its process, its exit, the reader of its output. The watcher owns it.
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::Spec;
use super::child::Shared;
use super::logs::{LINE_BYTES, LogStream};
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
        // Before the fork: a life is never measured shorter than it was.
        let started = Instant::now();
        let Spawned { pid, exit, stdout, stderr, .. } = shared
            .processes
            .spawn(spawn(spec, nofile_soft))
            .map_err(|error| (error.shell_code(), error.to_string()))?;
        let to = Arc::clone(shared);
        let output = Output::start(stdout, stderr, spec.pass_output, LINE_BYTES, move |stream, line| {
            let stream = match stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            to.logs.push(stream, line);
        });
        match output {
            Ok(output) => Ok(Running { pid, exit, started, exited: None, output }),
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
    Spawn {
        argv: spec.command.iter().map(Into::into).collect(),
        env: environment(std::env::vars_os(), spec.port),
        cwd: spec.cwd.clone(),
        stdin: Stdin::Null,
        user: spec.user,
        // A leader that dies by itself takes its workers along, or they would hold the port.
        kill_group_on_exit: true,
        nofile_soft,
    }
}

/// `ours` without our settings, some of which are secrets, and with its port.
fn environment(ours: impl Iterator<Item = (OsString, OsString)>, port: u16) -> Vec<(OsString, OsString)> {
    ours.filter(|(name, _)| name != "PORT" && !name.as_encoded_bytes().starts_with(b"FRAG_"))
        .chain([("PORT".into(), port.to_string().into())])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_settings_do_not_reach_the_server() {
        let ours =
            [("PORT", "1"), ("FRAG_TOKEN", "secret"), ("PATH", "/bin"), ("MY_FRAG_", "x"), ("PORTS", "y")];
        let kept = environment(ours.map(|(k, v)| (k.into(), v.into())).into_iter(), 9090);
        let expected = [("PATH", "/bin"), ("MY_FRAG_", "x"), ("PORTS", "y"), ("PORT", "9090")];
        assert_eq!(kept, expected.map(|(k, v)| (k.into(), v.into())));
    }
}
