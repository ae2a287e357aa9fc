//! The JSON of this contract: events, runs, approvals.
use crate::events::{Action, Change, Event, Json, Slices, State};
use crate::http::sse;
use crate::runs::{Approval, Record};
use serde::Serialize;
use serde_json::value::RawValue;

/// An event as it goes out. `id` is the number of the event, or of the last one before it.
fn frame(name: &str, id: u64, json: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    // Strings and numbers under known keys always serialise.
    sse::write_event_with_id_last(&mut out, name, &serde_json::to_vec(json).unwrap_or_default(), id);
    out
}

#[derive(Serialize)]
struct UpdateJson<'e> {
    r#type: &'static str,
    slice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    patches: Option<&'e crate::events::Patches>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'e serde_json::Value>,
    timestamp: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson<'e> {
    r#type: &'static str,
    status: &'e str,
    execution_id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'e str>,
    timestamp: u64,
}

#[derive(Serialize)]
struct CustomJson<'e> {
    r#type: &'static str,
    data: &'e Json,
    timestamp: u64,
}

#[derive(Serialize)]
struct ActionJson<'e> {
    r#type: &'e str,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'e Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActionEventJson<'e> {
    r#type: &'static str,
    action: ActionJson<'e>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_id: Option<&'e str>,
    timestamp: u64,
}

#[derive(Serialize)]
struct InitialJson {
    r#type: &'static str,
    slices: Json,
    timestamp: u64,
}

#[derive(Serialize)]
struct HeartbeatJson {
    r#type: &'static str,
    timestamp: u64,
}

/// Encodes an event for the bus.
pub fn encode(id: u64, timestamp: u64, event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Update { slice, change } => {
            let (patches, value) = match change {
                Change::Patches(patches) => (Some(patches), None),
                Change::Value(value) => (None, Some(value.as_ref())),
            };
            let r#type = "state.update";
            frame(r#type, id, &UpdateJson { r#type, slice: slice.name(), patches, value, timestamp })
        }
        Event::Status { status, run, error } => {
            let r#type = "execution.status";
            let json = StatusJson { r#type, status, execution_id: run, error: *error, timestamp };
            frame(r#type, id, &json)
        }
        Event::Custom { data } => {
            let r#type = "custom-event";
            frame(r#type, id, &CustomJson { r#type, data, timestamp })
        }
        Event::Action { action, run } => {
            let r#type = "action";
            let json = ActionEventJson { r#type, action: action_json(action), execution_id: *run, timestamp };
            frame(r#type, id, &json)
        }
    }
}

fn action_json(action: &Action) -> ActionJson<'_> {
    ActionJson { r#type: &action.kind, timestamp: action.at_ms, payload: action.payload.as_ref() }
}

/// `state.initial`: the state as it was after event number `id`.
pub(super) fn initial(id: u64, timestamp: u64, state: &State, slices: Slices) -> Vec<u8> {
    let r#type = "state.initial";
    frame(r#type, id, &InitialJson { r#type, slices: state.json(slices), timestamp })
}

/// `heartbeat`, with the number of the last event before it.
pub(super) fn heartbeat(id: u64, timestamp: u64) -> Vec<u8> {
    let r#type = "heartbeat";
    frame(r#type, id, &HeartbeatJson { r#type, timestamp })
}

/// A run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunJson<'r> {
    execution_id: &'r str,
    kind: &'static str,
    start_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<u64>,
    status: &'static str,
    action_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<&'r [Box<RawValue>]>,
    /// There are more actions than these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    actions_truncated: bool,
}

impl RunJson<'_> {
    pub(super) fn brief(record: &Record) -> RunJson<'_> {
        RunJson {
            execution_id: &record.id,
            kind: record.kind.as_str(),
            start_time: record.start_ms,
            end_time: record.end_ms,
            status: record.status.as_str(),
            action_count: record.action_count,
            error: record.error.as_deref(),
            digest: record.seal.as_ref().map(|seal| seal.digest.as_str()),
            chain: record.seal.as_ref().map(|seal| seal.chain.as_str()),
            actions: None,
            actions_truncated: false,
        }
    }

    pub(super) fn full(run: &crate::runs::Run) -> RunJson<'_> {
        let brief = RunJson::brief(&run.record);
        RunJson { actions: Some(&run.actions), actions_truncated: !run.complete, ..brief }
    }
}

/// An approval.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalJson<'a> {
    id: &'a str,
    execution_id: &'a str,
    tool_name: &'a str,
    args: &'a Json,
    status: &'static str,
    requested_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl ApprovalJson<'_> {
    pub(super) fn of(approval: &Approval) -> ApprovalJson<'_> {
        ApprovalJson {
            id: &approval.id,
            execution_id: &approval.run,
            tool_name: &approval.tool,
            args: &approval.args,
            status: approval.decision.as_str(),
            requested_at: approval.requested_ms,
            expires_at: approval.expires_ms,
            decided_at: approval.decided_ms,
            reason: approval.reason.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Slice, change};
    use serde_json::json;
    use std::sync::Arc;

    fn text(event: &Event<'_>) -> String {
        String::from_utf8(encode(7, 5, event)).unwrap()
    }

    #[test]
    fn events_have_their_lines_and_keys_in_order() {
        let status = Event::Status { status: "failed", run: "x", error: Some("e") };
        assert_eq!(
            text(&status),
            "event: execution.status\ndata: {\"type\":\"execution.status\",\"status\":\"failed\",\
             \"executionId\":\"x\",\"error\":\"e\",\"timestamp\":5}\nid: 7\n\n"
        );
        let action = Action { at_ms: 4, ..Action::new("NOTE", json!({"a": 1.0})) };
        assert_eq!(
            text(&Event::Action { action: &action, run: None }),
            "event: action\ndata: {\"type\":\"action\",\"action\":{\"type\":\"NOTE\",\"timestamp\":4,\
             \"payload\":{\"a\":1}},\"timestamp\":5}\nid: 7\n\n"
        );
        let long = "x".repeat(99);
        let [before, after] = [json!({"a": 1, "b": long}), json!({"a": 2, "b": long})].map(Arc::new);
        let patch = change(&before, &after).unwrap();
        assert_eq!(
            text(&Event::Update { slice: Slice::Agent, change: &patch }),
            "event: state.update\ndata: {\"type\":\"state.update\",\"slice\":\"agent\",\"patches\":\
             [{\"op\":\"replace\",\"path\":\"/a\",\"value\":2}],\"timestamp\":5}\nid: 7\n\n"
        );
        let value = change(&json!([]), &Arc::new(json!({}))).unwrap();
        assert!(text(&Event::Update { slice: Slice::Agent, change: &value }).contains("\"value\":{},"));
        assert_eq!(
            String::from_utf8(heartbeat(7, 5)).unwrap(),
            "event: heartbeat\ndata: {\"type\":\"heartbeat\",\"timestamp\":5}\nid: 7\n\n"
        );
    }
}
