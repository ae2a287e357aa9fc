//! What is said between us and a worker's process, and of it to observers: lines to events, events to
//! JSON. Pure.
use super::model::{InputKind, WorkerInput};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The events a worker may publish. One of another name would break an observer that knows only these:
/// such a line is text like any other.
const EVENTS: [&str; 36] = [
    "user_message",
    "system_item",
    "invoke_start",
    "turn_start",
    "turn_end",
    "llm_call_start",
    "llm_call_end",
    "llm_retry",
    "llm_continuation",
    "text_delta",
    "text_done",
    "thinking_start",
    "thinking_delta",
    "thinking_done",
    "tool_call_start",
    "tool_call_args_delta",
    "tool_call_done",
    "tool_result",
    "usage",
    "run_end",
    "error",
    "snapshot",
    "segment_rotated",
    "status",
    "completions",
    "rewind_targets",
    "rewind_applied",
    "workers_listed",
    "worker_restored",
    "peer_registered",
    "alert",
    "memory_worker",
    "compact_start",
    "compact_done",
    "compact_failed",
    "shutdown",
];

/// A line of a worker's standard output.
#[derive(Debug)]
pub(super) enum Line<'l> {
    /// An event, and what it means to us.
    Event(Box<RawValue>, Meaning),
    /// Anything else.
    Text(&'l str),
}

