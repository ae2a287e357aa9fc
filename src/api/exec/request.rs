//! The body that asks for a run: read whole, checked as JSON, then field by field, so that an error
//! names the field and the place.
use super::error::ExecError;
use crate::http::Exchange;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a body at most; above: 413.
const BODY_BYTES: u64 = 2 << 20;
/// Seconds a run may take when its caller does not say.
const TIMEOUT_SECONDS: u64 = 300;

/// What a caller asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) args: Vec<String>,
    pub(super) timeout_secs: u64,
    pub(super) context_id: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: Option<String>,
    pub(super) keep_stdin: bool,
    pub(super) stream: bool,
    pub(super) detach: bool,
    pub(super) keep_background: bool,
}

/// Reads the body of an exchange.
///
/// # Errors
/// 415 for what is not called JSON, 413, 400 for what is none, 422 for JSON that asks for no run.
pub(super) fn read(exchange: &mut Exchange<'_>) -> Result<Request, ExecError> {
    if !is_json(exchange.head().get("content-type")) {
        return Err(ExecError::not_json());
    }
    parse(&exchange.whole_body(BODY_BYTES)?)
}

/// `application/json`, or a type that says it is JSON by its suffix, whatever the parameters.
fn is_json(content_type: Option<&[u8]>) -> bool {
    let essence = content_type.unwrap_or_default().split(|&b| b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || essence.starts_with(b"application/") && essence.ends_with(b"+json")
}

fn parse(body: &[u8]) -> Result<Request, ExecError> {
    let no_json = |error: &dyn fmt::Display| {
        ExecError::bad_request(format!("Failed to parse the request body as JSON: {error}"))
    };
    // Once for what JSON is, so that whatever the second reading dislikes is a matter of fields.
    if let Err(error) = serde_json::from_slice::<Value>(body) {
        return Err(no_json(&error));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => ExecError::not_a_command(format!(
            "Failed to deserialize the JSON body into the target type: {error}"
        )),
        _ => no_json(&error),
    })
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RequestVisitor)
    }
}

struct RequestVisitor;

impl<'de> Visitor<'de> for RequestVisitor {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `args`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Request, M::Error> {
        let mut args: Option<Vec<String>> = None;
        let mut timeout_secs: Option<u64> = None;
        let (mut context_id, mut cwd, mut stdin) = (None, None, None);
        let mut env: Option<BTreeMap<String, String>> = None;
        let (mut keep_stdin, mut stream, mut detach, mut keep_background) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "args" => take(&mut map, "args", &mut args)?,
                "timeout_secs" => take(&mut map, "timeout_secs", &mut timeout_secs)?,
                "context_id" => take::<_, Option<String>>(&mut map, "context_id", &mut context_id)?,
                "cwd" => take::<_, Option<String>>(&mut map, "cwd", &mut cwd)?,
                "env" => take(&mut map, "env", &mut env)?,
                "stdin" => take::<_, Option<String>>(&mut map, "stdin", &mut stdin)?,
                "keep_stdin" => take(&mut map, "keep_stdin", &mut keep_stdin)?,
                "stream" => take(&mut map, "stream", &mut stream)?,
                "detach" => take(&mut map, "detach", &mut detach)?,
                "keep_background" => take(&mut map, "keep_background", &mut keep_background)?,
                // The contract's clients may send more than this.
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Request {
            args: args.ok_or_else(|| M::Error::missing_field("args"))?,
            timeout_secs: timeout_secs.unwrap_or(TIMEOUT_SECONDS),
            context_id: context_id.flatten(),
            cwd: cwd.flatten(),
            env: env.unwrap_or_default().into_iter().collect(),
            stdin: stdin.flatten(),
            keep_stdin: keep_stdin.unwrap_or(false),
            stream: stream.unwrap_or(true),
            detach: detach.unwrap_or(false),
            keep_background: keep_background.unwrap_or(false),
        })
    }
}

/// Takes the value of a field that may be there once.
fn take<'de, M: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut M,
    name: &'static str,
    into: &mut Option<T>,
) -> Result<(), M::Error> {
    if into.is_some() {
        return Err(M::Error::duplicate_field(name));
    }
    *into = Some(map.next_value().map_err(|error| M::Error::custom(format!("{name}: {error}")))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (u16, String) {
        let response = parse(body.as_bytes()).unwrap_err().response();
        let crate::http::Body::Bytes(bytes) = response.body else { panic!("no body") };
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        (response.status, json["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn defaults_and_fields_of_others() {
        let request = parse(br#"{"args":["a"],"context_id":null,"more":[{}],"stdin":null}"#).unwrap();
        assert_eq!((request.args, request.timeout_secs), (vec!["a".to_owned()], 300));
        assert!(request.stream && !request.detach && !request.keep_background && !request.keep_stdin);
        assert_eq!((request.context_id, request.stdin, request.cwd), (None, None, None));
    }

    #[test]
    fn faults_name_the_field_and_the_place() {
        let data = "Failed to deserialize the JSON body into the target type: ";
        for (body, text) in [
            ("{}", "missing field `args` at line 1 column 2"),
            (
                r#"{"args":[],"timeout_secs":-1}"#,
                "timeout_secs: invalid value: integer `-1`, expected u64 at line 1 column 28",
            ),
            (
                r#"{"args":"ls"}"#,
                "args: invalid type: string \"ls\", expected a sequence at line 1 column 12",
            ),
            (r#"{"args":[1]}"#, "args: invalid type: integer `1`, expected a string at line 1 column 10"),
            (r#"{"args":null}"#, "args: invalid type: null, expected a sequence at line 1 column 12"),
            (r#"{"args":[],"args":[]}"#, "duplicate field `args` at line 1 column 17"),
            (
                r#"{"args":[],"timeout_secs":1.5}"#,
                "timeout_secs: invalid type: floating point `1.5`, expected u64 at line 1 column 29",
            ),
            (
                r#"{"args":[],"stream":"no"}"#,
                "stream: invalid type: string \"no\", expected a boolean at line 1 column 24",
            ),
            (
                r#"{"args":[],"env":{"A":1}}"#,
                "env: invalid type: integer `1`, expected a string at line 1 column 23",
            ),
            ("[]", "invalid type: sequence, expected an object with `args` at line 1 column 0"),
        ] {
            assert_eq!(refused(body), (422, format!("{data}{text}")), "{body}");
        }
        for body in ["", "{", "{\"args\":[}", "{\"args\":[]} x", "{\"args\":[\"\u{1}\"]}", "nil"] {
            let (status, text) = refused(body);
            assert_eq!(status, 400, "{body}");
            assert!(text.starts_with("Failed to parse the request body as JSON: "), "{text}");
        }
        assert!(parse(b"{\"args\":[\"\xff\"]}").is_err());
    }

    #[test]
    fn media_types() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            assert!(is_json(Some(good.as_bytes())), "{good}");
        }
        for bad in ["", "text/json", "application/jsonx", "application/x-www-form-urlencoded", "text/plain"] {
            assert!(!is_json(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!is_json(None));
    }
}
