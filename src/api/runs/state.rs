//! The state, and what changes it on purpose: invoke, abort, dispatch.
use super::error::Failure;
use super::{RunsApi, object, text_field};
use crate::api::Api;
use crate::api::query::Query;
use crate::events::{Action, Json, Slice, Slices};
use crate::http::{Exchange, Response};
use serde::Serialize;

/// `GET state`: all slices; with `?strict=true` those that are streamed.
pub(super) fn state(api: &RunsApi, exchange: &Exchange<'_>) -> Result<Response, Failure> {
    let query = Query::parse(exchange.head().query());
    let strict = query.flag("strict").map_err(|_| Failure::parameter("strict"))?;
    let slices = if strict { api.bus.streamed() } else { Slices::all() };
    Ok(Response::json(200, &api.bus.state().json(slices)))
}

/// `GET state/:slice`.
pub(super) fn slice(api: &RunsApi, name: &[u8]) -> Result<Response, Failure> {
    let name = super::shown(name);
    match Slice::named(&name) {
        Some(slice) => Ok(Response::json(200, api.bus.state().get(slice).as_ref())),
        None => Err(Failure::new(404, format!("Slice not found: {name}"))),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartedJson {
    execution_id: String,
    status: &'static str,
}

/// `POST invoke`: begins a run of the agent and does not wait for it.
pub(super) fn invoke(api: &RunsApi, exchange: &mut Exchange<'_>) -> Result<Response, Failure> {
    let body = object(exchange)?;
    let input = text_field(&body, "input").ok_or_else(|| Failure::missing("input"))?;
    // Starting a program may take a while, and so may a disk.
    exchange.seat().leave_pool_to_wait();
    let execution_id = api.runs.invoke(input)?;
    Ok(Response::json(200, &StartedJson { execution_id, status: "started" }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AbortedJson {
    aborted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_id: Option<String>,
}

/// `POST abort`: ends the agent's run, and answers when it has ended.
pub(super) fn abort(api: &RunsApi, exchange: &Exchange<'_>) -> Result<Response, Failure> {
    exchange.seat().leave_pool_to_wait();
    let execution_id = api.runs.abort().map_err(|error| Failure::of_run(error, ""))?;
    Ok(Response::json(200, &AbortedJson { aborted: execution_id.is_some(), execution_id }))
}

#[derive(Serialize)]
struct DispatchedJson {
    dispatched: bool,
}

/// `POST dispatch`: one of the actions that a contract accepts; `None` when the client left while the journal
/// had no room for it.
pub(super) fn dispatch(api: &Api, exchange: &mut Exchange<'_>) -> Result<Option<Response>, Failure> {
    let body = object(exchange)?;
    let action = body.get("action").unwrap_or(&Json::Null);
    let kind = text_field(action, "type").ok_or_else(|| Failure::missing("action.type"))?;
    if !api.runs.contracts.accepts(kind) {
        let shown: String = kind.chars().take(super::SHOWN_CHARS).collect();
        return Err(Failure::new(400, format!("Action type not accepted: {shown}")));
    }
    let action = Action::of(kind.to_owned(), action.get("payload").cloned());
    if !api.runs.wait_for_room(exchange)? {
        return Ok(None);
    }
    api.runs.runs.act(&action);
    match kind {
        "SERVER_RESTART" => {
            exchange.seat().leave_pool_to_wait();
            api.supervisor.restart()?;
        }
        "SERVER_INTERRUPT" => api.supervisor.interrupt()?,
        _ => {}
    }
    Ok(Some(Response::json(200, &DispatchedJson { dispatched: true })))
}
