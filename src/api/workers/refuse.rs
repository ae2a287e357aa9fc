//! What a refusal looks like to a client of the worker runtime: the one place that turns errors into
//! responses here.
use super::route::NoRoute;
use crate::api::gate::Denied;
use crate::auth::Refusal;
use crate::http::{HttpError, NoHandshake, Response};
use crate::workers::{StoreError, WorkersError};

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// With an error of this shape.
    Error(HttpError),
    /// With this.
    Response(Response),
}

impl From<HttpError> for Refused {
    fn from(error: HttpError) -> Self {
        Refused::Error(error)
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Refused::Error(match denied {
            // Without a challenge: its clients know what is asked of them.
            Denied::Caller(Refusal::TokenRequired) => {
                HttpError::new(401, "unauthorized", "missing or invalid local Runtime bearer token")
            }
            denied => denied.into(),
        })
    }
}

impl From<NoRoute> for Refused {
    fn from(no_route: NoRoute) -> Self {
        Refused::Response(match no_route {
            NoRoute::Unknown => Response::empty(404),
            NoRoute::Method(allowed) => Response::empty(405).with("allow", allowed),
        })
    }
}

impl From<NoHandshake> for Refused {
    fn from(why: NoHandshake) -> Self {
        let text = match why {
            NoHandshake::Method => return NoRoute::Method("GET").into(),
            NoHandshake::Connection => "Connection header did not include 'upgrade'",
            NoHandshake::Upgrade => "`Upgrade` header did not include 'websocket'",
            NoHandshake::Version => "`Sec-WebSocket-Version` header did not include '13'",
            NoHandshake::Key => "`Sec-WebSocket-Key` header missing",
            NoHandshake::Body => "a request for a WebSocket has no body",
        };
        let response = plain(400, text);
        let version = why == NoHandshake::Version;
        Refused::Response(if version { response.with("sec-websocket-version", "13") } else { response })
    }
}

impl From<WorkersError> for Refused {
    fn from(error: WorkersError) -> Self {
        let (status, code) = match &error {
            WorkersError::WorkerNotFound { .. } => (404, "worker_not_found"),
            WorkersError::LimitTooLarge { .. } => (400, "limit_too_large"),
            WorkersError::Invalid(_) => (400, "invalid_request"),
            WorkersError::BundleMissing(_) => (404, "config_bundle_missing"),
            WorkersError::DigestMismatch { .. } => (400, "config_bundle_digest_mismatch"),
            WorkersError::InvalidProfile { .. } => (400, "invalid_profile_selector"),
            WorkersError::UnsupportedDeclaration { .. } => (400, "unsupported_config_declaration"),
            WorkersError::RuntimeStopped(_) => (409, "runtime_stopped"),
            WorkersError::ExecutionUnavailable(_) => (409, "worker_execution_unavailable"),
            WorkersError::ExecutionRejected { .. } => (409, "worker_execution_rejected"),
            WorkersError::Store(StoreError::Io(why)) => {
                log::error!("the workers' store: {why}");
                (500, "store_io")
            }
            WorkersError::Store(StoreError::Missing(_)) => (500, "store_missing"),
        };
        Refused::Error(HttpError::new(status, code, error.to_string()))
    }
}

impl From<Bad> for Refused {
    fn from(bad: Bad) -> Self {
        let (code, message) = match bad {
            Bad::WorkerId(why) => ("invalid_worker_id", format!("worker_id {why}")),
            Bad::BundleId => ("invalid_request", "invalid request: config bundle id is not UTF-8".to_owned()),
            Bad::Json(why) => ("invalid_json", format!("invalid JSON request body: {why}")),
            Bad::Lifecycle(why) => ("invalid_json", format!("invalid lifecycle request JSON: {why}")),
            Bad::Query(why) => {
                let form = "Failed to deserialize query string";
                ("invalid_query", format!("invalid query parameters: {form}: {why}"))
            }
            Bad::LifecycleTooLarge => {
                return Refused::Response(plain(413, &format!("{UNBUFFERED}: length limit exceeded")));
            }
        };
        Refused::Error(HttpError::new(400, code, message))
    }
}

/// What is said of a body that could not be taken in.
pub(super) const UNBUFFERED: &str = "Failed to buffer the request body";

/// What is wrong with a request before the runtime is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// The worker's id, and why.
    WorkerId(&'static str),
    /// The bundle's id is not even text.
    BundleId,
    /// The body, and why.
    Json(String),
    /// The body of a stop or cancel, and why.
    Lifecycle(String),
    /// The same, by its size.
    LifecycleTooLarge,
    /// The query, and why.
    Query(String),
}

fn plain(status: u16, text: &str) -> Response {
    Response::bytes(status, "text/plain; charset=utf-8", text)
}
