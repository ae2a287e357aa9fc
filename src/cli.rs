//! The command line, as text: argh parses it, `config` gives it meaning.
use crate::base::arguments::split_equals;
use argh::{EarlyExit, FromArgs};
use std::ffi::OsString;
#[cfg(feature = "runs")]
use std::path::PathBuf;

/// Wraps a web server: starts it, relays everything to it, and keeps /_frag/ for itself.
///
/// Every option can also be set by a variable: --subprocess-port is FRAG_SUBPROCESS_PORT. Times are
/// seconds, or take ms, s, m, h; sizes are bytes, or take KiB, MiB, GiB.
#[cfg_attr(feature = "client", doc = "")]
#[cfg_attr(
    feature = "client",
    doc = " `simple-artifact-server ctl COMMAND` talks to a running one: see ctl --help."
)]
#[cfg_attr(feature = "runs", doc = "")]
#[cfg_attr(feature = "runs", doc = " `simple-artifact-server verify DIR` checks the journal in DIR instead.")]
#[derive(FromArgs, Debug, Default, Clone)]
pub struct Flags {
    /// command of the wrapped server, split like a shell would but run without one
    #[argh(option, short = 'c', arg_name = "command")]
    pub command: Option<String>,
    /// port to listen on; 0 takes a free one (8080)
    #[argh(option, arg_name = "port")]
    pub port: Option<String>,
    /// port of the wrapped server, which sees it as PORT (9090)
    #[argh(option, arg_name = "port")]
    pub subprocess_port: Option<String>,
    /// address to listen on (0.0.0.0)
    #[argh(option, arg_name = "address")]
    pub host: Option<String>,
    /// directory uploads go to (the working directory)
    #[argh(option, arg_name = "dir")]
    pub root: Option<String>,
    /// second listener, for control only, like 127.0.0.1:8081 (off)
    #[argh(option, arg_name = "address:port")]
    pub control: Option<String>,
    /// file with the bearer token control asks for; the token itself may stand in FRAG_TOKEN (off)
    #[argh(option, arg_name = "file")]
    pub token_file: Option<String>,
    /// directory for what must last, outside the root (nothing lasts)
    #[argh(option, arg_name = "dir")]
    pub state_dir: Option<String>,
    /// refuse control without an x-verified-user-data header
    #[argh(switch)]
    pub require_user: bool,
    /// without a token, let the x-verified-user-data header make admins
    #[argh(switch)]
    pub trust_identity_header: bool,
    /// ask for no credential on a loopback --control listener
    #[argh(switch)]
    pub open_control: bool,
    /// further Host a loopback --control listener answers to; may be repeated
    #[argh(option, arg_name = "host")]
    pub allow_host: Vec<String>,
    /// further Origin that may change things; may be repeated
    #[argh(option, arg_name = "origin")]
    pub allow_origin: Vec<String>,
    /// how long a request waits for a server that is not ready (10s)
    #[argh(option, arg_name = "time")]
    pub hold_timeout: Option<String>,
    /// how long a restart waits for requests in flight (2s)
    #[argh(option, arg_name = "time")]
    pub drain: Option<String>,
    /// from SIGTERM to SIGKILL for the wrapped server and what callers run (5s)
    #[argh(option, arg_name = "time")]
    pub stop_grace: Option<String>,
    /// how long our own end waits for responses to finish (10s)
    #[argh(option, arg_name = "time")]
    pub shutdown_grace: Option<String>,
    /// how long the wrapped server may take to accept a connection, to take more of a body, and to begin its
    /// answer, each; 0 is for ever (0)
    #[argh(option, arg_name = "time")]
    pub upstream_timeout: Option<String>,
    /// path that answers 2xx or 3xx once the wrapped server is ready (a TCP connect tells)
    #[argh(option, arg_name = "path")]
    pub ready_path: Option<String>,
    /// signal that interrupts the wrapped server (INT)
    #[argh(option, arg_name = "signal")]
    pub interrupt_signal: Option<String>,
    /// restarts in a row before giving up, or unlimited (unlimited)
    #[argh(option, arg_name = "n")]
    pub max_restarts: Option<String>,
    /// end with the wrapped server's exit code once it is given up
    #[argh(switch)]
    pub exit_on_failure: bool,
    /// run the wrapped server and what callers run as this user, when we are root (our own)
    #[argh(option, arg_name = "uid[:gid]")]
    pub child_user: Option<String>,
    /// lines of the wrapped server's output to keep (1000)
    #[argh(option, arg_name = "n")]
    pub log_lines: Option<String>,
    /// our own log: error, warn, info, debug, trace or off (info)
    #[argh(option, arg_name = "level")]
    pub log_level: Option<String>,
    /// its lines, and those of the access log: text or json (text)
    #[argh(option, arg_name = "format")]
    pub log_format: Option<String>,
    /// requests to log: off, control or all (off)
    #[argh(option, arg_name = "requests")]
    pub access_log: Option<String>,
    /// open connections at most (4096)
    #[argh(option, arg_name = "n")]
    pub max_connections: Option<String>,
    /// long-lived requests at most, a quarter of them slow transfers (2048)
    #[argh(option, arg_name = "n")]
    pub max_streams: Option<String>,
    /// threads kept for requests (4)
    #[argh(option, arg_name = "n")]
    pub threads_min: Option<String>,
    /// threads for requests at most (256)
    #[argh(option, arg_name = "n")]
    pub threads_max: Option<String>,
    /// for a request's head to arrive (10s)
    #[argh(option, arg_name = "time")]
    pub head_timeout: Option<String>,
    /// between requests on a connection (75s)
    #[argh(option, arg_name = "time")]
    pub idle_timeout: Option<String>,
    /// bytes a second a client must take or send of a body; 0 asks for none (1024)
    #[argh(option, arg_name = "n")]
    pub min_rate: Option<String>,
    /// size of a relayed request body; 0 is unlimited (0)
    #[argh(option, arg_name = "size")]
    pub max_body: Option<String>,
    /// size of an upload (2GiB)
    #[argh(option, arg_name = "size")]
    pub max_upload: Option<String>,
    /// files and directories of an uploaded archive (10000)
    #[cfg(feature = "archive")]
    #[argh(option, arg_name = "n")]
    pub max_archive_members: Option<String>,
    /// program that admins may run over HTTP with arguments of their own, or any (off)
    #[argh(option, arg_name = "program|any")]
    pub exec: Option<String>,
    /// longest time of such a run (600s)
    #[argh(option, arg_name = "time")]
    pub exec_max_timeout: Option<String>,
    /// output of such a run (64MiB)
    #[argh(option, arg_name = "size")]
    pub exec_max_output: Option<String>,
    /// such runs at once (16)
    #[argh(option, arg_name = "n")]
    pub exec_max_concurrent: Option<String>,
    /// further variable of ours that such a run inherits; may be repeated
    #[argh(option, arg_name = "name")]
    pub exec_env: Vec<String>,
    /// where artifacts are kept: sqlite:PATH, memory: or redis://HOST (artifacts.db in the state directory, else memory:)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "url")]
    pub artifacts: Option<String>,
    /// how long an artifact nobody looks at is kept (24h)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "time")]
    pub artifact_ttl: Option<String>,
    /// artifacts at most (100000)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "n")]
    pub artifact_max_rows: Option<String>,
    /// size of all artifacts together (1GiB)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "size")]
    pub artifact_max_bytes: Option<String>,
    /// directory of a front end that shows artifacts, outside the root (a page of our own)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "dir")]
    pub viewer_dir: Option<String>,
    /// origin whose pages may use the artifact API, or * (none)
    #[cfg(feature = "artifacts")]
    #[argh(option, arg_name = "origin")]
    pub artifact_cors: Option<String>,
    /// command that runs workers of a profile: runtime_default, builtin:x or named:x; may be repeated
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "selector=command")]
    pub worker: Vec<String>,
    /// id of the worker runtime (runtime-mem-0000000000000001)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "id")]
    pub runtime_id: Option<String>,
    /// name of the worker runtime, for people (none)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "name")]
    pub display_name: Option<String>,
    /// items in one answer of a worker's transcript (256)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "n")]
    pub max_transcript_items: Option<String>,
    /// events written to a worker's observer at a time (256)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "n")]
    pub max_event_batch: Option<String>,
    /// where workers are recorded: memory or fs:dir (memory; with a state directory fs:DIR/workers)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "store")]
    pub workers_store: Option<String>,
    /// active workers at most (64)
    #[cfg(feature = "workers")]
    #[argh(option, arg_name = "n")]
    pub max_workers: Option<String>,
    /// command of the agent that invoke runs, once for each (off)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "command")]
    pub agent: Option<String>,
    /// tool of the agent that waits for an approval, or all; may be repeated (none)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "tool|all")]
    pub require_approval: Vec<String>,
    /// how long an approval waits for a decision; 0 is for ever (60s)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "time")]
    pub approval_timeout: Option<String>,
    /// directory of the journal of runs, outside the root (journal in the state directory)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "dir")]
    pub journal: Option<String>,
    /// events kept for listeners that come back (4096)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "n")]
    pub event_ring: Option<String>,
    /// how often an event stream says that it is there (30s)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "time")]
    pub heartbeat: Option<String>,
    /// ended runs of each kind to keep in memory (10)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "n")]
    pub history_size: Option<String>,
    /// slice of the state that streams carry; may be repeated (all)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "slice")]
    pub stream_slices: Vec<String>,
    /// file with further actions that dispatch takes, outside the root (none)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "file")]
    pub contracts: Option<String>,
    /// the agent's id in the manifest (a random one)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "id")]
    pub agent_id: Option<String>,
    /// the agent's name in the manifest (simple-artifact-server)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "name")]
    pub agent_name: Option<String>,
    /// the agent's version in the manifest (ours)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "version")]
    pub agent_version: Option<String>,
    /// a tool the manifest names; may be repeated (none)
    #[cfg(feature = "runs")]
    #[argh(option, arg_name = "tool")]
    pub capability_tool: Vec<String>,
    /// print the version
    #[argh(switch)]
    pub version: bool,
}

