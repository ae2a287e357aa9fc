//! The state that follows the actions: six slices, and the one function that changes them. Pure.
use super::action::Action;
use super::json::Json;
use super::slices::{Slice, Slices};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Messages of the agent that are always kept, and those at which all before them go. Not one by one:
/// each time the first goes, all others change their place, and the list is sent whole.
const MESSAGES: usize = 50;
const MOST_MESSAGES: usize = 100;
/// Bytes of a message's text, or of its payload as JSON; what is longer is cut, or left out.
const MESSAGE_BYTES: usize = 2048;
/// Bytes of the arguments, as JSON, of an approval in the state; longer ones are with the approval only.
const ARGS_BYTES: usize = 4096;

/// The state. A clone is cheap, and stays as it is.
#[derive(Clone, Debug)]
pub struct State([Arc<Value>; 6]);

impl Default for State {
    fn default() -> State {
        let server = json!({
            "state": "starting", "ready": false, "pid": null, "restarts": 0, "startedAt": null,
            "exit": null, "retryAt": null, "message": null, "uploads": 0,
        });
        let hitl = json!({"pending": [], "approved": 0, "rejected": 0, "expired": 0});
        let [execution, agent] = [json!({"status": "idle"}), json!({"messages": []})];
        State([server, execution, agent, hitl, json!({}), json!({})].map(Arc::new))
    }
}

impl State {
    /// A slice as it is.
    pub fn get(&self, slice: Slice) -> &Arc<Value> {
        &self.0[slice as usize]
    }

    /// Whether it is a clone of the other, and not only equal to it.
    pub fn is_same(&self, other: &State) -> bool {
        self.0.iter().zip(&other.0).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
    }

    /// All slices among `slices`, by name, in their order.
    pub fn json(&self, slices: Slices) -> Json {
        let some = Slice::ALL.into_iter().filter(|slice| slices.has(*slice));
        Json::object(some.map(|slice| (slice.name().to_owned(), Json::from(self.get(slice).as_ref()))))
    }

    pub(super) fn set(&mut self, slice: Slice, value: Arc<Value>) {
        self.0[slice as usize] = value;
    }

    /// Changes a slice, all of which are objects. Whoever holds it as it was keeps that.
    fn edit(&mut self, slice: Slice, change: impl FnOnce(&mut Map<String, Value>)) -> Slice {
        if let Value::Object(map) = Arc::make_mut(&mut self.0[slice as usize]) {
            change(map);
        }
        slice
    }

    /// What an action makes of the state; which slices it touched.
    pub fn reduce(&mut self, action: &Action) -> Slices {
        let touched = match action.kind.as_ref() {
            "SERVER_RESTART" | "SERVER_INTERRUPT" => {
                let asked = json!({"type": action.kind.as_ref(), "timestamp": action.at_ms});
                self.edit(Slice::Server, |server| drop(server.insert("asked".to_owned(), asked)))
            }
            "FILE_UPLOADED" => self.uploaded(action),
            "JOURNAL_SEALED" => {
                let journal = action.payload.as_ref().map_or(Value::Null, Value::from);
                self.edit(Slice::Server, |server| drop(server.insert("journal".to_owned(), journal)))
            }
            kind if kind.starts_with("SERVER_") => self.merge(Slice::Server, action),
            kind if kind.starts_with("WORKER_") => self.counts(Slice::Workers, action),
            kind if kind.starts_with("ARTIFACT_") => self.counts(Slice::Artifacts, action),
            "RUNTIME_EXECUTION_STARTED" => {
                let mut started = json!({"status": "running", "startTime": action.at_ms});
                copy(action, &mut started, &["executionId"]);
                self.set(Slice::Execution, Arc::new(started));
                Slice::Execution
            }
            "RUNTIME_EXECUTION_COMPLETED" => self.ended(action, "completed"),
            "RUNTIME_EXECUTION_FAILED" => self.ended(action, "failed"),
            "RUNTIME_EXECUTION_ABORTED" => self.ended(action, "aborted"),
            "HITL_APPROVAL_REQUESTED" => self.requested(action),
            "HITL_APPROVAL_GRANTED" => self.decided(action, "approved"),
            "HITL_APPROVAL_REJECTED" => self.decided(action, "rejected"),
            "HITL_APPROVAL_EXPIRED" => self.decided(action, "expired"),
            kind if kind.starts_with("EXEC_") => return Slices::default(),
            "AGENT_TOOL_CALL_REQUESTED" | "AGENT_STDERR" => return Slices::default(),
            _ => self.said(action),
        };
        [touched].into_iter().collect()
    }

