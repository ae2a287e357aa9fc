//! The composition root: settings become parts, parts become threads, and at the end everything stops
//! in order. The only place that knows both the configuration and what is built from it.
mod access;
#[cfg(feature = "artifacts")]
mod artifacts;
mod exec;
mod observers;
#[cfg(feature = "runs")]
mod runs;
mod signals;
#[cfg(feature = "workers")]
mod workers;

use crate::api::{self, About, Api, Gate, GatePolicy, Uploads};
use crate::auth::{AuthPolicy, Token};
use crate::base::thread;
use crate::config::Config;
use crate::exec::Exec;
use crate::files::{Owner, Root};
use crate::http::{
    CONTROL_CONNECTIONS, Class, Exchange, HttpError, Record, Role, Served, Server, Service, Stats, bind,
};
use crate::logger::{self, Access};
use crate::process::{Exit, Processes, User, forbid_inspection};
use crate::relay::{Relay, RelaySettings};
use crate::supervisor::{self, Spec, State, Supervisor};
use crossbeam_channel::{never, select};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use observers::Observers;
use signals::Signals;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Descriptors for ourselves: listeners, pipes, uploads, logs. The rest is for connections, two each.
const OWN_DESCRIPTORS: u64 = 64;
/// How long a killed run may take to be gone.
const RUN_END: Duration = Duration::from_secs(3);
/// The prefix that is ours on the open port.
const PREFIX: &[u8] = b"/_frag";

/// Why the server did not start: what was tried, and what the system said.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn tried<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> StartError {
    let what = what.into();
    move |source| StartError { what, source: source.into() }
}

/// What is behind the front: control below the prefix and on the control listener, the relay for the
/// rest.
struct App {
    api: Api,
    relay: Relay,
    access_log: Access,
}

impl Service for App {
    fn serve(&self, exchange: &mut Exchange<'_>) -> Result<Served, HttpError> {
        let path = exchange.head().path();
        let below = path.strip_prefix(PREFIX).filter(|rest| rest.starts_with(b"/")).map(<[u8]>::to_vec);
        let below = match (exchange.role(), below) {
            (_, Some(below)) => below,
            (Role::Control, None) => path.to_vec(),
            (Role::Public, None) => {
                exchange.set_class(Class::Relay);
                return self.relay.serve(exchange);
            }
        };
        exchange.set_class(Class::Control);
        // However long this takes, the wrapped server is free for others meanwhile.
        self.relay.rest();
        self.api.serve(exchange, &below)
    }

    fn is_control(&self, role: Role, target: &[u8]) -> bool {
        let below = target.strip_prefix(PREFIX).filter(|rest| rest.starts_with(b"/"));
        let ours = below.or((role == Role::Control).then_some(target));
        ours.is_some_and(api::is_control)
    }

    fn can_resume(&self) -> bool {
        self.relay.can_resume()
    }

    fn served(&self, record: &Record<'_>) {
        match self.access_log {
            Access::Off => {}
            Access::Control if record.class != Class::Control => {}
            _ => access::log(record, true),
        }
    }

    fn refused(&self, record: &Record<'_>) {
        // Whoever reads the lines slowly has fewer of these, and keeps nobody from being let in.
        if self.access_log == Access::All {
            access::log(record, false);
        }
    }

    fn rest(&self) {
        self.relay.rest();
    }
}

