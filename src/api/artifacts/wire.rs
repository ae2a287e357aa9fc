//! The JSON of the artifact API: bodies in, rows out. Key order is part of it.
use super::fault::Fault;
use crate::artifacts::{Created, Payload, Row};
use crate::base::text::lossy;
use crate::http::{Body, Exchange, Response};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Bytes of a request body.
pub(super) const BODY_BYTES: u64 = 1 << 20;
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Compact JSON.
pub(super) fn json(status: u16, value: &impl Serialize) -> Response {
    let mut response = Response::json(status, value);
    if matches!(response.body, Body::Bytes(_)) {
        response.headers = vec![("content-type".into(), JSON.into())];
    }
    response
}

/// A line for people.
pub(super) fn plain(status: u16, text: &str) -> Response {
    Response::bytes(status, TEXT, text)
}

#[derive(Serialize)]
struct CreatedJson<'r> {
    id: &'r str,
    expires_at: &'r str,
}

pub(super) fn created(created: &Created) -> Response {
    json(201, &CreatedJson { id: &created.id, expires_at: &created.expires_at })
}

#[derive(Serialize)]
struct RowJson<'r> {
    id: &'r str,
    payload: &'r str,
    created_at: &'r str,
    updated_at: &'r str,
    last_viewed_at: &'r str,
    expires_at: &'r str,
}

pub(super) fn row(row: &Row) -> Response {
    let Row { id, payload, created_at, updated_at, last_viewed_at, expires_at } = row;
    json(200, &RowJson { id, payload, created_at, updated_at, last_viewed_at, expires_at })
}

#[derive(Serialize)]
struct DeletedJson<T> {
    deleted: T,
}

/// `true`, or how many.
pub(super) fn deleted(deleted: impl Serialize) -> Response {
    json(200, &DeletedJson { deleted })
}

/// The payload of a request's body.
pub(super) fn read_payload(exchange: &mut Exchange<'_>) -> Result<Payload, Fault> {
    match exchange.whole_body(BODY_BYTES) {
        Ok(body) => parse(&body),
        Err(error) => {
            exchange.close_after();
            Err(error.into())
        }
    }
}

fn parse(body: &[u8]) -> Result<Payload, Fault> {
    // Bytes that are not UTF-8 count as U+FFFD.
    let text = lossy(body);
    // The parser minds them in names and in the payload, and passes over them in what is ignored.
    if has_half_a_pair(&text) {
        return Err(Fault::NotJson);
    }
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        // Whatever else it is, it has no payload; unless it is nothing at all.
        let other: Result<IgnoredAny, _> = serde_json::from_str(&text);
        return Err(if other.is_ok() { Fault::NotAString } else { Fault::NotJson });
    }
    let Members(payload) = serde_json::from_str(&text).map_err(|_| Fault::NotJson)?;
    let payload = payload.map(RawValue::get).filter(|raw| raw.starts_with('"')).ok_or(Fault::NotAString)?;
    let payload: String = serde_json::from_str(payload).map_err(|_| Fault::NotJson)?;
    Payload::new(payload).map_err(Fault::Payload)
}

