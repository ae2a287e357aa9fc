//! `GET openapi.json`: all of our routes as OpenAPI 3.1. A static piece for each feature, put together once;
//! `tests/operations/openapi.rs` holds them against the route tables and against what the server does.
use crate::base::hex::hex;
use crate::http::{Head, HttpError, Response, list_elements};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// The pieces of this build.
const PIECES: &[&str] = &[
    include_str!("core.json"),
    #[cfg(feature = "archive")]
    include_str!("archive.json"),
    #[cfg(feature = "page")]
    include_str!("page.json"),
    #[cfg(feature = "artifacts")]
    include_str!("artifacts.json"),
    #[cfg(feature = "runs")]
    include_str!("runs.json"),
    #[cfg(feature = "workers")]
    include_str!("workers.json"),
];

struct Document {
    text: Vec<u8>,
    etag: String,
}

/// The document, or that it is as the client has it.
pub(super) fn serve(head: &Head) -> Result<Response, HttpError> {
    static DOCUMENT: OnceLock<Option<Document>> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| match assemble(PIECES) {
        Ok(text) => Some(Document { etag: format!("\"{}\"", hex(&Sha256::digest(&text)[..16])), text }),
        Err(error) => {
            log::error!("a piece of openapi.json is no JSON: {error}");
            None
        }
    });
    let Document { text, etag } = document.as_ref().ok_or_else(HttpError::internal)?;
    let mut known = head.get_all("if-none-match").flat_map(list_elements);
    let response = if known.any(|tag| tag == etag.as_bytes()) {
        Response::empty(304)
    } else {
        Response::bytes(200, "application/json", text.clone())
    };
    Ok(response.with("etag", etag).with("cache-control", "private, no-cache"))
}

fn assemble(pieces: &[&str]) -> serde_json::Result<Vec<u8>> {
    let mut whole = Value::Null;
    for piece in pieces {
        merge(&mut whole, serde_json::from_str(piece)?);
    }
    whole["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    serde_json::to_vec(&whole)
}

/// Objects by key, lists one behind the other.
fn merge(into: &mut Value, piece: Value) {
    match (into, piece) {
        (Value::Object(into), Value::Object(piece)) => {
            for (key, value) in piece {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(piece)) => into.extend(piece),
        (into, piece) => *into = piece,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pieces_become_one() {
        let mut whole = json!({"info": {"version": "0"}, "tags": [1], "paths": {"/a": {"get": 1}}});
        merge(&mut whole, json!({"tags": [2], "paths": {"/b": 2, "/a": {"post": 3}}}));
        let wanted = json!({"info": {"version": "0"}, "tags": [1, 2], "paths": {"/a": {"get": 1, "post": 3}, "/b": 2}});
        assert_eq!(whole, wanted);
        assert!(assemble(&["{}", "{"]).is_err());
        let text = assemble(PIECES).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
