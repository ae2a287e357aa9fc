//! Parse, run, exit code.
use simple_artifact_server::cli::{self, Early};
use simple_artifact_server::{app, config::Config};
use std::fmt::Display;
use std::io::{self, Write};
#[cfg(feature = "runs")]
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "client")]
    if let Some(words) = cli::client_words(std::env::args_os().skip(1)) {
        return simple_artifact_server::client::run(words, &|name| std::env::var_os(name));
    }
    #[cfg(feature = "runs")]
    if let Some(dir) = cli::verify_dir(std::env::args_os().skip(1)) {
        return verify(dir);
    }
    let flags = match cli::parse(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(Early::Help(text)) => return say(io::stdout(), &text.trim_end(), ExitCode::SUCCESS),
        Err(Early::Usage(text)) => return say(io::stderr(), &text.trim_end(), ExitCode::from(2)),
    };
    if flags.version {
        let version = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        return say(io::stdout(), &version, ExitCode::SUCCESS);
    }
    let config = match Config::resolve(flags, &|name| std::env::var_os(name)) {
        Ok(config) => config,
        Err(error) => return say(io::stderr(), &error, ExitCode::from(2)),
    };
    match app::run(config) {
        Ok(code) => code,
        Err(error) => say(io::stderr(), &error, ExitCode::FAILURE),
    }
}

/// Checks a journal: 0 when it is as it was written, 1 when not, 2 when it was not said which.
#[cfg(feature = "runs")]
fn verify(dir: Result<PathBuf, String>) -> ExitCode {
    let dir = match dir {
        Ok(dir) => dir,
        Err(usage) => return say(io::stderr(), &usage, ExitCode::from(2)),
    };
    match simple_artifact_server::runs::verify(&dir) {
        Ok(found) if found.problems.is_empty() => say(io::stdout(), &found, ExitCode::SUCCESS),
        Ok(found) => say(io::stderr(), &found, ExitCode::FAILURE),
        Err(error) => say(io::stderr(), &format!("{}: {error}", dir.display()), ExitCode::FAILURE),
    }
}

/// One text for people, whether or not anybody still reads it (`--help | head -1`).
fn say(mut to: impl Write, text: &dyn Display, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}