/// How the command line ended before anything began.
#[derive(Debug)]
pub enum Early {
    /// Help was asked for: this text, exit 0.
    Help(String),
    /// The arguments make no sense: this text, exit 2.
    Usage(String),
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// [`Early`], with the text to print.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, Early> {
    let arguments: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let arguments = arguments
        .map_err(|odd| Early::Usage(format!("the argument `{}` is not UTF-8", odd.to_string_lossy())))?;
    let arguments = split_equals(arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Flags::from_args(&[env!("CARGO_PKG_NAME")], &arguments).map_err(|EarlyExit { output, status }| {
        match status {
            Ok(()) => Early::Help(output),
            Err(()) => Early::Usage(output),
        }
    })
}

/// The words behind `ctl`; `None` when the first word is another.
#[cfg(feature = "client")]
pub fn client_words(arguments: impl IntoIterator<Item = OsString>) -> Option<impl Iterator<Item = OsString>> {
    let mut arguments = arguments.into_iter();
    (arguments.next()? == "ctl").then_some(arguments)
}

/// The directory of `verify DIR`, or how that is used; `None` when the first word is another.
#[cfg(feature = "runs")]
pub fn verify_dir(arguments: impl IntoIterator<Item = OsString>) -> Option<Result<PathBuf, String>> {
    let mut arguments = arguments.into_iter();
    if arguments.next()? != "verify" {
        return None;
    }
    match (arguments.next(), arguments.next()) {
        (Some(dir), None) if dir != "--help" => Some(Ok(dir.into())),
        _ => Some(Err(format!("Usage: {} verify DIR", env!("CARGO_PKG_NAME")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Flags, Early> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn both_spellings_of_a_value() {
        let flags = parse_words(&["--port=0", "-c", "a --b=c", "--command-is-not", "x"]);
        assert!(matches!(flags, Err(Early::Usage(_))), "an unknown flag");
        let flags = parse_words(&["--port=0", "-c", "a --b=c", "--require-user"]).unwrap();
        assert_eq!(flags.port.as_deref(), Some("0"));
        assert_eq!(flags.command.as_deref(), Some("a --b=c"));
        assert!(flags.require_user && !flags.version);
    }

    #[test]
    fn help_and_usage_are_told_apart() {
        assert!(
            matches!(parse_words(&["--help"]), Err(Early::Help(text)) if text.contains("--subprocess-port"))
        );
        assert!(matches!(parse_words(&["--port"]), Err(Early::Usage(_))));
    }
}
