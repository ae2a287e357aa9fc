//! What the server was told to do: flags and FRAG_* variables checked and turned into one plain value.
//! A bad value is an error that names flag and variable, never a silent default.
#[cfg(feature = "artifacts")]
mod artifacts;
mod exec;
mod limits;
mod places;
#[cfg(feature = "runs")]
mod runs;
mod source;
mod value;
#[cfg(feature = "workers")]
mod workers;

#[cfg(feature = "artifacts")]
pub use artifacts::{ArtifactConfig, ArtifactPlace};

#[cfg(feature = "runs")]
pub use runs::RunsConfig;
pub use source::ConfigError;

use crate::cli::Flags;
use crate::exec::Settings as ExecSettings;
use crate::http::Limits;
use crate::logger::{Access, Format};
use limits::limits;
use nix::sys::signal::Signal;
use places::{ensure_token, existing_directory, outside_directory, token};
use source::{Source, senseless};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use value::{
    is_origin, number, parse_port, parse_signal, parse_size, parse_time, parse_user, ready_path,
    takes_loopback,
};
#[cfg(feature = "workers")]
pub use workers::WorkersConfig;

const PORT: u16 = 8080;
const SUBPROCESS_PORT: u16 = 9090;
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(2);
const STOP_GRACE: Duration = Duration::from_secs(5);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
const LOG_LINES: usize = 1000;
const MAX_UPLOAD_BYTES: u64 = 2 << 30;
#[cfg(feature = "archive")]
const MAX_ARCHIVE_MEMBERS: usize = 10_000;
/// What some settings of the control listener need.
const NEEDS_LOOPBACK: &str = "needs a --control listener on a loopback address";

/// Everything that was decided before the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The wrapped server's program and arguments.
    pub command: Vec<String>,
    /// The command as it was given, for people.
    pub command_text: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the wrapped server listens.
    pub subprocess_port: u16,
    /// Where uploads go: absolute, without symbolic links.
    pub root: PathBuf,
    /// The control listener's address.
    pub control: Option<SocketAddr>,
    /// The bearer token's bytes.
    pub token: Option<Vec<u8>>,
    /// Where lasting things live.
    pub state_dir: Option<PathBuf>,
    /// Control asks for an identity header.
    pub require_user: bool,
    /// The identity header may make admins.
    pub trust_identity_header: bool,
    /// A loopback control listener asks for no credential.
    pub open_control: bool,
    /// Further hosts of the control listener.
    pub allow_hosts: Vec<String>,
    /// Further origins that may change things.
    pub allow_origins: Vec<String>,
    /// How long requests wait for the wrapped server.
    pub hold_timeout: Duration,
    /// How long a restart waits for requests.
    pub drain: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// How long our end waits for responses.
    pub shutdown_grace: Duration,
    /// How long an answer may take to begin.
    pub upstream_timeout: Option<Duration>,
    /// A path that tells readiness.
    pub ready_path: Option<String>,
    /// What interrupts the wrapped server.
    pub interrupt_signal: Signal,
    /// Restarts in a row; `None` = unlimited.
    pub max_restarts: Option<u32>,
    /// End when the wrapped server is given up.
    pub exit_on_failure: bool,
    /// User and group of the wrapped server.
    pub child_user: Option<(u32, u32)>,
    /// Lines of output kept.
    pub log_lines: usize,
    /// Our own log's level.
    pub log_level: log::LevelFilter,
    /// How the lines of our logs look.
    pub log_format: Format,
    /// Which requests are logged.
    pub access_log: Access,
    /// Bytes of an upload.
    pub max_upload: u64,
    /// Files and directories of an uploaded archive.
    #[cfg(feature = "archive")]
    pub max_archive_members: usize,
    /// The front's bounds.
    pub limits: Limits,
    /// Programs callers may run.
    pub exec: Option<ExecSettings>,
    /// The artifact store.
    #[cfg(feature = "artifacts")]
    pub artifacts: ArtifactConfig,
    /// The worker runtime.
    #[cfg(feature = "workers")]
    pub workers: WorkersConfig,
    /// The agent, the journal, the streams.
    #[cfg(feature = "runs")]
    pub runs: RunsConfig,
}

/// Splits a command as a shell would.
fn words(command: &str) -> Option<Vec<String>> {
    shlex::split(command)
}

