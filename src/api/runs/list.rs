//! Runs: the list, one of them, and the two things that can be done to the agent's.
use super::error::Failure;
use super::wire::RunJson;
use super::{RunsApi, body, parse, shown};
use crate::api::query::Query;
use crate::http::{Exchange, HttpError, Response};
use crate::runs::{Filter, Kind, Record, RunStatus, is_id};
use serde::Serialize;

/// Runs of one answer at most.
const LIMIT: usize = 1000;

#[derive(Serialize)]
struct ListJson<'r> {
    runs: Vec<RunJson<'r>>,
}

/// `GET runs?status=&kind=&limit=`: without their actions, the latest begun first.
pub(super) fn list(api: &RunsApi, exchange: &Exchange<'_>) -> Result<Response, Failure> {
    let query = Query::parse(exchange.head().query());
    let parameter = |name: &'static str| query.get(name).map_err(|_| Failure::parameter(name));
    let status = match parameter("status")? {
        None => None,
        Some(word) => Some(RunStatus::named(word).ok_or_else(|| Failure::parameter("status"))?),
    };
    let kind = match parameter("kind")? {
        None => None,
        Some(word) => Some(Kind::named(word).ok_or_else(|| Failure::parameter("kind"))?),
    };
    let limit = match parameter("limit")? {
        None => api.history_size,
        Some(text) if text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit()) => {
            let limit = text.parse().ok().filter(|limit| *limit > 0);
            limit.ok_or_else(|| Failure::parameter("limit"))?
        }
        Some(_) => return Err(Failure::parameter("limit")),
    };
    let filter = Filter { status, kind };
    if api.runs.reads_journal(filter) {
        exchange.seat().leave_pool()?;
    }
    let runs = api.runs.list(filter, limit.min(LIMIT));
    let runs: Vec<Record> = runs.map_err(|error| Failure::of_run(error, ""))?;
    Ok(Response::json(200, &ListJson { runs: runs.iter().map(RunJson::brief).collect() }))
}

/// The id in a path. What cannot be one is the id of no run.
fn id(raw: &[u8]) -> Result<&str, Failure> {
    let text = std::str::from_utf8(raw).ok().filter(|id| is_id(id));
    text.ok_or_else(|| Failure::new(404, format!("Run not found: {}", shown(raw))))
}

/// `GET runs/:id`: with its actions.
pub(super) fn one(api: &RunsApi, exchange: &Exchange<'_>, raw: &[u8]) -> Result<Response, Failure> {
    let id = id(raw)?;
    let seat = exchange.seat();
    let mut log_bytes = 0;
    if !api.runs.remembers(id) {
        seat.leave_pool()?;
        // What is read of its log is in memory beside the answer that is made of it.
        log_bytes = api.runs.log_bytes(id);
        if !seat.keep(log_bytes) {
            return Err(HttpError::overloaded("too many logs are being read").into());
        }
    }
    let run = api.runs.get(id).map_err(|error| Failure::of_run(error, id))?;
    let response = Response::json(200, &RunJson::full(&run));
    drop(run);
    seat.let_go(log_bytes);
    Ok(response)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DoneJson<'r> {
    execution_id: &'r str,
    status: &'static str,
}

/// `POST runs/:id/cancel`: answers when the run has ended.
pub(super) fn cancel(api: &RunsApi, exchange: &Exchange<'_>, raw: &[u8]) -> Result<Response, Failure> {
    let id = id(raw)?;
    exchange.seat().leave_pool_to_wait();
    api.runs.cancel(id).map_err(|error| Failure::of_run(error, id))?;
    Ok(Response::json(200, &DoneJson { execution_id: id, status: "aborted" }))
}

/// `POST runs/:id/continue`: the body, if there is one, goes to the agent.
pub(super) fn go_on(api: &RunsApi, exchange: &mut Exchange<'_>, raw: &[u8]) -> Result<Response, Failure> {
    let id = id(raw)?;
    let bytes = body(exchange)?;
    let payload = match bytes.trim_ascii() {
        [] => None,
        text => Some(parse(text)?),
    };
    if !api.runs.remembers(id) {
        exchange.seat().leave_pool()?;
    }
    api.runs.go_on(id, payload).map_err(|error| Failure::of_run(error, id))?;
    Ok(Response::json(200, &DoneJson { execution_id: id, status: "running" }))
}