/// Runs the server until it is told to end, and tells the process's exit code.
///
/// # Errors
/// What could not be had at the start: an address, the root, threads.
pub fn run(config: Config) -> Result<ExitCode, StartError> {
    logger::install(config.log_level, config.log_format);
    let started = SystemTime::now();
    forbid_inspection().map_err(tried("closing /proc/self to others"))?;
    let user = child_user(&config)?;
    // Before the limit on descriptors is raised: children get the old one.
    let processes = Processes::start().map_err(tried("starting to look after processes"))?;
    // As early as can be: the kernel drops a signal to PID 1 that has no handler yet.
    let signals = Signals::take(processes.clone())?;
    let mut limits = config.limits.clone();
    limits.max_connections = raise_descriptor_limit(
        limits.max_connections,
        OWN_DESCRIPTORS.saturating_add(own_descriptors(&config)),
    );
    let listeners = listen(&config)?;
    let addresses: Vec<(SocketAddr, Role)> = listeners
        .iter()
        .map(|(listener, role)| listener.local_addr().map(|address| (address, *role)))
        .collect::<io::Result<_>>()
        .map_err(tried("reading the listeners' addresses"))?;
    let root = Arc::new(open_root(&config)?);
    #[cfg(feature = "runs")]
    let runs = runs::RunningRuns::start(&config, &processes, user)?;
    let observers = Observers {
        #[cfg(feature = "runs")]
        runs: runs.handle(),
    };
    #[cfg(feature = "workers")]
    let workers = workers::open(&config, user, processes.clone(), &observers)
        .map_err(tried("opening the workers' store"))?;
    let exec = exec::exec(&config, &processes, user, &observers);
    #[cfg(feature = "artifacts")]
    let running_artifacts = artifacts::RunningArtifacts::start(&config, observers.of_artifacts())?;
    #[cfg(feature = "artifacts")]
    let artifacts = running_artifacts.api(&config)?;
    let observer: Option<supervisor::OnChange> = None;
    #[cfg(feature = "runs")]
    let observer = observer.or(Some(runs.of_server()));
    let supervisor = supervisor::start_observed(spec(&config, user), processes, observer)
        .map_err(tried("starting the supervisor"))?;
    signals.now_for(&supervisor);
    let stats = Arc::new(Stats::default());
    let app = Arc::new(App {
        api: Api {
            #[cfg(feature = "artifacts")]
            artifacts,
            about: About { command: config.command_text.clone(), port: config.subprocess_port },
            exec: exec.clone(),
            gate: gate(&config),
            max_upload: config.max_upload,
            #[cfg(feature = "archive")]
            max_archive_members: config.max_archive_members,
            root: Arc::clone(&root),
            started,
            stats: Arc::clone(&stats),
            supervisor: supervisor.clone(),
            uploads: Uploads::default(),
            #[cfg(feature = "workers")]
            workers: Arc::clone(&workers),
            #[cfg(feature = "runs")]
            runs: runs.api(&config)?,
        },
        relay: Relay::new(supervisor.clone(), relay_settings(&config)),
        access_log: config.access_log,
    });
    let server = Server::start(listeners, app, limits, stats).map_err(tried("starting the front"))?;
    resume_held_requests(&server, &supervisor);
    sweep_in_background(root);
    announce(&config, &addresses);
    let running = Running {
        server,
        supervisor,
        exec,
        #[cfg(feature = "workers")]
        workers,
        #[cfg(feature = "runs")]
        runs,
    };
    Ok(wait_and_stop(&config, &signals, &running))
}

/// What has an end of its own.
struct Running {
    server: Server,
    supervisor: Supervisor,
    exec: Option<Exec>,
    #[cfg(feature = "workers")]
    workers: Arc<crate::workers::Runtime>,
    #[cfg(feature = "runs")]
    runs: runs::RunningRuns,
}

fn listen(config: &Config) -> Result<Vec<(TcpListener, Role)>, StartError> {
    let mut listeners = Vec::new();
    for (address, role) in [(Some(config.listen), Role::Public), (config.control, Role::Control)] {
        if let Some(address) = address {
            let listener = bind(address).map_err(tried(format!("listening on {address}")))?;
            listeners.push((listener, role));
        }
    }
    Ok(listeners)
}

fn child_user(config: &Config) -> Result<Option<User>, StartError> {
    match config.child_user {
        Some(_) if !nix::unistd::geteuid().is_root() => {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            Err(StartError {
                what: "--child-user (FRAG_CHILD_USER): only root can run a child as another user".to_owned(),
                source,
            })
        }
        user => Ok(user.map(|(uid, gid)| User { uid, gid })),
    }
}

/// Descriptors of what runs beside the wrapped server, at most.
fn own_descriptors(config: &Config) -> u64 {
    let control = config.control.map_or(0, |_| CONTROL_CONNECTIONS as u64);
    let own = exec::descriptors(config).saturating_add(control);
    #[cfg(feature = "archive")]
    let own = own.saturating_add(crate::files::ARCHIVE_DESCRIPTORS);
    #[cfg(feature = "workers")]
    let own = own.saturating_add(workers::descriptors(config));
    own
}

/// As many descriptors as we may have; returns how many connections they carry besides our `own`,
/// `wanted` at most.
fn raise_descriptor_limit(wanted: usize, own: u64) -> usize {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(hard, |(soft, _)| soft);
    let carried = usize::try_from(limit.saturating_sub(own) / 2).unwrap_or(usize::MAX).max(8);
    if carried < wanted {
        log::warn!("{limit} descriptors (ulimit -n) carry {carried} connections, not {wanted}");
    }
    wanted.min(carried)
}

fn open_root(config: &Config) -> Result<Root, StartError> {
    let root = Root::open(&config.root).map_err(|error| StartError {
        what: format!("opening the root {}", config.root.display()),
        source: io::Error::other(error),
    })?;
    Ok(match config.child_user {
        Some((uid, gid)) => root.with_owner(Owner { uid, gid }),
        None => root,
    })
}

