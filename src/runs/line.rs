//! What an agent says and is told, line by line. Pure.
use super::is_id;
use crate::events::{Action, Json, is_kind, is_ours};
use std::borrow::Cow;

/// Bytes of a line; of a longer one each piece is output by itself.
pub(super) const LINE_BYTES: usize = 64 * 1024;
/// Characters of a tool's name.
const TOOL_CHARS: usize = 128;

/// A line of an agent's standard output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// An action.
    Action(Action),
    /// It asks to use a tool.
    ToolCall { id: String, tool: String, args: Json },
    /// It asks so badly that nobody can be asked; the id it gave.
    BadToolCall(Option<Json>),
    /// Something for listeners alone.
    Custom(Json),
    /// Anything else.
    Output,
}

/// Understands a line: a JSON object with a string `type` that is not one of ours is an action. One that is
/// nested too deep to be kept is output, but for a tool call: somebody waits for the answer to that.
pub(super) fn parse(line: &str) -> Said {
    if !line.trim_ascii_start().starts_with('{') {
        return Said::Output;
    }
    let Ok(json) = Json::parse(line.as_bytes()) else { return Said::Output };
    let is_shallow = json.is_shallow();
    let Json::Object(fields) = json else { return Said::Output };
    let mut kind = None;
    let mut payload = None;
    let mut more = Vec::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("type", Json::String(text)) if is_kind(&text) && !is_ours(&text) => kind = Some(text),
            ("type", _) => return Said::Output,
            ("payload", value) => payload = Some(value),
            // Ours are the ones that count.
            ("seq" | "timestamp", _) => {}
            (_, value) => more.push((key, value)),
        }
    }
    let Some(kind) = kind else { return Said::Output };
    match kind.as_str() {
        "AGENT_TOOL_CALL_REQUESTED" if is_shallow => tool_call(payload),
        "AGENT_TOOL_CALL_REQUESTED" => {
            let id = payload.as_ref().and_then(|payload| payload.get("id"));
            Said::BadToolCall(id.filter(|id| id.is_shallow()).cloned())
        }
        _ if !is_shallow => Said::Output,
        "CUSTOM_EVENT" => Said::Custom(payload.unwrap_or(Json::Null)),
        _ => Said::Action(Action::of(Cow::Owned(kind), with(payload, more))),
    }
}

/// Further fields of an action are kept inside its payload, where that has room for them.
fn with(payload: Option<Json>, more: Vec<(String, Json)>) -> Option<Json> {
    match payload {
        payload if more.is_empty() => payload,
        None => Some(Json::object(more)),
        Some(Json::Object(fields)) => Some(Json::object(more.into_iter().chain(fields))),
        other => other,
    }
}

fn tool_call(payload: Option<Json>) -> Said {
    let field = |name: &str| payload.as_ref().and_then(|payload| payload.get(name));
    let id = field("id").and_then(Json::as_str).filter(|id| is_id(id));
    let is_name = |name: &&str| !name.is_empty() && name.chars().count() <= TOOL_CHARS;
    let tool = field("toolName").and_then(Json::as_str).filter(is_name);
    match (id, tool) {
        (Some(id), Some(tool)) => {
            let args = field("args").cloned().unwrap_or(Json::Null);
            Said::ToolCall { id: id.to_owned(), tool: tool.to_owned(), args }
        }
        _ => Said::BadToolCall(field("id").cloned()),
    }
}

fn line(entries: Vec<(&str, Json)>) -> String {
    let mut text = Json::object(entries.into_iter().map(|(key, value)| (key.to_owned(), value))).text();
    text.push('\n');
    text
}

fn text(value: &str) -> Json {
    Json::String(value.to_owned())
}

/// What begins an agent's work.
pub(super) fn invoke(input: &str, run: &str) -> String {
    line(vec![("type", text("invoke")), ("input", text(input)), ("executionId", text(run))])
}

/// What lets it go on after somebody intervened.
pub(super) fn go_on(payload: Option<Json>) -> String {
    let payload = payload.map(|payload| ("payload", payload));
    line([("type", text("continue"))].into_iter().chain(payload).collect())
}

