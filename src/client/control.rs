//! `status`, `restart`, `interrupt`, `stop` and `start`.
use super::failure::Failure;
use super::output::{Output, field};
use super::server::{Content, Server};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use ureq::http::Method;

/// What `status` and everything that acts answers for a server that does not serve.
const NOT_RUNNING: u16 = 503;

/// `status`: 0 if it runs, 1 if not.
pub(super) fn status(server: &Server, output: Output) -> Result<ExitCode, Failure> {
    let answer = server.send(Method::GET, "status", &[], Content::None, Some(NOT_RUNNING))?;
    let running = answer.status != NOT_RUNNING;
    output.result(&told(answer)?, people)?;
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Acts. With `wait`, until it serves: 1 if it then does not.
pub(super) fn act(server: &Server, output: Output, what: &str, wait: bool) -> Result<ExitCode, Failure> {
    let target = if wait { format!("{what}?wait=ready") } else { what.to_owned() };
    let content = Content::Bytes(&mut std::io::empty(), 0);
    let answer = server.send(Method::POST, &target, &[], content, Some(NOT_RUNNING))?;
    let serves = answer.status != NOT_RUNNING;
    output.result(&told(answer)?, people)?;
    Ok(if serves { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The state; an error with the same status is a refusal after all.
fn told(answer: super::server::Answer) -> Result<Value, Failure> {
    let status = answer.status;
    let json = answer.json()?;
    match json.get("error") {
        Some(_) => Err(Failure::Refused(super::failure::Refusal::read(status, json.to_string().as_bytes()))),
        None => Ok(json),
    }
}

/// The state for people: one line, and one for what went wrong.
fn people(status: &Value) -> String {
    let mut line = field(status, "status");
    if let Some(pid) = status["pid"].as_i64() {
        line.push_str(&format!(", pid {pid}"));
    }
    if let Some(ms) = status["uptime_ms"].as_u64() {
        line.push_str(&format!(", up {}", time(Duration::from_millis(ms))));
    }
    line.push_str(&format!(", restarts {}: {}", field(status, "restarts"), field(status, "command")));
    let exit = &status["exit"];
    if let Some(code) = exit["code"].as_i64() {
        line.push_str(&format!("\nlast exit: code {code}"));
    } else if let Some(signal) = exit["signal"].as_i64() {
        line.push_str(&format!("\nlast exit: signal {signal}"));
    }
    if let Some(ms) = status["next_retry_ms"].as_u64() {
        line.push_str(&format!("\nnext try in {}", time(Duration::from_millis(ms))));
    }
    if let Some(message) = status["message"].as_str() {
        line.push_str(&format!("\n{message}"));
    }
    line
}

/// A time for people.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_in_a_line() {
        let json = serde_json::json!({
            "status": "backoff", "ready": false, "pid": null, "restarts": 3, "uptime_ms": null,
            "exit": {"code": 1, "signal": null}, "next_retry_ms": 61_000, "command": "app", "message": "why",
        });
        assert_eq!(people(&json), "backoff, restarts 3: app\nlast exit: code 1\nnext try in 1m1s\nwhy");
    }
}
