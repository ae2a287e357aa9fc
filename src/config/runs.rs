//! Settings of runs: the agent, approvals, the journal, the streams, the manifest.
use super::places::{outside_directory, outside_root};
use super::value::{number, parse_time, positive_time};
use super::{ConfigError, Source};
use crate::cli::Flags;
use crate::events::{Slice, Slices};
use crate::runs::{Contracts, Rule};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

const APPROVAL_TIMEOUT: Duration = Duration::from_secs(60);
const EVENT_RING: usize = 4096;
const MAX_EVENT_RING: usize = 1 << 20;
const HEARTBEAT: Duration = Duration::from_secs(30);
const HISTORY_SIZE: usize = 10;
const MAX_HISTORY_SIZE: usize = 10_000;
/// Bytes of a contracts file.
const CONTRACTS_BYTES: u64 = 1 << 20;
/// Characters of a name in the manifest.
const NAME_CHARS: usize = 200;

/// What was decided about runs.
#[derive(Clone, Debug)]
pub struct RunsConfig {
    /// The agent's program and arguments.
    pub agent: Option<Vec<String>>,
    /// Which of its tools wait for an approval.
    pub rule: Rule,
    /// How long an approval waits; `None` = for ever.
    pub approval_timeout: Option<Duration>,
    /// Where the journal is.
    pub journal: Option<PathBuf>,
    /// Events kept.
    pub event_ring: usize,
    /// How often a stream says that it is there.
    pub heartbeat: Duration,
    /// Ended runs of each kind kept in memory.
    pub history_size: usize,
    /// Slices that are streamed.
    pub streamed: Slices,
    /// The actions there are.
    pub contracts: Contracts,
    /// In the manifest; `None` = a random one.
    pub agent_id: Option<String>,
    /// In the manifest.
    pub agent_name: String,
    /// In the manifest.
    pub agent_version: String,
    /// In the manifest.
    pub tools: Vec<String>,
}

impl RunsConfig {
    pub(super) fn resolve(
        from: &Source<'_>,
        flags: Flags,
        root: &Path,
        state_dir: Option<&Path>,
    ) -> Result<RunsConfig, ConfigError> {
        let agent = from.parsed("agent", flags.agent, None, |text| command(text).map(Some))?;
        let rule = rule(from, flags.require_approval)?;
        let journal = match from.text("journal", flags.journal)? {
            Some(dir) => Some(outside_directory("journal", &dir, root)?),
            None => state_dir.map(|dir| dir.join("journal")),
        };
        let wait = from.parsed("approval-timeout", flags.approval_timeout, APPROVAL_TIMEOUT, parse_time)?;
        let within = |text: &str, least: usize, most: usize| match number(text, least) {
            Ok(n) if n > most => Err(format!("is above {most}")),
            other => other,
        };
        let name =
            |setting, flag, default: &str| from.parsed(setting, flag, default.to_owned(), manifest_name);
        Ok(RunsConfig {
            agent,
            rule,
            approval_timeout: (!wait.is_zero()).then_some(wait),
            journal,
            event_ring: from
                .parsed("event-ring", flags.event_ring, EVENT_RING, |text| within(text, 1, MAX_EVENT_RING))?,
            heartbeat: from.parsed("heartbeat", flags.heartbeat, HEARTBEAT, positive_time)?,
            history_size: from.parsed("history-size", flags.history_size, HISTORY_SIZE, |text| {
                within(text, 0, MAX_HISTORY_SIZE)
            })?,
            streamed: streamed(from, flags.stream_slices)?,
            contracts: contracts(from, flags.contracts, root)?,
            agent_id: from.parsed("agent-id", flags.agent_id, None, |text| manifest_name(text).map(Some))?,
            agent_name: name("agent-name", flags.agent_name, env!("CARGO_PKG_NAME"))?,
            agent_version: name("agent-version", flags.agent_version, env!("CARGO_PKG_VERSION"))?,
            tools: from.list("capability-tool", flags.capability_tool)?,
        })
    }
}

fn command(text: &str) -> Result<Vec<String>, String> {
    if text.contains('\0') {
        return Err("contains a NUL".to_owned());
    }
    match super::words(text) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err("is empty".to_owned()),
        None => Err("has an open quote or a backslash at its end".to_owned()),
    }
}

