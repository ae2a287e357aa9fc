//! The worker runtime's settings: `--worker` and those beside it.
use super::places::outside_directory;
use super::value::number;
use super::{ConfigError, Source};
use crate::cli::Flags;
use crate::workers::{ProfileSelector, Program, StoreChoice};
use std::path::Path;

/// Bytes of a runtime's id: in hexadecimal it is a file's name.
const RUNTIME_ID_BYTES: usize = 120;
/// A runtime that was given no name.
const RUNTIME_ID: &str = "runtime-mem-0000000000000001";
const MAX_WORKERS: usize = 64;

/// What was decided about workers.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// Which command runs which profile.
    pub programs: Vec<Program>,
    /// The runtime's id.
    pub runtime_id: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// Items of one transcript answer.
    pub max_transcript_items: Option<usize>,
    /// Events written to an observer at a time.
    pub max_event_batch: Option<usize>,
    /// Active workers.
    pub max_workers: usize,
    /// Where records go.
    pub store: StoreChoice,
}

/// The flags as they were given.
pub(super) struct Given {
    worker: Vec<String>,
    runtime_id: Option<String>,
    display_name: Option<String>,
    max_transcript_items: Option<String>,
    max_event_batch: Option<String>,
    max_workers: Option<String>,
    store: Option<String>,
}

impl Given {
    /// Takes our flags out of all.
    pub(super) fn take(flags: &mut Flags) -> Given {
        Given {
            worker: std::mem::take(&mut flags.worker),
            runtime_id: flags.runtime_id.take(),
            display_name: flags.display_name.take(),
            max_transcript_items: flags.max_transcript_items.take(),
            max_event_batch: flags.max_event_batch.take(),
            max_workers: flags.max_workers.take(),
            store: flags.workers_store.take(),
        }
    }

    pub(super) fn resolve(
        self,
        from: &Source<'_>,
        state_dir: Option<&Path>,
        root: &Path,
    ) -> Result<WorkersConfig, ConfigError> {
        let count = |setting, flag| from.parsed(setting, flag, None, |text| number(text, 1).map(Some));
        Ok(WorkersConfig {
            programs: programs(from, self.worker)?,
            runtime_id: from.parsed("runtime-id", self.runtime_id, RUNTIME_ID.to_owned(), runtime_id)?,
            display_name: from.text("display-name", self.display_name)?,
            max_transcript_items: count("max-transcript-items", self.max_transcript_items)?,
            max_event_batch: count("max-event-batch", self.max_event_batch)?,
            max_workers: from.parsed("max-workers", self.max_workers, MAX_WORKERS, |t| number(t, 1))?,
            store: store(from, self.store, state_dir, root)?,
        })
    }
}

fn runtime_id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is blank".to_owned()),
        text if text.len() > RUNTIME_ID_BYTES => Err(format!("is longer than {RUNTIME_ID_BYTES} bytes")),
        text if text.contains(char::is_control) => Err("has a control character in it".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// `SELECTOR=CMD`, each once; several in the variable stand on lines of their own.
fn programs(from: &Source<'_>, flags: Vec<String>) -> Result<Vec<Program>, ConfigError> {
    let texts = if flags.is_empty() {
        let text = from.text("worker", None)?.unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    } else {
        flags
    };
    let mut programs: Vec<Program> = Vec::new();
    for text in texts {
        let problem = |why: &str| ConfigError::new("worker", format!("`{text}` {why}"));
        let Some((selector, command)) = text.split_once('=') else {
            return Err(problem("is not SELECTOR=COMMAND"));
        };
        let Some(profile) = ProfileSelector::parse(selector.trim()) else {
            return Err(problem("selects neither runtime_default nor builtin:NAME nor named:NAME"));
        };
        let argv = shlex::split(command).ok_or(problem("has an open quote or a backslash at its end"))?;
        if argv.is_empty() {
            return Err(problem("has no command"));
        }
        if text.contains('\0') {
            return Err(problem("contains a NUL"));
        }
        if programs.iter().any(|program| program.profile.means(&profile)) {
            return Err(problem("selects a profile that has a command already"));
        }
        programs.push(Program { profile, argv });
    }
    Ok(programs)
}

fn store(
    from: &Source<'_>,
    flag: Option<String>,
    state_dir: Option<&Path>,
    root: &Path,
) -> Result<StoreChoice, ConfigError> {
    match from.text("workers-store", flag)?.as_deref() {
        None => Ok(state_dir.map_or(StoreChoice::Memory, |dir| StoreChoice::Fs(dir.join("workers")))),
        Some("memory") => Ok(StoreChoice::Memory),
        Some(text) => match text.strip_prefix("fs:") {
            Some(dir) if !dir.is_empty() => {
                outside_directory("workers-store", dir, root).map(StoreChoice::Fs)
            }
            _ => Err(ConfigError::new("workers-store", format!("`{text}` is neither memory nor fs:DIR"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::ffi::OsString;

    fn resolve(environment: &[(&str, &str)]) -> Result<Config, String> {
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let flags = Flags { command: Some("sleep 1".to_owned()), ..Flags::default() };
        Config::resolve(flags, &find).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_values_name_flag_and_variable() {
        for (variable, value) in [
            ("FRAG_WORKER", "sh"),
            ("FRAG_WORKER", "other:x=sh"),
            ("FRAG_WORKER", "named:=sh"),
            ("FRAG_WORKER", "runtime_default="),
            ("FRAG_WORKER", "runtime_default= 'open"),
            ("FRAG_WORKER", "builtin:a=sh\nbuiltin:a=sh"),
            ("FRAG_RUNTIME_ID", " "),
            ("FRAG_RUNTIME_ID", "a\nb"),
            ("FRAG_RUNTIME_ID", &"x".repeat(121)),
            ("FRAG_MAX_TRANSCRIPT_ITEMS", "0"),
            ("FRAG_MAX_EVENT_BATCH", "-1"),
            ("FRAG_MAX_WORKERS", "many"),
            ("FRAG_WORKERS_STORE", "fs"),
            ("FRAG_WORKERS_STORE", "fs:"),
            ("FRAG_WORKERS_STORE", "fs:/dev/null/x"),
            ("FRAG_WORKERS_STORE", "fs:."),
        ] {
            let error = resolve(&[(variable, value), ("FRAG_TOKEN", "t")]).unwrap_err();
            let flag = variable[5..].to_ascii_lowercase().replace('_', "-");
            assert!(error.contains(&format!("--{flag} ({variable})")), "{variable}={value}: {error}");
        }
    }

    #[test]
    fn a_worker_needs_a_token() {
        let worker = ("FRAG_WORKER", "named:a = python3 'x y.py'\n\nruntime_default=sh -c 'a=b'");
        let error = resolve(&[worker]).unwrap_err();
        assert!(error.contains("--worker (FRAG_WORKER)") && error.contains("token"), "{error}");
        let config = resolve(&[worker, ("FRAG_TOKEN", "t")]).unwrap().workers;
        let argv: Vec<_> = config.programs.iter().map(|program| program.argv.join("|")).collect();
        assert_eq!(argv, ["python3|x y.py", "sh|-c|a=b"]);
        assert_eq!(config.store, StoreChoice::Memory);
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().canonicalize().unwrap();
        let text = dir.to_str().unwrap();
        let config = resolve(&[("FRAG_STATE_DIR", text), ("FRAG_WORKER", "named:a=sh")]).unwrap();
        assert_eq!(config.workers.store, StoreChoice::Fs(dir.join("workers")));
        assert!(config.token.is_some(), "made, because callers can run programs");
    }
}