/// Whether an escape in a JSON text is half of a surrogate pair. (Backslashes stand in strings only.)
fn has_half_a_pair(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        let length = match code_unit(rest) {
            Some(0xd800..=0xdbff) if matches!(rest.get(6..).and_then(code_unit), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => return true,
            Some(_) => 6,
            None => 2,
        };
        // Within a character only where it is no JSON.
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// What the `\uXXXX` at the start of a text stands for, if there is one.
fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// An object's last `payload`, as it stands there; of the others only that they are JSON, however deep
/// and whatever their numbers.
struct Members<'b>(Option<&'b RawValue>);

impl<'b> Deserialize<'b> for Members<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'b> Visitor<'b> for MembersVisitor {
            type Value = Members<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'b>>(self, mut members: A) -> Result<Members<'b>, A::Error> {
                let mut payload = None;
                while let Some(name) = members.next_key::<Cow<'_, str>>()? {
                    if name == "payload" {
                        payload = Some(members.next_value()?);
                    } else {
                        let _: IgnoredAny = members.next_value()?;
                    }
                }
                Ok(Members(payload))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::PayloadError;

    fn outcome(body: &[u8]) -> Result<String, &'static str> {
        match parse(body) {
            Ok(payload) => Ok(payload.into_text().to_string()),
            Err(Fault::NotJson) => Err("not JSON"),
            Err(Fault::NotAString) => Err("not a string"),
            Err(Fault::Payload(PayloadError::Empty)) => Err("empty"),
            Err(_) => Err("something else"),
        }
    }

    #[test]
    fn bodies() {
        let deep = format!(r#"{{"deep":{}{},"payload":"x"}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let deeper = format!(r#"{{"payload":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let arrays = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for (body, wanted) in [
            (r#"{"payload":"x"}"#, Ok("x")),
            (" {\n\"other\" : [1,{\"payload\":2}], \"payload\"\t: \"x\" } ", Ok("x")),
            (r#"{"payload":1,"payload":"last"}"#, Ok("last")),
            (r#"{"payload":"first","payload":null}"#, Err("not a string")),
            (r#"{"p\u0061yload":"x"}"#, Ok("x")),
            (r#"{"payload":"\u0000\ud83d\ude00\"\/"}"#, Ok("\0\u{1f600}\"/")),
            (r#"{"payload":"x","n":1e999,"m":-0.0}"#, Ok("x")),
            (&deep, Ok("x")),
            (&deeper, Err("not a string")),
            (&arrays, Err("not a string")),
            (r#"{"payload":1e999}"#, Err("not a string")),
            (r#"{"payload":""}"#, Err("empty")),
            (r#"{"payload":null}"#, Err("not a string")),
            (r#"{"payload":["x"]}"#, Err("not a string")),
            (r#"{"payload":{"payload":"x"}}"#, Err("not a string")),
            (r#"{"Payload":"x"}"#, Err("not a string")),
            ("{}", Err("not a string")),
            ("[]", Err("not a string")),
            ("null", Err("not a string")),
            ("true", Err("not a string")),
            ("7", Err("not a string")),
            ("1e999", Err("not a string")),
            ("-7.5e300", Err("not a string")),
            (r#""payload""#, Err("not a string")),
            ("", Err("not JSON")),
            (" ", Err("not JSON")),
            ("{", Err("not JSON")),
            ("[1", Err("not JSON")),
            ("payload=x", Err("not JSON")),
            (r#"{"payload":"x"}}"#, Err("not JSON")),
            (r#"{"payload":"x",}"#, Err("not JSON")),
            (r#"{'payload':'x'}"#, Err("not JSON")),
            (r#"{"payload":"x"} {}"#, Err("not JSON")),
            ("{\"payload\":\"line\nbreak\"}", Err("not JSON")),
            (r#"{"payload":"\x"}"#, Err("not JSON")),
            (r#"{"payload":"\ud800"}"#, Err("not JSON")),
            (r#"{"payload":"\ud800\u0041"}"#, Err("not JSON")),
            (r#"{"payload":"\udc00"}"#, Err("not JSON")),
            (r#"{"payload":"\ud800","payload":"x"}"#, Err("not JSON")),
            (r#"{"a":"\ud800","payload":"x"}"#, Err("not JSON")),
            (r#"{"a":["\uDBFF\ud83d\ude00"],"payload":"x"}"#, Err("not JSON")),
            (r#"{"a":{"\ude00\ud83d":1},"payload":"x"}"#, Err("not JSON")),
            (r#"{"\ud800":1,"payload":"x"}"#, Err("not JSON")),
            (r#"{"a":"\udfff"}"#, Err("not JSON")),
            (r#"["\ud800"]"#, Err("not JSON")),
            (r#""\ud800""#, Err("not JSON")),
            (r#"{"a":"\\ud800\u00e9\ud83d\uDE00\"","payload":"x"}"#, Ok("x")),
            (r#"["\ud83d\ude00\\"]"#, Err("not a string")),
            ("\u{feff}{\"payload\":\"x\"}", Err("not JSON")),
        ] {
            assert_eq!(outcome(body.as_bytes()), wanted.map(str::to_owned), "{body:.80}");
        }
        assert_eq!(outcome(b"{\"payload\":\"a\xffb\xe2\x82\"}"), Ok("a\u{fffd}b\u{fffd}".to_owned()));
    }
}