/// What an event changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    None,
    /// The worker waits for input again.
    Idle,
    /// It works.
    Busy,
    /// It has said this.
    Said(String),
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Status {
    status: StatusName,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum StatusName {
    Idle,
    Running,
    Paused,
}

#[derive(Deserialize)]
struct RunEnd {
    #[serde(rename = "result")]
    _result: RunResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunResult {
    Finished,
    Paused,
    LimitReached,
    RolledBack,
}

/// Reads a line.
pub(super) fn read(line: &str) -> Line<'_> {
    match event(line) {
        Some((event, meaning)) => Line::Event(event, meaning),
        None => Line::Text(line),
    }
}

/// The event on a line, if it is one in all that we look at.
fn event(line: &str) -> Option<(Box<RawValue>, Meaning)> {
    if !line.trim_start().starts_with('{') {
        return None;
    }
    // Whole, so that what every client will parse is known to parse.
    let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
    let name = value.get("event")?.as_str()?.to_owned();
    if !EVENTS.contains(&name.as_str()) {
        return None;
    }
    let data = value.get_mut("data").map(serde_json::Value::take).unwrap_or_default();
    let meaning = match name.as_str() {
        "text_done" => Meaning::Said(serde_json::from_value::<Text>(data).ok()?.text),
        "text_delta" => serde_json::from_value::<Text>(data).ok().map(|_| Meaning::None)?,
        "run_end" => serde_json::from_value::<RunEnd>(data).ok().map(|_| Meaning::Idle)?,
        "status" => match serde_json::from_value::<Status>(data).ok()?.status {
            StatusName::Idle => Meaning::Idle,
            StatusName::Running => Meaning::Busy,
            StatusName::Paused => Meaning::None,
        },
        _ => Meaning::None,
    };
    Some((RawValue::from_string(line.trim().to_owned()).ok()?, meaning))
}

/// What a process is told: one line.
pub(super) fn input_line(input: &WorkerInput) -> Vec<u8> {
    let mut line = serde_json::to_vec(input).unwrap_or_default();
    line.push(b'\n');
    line
}

/// An event, as it goes to observers.
#[derive(Serialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
enum Said<'t> {
    UserMessage { segments: [Segment<'t>; 1] },
    SystemItem { item: SystemItem<'t> },
    TextDelta { text: &'t str },
    TextDone { text: &'t str },
    Error { code: &'t str, message: &'t str },
    Alert { level: &'t str, source: &'t str, message: &'t str, timestamp_ms: u64 },
    Status { status: StatusName },
    Shutdown,
}

#[derive(Serialize)]
struct Segment<'t> {
    kind: &'t str,
    content: &'t str,
}

/// Keys in the order of the alphabet, as they always were.
#[derive(Serialize)]
struct SystemItem<'t> {
    content: &'t str,
    kind: &'t str,
}

fn raw(event: &Said<'_>) -> Box<RawValue> {
    // Strings and numbers always serialise.
    to_raw_value(event).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// An input that was accepted.
pub(super) fn said_to(input: &WorkerInput) -> Box<RawValue> {
    let content = input.content.as_str();
    raw(&match input.kind {
        InputKind::User => Said::UserMessage { segments: [Segment { kind: "text", content }] },
        InputKind::System => {
            Said::SystemItem { item: SystemItem { content, kind: "embedded_worker_system_input" } }
        }
    })
}

/// A piece of what the worker says.
pub(super) fn text_delta(text: &str) -> Box<RawValue> {
    raw(&Said::TextDelta { text })
}

/// All of what it said.
pub(super) fn text_done(text: &str) -> Box<RawValue> {
    raw(&Said::TextDone { text })
}

/// The worker failed by itself.
pub(super) fn error(message: &str) -> Box<RawValue> {
    raw(&Said::Error { code: "internal", message })
}

/// A line of its standard error.
pub(super) fn alert(message: &str, timestamp_ms: u64) -> Box<RawValue> {
    raw(&Said::Alert { level: "warn", source: "worker", message, timestamp_ms })
}

/// It waits for input.
pub(super) fn idle() -> Box<RawValue> {
    raw(&Said::Status { status: StatusName::Idle })
}

/// It is no more.
pub(super) fn shutdown() -> Box<RawValue> {
    raw(&Said::Shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(line: &str) -> Option<Meaning> {
        match read(line) {
            Line::Event(event, meaning) => {
                assert_eq!(event.get(), line.trim());
                Some(meaning)
            }
            Line::Text(text) => {
                assert_eq!(text, line);
                None
            }
        }
    }

    #[test]
    fn events_are_told_from_text() {
        for (line, wanted) in [
            (r#"{"event":"run_end","data":{"result":"finished"}}"#, Meaning::Idle),
            (r#" {"data":{"status":"idle"} , "event":"status"} "#, Meaning::Idle),
            (r#"{"event":"status","data":{"status":"running"}}"#, Meaning::Busy),
            (r#"{"event":"status","data":{"status":"paused"}}"#, Meaning::None),
            (r#"{"event":"text_done","data":{"text":"a\nb"}}"#, Meaning::Said("a\nb".to_owned())),
            (r#"{"event":"tool_result","data":{"id":"1","summary":"s","is_error":false}}"#, Meaning::None),
            (r#"{"event":"thinking_start"}"#, Meaning::None),
            (r#"{"event":"shutdown","z":1}"#, Meaning::None),
        ] {
            assert_eq!(meaning(line), Some(wanted), "{line}");
        }
        for line in [
            "",
            "hello",
            "{",
            "{}",
            r#"{"event":"text_done"}"#,
            r#"{"event":"text_delta","data":{"text":1}}"#,
            r#"{"event":"run_end","data":{"result":"odd"}}"#,
            r#"{"event":"status","data":{}}"#,
            r#"{"event":"of my own"}"#,
            r#"{"event":7}"#,
            r#"[{"event":"shutdown"}]"#,
            r#"{"event":"shutdown"} x"#,
            r#"{"event":"shutdown","data":"\ud800"}"#,
        ] {
            assert_eq!(meaning(line), None, "{line}");
        }
    }

    #[test]
    fn events_of_ours_have_their_keys_in_order() {
        let input = |kind| WorkerInput { kind, content: "a\"\n".to_owned() };
        let text = |event: Box<RawValue>| event.get().to_owned();
        assert_eq!(
            text(said_to(&input(InputKind::User))),
            r#"{"event":"user_message","data":{"segments":[{"kind":"text","content":"a\"\n"}]}}"#
        );
        assert_eq!(
            text(said_to(&input(InputKind::System))),
            r#"{"event":"system_item","data":{"item":{"content":"a\"\n","kind":"embedded_worker_system_input"}}}"#
        );
        assert_eq!(text(shutdown()), r#"{"event":"shutdown"}"#);
        assert_eq!(text(idle()), r#"{"event":"status","data":{"status":"idle"}}"#);
        assert_eq!(
            text(alert("m", 7)),
            r#"{"event":"alert","data":{"level":"warn","source":"worker","message":"m","timestamp_ms":7}}"#
        );
        assert_eq!(input_line(&input(InputKind::User)), b"{\"kind\":\"user\",\"content\":\"a\\\"\\n\"}\n");
    }
}
