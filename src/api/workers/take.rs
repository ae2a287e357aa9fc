//! What a request brings along: its JSON body, its query. Texts of refusals are those clients know.
use super::refuse::{Bad, Refused, UNBUFFERED};
use crate::api::query::Query;
use crate::http::{BodyError, Exchange, HttpError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Bytes of a request's body.
const BODY_BYTES: u64 = 2 * 1024 * 1024;

/// A stop or a cancel: why.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LifecycleRequest {
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// The body, which must be JSON and say so.
pub(super) fn json<T: DeserializeOwned>(exchange: &mut Exchange<'_>) -> Result<T, Refused> {
    if !exchange.head().get("content-type").is_some_and(is_json) {
        let why = "Expected request with `Content-Type: application/json`";
        return Err(Bad::Json(why.to_owned()).into());
    }
    let bytes = match exchange.whole_body(BODY_BYTES) {
        Err(BodyError::TooLarge) => {
            return Err(Bad::Json(format!("{UNBUFFERED}: length limit exceeded")).into());
        }
        Err(error) if !is_bad(&error) => return Err(HttpError::from(error).into()),
        Err(error) => return Err(Bad::Json(format!("{UNBUFFERED}: {error}")).into()),
        Ok(bytes) => bytes,
    };
    parse(&bytes).map_err(|why| Bad::Json(why).into())
}

/// Whether it is the body that is bad. Else it may be sent again as it is, and is refused as everywhere.
fn is_bad(error: &BodyError) -> bool {
    !matches!(error, BodyError::NoRoom | BodyError::Cut | BodyError::TooSlow)
}

/// `application/json`, or anything that ends in `+json`, whatever its parameters.
fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence
        .strip_prefix(b"application/")
        .is_some_and(|subtype| subtype == b"json" || subtype.len() > 5 && subtype.ends_with(b"+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let told = |error: &dyn std::fmt::Display, category| match category {
        Category::Data => format!("Failed to deserialize the JSON body into the target type: {error}"),
        _ => format!("Failed to parse the request body as JSON: {error}"),
    };
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| told(&error, error.inner().classify()))?;
    json.end().map_err(|error| told(&error, error.classify()))?;
    Ok(value)
}

/// The body of a stop or cancel: nothing at all, or an object.
pub(super) fn lifecycle(exchange: &mut Exchange<'_>) -> Result<LifecycleRequest, Refused> {
    let bytes = match exchange.whole_body(BODY_BYTES) {
        Err(BodyError::TooLarge) => return Err(Bad::LifecycleTooLarge.into()),
        Err(error) if !is_bad(&error) => return Err(HttpError::from(error).into()),
        Err(error) => return Err(Bad::Lifecycle(error.to_string()).into()),
        Ok(bytes) => bytes,
    };
    if bytes.is_empty() {
        return Ok(LifecycleRequest::default());
    }
    serde_json::from_slice(&bytes).map_err(|why| Bad::Lifecycle(why.to_string()).into())
}

/// A parameter that is a number.
pub(super) fn number(query: &Query, name: &str) -> Result<Option<usize>, Bad> {
    let Some(value) = text(query, name)? else { return Ok(None) };
    value.parse().map(Some).map_err(|why| Bad::Query(format!("{name}: {why}")))
}

/// A parameter that may be there once.
pub(super) fn text<'q>(query: &'q Query, name: &str) -> Result<Option<&'q str>, Bad> {
    query.get(name).map_err(|_| Bad::Query(format!("duplicate field `{name}`")))
}

/// One that must be.
pub(super) fn required<'q>(query: &'q Query, name: &str) -> Result<&'q str, Bad> {
    text(query, name)?.ok_or_else(|| Bad::Query(format!("missing field `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::{CreateWorkerRequest, WorkerInput};

    #[test]
    fn content_types_that_are_json() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
            "application/json ;a",
        ] {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for other in
            ["", "text/json", "application/jsonp", "application/+json", "json", "application/json, x"]
        {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn refusals_say_where_and_why() {
        let create = |text: &str| parse::<CreateWorkerRequest>(text.as_bytes()).unwrap_err();
        let data = "Failed to deserialize the JSON body into the target type: ";
        let syntax = "Failed to parse the request body as JSON: ";
        assert_eq!(create("{}"), format!("{data}missing field `intent` at line 1 column 2"));
        assert_eq!(create(""), format!("{syntax}EOF while parsing a value at line 1 column 0"));
        assert!(create("{\"intent\":}").starts_with(syntax));
        let variant = create("{\"intent\":{\"kind\":\"x\"}}");
        assert!(variant.starts_with(&format!("{data}intent")), "{variant}");
        assert!(variant.contains(": unknown variant `x`, expected one of `assistant`, `task`, `role`"));
        assert!(create("[1").starts_with(data));
        let list = "{\"intent\":{\"kind\":\"assistant\"},\"profile\":{\"kind\":\"runtime_default\"},\"mount_refs\":null}";
        assert!(
            create(list).starts_with(&format!("{data}mount_refs: invalid type: null, expected a sequence"))
        );
        let input = |text: &str| parse::<WorkerInput>(text.as_bytes());
        assert!(input("{\"kind\":\"user\",\"content\":\"x\",\"more\":1}").is_ok());
        let trailing = input("{\"kind\":\"user\",\"content\":\"x\"} 1").unwrap_err();
        assert_eq!(trailing, format!("{syntax}trailing characters at line 1 column 31"));
        let content = input("{\"kind\":\"user\",\"content\":null}").unwrap_err();
        assert!(
            content.starts_with(&format!("{data}content: invalid type: null, expected a string")),
            "{content}"
        );
    }
}
