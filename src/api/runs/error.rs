//! Refusals and failures in this contract's words: `{"error":"text"}`. The one place that makes them.
use super::route::RouteError;
use crate::api::gate::Denied;
use crate::auth::Refusal;
use crate::http::{HttpError, Response};
use crate::runs::{DecideError, InvokeError, RunError};
use crate::supervisor::ControlError;
use serde::Serialize;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Failure {
    status: u16,
    text: String,
    run: Option<String>,
    fields: Vec<(&'static str, String)>,
}

impl Failure {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Failure {
        Failure { status, text: text.into(), run: None, fields: Vec::new() }
    }

    /// A parameter that makes no sense.
    pub(super) fn parameter(name: &str) -> Failure {
        Failure::new(400, format!("Invalid query parameter: {name}"))
    }

    /// A field that is not there, or is not what it should be.
    pub(super) fn missing(field: &str) -> Failure {
        Failure::new(400, format!("Missing required field: {field}"))
    }

    /// Something about the run of this id.
    pub(super) fn of_run(error: RunError, id: &str) -> Failure {
        match error {
            RunError::NotFound => Failure::new(404, format!("Run not found: {id}")),
            RunError::NotRunning(status) => Failure::new(409, format!("Run is not running: {status}")),
            RunError::NotTheAgents(kind) => {
                Failure::new(409, format!("Run is not the agent's: {}", kind.as_str()))
            }
            RunError::Unfinished => Failure::new(503, "The run is ending and has not ended in time"),
            RunError::Deaf => Failure::new(503, "The agent does not read what it is told"),
            RunError::Journal => Failure::new(500, "The journal cannot be read"),
        }
    }

    /// Something about the approval of this id.
    pub(super) fn of_approval(error: DecideError, id: &str) -> Failure {
        match error {
            DecideError::NotFound => Failure::new(404, format!("Approval not found: {id}")),
            DecideError::Already(decision) => {
                Failure::new(409, format!("Approval already decided: {}", decision.as_str()))
            }
            DecideError::Journal => Failure::new(503, "The journal cannot be written"),
        }
    }

    pub(super) fn response(&self) -> Response {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct ErrorJson<'e> {
            error: &'e str,
            #[serde(skip_serializing_if = "Option::is_none")]
            execution_id: Option<&'e str>,
        }
        let json = ErrorJson { error: &self.text, execution_id: self.run.as_deref() };
        let response = Response::json(self.status, &json);
        self.fields.iter().fold(response, |response, (name, value)| response.with(*name, value.as_bytes()))
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Failure {
        Failure { status: error.status, text: error.message, run: None, fields: error.headers }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        let mut failure = Failure::from(HttpError::from(denied));
        if denied == Denied::Caller(Refusal::TokenRequired) {
            failure.text = "Unauthorized".to_owned();
        }
        failure
    }
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Failure {
        match error {
            RouteError::NotFound => Failure::new(404, "Not found"),
            RouteError::Method { allowed, .. } => {
                let mut failure = Failure::new(405, "Method not allowed");
                failure.fields.push(("allow", allowed.to_owned()));
                failure
            }
        }
    }
}

impl From<InvokeError> for Failure {
    fn from(error: InvokeError) -> Failure {
        let (status, text, run) = match error {
            InvokeError::NoAgent => (501, "No agent configured", None),
            InvokeError::Busy(run) => (409, "Execution already in progress", Some(run)),
            InvokeError::Journal => (503, "The journal cannot be written", None),
            InvokeError::Start(run) => (500, "The agent could not be started", Some(run)),
            InvokeError::NoRandomness => (500, "There are no random numbers", None),
            InvokeError::Ending => (503, "The server is shutting down", None),
        };
        Failure { run, ..Failure::new(status, text) }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        crate::api::control::failed(error).into()
    }
}
