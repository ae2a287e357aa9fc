//! Who calls, as a fixed program is told by variables.
use crate::http::Head;
use serde_json::Value;

/// The header in which an edge says who calls.
const IDENTITY: &str = "x-verified-user-data";
/// Bytes of an id that a program is told.
const ID_BYTES: usize = 256;
/// Names of the caller's id and of their session in the identity header, the first that is there.
const USER_FIELDS: &[&str] = &["user_id", "userId", "id", "sub"];
const SESSION_FIELDS: &[&str] = &["session_id", "sessionId"];

/// Whether an id can stand in a variable.
pub(super) fn usable_id(id: &str) -> bool {
    id.len() <= ID_BYTES && !id.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// The variables. Only the edge says so, never a header of the client's own, and no credential is among
/// it.
pub(super) fn identity(head: &Head, context: String) -> Vec<(String, String)> {
    let claims = claims(head);
    let claim = |fields: &[&str]| claim(&claims, fields).unwrap_or_default();
    [
        ("CLI_REMOTE", "1".to_owned()),
        ("SESSION_ID", claim(SESSION_FIELDS)),
        ("CONTEXT_ID", context),
        ("USER_ID", claim(USER_FIELDS)),
    ]
    .map(|(name, value)| (format!("SYSTEMPROMPT_{name}"), value))
    .into()
}

/// Who calls, as the edge says.
pub fn user(head: &Head) -> Option<String> {
    claim(&claims(head), USER_FIELDS)
}

/// What the header says; nothing if it is repeated or no JSON.
fn claims(head: &Head) -> Value {
    let mut values = head.get_all(IDENTITY);
    match (values.next(), values.next()) {
        (Some(one), None) => serde_json::from_slice(one).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn claim(claims: &Value, fields: &[&str]) -> Option<String> {
    let id = fields.iter().find_map(|field| match claims.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    id.filter(|id| usable_id(id))
}
