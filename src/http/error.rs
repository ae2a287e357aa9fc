//! An error as a client sees it: a status, a stable code, a message. The one place that turns errors
//! into responses; handlers return errors and never pick a status for them.
use super::body::BodyError;
use super::head::HeadError;
use super::limits::RETRY_AFTER_SECONDS;
use super::response::Response;
use std::io;

/// A refusal or failure with its public face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// The HTTP status.
    pub status: u16,
    /// A stable `snake_case` code.
    pub code: &'static str,
    /// A sentence for people; says nothing of the host.
    pub message: String,
    /// Fields that belong to the status (`Allow`, `WWW-Authenticate`, …).
    pub headers: Vec<(&'static str, String)>,
}

impl HttpError {
    /// An error without extra fields.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        HttpError { status, code, message: message.into(), headers: Vec::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 503 with `Retry-After`: a bound of the server is reached.
    pub fn overloaded(message: &str) -> Self {
        HttpError::new(503, "overloaded", message).with("retry-after", RETRY_AFTER_SECONDS.to_string())
    }

    /// 503 with `Retry-After`: the server is about to end, and another may take its place.
    pub fn shutting_down() -> Self {
        HttpError::new(503, "shutting_down", "the server is shutting down")
            .with("retry-after", RETRY_AFTER_SECONDS.to_string())
    }

    /// 500 without detail: the detail goes to the log.
    pub fn internal() -> Self {
        HttpError::new(500, "internal", "the server failed to answer this request")
    }

    /// The response: `{"error":{"code":…,"message":…}}`.
    pub fn response(&self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = Response::json(self.status, &body);
        for (name, value) in &self.headers {
            response = response.with(*name, value.as_bytes());
        }
        response
    }
}

impl From<HeadError> for HttpError {
    fn from(error: HeadError) -> Self {
        let (status, code) = match error {
            HeadError::TooLarge => (431, "head_too_large"),
            HeadError::TargetTooLong => (414, "target_too_long"),
            HeadError::Malformed(_) => (400, "malformed_request"),
            HeadError::Version => (505, "version_not_supported"),
            HeadError::Expectation => (417, "expectation_failed"),
            HeadError::Connect => (501, "connect_not_supported"),
        };
        HttpError::new(status, code, error.to_string())
    }
}

impl From<BodyError> for HttpError {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::Incomplete => (400, "body_incomplete"),
            BodyError::Malformed(_) => (400, "body_malformed"),
            BodyError::TooLarge => (413, "body_too_large"),
            BodyError::TooSlow => (408, "body_too_slow"),
            BodyError::NoRoom | BodyError::Cut => return HttpError::overloaded(&error.to_string()),
        };
        HttpError::new(status, code, error.to_string())
    }
}

impl From<io::Error> for HttpError {
    /// An error met while reading a request's body or writing its response.
    fn from(error: io::Error) -> Self {
        match BodyError::of(&error) {
            Some(body) => body.into(),
            None => HttpError::new(400, "connection_lost", "the connection failed"),
        }
    }
}