    /// The payload's fields become the slice's.
    fn merge(&mut self, slice: Slice, action: &Action) -> Slice {
        let Some(Json::Object(fields)) = &action.payload else { return slice };
        // Those tell of the run, not of the server.
        let kept =
            fields.iter().filter(|(key, _)| !["executionId", "status", "error"].contains(&key.as_str()));
        self.edit(slice, |map| map.extend(kept.map(|(key, value)| (key.clone(), value.into()))))
    }

    /// The payload's `counts` become the slice.
    fn counts(&mut self, slice: Slice, action: &Action) -> Slice {
        if let Some(counts @ Json::Object(_)) = action.field("counts") {
            self.set(slice, Arc::new(counts.into()));
        }
        slice
    }

    fn uploaded(&mut self, action: &Action) -> Slice {
        let mut upload = json!({"timestamp": action.at_ms});
        copy(action, &mut upload, &["path", "bytes", "sha256", "files"]);
        self.edit(Slice::Server, |server| {
            count_up(server, "uploads");
            server.insert("lastUpload".to_owned(), upload);
        })
    }

    fn ended(&mut self, action: &Action, status: &str) -> Slice {
        let mut ended = json!({"status": status, "endTime": action.at_ms});
        copy(action, &mut ended, &["executionId", "error"]);
        if let Some(started) = self.get(Slice::Execution).get("startTime") {
            ended["startTime"] = started.clone();
        }
        self.set(Slice::Execution, Arc::new(ended));
        Slice::Execution
    }

    fn requested(&mut self, action: &Action) -> Slice {
        let mut approval = json!({});
        copy(action, &mut approval, &["id", "executionId", "toolName", "requestedAt", "expiresAt"]);
        match action.field("args") {
            Some(args) if args.text().len() <= ARGS_BYTES => approval["args"] = args.into(),
            Some(_) => approval["argsOmitted"] = json!(true),
            None => {}
        }
        self.edit(Slice::Hitl, |hitl| list(hitl, "pending", |pending| pending.push(approval)))
    }

    fn decided(&mut self, action: &Action, count: &str) -> Slice {
        let id = action.text("id");
        self.edit(Slice::Hitl, |hitl| {
            let was_pending = list(hitl, "pending", |pending| {
                let before = pending.len();
                pending.retain(|approval| approval.get("id").and_then(Value::as_str) != id);
                pending.len() < before
            });
            // A call that needed no approval is granted without ever being counted.
            if was_pending {
                count_up(hitl, count);
            }
        })
    }

    /// Whatever else is an action is a message: output, a note, what an agent made up.
    fn said(&mut self, action: &Action) -> Slice {
        let mut message = json!({"type": action.kind.as_ref(), "timestamp": action.at_ms});
        match (&action.payload, action.text("text")) {
            (_, Some(text)) if text.len() > MESSAGE_BYTES => {
                let end = (0..=MESSAGE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                message["text"] = json!(text[..end]);
                message["cut"] = json!(true);
            }
            (_, Some(text)) => message["text"] = json!(text),
            (Some(payload), _) if payload.text().len() > MESSAGE_BYTES => message["cut"] = json!(true),
            (Some(payload), _) => message["payload"] = payload.into(),
            (None, _) => {}
        }
        self.edit(Slice::Agent, |agent| {
            list(agent, "messages", |messages| {
                messages.push(message);
                if messages.len() > MOST_MESSAGES {
                    messages.drain(..messages.len() - MESSAGES);
                }
            });
        })
    }
}

/// Changes the list in a field.
fn list<R: Default>(
    map: &mut Map<String, Value>,
    field: &str,
    change: impl FnOnce(&mut Vec<Value>) -> R,
) -> R {
    match map.entry(field).or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(items) => change(items),
        _ => R::default(),
    }
}

fn count_up(map: &mut Map<String, Value>, field: &str) {
    let count = map.get(field).and_then(Value::as_u64).unwrap_or(0);
    map.insert(field.to_owned(), json!(count + 1));
}