fn spec(config: &Config, user: Option<User>) -> Spec {
    Spec {
        command: config.command.clone(),
        port: config.subprocess_port,
        cwd: config.root.clone(),
        user,
        ready_path: config.ready_path.clone(),
        interrupt_signal: config.interrupt_signal,
        drain: config.drain,
        stop_grace: config.stop_grace,
        max_restarts: config.max_restarts,
        log_lines: config.log_lines,
        pass_output: true,
    }
}

fn gate(config: &Config) -> Gate {
    Gate::new(GatePolicy {
        auth: AuthPolicy {
            token: config.token.as_deref().and_then(Token::new),
            require_user: config.require_user,
            trust_identity_header: config.trust_identity_header,
            open_control: false,
        },
        open_control: config.open_control,
        control_is_loopback: config.control.is_some_and(|address| address.ip().is_loopback()),
        allow_hosts: config.allow_hosts.clone(),
        allow_origins: config.allow_origins.clone(),
    })
}

fn relay_settings(config: &Config) -> RelaySettings {
    RelaySettings { hold_timeout: config.hold_timeout, upstream_timeout: config.upstream_timeout }
}

/// Held requests are tried again as soon as there is an answer for them, good or bad.
fn resume_held_requests(server: &Server, supervisor: &Supervisor) {
    let resume = server.resume();
    supervisor.on_change(Box::new(move |status| {
        if matches!(status.state, State::Ready | State::Failed | State::Stopped) {
            resume.resume();
        }
    }));
}

/// What an upload that was killed in the middle left behind is removed, beside the running server.
fn sweep_in_background(root: Arc<Root>) {
    let swept = thread::spawn("sweep", move || {
        let removed = root.remove_stale_temporaries();
        if removed > 0 {
            log::info!("removed {removed} unfinished uploads of an earlier run");
        }
    });
    if let Err(error) = swept {
        log::warn!("unfinished uploads of an earlier run are not removed: {error}");
    }
}

/// The one line people and scripts wait for, whatever the log level.
fn announce(config: &Config, addresses: &[(SocketAddr, Role)]) {
    let mut line = String::new();
    for (address, role) in addresses {
        let what = if *role == Role::Public { "listening on" } else { ", control on" };
        line.push_str(&format!("{what} http://{address}"));
    }
    let lasting = if config.state_dir.is_some() { "" } else { " (no --state-dir: nothing lasts)" };
    let relays = format!(", relaying to port {}{lasting}", config.subprocess_port);
    logger::announce(&format!("{}: {line}{relays}", env!("CARGO_PKG_NAME")));
    if config.open_control {
        log::warn!("--open-control: whoever reaches this machine's loopback, the workload too, controls us");
    }
    if config.trust_identity_header && config.token.is_some() {
        log::warn!("--trust-identity-header changes nothing: there is a token, which everybody is asked for");
    }
}

fn wait_and_stop(config: &Config, signals: &Signals, running: &Running) -> ExitCode {
    let Running { server, supervisor, exec, .. } = running;
    let finished = if config.exit_on_failure { supervisor.finished() } else { never() };
    let exit: Option<Exit> = select! {
        recv(signals.terminated) -> _ => None,
        recv(finished) -> exit => exit.ok(),
    };
    match exit {
        Some(exit) => log::info!("ending: the server {exit}"),
        None => log::info!("ending: told to"),
    }
    #[cfg(feature = "workers")]
    let workers = workers::begin_end(&running.workers);
    #[cfg(feature = "runs")]
    let mut runs = running.runs.begin_end(config.stop_grace.min(config.shutdown_grace / 2));
    // First of all: who follows a run is to see its end before the connection's.
    if let Some(exec) = exec {
        exec.begin_shutdown(exec::shutdown_grace(config));
    }
    if !server.drain(config.shutdown_grace) {
        log::warn!("the shutdown grace is over: open connections are cut");
    }
    if exec.as_ref().is_some_and(|exec| !exec.wait_idle(exec::shutdown_grace(config) + RUN_END)) {
        log::warn!("a run does not end");
    }
    // Before the supervisor ends whatever is left.
    #[cfg(feature = "workers")]
    workers.wait();
    #[cfg(feature = "runs")]
    runs.wait();
    supervisor.shutdown();
    #[cfg(feature = "runs")]
    runs.close();
    log::info!("ended");
    if signals.forced.load(Ordering::Acquire) {
        // The orderly end got here first, because nothing was left to wait for.
        supervisor.kill_now();
        return ExitCode::FAILURE;
    }
    match exit {
        Some(exit) => ExitCode::from(u8::try_from(exit.shell_code()).unwrap_or(1)),
        None => ExitCode::SUCCESS,
    }
}
