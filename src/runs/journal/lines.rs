//! The lines of the journal's files, there and back. Pure.
//!
//! Every line is the text `JSON.stringify` gives, so a line that reads back differently was changed.
use crate::base::hex::hex;
use crate::events::{Action, Json};
use crate::runs::run::{Kind, Record, RunStatus, Seal};
use sha2::{Digest as _, Sha256};

fn text(value: &str) -> Json {
    Json::String(value.to_owned())
}

fn number(value: u64) -> Json {
    Json::Number(value as f64)
}

fn line(entries: Vec<(&str, Option<Json>)>) -> String {
    let there = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Json::object(there).text()
}

/// The line of an action in a run's log.
pub(in crate::runs) fn action_line(seq: u64, action: &Action) -> String {
    line(vec![
        ("seq", Some(number(seq))),
        ("timestamp", Some(number(action.at_ms))),
        ("type", Some(text(&action.kind))),
        ("payload", action.payload.clone()),
    ])
}

/// The line of a run in `runs.jsonl`: one when it begins, one when it has ended.
pub(in crate::runs) fn record_line(record: &Record) -> String {
    line(vec![
        ("executionId", Some(text(&record.id))),
        ("kind", Some(text(record.kind.as_str()))),
        ("startTime", Some(number(record.start_ms))),
        ("endTime", record.end_ms.map(number)),
        ("status", Some(text(record.status.as_str()))),
        ("actionCount", Some(number(record.action_count))),
        ("error", record.error.as_deref().map(text)),
        ("digest", record.seal.as_ref().map(|seal| text(&seal.digest))),
        ("chain", record.seal.as_ref().map(|seal| text(&seal.chain))),
    ])
}

/// Reads a line of `runs.jsonl`.
pub(in crate::runs) fn parse_record(bytes: &[u8]) -> Option<Record> {
    let json = Json::parse(bytes).ok()?;
    let string = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let integer = |key: &str| json.get(key).and_then(Json::as_u64);
    let record = Record {
        id: string("executionId").filter(|id| crate::runs::is_id(id))?,
        kind: Kind::named(&string("kind")?)?,
        start_ms: integer("startTime")?,
        end_ms: integer("endTime"),
        status: RunStatus::named(&string("status")?)?,
        action_count: integer("actionCount")?,
        error: string("error"),
        seal: string("digest").zip(string("chain")).map(|(digest, chain)| Seal { digest, chain }),
    };
    let ended = record.status != RunStatus::Running;
    (ended == record.end_ms.is_some() && ended == record.seal.is_some()).then_some(record)
}

/// The line of a run's last state in `state.jsonl`.
pub(in crate::runs) fn state_line(id: &str, at_ms: u64, state: &Json) -> String {
    let entries = [("executionId", text(id)), ("timestamp", number(at_ms)), ("state", state.clone())];
    summed(Json::object(entries.map(|(key, value)| (key.to_owned(), value))))
}

/// The text of an object with the sum of that text as its last field: such a line tells by itself
/// whether it was changed.
pub(super) fn summed(object: Json) -> String {
    let sum = hex(&Sha256::digest(object.text()));
    let Json::Object(mut entries) = object else { return object.text() };
    entries.push(("sha256".to_owned(), Json::String(sum)));
    Json::Object(entries).text()
}

/// What the last action of a run says of how it ended: status and error.
pub(in crate::runs) fn ending(kind: &str, payload: Option<&Json>) -> Option<(RunStatus, Option<String>)> {
    let field = |name: &str| payload.and_then(|p| p.get(name)).and_then(Json::as_str);
    let status = match kind {
        "RUNTIME_EXECUTION_COMPLETED" => RunStatus::Completed,
        "RUNTIME_EXECUTION_FAILED" => RunStatus::Failed,
        "RUNTIME_EXECUTION_ABORTED" => RunStatus::Aborted,
        "EXEC_EXITED" | "SERVER_EXITED" => RunStatus::named(field("status")?)?,
        _ => return None,
    };
    Some((status, field("error").map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_there_and_back() {
        let running = Record {
            id: "a".to_owned(),
            kind: Kind::Agent,
            start_ms: 1,
            end_ms: None,
            status: RunStatus::Running,
            action_count: 0,
            error: None,
            seal: None,
        };
        let seal = Seal { digest: "d".to_owned(), chain: "c".to_owned() };
        let failed = Record {
            end_ms: Some(2),
            status: RunStatus::Failed,
            action_count: 3,
            error: Some("e\n".to_owned()),
            seal: Some(seal),
            ..running.clone()
        };
        for record in [running, failed] {
            assert_eq!(parse_record(record_line(&record).as_bytes()), Some(record));
        }
        for bad in [
            "",
            "{}",
            r#"{"executionId":"../a","kind":"agent","startTime":1,"status":"running","actionCount":0}"#,
            r#"{"executionId":"a","kind":"agent","startTime":1,"status":"completed","actionCount":0}"#,
            r#"{"executionId":"a","kind":"agent","startTime":-1,"status":"running","actionCount":0}"#,
        ] {
            assert_eq!(parse_record(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn actions_have_their_fields_in_order() {
        let mut action = Action::new("NOTE", json!({"text": "x"}));
        action.at_ms = 5;
        assert_eq!(
            action_line(0, &action),
            r#"{"seq":0,"timestamp":5,"type":"NOTE","payload":{"text":"x"}}"#
        );
        action.payload = None;
        assert_eq!(action_line(1, &action), r#"{"seq":1,"timestamp":5,"type":"NOTE"}"#);
    }
}