fn rule(from: &Source<'_>, flags: Vec<String>) -> Result<Rule, ConfigError> {
    let tools = from.list("require-approval", flags)?;
    match tools.as_slice() {
        [] => Ok(Rule::None),
        tools if tools.iter().any(|tool| tool == "all") => match tools.len() {
            1 => Ok(Rule::All),
            _ => Err(ConfigError::new("require-approval", "names tools beside `all`")),
        },
        _ => Ok(Rule::Tools(tools)),
    }
}

fn streamed(from: &Source<'_>, flags: Vec<String>) -> Result<Slices, ConfigError> {
    let names = from.list("stream-slices", flags)?;
    if names.is_empty() || names == ["all"] {
        return Ok(Slices::all());
    }
    let known = || Slice::ALL.map(Slice::name).join(", ");
    let named = |name: &String| {
        let unknown = || ConfigError::new("stream-slices", format!("`{name}` is none of: {}", known()));
        Slice::named(name).ok_or_else(unknown)
    };
    names.iter().map(named).collect()
}

fn contracts(from: &Source<'_>, flag: Option<String>, root: &Path) -> Result<Contracts, ConfigError> {
    let Some(text) = from.text("contracts", flag)? else { return Ok(Contracts::default()) };
    let problem = |what: &dyn std::fmt::Display| ConfigError::new("contracts", format!("`{text}` {what}"));
    let unreadable = |error: std::io::Error| problem(&format!("cannot be read: {error}"));
    let path = Path::new(&text).canonicalize().map_err(unreadable)?;
    outside_root("contracts", &path, root)?;
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(unreadable)?;
    file.take(CONTRACTS_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CONTRACTS_BYTES {
        return Err(problem(&format!("is larger than {CONTRACTS_BYTES} bytes")));
    }
    Contracts::with(&bytes).map_err(|error| problem(&error))
}

fn manifest_name(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0 => Err("is empty".to_owned()),
        n if n > NAME_CHARS => Err(format!("is longer than {NAME_CHARS} characters")),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Flags;
    use crate::config::Config;
    use crate::runs::Rule;
    use std::ffi::OsString;

    fn resolve(environment: &[(&str, &str)]) -> Result<Config, String> {
        let flags = Flags { command: Some("sleep 1".to_owned()), ..Flags::default() };
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Config::resolve(flags, &find).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_values_name_flag_and_variable() {
        for (variable, value) in [
            ("FRAG_AGENT", "'open"),
            ("FRAG_REQUIRE_APPROVAL", "all,write"),
            ("FRAG_APPROVAL_TIMEOUT", "soon"),
            ("FRAG_JOURNAL", "/proc/no"),
            ("FRAG_EVENT_RING", "0"),
            ("FRAG_EVENT_RING", "9999999"),
            ("FRAG_HEARTBEAT", "0"),
            ("FRAG_HISTORY_SIZE", "-1"),
            ("FRAG_STREAM_SLICES", "server,clients"),
            ("FRAG_CONTRACTS", "/nowhere.json"),
            ("FRAG_CONTRACTS", "/proc/self/cmdline"),
        ] {
            let error = resolve(&[(variable, value)]).unwrap_err();
            let flag = variable[5..].to_ascii_lowercase().replace('_', "-");
            assert!(error.contains(&format!("--{flag} ({variable})")), "{variable}={value}: {error}");
        }
        let error = resolve(&[("FRAG_AGENT", "cat")]).unwrap_err();
        assert!(error.contains("--agent (FRAG_AGENT)") && error.contains("token"), "{error}");
    }

    #[test]
    fn values_have_their_meaning() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("a/b");
        let config = resolve(&[
            ("FRAG_TOKEN", "t"),
            ("FRAG_AGENT", "python3 'my agent.py'"),
            ("FRAG_REQUIRE_APPROVAL", "write, run"),
            ("FRAG_APPROVAL_TIMEOUT", "0"),
            ("FRAG_JOURNAL", journal.to_str().unwrap()),
        ])
        .unwrap()
        .runs;
        assert_eq!(config.agent.unwrap(), ["python3", "my agent.py"]);
        assert_eq!(config.rule, Rule::Tools(vec!["write".to_owned(), "run".to_owned()]));
        assert_eq!((config.approval_timeout, config.journal), (None, Some(journal.canonicalize().unwrap())));
        let state = dir.path().to_str().unwrap();
        let config = resolve(&[("FRAG_STATE_DIR", state), ("FRAG_REQUIRE_APPROVAL", "all")]).unwrap().runs;
        assert_eq!(
            (config.rule, config.journal),
            (Rule::All, Some(dir.path().canonicalize().unwrap().join("journal")))
        );
        assert_eq!(resolve(&[]).unwrap().runs.journal, None);
    }
}
