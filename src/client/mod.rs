//! `ctl`: the command line that talks to a running server, over HTTP like any other client.
//!
//! A room of its own: it knows the routes and their JSON, and nothing of what is behind them. `arguments`
//! says what may be asked for, `server` sends it, each command has a file, `failure` has the exit codes.
mod arguments;
mod artifact;
mod closed;
mod compare;
mod control;
mod early;
mod events;
mod exclude;
mod exec;
mod failure;
mod logs;
mod output;
mod pack;
mod path;
mod progress;
mod refused;
mod runs;
mod scan;
mod server;
mod sync;
#[cfg(feature = "tls")]
mod tls;
mod upload;
mod watch;

use arguments::{Arguments, Command, Parsed};
use failure::Failure;
use output::Output;
use server::Server;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

/// What our words on standard error begin with.
const NAME: &str = concat!(env!("CARGO_PKG_NAME"), " ctl");
/// Where the server is unless somebody says.
const URL: &str = "http://127.0.0.1:8080";
/// Bytes of a file with a token.
const TOKEN_BYTES: u64 = 64 * 1024;

/// Runs the words after `ctl`, with a look into the environment; the process's exit code.
pub fn run(
    words: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> ExitCode {
    let arguments = match arguments::parse(words) {
        Ok(Parsed::Arguments(arguments)) => arguments,
        Ok(Parsed::Help(text)) => {
            let shown = Output { json: false }.line(text.trim_end());
            return shown.map_or_else(|failure| failure.exit_code(), |()| ExitCode::SUCCESS);
        }
        Err(failure) => return failed(&failure, false),
    };
    let json = arguments.json;
    carry_out(arguments, environment).unwrap_or_else(|failure| failed(&failure, json))
}

fn failed(failure: &Failure, json: bool) -> ExitCode {
    if let Failure::Refused(refusal) = failure
        && let (true, Some(answer)) = (json, &refusal.json)
    {
        let _ = Output { json }.line(answer);
    }
    if !matches!(failure, Failure::Unheard) {
        output::note(failure);
    }
    failure.exit_code()
}

fn carry_out(
    arguments: Arguments,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<ExitCode, Failure> {
    let output = Output { json: arguments.json };
    let variable = |name: &str| match environment(name).filter(|value| !value.is_empty()) {
        Some(value) => {
            value.into_string().map(Some).map_err(|_| Failure::Usage(format!("{name}: not UTF-8")))
        }
        None => Ok(None),
    };
    let url = arguments.url.or(variable("FRAG_URL")?);
    let token = match (&arguments.token_file, variable("FRAG_TOKEN")?, variable("FRAG_TOKEN_FILE")?) {
        (Some(file), ..) => Some(token("--token-file", file)?),
        (None, Some(token), _) => Some(token),
        (None, None, Some(file)) => Some(token("FRAG_TOKEN_FILE", &file)?),
        (None, None, None) => None,
    };
    let server = Server::new(url.as_deref().unwrap_or(URL), token)?;
    #[cfg(feature = "tls")]
    let server = match arguments.ca_file.or(variable("FRAG_CA_FILE")?) {
        Some(file) => server.trusting(tls::certificates(&file)?),
        None => server,
    };
    match arguments.command {
        Command::Status(_) => return control::status(&server, output),
        Command::Restart(wanted) => return control::act(&server, output, "restart", wanted.wait),
        Command::Start(wanted) => return control::act(&server, output, "start", wanted.wait),
        Command::Stop(_) => return control::act(&server, output, "stop", false),
        Command::Interrupt(_) => return control::act(&server, output, "interrupt", false),
        Command::Exec(wanted) => return exec::run(server, output, wanted),
        Command::Logs(wanted) => logs::run(&server, output, &wanted)?,
        Command::Upload(wanted) => upload::run(&server, output, &wanted)?,
        Command::Sync(wanted) => sync::run(&server, output, &wanted)?,
        Command::Runs(wanted) => runs::runs(&server, output, &wanted)?,
        Command::Approvals(wanted) => runs::approvals(&server, output, &wanted)?,
        Command::Artifact(wanted) => artifact::run(&server, output, wanted.command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn token(named_by: &str, file: &str) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::Usage(format!("{named_by}: {file}: {what}"));
    let metadata = fs::metadata(file).map_err(|error| failed(&error))?;
    if metadata.len() > TOKEN_BYTES {
        return Err(failed(&"too long for a token"));
    }
    fs::read_to_string(file).map_err(|error| failed(&error))
}
