//! What the configuration says of programs that callers may run.
use super::value::{number, parse_size, positive_time};
use super::{ConfigError, Source};
use crate::cli::Flags;
use crate::exec::{Program, Settings};
use std::path::absolute;
use std::time::Duration;

const MAX_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_OUTPUT_BYTES: u64 = 64 << 20;
const MAX_CONCURRENT: usize = 16;
/// The word that stands for every program.
const ANY: &str = "any";

/// None without `--exec`; the other flags must make sense all the same.
pub(super) fn settings(from: &Source<'_>, flags: &Flags) -> Result<Option<Settings>, ConfigError> {
    let program = from.parsed("exec", flags.exec.clone(), None, |text| program(text).map(Some))?;
    let max_timeout =
        from.parsed("exec-max-timeout", flags.exec_max_timeout.clone(), MAX_TIMEOUT, |text| {
            positive_time(text).and_then(|time| match time.subsec_nanos() {
                0 => Ok(time),
                _ => Err("is not a whole number of seconds".to_owned()),
            })
        })?;
    let max_output =
        from.parsed("exec-max-output", flags.exec_max_output.clone(), MAX_OUTPUT_BYTES, |text| {
            parse_size(text)
                .and_then(|size| if size == 0 { Err("must be above 0".to_owned()) } else { Ok(size) })
        })?;
    let max_concurrent =
        from.parsed("exec-max-concurrent", flags.exec_max_concurrent.clone(), MAX_CONCURRENT, |t| {
            number(t, 1)
        })?;
    let env = from.list("exec-env", flags.exec_env.clone())?;
    for name in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(ConfigError::new("exec-env", format!("`{name}` is not the name of a variable")));
        }
        if name.starts_with("FRAG_") {
            return Err(ConfigError::new(
                "exec-env",
                format!("`{name}` is one of ours, which no child sees"),
            ));
        }
    }
    Ok(program.map(|program| Settings { program, max_timeout, max_output, max_concurrent, env }))
}

/// A name is looked for in PATH; a path is taken from here, whatever directory a run works in.
fn program(text: &str) -> Result<Program, String> {
    match text {
        "" => Err("is empty".to_owned()),
        ANY => Ok(Program::Any),
        text if text.contains('\0') => Err("contains a NUL".to_owned()),
        text if text.contains('/') => {
            absolute(text).map(Program::Fixed).map_err(|error| format!("has no absolute path: {error}"))
        }
        name => Ok(Program::Fixed(name.into())),
    }
}
