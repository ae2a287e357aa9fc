//! Runs put together: the bus, the journal, the agent, and what the other parts tell of themselves.
use super::{StartError, tried};
use crate::api::{Beginning, Identity, RunsApi, encode};
use crate::base::random::uuid_v4;
use crate::base::thread;
use crate::config::Config;
use crate::events::{Bus, BusSettings};
use crate::process::{Processes, User};
use crate::runs::{AgentSettings, Recovered, Runs, RunsSettings};
use crate::supervisor::OnChange;
use std::ffi::OsString;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

mod life;
use life::Life;

/// The bus, and the runs that dispatch on it.
#[derive(Clone)]
pub(super) struct RunningRuns {
    bus: Bus,
    runs: Runs,
}

impl RunningRuns {
    pub(super) fn start(
        config: &Config,
        processes: &Processes,
        user: Option<User>,
    ) -> Result<RunningRuns, StartError> {
        let wanted = &config.runs;
        let settings = BusSettings { ring: wanted.event_ring, streamed: wanted.streamed, encode };
        let bus = Bus::start(settings).map_err(tried("starting the bus"))?;
        let agent = wanted.agent.clone().map(|command| AgentSettings {
            command,
            env: environment(config.subprocess_port),
            cwd: config.root.clone(),
            user,
            grace: config.stop_grace,
        });
        let settings = RunsSettings {
            agent,
            rule: wanted.rule.clone(),
            approval_timeout: wanted.approval_timeout,
            history_size: wanted.history_size,
            journal: wanted.journal.clone(),
        };
        let what = match &wanted.journal {
            Some(dir) => format!("opening the journal {}", dir.display()),
            None => "starting the runs".to_owned(),
        };
        let (runs, recovered) = Runs::start(bus.clone(), processes.clone(), settings).map_err(tried(what))?;
        if let Some(recovered) = recovered {
            report(&recovered);
        }
        Ok(RunningRuns { bus, runs })
    }

    pub(super) fn api(&self, config: &Config) -> Result<RunsApi, StartError> {
        let wanted = &config.runs;
        let id = match &wanted.agent_id {
            Some(id) => id.clone(),
            None => uuid_v4().map_err(tried("making an id"))?,
        };
        let (name, version) = (wanted.agent_name.clone(), wanted.agent_version.clone());
        Ok(RunsApi {
            bus: self.bus.clone(),
            runs: self.runs.clone(),
            contracts: wanted.contracts.clone(),
            identity: Identity { id, name, version, tools: wanted.tools.clone() },
            history_size: wanted.history_size,
            heartbeat: wanted.heartbeat,
            beginning: Beginning::default(),
        })
    }

    /// The runs, for who tells of others.
    pub(super) fn handle(&self) -> Runs {
        self.runs.clone()
    }

    /// What the supervisor tells of the wrapped server.
    pub(super) fn of_server(&self) -> OnChange {
        let (runs, life) = (self.runs.clone(), Mutex::new(Life::default()));
        Box::new(move |status| crate::base::lock::lock(&life).follow(status, &runs))
    }

    /// Begins to end the agent, then the streams, while the front finishes what it is at: listeners see
    /// how the agent's run ended.
    pub(super) fn begin_end(&self, grace: Duration) -> Ending {
        let ours = self.clone();
        let end = move || {
            ours.runs.end_agent(grace);
            ours.bus.close();
        };
        match thread::spawn("runs-end", end.clone()) {
            Ok(thread) => Ending { thread: Some(thread), runs: self.runs.clone() },
            Err(_) => {
                end();
                Ending { thread: None, runs: self.runs.clone() }
            }
        }
    }
}

/// The end of all runs, under way.
pub(super) struct Ending {
    thread: Option<JoinHandle<()>>,
    runs: Runs,
}

impl Ending {
    /// Waits until no agent runs any more.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Writes the rest of the journal, once the wrapped server's last run has ended, too.
    pub(super) fn close(self) {
        self.runs.close();
    }
}

/// Ours without our settings, some of which are secrets, and with the port of the wrapped server.
fn environment(port: u16) -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| name != "PORT" && !name.as_encoded_bytes().starts_with(b"FRAG_"))
        .chain([("PORT".into(), port.to_string().into())])
        .collect()
}

fn report(recovered: &Recovered) {
    if recovered.torn_bytes > 0 {
        log::warn!("journal: cut {} bytes of lines whose writing was interrupted", recovered.torn_bytes);
    }
    if recovered.broken_lines > 0 {
        log::error!(
            "journal: {} lines are not what was written; `verify` tells which",
            recovered.broken_lines
        );
    }
    if !recovered.aborted.is_empty() {
        log::warn!("journal: aborted {} runs that an earlier life left running", recovered.aborted.len());
    }
}