/// Copies fields of the payload that are there.
fn copy(action: &Action, to: &mut Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = action.field(field) {
            to[*field] = value.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(actions: &[(&'static str, Value)]) -> State {
        let mut state = State::default();
        for (kind, payload) in actions {
            state.reduce(&Action { at_ms: 7, ..Action::new(kind, payload.clone()) });
        }
        state
    }

    #[test]
    fn the_server_follows_its_actions() {
        let state = after(&[
            ("SERVER_STARTED", json!({"executionId": "x", "state": "starting", "pid": 5})),
            ("SERVER_READY", json!({"state": "ready", "ready": true})),
            ("SERVER_RESTART", json!({})),
            ("FILE_UPLOADED", json!({"path": "a", "bytes": 3, "sha256": "s"})),
            ("JOURNAL_SEALED", json!({"head": "h", "runs": 1})),
        ]);
        let server = state.get(Slice::Server);
        assert_eq!((&server["state"], &server["pid"]), (&json!("ready"), &json!(5)));
        assert_eq!(server["asked"], json!({"type": "SERVER_RESTART", "timestamp": 7}));
        assert_eq!(server["lastUpload"], json!({"path": "a", "bytes": 3, "sha256": "s", "timestamp": 7}));
        assert_eq!((&server["uploads"], &server["journal"]["head"]), (&json!(1), &json!("h")));
        assert_eq!(server.get("executionId"), None);
    }

    #[test]
    fn an_execution_starts_and_ends() {
        let mut state = after(&[("RUNTIME_EXECUTION_STARTED", json!({"executionId": "x", "input": "i"}))]);
        assert_eq!(
            state.get(Slice::Execution).as_ref(),
            &json!({"status": "running", "executionId": "x", "startTime": 7})
        );
        let failed = json!({"executionId": "x", "error": "e"});
        state.reduce(&Action { at_ms: 9, ..Action::new("RUNTIME_EXECUTION_FAILED", failed) });
        assert_eq!(
            state.get(Slice::Execution).as_ref(),
            &json!({"status": "failed", "executionId": "x", "startTime": 7, "endTime": 9, "error": "e"})
        );
    }

    #[test]
    fn approvals_come_and_go() {
        let request = |id: &str| ("HITL_APPROVAL_REQUESTED", json!({"id": id, "toolName": "t", "args": [1]}));
        let state = after(&[
            request("a"),
            request("b"),
            request("c"),
            ("HITL_APPROVAL_GRANTED", json!({"id": "b"})),
            ("HITL_APPROVAL_EXPIRED", json!({"id": "a"})),
            ("HITL_APPROVAL_REJECTED", json!({"id": "unknown"})),
        ]);
        assert_eq!(
            state.get(Slice::Hitl).as_ref(),
            &json!({"pending": [{"id": "c", "toolName": "t", "args": [1]}],
                    "approved": 1, "rejected": 0, "expired": 1})
        );
        let state = after(&[("HITL_APPROVAL_REQUESTED", json!({"id": "a", "args": "x".repeat(ARGS_BYTES)}))]);
        assert_eq!(state.get(Slice::Hitl)["pending"], json!([{"id": "a", "argsOmitted": true}]));
    }

    #[test]
    fn messages_are_the_last_ones_and_cut() {
        let mut state = State::default();
        for n in 0..=MOST_MESSAGES {
            assert!(state.reduce(&Action::new("NOTE", json!({"text": n.to_string()}))).has(Slice::Agent));
        }
        let long = format!("{}\u{e9}", "x".repeat(MESSAGE_BYTES - 1));
        state.reduce(&Action::new("AGENT_OUTPUT", json!({"text": long})));
        state.reduce(&Action::new("MINE", json!({"a": "x".repeat(MESSAGE_BYTES)})));
        state.reduce(&Action { at_ms: 1, ..Action::new("MINE", json!([1])) });
        let messages = state.get(Slice::Agent)["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len(), MESSAGES + 3);
        assert_eq!(messages[0]["text"], (MOST_MESSAGES + 1 - MESSAGES).to_string());
        let [output, omitted, last] = &messages[MESSAGES..] else { panic!() };
        assert_eq!(output["text"].as_str().unwrap().len(), MESSAGE_BYTES - 1);
        assert_eq!((&output["cut"], &omitted["cut"]), (&json!(true), &json!(true)));
        assert_eq!(last, &json!({"type": "MINE", "timestamp": 1, "payload": [1]}));
    }

    #[test]
    fn counts_replace_a_slice_and_a_held_slice_stays() {
        let mut state = State::default();
        let held = Arc::clone(state.get(Slice::Workers));
        state.reduce(&Action::new("WORKER_STARTED", json!({"id": "w", "counts": {"running": 1}})));
        assert_eq!(state.get(Slice::Workers).as_ref(), &json!({"running": 1}));
        assert_eq!(held.as_ref(), &json!({}));
        assert!(state.reduce(&Action::new("EXEC_STARTED", json!({}))).is_empty());
    }
}
