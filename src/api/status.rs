//! The wrapped server's state as JSON, and waiting for it.
use super::Api;
use super::query::Query;
use crate::base::time::{millis, unix_ms};
use crate::http::{Exchange, HttpError, Response, list_elements, peer_gone};
use crate::process::Exit;
use crate::supervisor::{State, Status};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime};

/// How long `await` waits unless told.
const AWAIT: Duration = Duration::from_secs(30);
/// How long it may be told to.
const AWAIT_MAX: Duration = Duration::from_secs(300);
/// How often a wait looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(250);

/// How a process ended, on the wire.
#[derive(Debug, Serialize)]
struct ExitJson {
    code: Option<i32>,
    signal: Option<i32>,
}

#[derive(Debug, Serialize)]
struct StatusJson<'s> {
    status: &'static str,
    ready: bool,
    pid: Option<i32>,
    restarts: u64,
    uptime_ms: Option<u64>,
    exit: Option<ExitJson>,
    next_retry_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'s str>,
    command: &'s str,
    port: u16,
    version: &'static str,
}

fn exit_json(exit: Exit) -> ExitJson {
    match exit {
        Exit::Code(code) => ExitJson { code: Some(code), signal: None },
        Exit::Signal(signal) => ExitJson { code: None, signal: Some(signal) },
    }
}

/// The state as a response with the given status code.
pub(super) fn report(api: &Api, code: u16, status: &Status) -> Response {
    let json = StatusJson {
        status: status.state.as_str(),
        ready: status.ready,
        pid: status.pid,
        restarts: status.restarts,
        uptime_ms: status.uptime.map(millis),
        exit: status.exit.map(exit_json),
        next_retry_ms: status.next_retry.map(millis),
        message: status.message.as_deref(),
        command: &api.about.command,
        port: api.about.port,
        version: env!("CARGO_PKG_VERSION"),
    };
    Response::json(code, &json)
}

/// `GET status`: 200 while a process runs, else 503.
pub(super) fn status(api: &Api, exchange: &Exchange<'_>) -> Result<Response, HttpError> {
    let status = api.supervisor.status();
    let code = if status.running { 200 } else { 503 };
    if wants_text(exchange) {
        let text = if status.running { "Running.\n" } else { "Not running.\n" };
        return Ok(Response::bytes(code, "text/plain; charset=utf-8", text));
    }
    Ok(report(api, code, &status))
}

fn is_plain(media_type: &[u8]) -> bool {
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/plain")
}

fn wants_text(exchange: &Exchange<'_>) -> bool {
    let mut types = exchange.head().get_all("accept").flat_map(list_elements);
    types.next().and_then(|first| first.split(|&b| b == b';').next()).is_some_and(is_plain)
}

/// `GET await`: 200 as soon as the server is ready, 503 when the time is over first; `None` when the
/// client left.
pub(super) fn wait_ready(api: &Api, exchange: &Exchange<'_>) -> Result<Option<Response>, HttpError> {
    let query = Query::parse(exchange.head().query());
    let time = query.seconds("timeout", AWAIT, AWAIT_MAX)?;
    Ok(wait_for(api, exchange, time, |_| false)?.then(|| {
        let status = api.supervisor.status();
        report(api, if status.ready { 200 } else { 503 }, &status)
    }))
}

/// Waits until the server is ready, `hopeless` says that it will not be, or the time is over; false
/// when the client left before.
pub(super) fn wait_for(
    api: &Api,
    exchange: &Exchange<'_>,
    time: Duration,
    hopeless: fn(State) -> bool,
) -> Result<bool, HttpError> {
    let deadline = Instant::now() + time;
    if api.supervisor.wait_ready(Duration::ZERO) {
        return Ok(true);
    }
    exchange.seat().leave_pool()?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = api.supervisor.wait_ready(left.min(LOOK));
        if ready || left.is_zero() || hopeless(api.supervisor.status().state) {
            return Ok(true);
        }
        if exchange.stopping().is_set() {
            return Ok(true);
        }
        if peer_gone(exchange.client()) {
            return Ok(false);
        }
    }
}

#[derive(Debug, Serialize)]
struct HealthJson {
    status: &'static str,
    timestamp: u64,
}

/// `GET health`: we are here, what we keep can be read and what must last written; the wrapped server is
/// `status`'s business.
pub(super) fn health(api: &Api, exchange: &Exchange<'_>) -> Response {
    let (code, status) =
        if stores_answer(api, exchange) && journal_is_well(api) { (200, "ok") } else { (503, "error") };
    Response::json(code, &HealthJson { status, timestamp: unix_ms(SystemTime::now()) })
}

#[cfg(feature = "artifacts")]
fn stores_answer(api: &Api, exchange: &Exchange<'_>) -> bool {
    let checked = api.artifacts.artifacts().check(&|| exchange.seat().leave_pool_to_wait());
    checked.inspect_err(|error| log::warn!("{error}")).is_ok()
}

#[cfg(not(feature = "artifacts"))]
fn stores_answer(_: &Api, _: &Exchange<'_>) -> bool {
    true
}

#[cfg(feature = "runs")]
fn journal_is_well(api: &Api) -> bool {
    api.runs.runs.is_well()
}

#[cfg(not(feature = "runs"))]
fn journal_is_well(_: &Api) -> bool {
    true
}
