//! What happened, as one value: every change of the state is an action.
use super::json::Json;
use serde_json::Value;
use std::borrow::Cow;
use std::time::SystemTime;

use crate::base::time::unix_ms;

/// Bytes of an action's type.
const KIND_BYTES: usize = 128;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its type, such as `SERVER_READY`.
    pub kind: Cow<'static, str>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// More about it.
    pub payload: Option<Json>,
}

impl Action {
    /// An action of ours, now.
    pub fn new(kind: &'static str, payload: Value) -> Action {
        Action { kind: Cow::Borrowed(kind), at_ms: now_ms(), payload: Some(Json::from(payload)) }
    }

    /// Somebody else's action, now.
    pub fn of(kind: impl Into<Cow<'static, str>>, payload: Option<Json>) -> Action {
        Action { kind: kind.into(), at_ms: now_ms(), payload }
    }

    /// Bytes of its type, and of its payload as JSON.
    pub fn bytes(&self) -> usize {
        self.kind.len() + self.payload.as_ref().map_or(0, |payload| payload.text().len())
    }

    /// A field of the payload.
    pub fn field(&self, name: &str) -> Option<&Json> {
        self.payload.as_ref()?.get(name)
    }

    /// A text in the payload.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }
}

/// Whether a text can be an action's type: 1 to 128 letters, digits and `_ . : / -`.
pub fn is_kind(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b);
    !text.is_empty() && text.len() <= KIND_BYTES && text.bytes().all(plain)
}

/// How the types begin that only this server speaks: what the state and the journal rest on.
const OURS: [&str; 9] =
    ["SERVER_", "RUNTIME_", "HITL_", "EXEC_", "WORKER_", "ARTIFACT_", "FILE_", "JOURNAL_", "AGENT_STDERR"];

/// Whether only this server speaks a type: from nobody else it counts.
pub fn is_ours(kind: &str) -> bool {
    OURS.iter().any(|prefix| kind.starts_with(prefix))
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}