impl Config {
    /// Checks and completes what the command line and the environment say.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn resolve(
        #[allow(unused_mut, reason = "some features take their flags out")] mut flags: Flags,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        let from = Source { environment };
        #[cfg(feature = "workers")]
        let workers = workers::Given::take(&mut flags);
        let exec = exec::settings(&from, &flags)?;
        let limit_flags = flags.clone();
        #[cfg(feature = "artifacts")]
        let artifact_flags = flags.clone();
        #[cfg(feature = "runs")]
        let runs_flags = flags.clone();
        let command_text = from
            .text("command", flags.command)?
            .ok_or_else(|| ConfigError::new("command", "is required: the server to wrap"))?;
        let command = words(&command_text)
            .ok_or_else(|| ConfigError::new("command", "has an open quote or a backslash at its end"))?;
        if command.is_empty() {
            return Err(ConfigError::new("command", "is empty"));
        }
        if command_text.contains('\0') {
            return Err(ConfigError::new("command", "contains a NUL"));
        }
        let host = from.parsed("host", flags.host, IpAddr::V4(Ipv4Addr::UNSPECIFIED), |text| {
            text.parse().map_err(|_| "is not an IP address".to_owned())
        })?;
        let port = from.parsed("port", flags.port, PORT, parse_port)?;
        let subprocess_port =
            from.parsed("subprocess-port", flags.subprocess_port, SUBPROCESS_PORT, |text| {
                parse_port(text).and_then(|p| if p == 0 { Err("must be above 0".to_owned()) } else { Ok(p) })
            })?;
        if port == subprocess_port {
            return Err(ConfigError::new("subprocess-port", format!("`{port}` is our own port")));
        }
        let control = from.parsed("control", flags.control, None, |text| {
            let address: SocketAddr =
                text.parse().map_err(|_| "is not an address like 127.0.0.1:8081".to_owned())?;
            if takes_loopback(address, subprocess_port) {
                return Err("is where the wrapped server listens".to_owned());
            }
            Ok(Some(address))
        })?;
        let has_loopback = control.is_some_and(|address| address.ip().is_loopback());
        let root = existing_directory("root", from.text("root", flags.root)?.as_deref().unwrap_or("."))?;
        let state_dir = from.text("state-dir", flags.state_dir)?;
        let state_dir = state_dir.map(|dir| outside_directory("state-dir", &dir, &root)).transpose()?;
        let token = token(&from, flags.token_file, state_dir.as_deref(), &root)?;
        #[cfg(feature = "artifacts")]
        let artifacts = ArtifactConfig::resolve(&from, artifact_flags, &root, state_dir.as_deref())?;
        #[cfg(feature = "workers")]
        let workers = workers.resolve(&from, state_dir.as_deref(), &root)?;
        // The flag, if any, that lets callers run programs.
        let runs_programs = exec.as_ref().map(|_| "exec");
        #[cfg(feature = "workers")]
        let runs_programs = runs_programs.or((!workers.programs.is_empty()).then_some("worker"));
        #[cfg(feature = "runs")]
        let runs = RunsConfig::resolve(&from, runs_flags, &root, state_dir.as_deref())?;
        #[cfg(feature = "runs")]
        let runs_programs = runs_programs.or(runs.agent.as_ref().map(|_| "agent"));
        let open_control = from.switch("open-control", flags.open_control)?;
        if open_control && !has_loopback {
            return Err(ConfigError::new("open-control", NEEDS_LOOPBACK));
        }
        let allow_hosts = from.list("allow-host", flags.allow_host)?;
        if !allow_hosts.is_empty() && !has_loopback {
            return Err(ConfigError::new("allow-host", NEEDS_LOOPBACK));
        }
        let allow_origins = from.list("allow-origin", flags.allow_origin)?;
        if let Some(odd) = allow_origins.iter().find(|text| *text != "null" && !is_origin(text)) {
            let why = "is no origin as browsers send it, like https://example.org";
            return Err(senseless("allow-origin", odd, why));
        }
        let needs_token = runs_programs.filter(|_| !open_control);
        let token = ensure_token(token, needs_token, state_dir.as_deref())?;
        Ok(Config {
            command,
            command_text,
            listen: SocketAddr::new(host, port),
            subprocess_port,
            root,
            control,
            token,
            state_dir,
            require_user: from.switch("require-user", flags.require_user)?,
            trust_identity_header: from.switch("trust-identity-header", flags.trust_identity_header)?,
            open_control,
            allow_hosts,
            allow_origins,
            hold_timeout: from.parsed("hold-timeout", flags.hold_timeout, HOLD_TIMEOUT, parse_time)?,
            drain: from.parsed("drain", flags.drain, DRAIN, parse_time)?,
            stop_grace: from.parsed("stop-grace", flags.stop_grace, STOP_GRACE, parse_time)?,
            shutdown_grace: from.parsed(
                "shutdown-grace",
                flags.shutdown_grace,
                SHUTDOWN_GRACE,
                parse_time,
            )?,
            upstream_timeout: from.parsed("upstream-timeout", flags.upstream_timeout, None, |text| {
                parse_time(text).map(|time| (!time.is_zero()).then_some(time))
            })?,
            ready_path: from.parsed("ready-path", flags.ready_path, None, ready_path)?,
            interrupt_signal: from.parsed(
                "interrupt-signal",
                flags.interrupt_signal,
                Signal::SIGINT,
                parse_signal,
            )?,
            max_restarts: from.parsed("max-restarts", flags.max_restarts, None, |text| match text {
                "unlimited" => Ok(None),
                text => number(text, 0).map(Some),
            })?,
            exit_on_failure: from.switch("exit-on-failure", flags.exit_on_failure)?,
            child_user: from
                .parsed("child-user", flags.child_user, None, |text| parse_user(text).map(Some))?,
            log_lines: from.parsed("log-lines", flags.log_lines, LOG_LINES, |t| number(t, 0))?,
            log_level: from.parsed("log-level", flags.log_level, log::LevelFilter::Info, |text| {
                text.parse().map_err(|_| "is not error, warn, info, debug, trace or off".to_owned())
            })?,
            log_format: from.parsed("log-format", flags.log_format, Format::Text, |text| match text {
                "text" => Ok(Format::Text),
                "json" => Ok(Format::Json),
                _ => Err("is neither text nor json".to_owned()),
            })?,
            access_log: from.parsed("access-log", flags.access_log, Access::Off, |text| match text {
                "off" => Ok(Access::Off),
                "control" => Ok(Access::Control),
                "all" => Ok(Access::All),
                _ => Err("is not off, control or all".to_owned()),
            })?,
            max_upload: from.parsed("max-upload", flags.max_upload, MAX_UPLOAD_BYTES, parse_size)?,
            #[cfg(feature = "archive")]
            max_archive_members: from.parsed(
                "max-archive-members",
                flags.max_archive_members,
                MAX_ARCHIVE_MEMBERS,
                |text| number(text, 1),
            )?,
            limits: limits(&from, limit_flags)?,
            exec,
            #[cfg(feature = "artifacts")]
            artifacts,
            #[cfg(feature = "workers")]
            workers,
            #[cfg(feature = "runs")]
            runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: Flags, environment: &[(&str, &str)]) -> Result<Config, String> {
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Config::resolve(flags, &find).map_err(|error| error.to_string())
    }

    fn with_command() -> Flags {
        Flags { command: Some("sleep 1".to_owned()), ..Flags::default() }
    }

    #[test]
    fn a_flag_goes_before_its_variable_and_both_before_the_default() {
        let environment = [("FRAG_PORT", "1234"), ("FRAG_COMMAND", "a 'b c'"), ("FRAG_REQUIRE_USER", "true")];
        let config = resolve(Flags::default(), &environment).unwrap();
        assert_eq!((config.listen.port(), config.subprocess_port), (1234, SUBPROCESS_PORT));
        assert_eq!(config.command, ["a", "b c"]);
        assert!(config.require_user);
        let flags = Flags { port: Some("0".to_owned()), ..Flags::default() };
        assert_eq!(resolve(flags, &environment).unwrap().listen.port(), 0);
    }

    #[test]
    fn bad_values_name_flag_and_variable() {
        for (variable, value) in [
            ("FRAG_PORT", "65536"),
            ("FRAG_PORT", "http"),
            ("FRAG_SUBPROCESS_PORT", "0"),
            ("FRAG_SUBPROCESS_PORT", "8080"),
            ("FRAG_HOST", "localhost"),
            ("FRAG_ROOT", "/nonexistent"),
            ("FRAG_ROOT", "/dev/null"),
            ("FRAG_CONTROL", "8081"),
            ("FRAG_CONTROL", "127.0.0.1:9090"),
            ("FRAG_CONTROL", "[::1]:9090"),
            ("FRAG_CONTROL", "0.0.0.0:9090"),
            ("FRAG_CONTROL", "[::ffff:127.0.0.1]:9090"),
            ("FRAG_ALLOW_HOST", "box.example"),
            ("FRAG_ALLOW_ORIGIN", "https://App.example"),
            ("FRAG_ALLOW_ORIGIN", "https://a.example,https://app.example/"),
            ("FRAG_ALLOW_ORIGIN", "app.example"),
            ("FRAG_ALLOW_ORIGIN", "*"),
            ("FRAG_TOKEN_FILE", "/nonexistent"),
            ("FRAG_REQUIRE_USER", "maybe"),
            ("FRAG_HOLD_TIMEOUT", "-1"),
            ("FRAG_HOLD_TIMEOUT", "1y"),
            ("FRAG_DRAIN", "inf"),
            ("FRAG_DRAIN", "NaN"),
            ("FRAG_HEAD_TIMEOUT", "0"),
            ("FRAG_INTERRUPT_SIGNAL", "FOO"),
            ("FRAG_INTERRUPT_SIGNAL", "99"),
            ("FRAG_MAX_RESTARTS", "-1"),
            ("FRAG_CHILD_USER", "nobody"),
            ("FRAG_LOG_LEVEL", "loud"),
            ("FRAG_LOG_FORMAT", "xml"),
            ("FRAG_ACCESS_LOG", "on"),
            ("FRAG_MAX_CONNECTIONS", "0"),
            ("FRAG_THREADS_MIN", "300"),
            ("FRAG_MAX_UPLOAD", "2TB"),
            ("FRAG_MAX_UPLOAD", "99999999999GiB"),
            #[cfg(feature = "archive")]
            ("FRAG_MAX_ARCHIVE_MEMBERS", "0"),
            ("FRAG_READY_PATH", "healthz"),
            ("FRAG_READY_PATH", "/a b"),
            ("FRAG_OPEN_CONTROL", "1"),
            ("FRAG_COMMAND", "'open"),
            ("FRAG_EXEC", "a\0b"),
            ("FRAG_EXEC_MAX_TIMEOUT", "0"),
            ("FRAG_EXEC_MAX_TIMEOUT", "1.5"),
            ("FRAG_EXEC_MAX_OUTPUT", "0"),
            ("FRAG_EXEC_MAX_OUTPUT", "much"),
            ("FRAG_EXEC_MAX_CONCURRENT", "0"),
            ("FRAG_EXEC_ENV", "A,B=C"),
            ("FRAG_EXEC_ENV", "FRAG_TOKEN"),
        ] {
            let flags = if variable == "FRAG_COMMAND" { Flags::default() } else { with_command() };
            let error = resolve(flags, &[(variable, value)]).unwrap_err();
            let flag = variable[5..].to_ascii_lowercase().replace('_', "-");
            assert!(error.contains(&format!("--{flag} ({variable})")), "{variable}={value}: {error}");
        }
        assert!(resolve(Flags::default(), &[]).unwrap_err().contains("--command (FRAG_COMMAND)"));
    }

    #[test]
    fn what_can_have_an_effect_is_taken() {
        let taken = |environment: &[(&str, &str)]| resolve(with_command(), environment).unwrap();
        let origins = "null,https://a.example,http://localhost:3000,http://[::1]:80,moz-extension://a-1";
        assert_eq!(taken(&[("FRAG_ALLOW_ORIGIN", origins)]).allow_origins.len(), 5);
        // The wrapped server listens on loopback alone.
        assert!(taken(&[("FRAG_CONTROL", "192.0.2.1:9090")]).control.is_some());
        for control in ["127.0.0.1:0", "[::1]:8081"] {
            let hosts = taken(&[("FRAG_CONTROL", control), ("FRAG_ALLOW_HOST", "a, b:81")]).allow_hosts;
            assert_eq!(hosts, ["a", "b:81"]);
        }
    }
}
