//! Approvals: those that wait, those that were decided, and deciding one.
use super::error::Failure;
use super::wire::ApprovalJson;
use super::{RunsApi, object, shown, text_field};
use crate::api::query::Query;
use crate::events::Json;
use crate::http::{Exchange, Response, peer_gone};
use crate::runs::{Approval, DecideError, is_id};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long one may wait for an approval to decide.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a wait looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(250);
/// Characters of a reason.
const REASON_CHARS: usize = 2000;

#[derive(Serialize)]
struct PendingJson<'a> {
    approvals: Vec<ApprovalJson<'a>>,
}

#[derive(Serialize)]
struct HistoryJson<'a> {
    history: Vec<ApprovalJson<'a>>,
}

/// `GET approvals?wait=`: those that are pending, at once or, with none, when there is one or the time is
/// over; `None` when the client left.
pub(super) fn pending(api: &RunsApi, exchange: &Exchange<'_>) -> Result<Option<Response>, Failure> {
    let query = Query::parse(exchange.head().query());
    let wait = query.seconds("wait", Duration::ZERO, WAIT_MAX).map_err(|_| Failure::parameter("wait"))?;
    let until = Instant::now() + wait;
    loop {
        let pending = api.runs.pending();
        let left = until.saturating_duration_since(Instant::now());
        if !pending.is_empty() || left.is_zero() || exchange.stopping().is_set() {
            let approvals = pending.iter().map(ApprovalJson::of).collect();
            return Ok(Some(Response::json(200, &PendingJson { approvals })));
        }
        exchange.seat().leave_pool()?;
        if !api.runs.wait_pending(left.min(LOOK)) {
            return Ok(Some(Response::json(200, &PendingJson { approvals: Vec::new() })));
        }
        if peer_gone(exchange.client()) {
            return Ok(None);
        }
    }
}

/// `GET approvals/history`: the latest decision first.
pub(super) fn history(api: &RunsApi) -> Response {
    let decided: Vec<Approval> = api.runs.decided();
    Response::json(200, &HistoryJson { history: decided.iter().map(ApprovalJson::of).collect() })
}

fn id(raw: &[u8]) -> Result<&str, Failure> {
    let text = std::str::from_utf8(raw).ok().filter(|id| is_id(id));
    text.ok_or_else(|| Failure::of_approval(DecideError::NotFound, &shown(raw)))
}

/// `GET approvals/:id`.
pub(super) fn one(api: &RunsApi, raw: &[u8]) -> Result<Response, Failure> {
    let id = id(raw)?;
    match api.runs.approval(id) {
        Some(approval) => Ok(Response::json(200, &ApprovalJson::of(&approval))),
        None => Err(Failure::of_approval(DecideError::NotFound, id)),
    }
}

#[derive(Serialize)]
struct DecidedJson<'a> {
    id: &'a str,
    decision: &'a str,
    status: &'static str,
}

/// `POST approvals/:id`.
pub(super) fn decide(api: &RunsApi, exchange: &mut Exchange<'_>, raw: &[u8]) -> Result<Response, Failure> {
    let id = id(raw)?;
    let body = object(exchange)?;
    let word = text_field(&body, "decision").unwrap_or_default();
    let granted = match word {
        "approve" => true,
        "reject" => false,
        _ => {
            let text = "Invalid decision: expected \"approve\" or \"reject\"";
            return Err(Failure::new(400, text));
        }
    };
    let reason = match body.get("reason") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) if text.chars().count() <= REASON_CHARS => Some(text.clone()),
        Some(_) => {
            return Err(Failure::new(
                400,
                format!("Invalid reason: expected a text of up to {REASON_CHARS} characters"),
            ));
        }
    };
    let run = match body.get("executionId") {
        None | Some(Json::Null) => None,
        Some(Json::String(run)) => Some(run.as_str()),
        Some(_) => return Err(Failure::new(400, "Invalid executionId: expected a text")),
    };
    exchange.seat().leave_pool_to_wait();
    let approval =
        api.runs.decide(id, run, granted, reason).map_err(|error| Failure::of_approval(error, id))?;
    Ok(Response::json(200, &DecidedJson { id, decision: word, status: approval.decision.as_str() }))
}
