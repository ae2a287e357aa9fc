//! The wrapped server's states as actions, and each of its lives as a run.
use crate::base::random::uuid_v4;
use crate::base::time::{millis, unix_ms};
use crate::events::Action;
use crate::process::Exit;
use crate::runs::{Kind, RunStatus, Runs};
use crate::supervisor::{State, Status};
use serde_json::{Value, json};
use std::time::SystemTime;

/// What was last told of the server.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// The run of the life it is in.
    run: Option<String>,
    pid: Option<i32>,
    generation: u64,
    /// The state, and whether a time for another try is set.
    told: Option<(State, bool)>,
}

impl Life {
    /// Tells what is new in `status`.
    pub(super) fn follow(&mut self, status: &Status, runs: &Runs) {
        if self.pid.is_some() && (status.pid.is_none() || status.generation != self.generation) {
            self.ended(status, runs);
        }
        let is_new = status.pid.is_some() && status.generation != self.generation;
        let now = (status.state, status.next_retry.is_some());
        if is_new {
            self.started(status, runs);
        } else if now != (State::Backoff, false) && self.told != Some(now) {
            // A server that has just ended is in backoff before anybody knows until when.
            self.tell(runs, Action::new(name(status.state), view(status)));
        }
        (self.pid, self.generation, self.told) = (status.pid, status.generation, Some(now));
    }

    fn started(&mut self, status: &Status, runs: &Runs) {
        let mut payload = view(status);
        payload["startedAt"] =
            json!(unix_ms(SystemTime::now()).saturating_sub(status.uptime.map_or(0, millis)));
        let action = Action::new("SERVER_STARTED", payload);
        match uuid_v4() {
            Ok(id) if runs.begin(&id, Kind::Server, action.clone()) => self.run = Some(id),
            _ => runs.act(&action),
        }
    }

    fn ended(&mut self, status: &Status, runs: &Runs) {
        let mut payload = view(status);
        payload["startedAt"] = Value::Null;
        let planned = matches!(status.state, State::Draining | State::Stopping | State::Stopped);
        let (ended, error) = match status.exit {
            _ if planned => (RunStatus::Aborted, None),
            Some(Exit::Code(0)) => (RunStatus::Completed, None),
            exit => (RunStatus::Failed, exit.map(|exit| exit.to_string())),
        };
        let action = Action::new("SERVER_EXITED", payload);
        match self.run.take() {
            Some(id) => runs.end(&id, ended, error.as_deref(), action),
            None => runs.act(&action),
        }
    }

    fn tell(&self, runs: &Runs, action: Action) {
        match &self.run {
            Some(id) => runs.record(id, action),
            None => runs.act(&action),
        }
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Starting => "SERVER_STARTING",
        State::Ready => "SERVER_READY",
        State::Draining => "SERVER_DRAINING",
        State::Stopping => "SERVER_STOPPING",
        State::Stopped => "SERVER_STOPPED",
        State::Backoff => "SERVER_BACKOFF",
        State::Failed => "SERVER_FAILED",
        State::PortBusy => "SERVER_PORT_BUSY",
    }
}

fn view(status: &Status) -> Value {
    let exit = status.exit.map(|exit| match exit {
        Exit::Code(code) => json!({"code": code, "signal": null}),
        Exit::Signal(signal) => json!({"code": null, "signal": signal}),
    });
    let retry_at = status.next_retry.map(|left| unix_ms(SystemTime::now()).saturating_add(millis(left)));
    json!({
        "state": status.state.as_str(), "ready": status.ready, "pid": status.pid,
        "restarts": status.restarts, "exit": exit, "retryAt": retry_at, "message": status.message,
    })
}