/// What was decided about a tool call.
pub(super) fn decision(granted: bool, id: Json, reason: Option<&str>) -> String {
    let kind = if granted { "HITL_APPROVAL_GRANTED" } else { "HITL_APPROVAL_REJECTED" };
    let reason = reason.map(|reason| ("reason".to_owned(), text(reason)));
    let payload = Json::object([("id".to_owned(), id)].into_iter().chain(reason));
    line(vec![("type", text(kind)), ("payload", payload)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::DEPTH;

    #[test]
    fn only_objects_with_a_type_of_their_own_are_actions() {
        for line in [
            "",
            "hello",
            "[]",
            "{",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":""}"#,
            r#"{"type":"with space"}"#,
            &format!(r#"{{"type":"X","a":{}{}}}"#, "[".repeat(DEPTH), "]".repeat(DEPTH)),
            r#"{"type":"HITL_APPROVAL_GRANTED","payload":{"id":"a"}}"#,
            r#"{"type":"RUNTIME_EXECUTION_COMPLETED"}"#,
            r#"{"type":"SERVER_READY"}"#,
            r#"{"type":"AGENT_STDERR"}"#,
            r#"{"type":"JOURNAL_SEALED"}"#,
        ] {
            assert_eq!(parse(line), Said::Output, "{line}");
        }
    }

    #[test]
    fn what_else_an_action_has_goes_into_its_payload() {
        for (line, payload) in [
            (r#"{"type":"X"}"#, None),
            (" \t{\"type\":\"X\"}\r", None),
            (r#"{"type":"X","payload":null}"#, Some("null")),
            (r#"{"type":"X","payload":[1],"a":1}"#, Some("[1]")),
            (r#"{"type":"X","a":1,"timestamp":5,"seq":9}"#, Some(r#"{"a":1}"#)),
            (r#"{"type":"X","a":1,"b":2,"payload":{"a":3}}"#, Some(r#"{"a":3,"b":2}"#)),
        ] {
            let Said::Action(action) = parse(line) else { panic!("{line}") };
            assert_eq!(action.kind, "X");
            assert_eq!(action.payload.map(|p| p.text()).as_deref(), payload, "{line}");
        }
        assert_eq!(
            parse(r#"{"type":"CUSTOM_EVENT","payload":[1]}"#),
            Said::Custom(Json::parse(b"[1]").unwrap())
        );
    }

    #[test]
    fn tool_calls_need_an_id_and_a_name() {
        let call = |payload: &str| {
            parse(&format!("{{\"type\":\"AGENT_TOOL_CALL_REQUESTED\",\"payload\":{payload}}}"))
        };
        let args = Json::parse(br#"{"path":"x"}"#).unwrap();
        assert_eq!(
            call(r#"{"id":"1","toolName":"write","args":{"path":"x"}}"#),
            Said::ToolCall { id: "1".to_owned(), tool: "write".to_owned(), args }
        );
        let nested = format!("{}{}", "[".repeat(DEPTH - 1), "]".repeat(DEPTH - 1));
        let deep = format!(r#"{{"id":"d","toolName":"t","args":{nested}}}"#);
        for (payload, id) in [
            ("{}", None),
            (r#"{"id":"a/b","toolName":"t"}"#, Some(text("a/b"))),
            (r#"{"id":7,"toolName":"t"}"#, Some(Json::Number(7.0))),
            (r#"{"id":"a"}"#, Some(text("a"))),
            (r#"{"id":"a","toolName":""}"#, Some(text("a"))),
            ("null", None),
            (&deep, Some(text("d"))),
        ] {
            assert_eq!(call(payload), Said::BadToolCall(id), "{payload}");
        }
    }

    #[test]
    fn lines_to_the_agent() {
        assert_eq!(
            invoke("a\n\"", "x"),
            "{\"type\":\"invoke\",\"input\":\"a\\n\\\"\",\"executionId\":\"x\"}\n"
        );
        assert_eq!(go_on(None), "{\"type\":\"continue\"}\n");
        assert_eq!(go_on(Some(Json::Null)), "{\"type\":\"continue\",\"payload\":null}\n");
        assert_eq!(
            decision(false, text("a"), Some("timeout")),
            "{\"type\":\"HITL_APPROVAL_REJECTED\",\"payload\":{\"id\":\"a\",\"reason\":\"timeout\"}}\n"
        );
    }
}
