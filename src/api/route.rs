//! Which resource a method and path name. Pure; handlers never see a raw path of another's.
use crate::auth::Access;
use crate::http::{HttpError, Method};

/// A resource and what is asked of it. (`tests/operations/openapi.rs` reads the routes from these lines.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'p> {
    /// `GET /status`
    Status,
    /// `GET /await`
    Await,
    /// `GET /health`
    Health,
    /// `GET /logs`
    Logs,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    #[cfg(feature = "openapi")]
    OpenApi,
    /// `POST /tickets`
    Tickets,
    /// `POST /restart`
    Restart,
    /// `POST /interrupt`
    Interrupt,
    /// `POST /stop`
    Stop,
    /// `POST /start`
    Start,
    /// `POST /upload/{path}`, `PUT /upload/{path}`; with `?archive=tar` a directory
    Upload(&'p [u8]),
    /// `GET /files/{path}`, `DELETE /files/{path}`, `GET /files`, `DELETE /files`
    File(&'p [u8]),
}

impl Route<'_> {
    /// What it asks of its caller.
    pub fn access(&self) -> Access {
        match self {
            Route::Await | Route::Health => Access::Open,
            _ => Access::Writer,
        }
    }
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// Nothing of that name.
    NotFound,
    /// The resource is there, the method is not.
    MethodNotAllowed {
        /// Those that are.
        allowed: &'static str,
        /// What the resource asks of its caller.
        access: Access,
    },
}

impl RouteError {
    /// Who may know that there is no route: whoever may use what the path stands for. Elsewhere
    /// readers and strangers learn nothing.
    pub fn access(&self) -> Access {
        match self {
            RouteError::NotFound => Access::Writer,
            RouteError::MethodNotAllowed { access, .. } => *access,
        }
    }
}

impl From<RouteError> for HttpError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => HttpError::new(404, "not_found", "there is no such route"),
            RouteError::MethodNotAllowed { allowed, .. } => {
                HttpError::new(405, "method_not_allowed", format!("this route takes {allowed}"))
                    .with("allow", allowed)
            }
        }
    }
}

const READ: &str = "GET, HEAD";
const ACT: &str = "POST";
const UPLOAD: &str = "POST, PUT";
const FILE: &str = "GET, HEAD, DELETE";

/// Finds the route of `path`, exact on its raw bytes.
///
/// # Errors
/// [`RouteError`].
pub fn route(method: Method, path: &[u8]) -> Result<Route<'_>, RouteError> {
    let (route, allowed) = match path {
        b"/status" => (Route::Status, READ),
        b"/await" => (Route::Await, READ),
        b"/health" => (Route::Health, READ),
        b"/logs" => (Route::Logs, READ),
        b"/metrics" => (Route::Metrics, READ),
        #[cfg(feature = "openapi")]
        b"/openapi.json" => (Route::OpenApi, READ),
        b"/tickets" => (Route::Tickets, ACT),
        b"/restart" => (Route::Restart, ACT),
        b"/interrupt" => (Route::Interrupt, ACT),
        b"/stop" => (Route::Stop, ACT),
        b"/start" => (Route::Start, ACT),
        b"/files" => (Route::File(b""), FILE),
        _ => match (path.strip_prefix(b"/upload/"), path.strip_prefix(b"/files/")) {
            (Some(rest), _) => (Route::Upload(rest), UPLOAD),
            (_, Some(rest)) => (Route::File(rest), FILE),
            _ => return Err(RouteError::NotFound),
        },
    };
    let fits = match method {
        Method::Get | Method::Head => allowed == READ || allowed == FILE,
        Method::Post => allowed == ACT || allowed == UPLOAD,
        Method::Put => allowed == UPLOAD,
        Method::Delete => allowed == FILE,
        _ => false,
    };
    if fits { Ok(route) } else { Err(RouteError::MethodNotAllowed { allowed, access: route.access() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_takes_its_methods_and_no_other() {
        use Method::*;
        let all = [Get, Head, Post, Put, Delete, Options, Patch, Other];
        let cases: [(&str, &[Method], Route<'_>); 14] = [
            ("/status", &[Get, Head], Route::Status),
            ("/await", &[Get, Head], Route::Await),
            ("/health", &[Get, Head], Route::Health),
            ("/logs", &[Get, Head], Route::Logs),
            ("/metrics", &[Get, Head], Route::Metrics),
            ("/tickets", &[Post], Route::Tickets),
            ("/restart", &[Post], Route::Restart),
            ("/interrupt", &[Post], Route::Interrupt),
            ("/stop", &[Post], Route::Stop),
            ("/start", &[Post], Route::Start),
            ("/upload/a/b%20c", &[Post, Put], Route::Upload(b"a/b%20c")),
            ("/files/a", &[Get, Head, Delete], Route::File(b"a")),
            ("/files/", &[Get, Head, Delete], Route::File(b"")),
            ("/files", &[Get, Head, Delete], Route::File(b"")),
        ];
        for (path, methods, wanted) in cases {
            for method in all {
                match route(method, path.as_bytes()) {
                    Ok(found) => assert!(methods.contains(&method) && found == wanted, "{method:?} {path}"),
                    Err(error) => {
                        assert!(!methods.contains(&method), "{method:?} {path}");
                        assert_eq!(error.access(), wanted.access());
                    }
                }
            }
        }
    }

    #[test]
    fn other_spellings_are_not_routes() {
        for path in
            ["", "/", "/Status", "/status/", "//status", "/%73tatus", "/upload", "/uploads/x", "/restart/x"]
        {
            assert_eq!(route(Method::Get, path.as_bytes()), Err(RouteError::NotFound), "{path}");
        }
    }
}
