//! Every refusal of the exec routes in their contract's shape, which is flat:
//! `{"code","message","timestamp"}`. The one place that makes it.
use super::route::RouteError;
use crate::api::gate::Denied;
use crate::auth::Refusal;
use crate::base::time::rfc3339;
use crate::exec::{StartError, StdinError};
use crate::files::FileError;
use crate::http::{BodyError, HttpError, Response};
use serde::Serialize;
use std::time::SystemTime;

/// What a client without a token is told to bring.
const CHALLENGE: &str = "Bearer resource_metadata=\"/.well-known/oauth-protected-resource\"";
/// The contract's text for everybody who is somebody, but no admin.
const NOT_ADMIN: &str = "Admin role required for CLI gateway";
/// `Retry-After` when there is no room for another run, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// A refusal.
#[derive(Debug)]
pub(super) struct ExecError {
    status: u16,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
struct ErrorJson<'e> {
    code: &'static str,
    message: &'e str,
    timestamp: String,
}

impl ExecError {
    fn new(status: u16, message: impl Into<String>) -> ExecError {
        let code = match status {
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            408 => "request_timeout",
            409 => "conflict_error",
            413 => "payload_too_large",
            415 => "unsupported_media_type",
            422 => "validation_error",
            429 => "rate_limited",
            500 => "internal_error",
            503 => "service_unavailable",
            _ => "bad_request",
        };
        ExecError { status, code, message: message.into(), headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> ExecError {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> ExecError {
        ExecError::new(400, message)
    }

    pub(super) fn not_json() -> ExecError {
        ExecError::new(415, "Expected request with `Content-Type: application/json`")
    }

    /// JSON that is no command.
    pub(super) fn not_a_command(message: impl Into<String>) -> ExecError {
        ExecError::new(422, message)
    }

    pub(super) fn no_such_run() -> ExecError {
        ExecError::new(404, "no run of this id is kept")
    }

    pub(super) fn off() -> ExecError {
        ExecError::new(404, "the CLI gateway is off")
    }

    /// Why the gate refused a request, with or without an `Authorization` field.
    pub(super) fn denied(denied: Denied, has_authorization: bool) -> ExecError {
        let refusal = match denied {
            Denied::Caller(refusal) => refusal,
            Denied::Origin => return ExecError::new(403, "requests from that Origin are refused"),
        };
        let unauthorized = |text: &str| ExecError::new(401, text).with("www-authenticate", CHALLENGE);
        match refusal {
            Refusal::IdentityMalformed(what) => ExecError::bad_request(what),
            Refusal::IdentityRequired | Refusal::TicketInvalid => unauthorized(&refusal.to_string()),
            Refusal::TokenRequired if has_authorization => unauthorized("Invalid or expired JWT token"),
            Refusal::TokenRequired => unauthorized("Missing Authorization header"),
            Refusal::ReadOnly | Refusal::AdminRequired => ExecError::new(403, NOT_ADMIN),
        }
    }

    pub(super) fn response(&self) -> Response {
        let mut response = if self.status == 405 {
            Response::empty(405)
        } else {
            let timestamp = rfc3339(SystemTime::now());
            Response::json(self.status, &ErrorJson { code: self.code, message: &self.message, timestamp })
        };
        for (name, value) in &self.headers {
            response = response.with(*name, value.as_bytes());
        }
        response
    }
}

impl From<RouteError> for ExecError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => ExecError::new(404, "there is no such route"),
            RouteError::MethodNotAllowed(allowed) => ExecError::new(405, "").with("allow", allowed),
        }
    }
}

impl From<StartError> for ExecError {
    fn from(error: StartError) -> Self {
        let text = error.to_string();
        match error {
            StartError::Refused(_) => ExecError::bad_request(text),
            StartError::TooMany(_) => ExecError::new(429, text).with("retry-after", RETRY_AFTER_SECONDS),
            StartError::ShuttingDown => ExecError::new(503, text).with("retry-after", RETRY_AFTER_SECONDS),
            StartError::System(error) => {
                log::warn!("no run: {error}");
                ExecError::new(503, text).with("retry-after", RETRY_AFTER_SECONDS)
            }
        }
    }
}

impl From<StdinError> for ExecError {
    fn from(error: StdinError) -> Self {
        ExecError::new(409, error.to_string())
    }
}

/// A working directory that cannot be had.
impl From<FileError> for ExecError {
    fn from(error: FileError) -> Self {
        ExecError::bad_request(format!("cwd: {error}"))
    }
}

impl From<HttpError> for ExecError {
    fn from(error: HttpError) -> Self {
        ExecError { headers: error.headers, ..ExecError::new(error.status, error.message) }
    }
}

impl From<BodyError> for ExecError {
    fn from(error: BodyError) -> Self {
        HttpError::from(error).into()
    }
}
