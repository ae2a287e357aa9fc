//! `exec`: runs a program on the server and passes its output, its input and its end on. Whoever ends this
//! process ends the run: the server sees the connection close.
use super::arguments::Exec;
use super::events::Events;
use super::failure::{Failure, Refusal};
use super::output::{Output, note};
use super::server::{Answer, Content, Server, broken};
use crate::base::lock::lock;
use serde_json::{Map, Value, json};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use ureq::http::Method;

/// Its time was over (the code of `timeout(1)`).
const TIMED_OUT: u8 = 124;
/// The server ended the run before it ended itself: too much output, or somebody stopped it.
const ENDED: u8 = 125;
/// Bytes of input in one request.
const INPUT_BYTES: usize = 64 * 1024;
/// Until input that the server was too busy for is sent again.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) fn run(server: Server, output: Output, wanted: Exec) -> Result<ExitCode, Failure> {
    if wanted.args.is_empty() {
        return Err(Failure::Usage("exec needs a program: exec -- PROGRAM ARGUMENTS".to_owned()));
    }
    let mut env = Map::new();
    for variable in wanted.env {
        match variable.split_once('=') {
            Some((name, value)) => env.insert(name.to_owned(), value.into()),
            None => return Err(Failure::Usage(format!("--env: `{variable}` is not NAME=VALUE"))),
        };
    }
    let piped = !io::stdin().is_terminal();
    let mut request = json!({"args": wanted.args, "env": env, "keep_stdin": piped});
    if let Some(seconds) = wanted.timeout {
        request["timeout_secs"] = seconds.into();
    }
    if let Some(cwd) = wanted.cwd {
        request["cwd"] = cwd.into();
    }
    let accept = [("accept", "text/event-stream")];
    let server = Arc::new(server);
    let answer = server.send(Method::POST, "exec", &accept, Content::Json(&request), None)?;
    follow(&server, answer, output, piped)
}

fn follow(server: &Arc<Server>, answer: Answer, output: Output, piped: bool) -> Result<ExitCode, Failure> {
    let mut events = Events::of(answer.body.into_reader());
    // One that could not be started has a code that says so.
    let (mut started, mut ended) = (false, false);
    let input = Arc::new(Mutex::new(None));
    while let Some(event) = events.next().map_err(|error| broken(error.into()))? {
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else { continue };
        if output.json {
            output.line(&data)?;
        }
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        match text("type") {
            "started" => {
                started = true;
                if piped {
                    pass_input(Arc::clone(server), text("run_id").to_owned(), Arc::clone(&input));
                }
            }
            "stdout" if !output.json => output.raw(text("data").as_bytes())?,
            "stderr" if !output.json => {
                io::stderr().lock().write_all(text("data").as_bytes()).map_err(Failure::printing)?;
            }
            "error" => {
                ended = started;
                note(text("message"));
            }
            "exit_code" => {
                return outcome(&data, ended, lock(&input).take());
            }
            _ if event.name.as_deref() == Some("gap") => note("output is missing here"),
            _ => {}
        }
    }
    Err(Failure::Unreachable("the connection broke before the run ended, which ended it".to_owned()))
}

/// How the run went, whose input may have failed.
fn outcome(end: &Value, ended: bool, input: Option<Failure>) -> Result<ExitCode, Failure> {
    match input {
        // A server that ends takes no input any more; what it said of the run says why.
        Some(Failure::Unreachable(_)) if ended => Ok(exit_code(end, ended)),
        // It may have done well with a part of what it was to read.
        Some(failure) => Err(failure),
        None => Ok(exit_code(end, ended)),
    }
}

/// The program's own code, as a shell tells it, unless the server `ended` it: what it says then is not what
/// it would have said. (Output that is cut is no sign of that: something in the background may have gone on
/// writing.)
fn exit_code(end: &Value, ended: bool) -> ExitCode {
    let code = |number: i64| ExitCode::from(u8::try_from(number).unwrap_or(ENDED));
    match (end["code"].as_i64(), end["signal"].as_i64()) {
        _ if end["timed_out"] == true => ExitCode::from(TIMED_OUT),
        _ if ended => ExitCode::from(ENDED),
        (_, Some(signal)) => code(128 + signal),
        (Some(number), None) => code(number),
        (None, None) => ExitCode::from(ENDED),
    }
}

/// Passes our standard input on, piece by piece, as the program takes it; beside the output, whose end ends
/// this process and so the thread. If it cannot, it says why and ends the run, which would wait for more.
fn pass_input(server: Arc<Server>, run: String, failed: Arc<Mutex<Option<Failure>>>) {
    let pass = move || {
        let mut input = io::stdin().lock();
        let mut piece = vec![0; INPUT_BYTES];
        loop {
            let (count, close) = match input.read(&mut piece) {
                Ok(0) => (0, "?close=true"),
                Ok(count) => (count, ""),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    note(format_args!("standard input: {error}"));
                    (0, "?close=true")
                }
            };
            let target = format!("exec/{run}/stdin{close}");
            let sent = loop {
                let content = Content::Input(&mut &piece[..count], count as u64);
                let sent = server.send(Method::POST, &target, &[], content, None);
                match sent.and_then(Answer::json) {
                    // It is busy, and has taken nothing of it.
                    Err(Failure::Refused(Refusal { status: 503, .. })) => thread::sleep(AGAIN),
                    other => break other,
                }
            };
            match sent {
                Ok(_) if close.is_empty() => {}
                Ok(_) => return,
                // It has ended, or reads no more.
                Err(Failure::Refused(Refusal { status: 404 | 409, .. })) => return,
                Err(failure) => {
                    *lock(&failed) = Some(failure);
                    // If this fails as well, so does the output.
                    let _ = server.send(Method::DELETE, &format!("exec/{run}"), &[], Content::None, None);
                    return;
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("input".to_owned()).spawn(pass) {
        note(format_args!("standard input is not passed on: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_become_exit_codes() {
        for (end, ended, code) in [
            (json!({"code": 0}), false, 0),
            (json!({"code": 3, "signal": null}), false, 3),
            (json!({"code": 0, "truncated": true}), false, 0),
            (json!({"code": -1, "signal": 9}), false, 137),
            (json!({"code": -1, "signal": 9, "timed_out": true}), true, 124),
            (json!({"code": -1, "truncated": true}), true, 125),
            (json!({"code": 0}), true, 125),
            (json!({"code": -1, "signal": 15}), true, 125),
            (json!({"code": -1}), false, 125),
            (json!({}), false, 125),
        ] {
            let told = format!("{:?}", exit_code(&end, ended));
            assert_eq!(told, format!("{:?}", ExitCode::from(code)), "{end} {ended}");
        }
    }

    #[test]
    fn input_that_failed_is_the_outcome_unless_the_server_was_ending() {
        let unreachable = || Some(Failure::Unreachable("gone".to_owned()));
        let end = json!({"code": 0});
        assert!(matches!(outcome(&end, false, unreachable()), Err(Failure::Unreachable(_))));
        assert!(matches!(outcome(&end, true, Some(Failure::Unheard)), Err(Failure::Unheard)));
        let told = outcome(&end, true, unreachable()).unwrap();
        assert_eq!(format!("{told:?}"), format!("{:?}", ExitCode::from(ENDED)));
    }
}
