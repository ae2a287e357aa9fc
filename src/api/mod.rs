//! Floor 4: everything below `/_frag`. One file a resource; `route` says which, `gate` says who.
#[cfg(feature = "artifacts")]
mod artifacts;
mod control;
#[cfg(feature = "archive")]
mod directories;
mod exec;
mod files;
mod gate;
#[cfg(any(feature = "artifacts", feature = "page"))]
mod html;
mod logs;
mod metrics;
#[cfg(feature = "openapi")]
mod openapi;
#[cfg(feature = "page")]
mod page;
mod query;
mod route;
#[cfg(feature = "runs")]
mod runs;
mod status;
mod tickets;
#[cfg(feature = "workers")]
mod workers;

#[cfg(feature = "artifacts")]
pub use artifacts::{ArtifactApi, Sharing};
pub use exec::user;
pub use gate::{Gate, GatePolicy};
pub use route::{Route, RouteError, route};
#[cfg(feature = "runs")]
pub use runs::{Beginning, Identity, RunsApi, encode};

use crate::exec::Exec;
use crate::files::Root;
use crate::http::{Exchange, HttpError, Method, Response, Served, Stats};
use crate::supervisor::Supervisor;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

/// Answers here are true for the moment, and some are secrets: no cache keeps one, error or not.
const NOT_STORED: &str = "no-store";

/// What the control routes work on.
#[derive(Debug)]
pub struct Api {
    /// The wrapped server.
    pub supervisor: Supervisor,
    /// Where uploads go.
    pub root: Arc<Root>,
    /// Who may.
    pub gate: Gate,
    /// Bytes of an upload at most.
    pub max_upload: u64,
    /// Files and directories of an uploaded archive at most.
    #[cfg(feature = "archive")]
    pub max_archive_members: usize,
    /// Settings that `status` shows.
    pub about: About,
    /// What the front has counted.
    pub stats: Arc<Stats>,
    /// When we started.
    pub started: SystemTime,
    /// What was uploaded.
    pub uploads: Uploads,
    /// Programs callers may run, if they may.
    pub exec: Option<Exec>,
    /// The artifacts.
    #[cfg(feature = "artifacts")]
    pub artifacts: ArtifactApi,
    /// The worker runtime.
    #[cfg(feature = "workers")]
    pub workers: Arc<crate::workers::Runtime>,
    /// State, events, runs and approvals.
    #[cfg(feature = "runs")]
    pub runs: RunsApi,
}

/// Uploads since we started.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Files that were stored.
    pub stored: AtomicU64,
    /// Uploads that were refused, or broke off.
    pub failed: AtomicU64,
    /// Bytes of those stored.
    pub bytes: AtomicU64,
}

/// What does not change while we run.
#[derive(Clone, Debug)]
pub struct About {
    /// The command, as it was given.
    pub command: String,
    /// The wrapped server's port.
    pub port: u16,
}

/// How a request was answered.
enum Answer {
    /// With this, which is still to be sent.
    Response(Response),
    /// Already, or not at all.
    Served(Served),
}

impl Api {
    /// Answers a control request; `path` is what follows `/_frag`, with its slash.
    ///
    /// # Errors
    /// Every refusal of the gate, the routes and what they do.
    pub fn serve(&self, exchange: &mut Exchange<'_>, path: &[u8]) -> Result<Served, HttpError> {
        match self.answer(exchange, path) {
            Ok(Answer::Served(served)) => Ok(served),
            Ok(Answer::Response(response)) => match exchange.respond(not_stored(response)) {
                Ok(()) => Ok(Served::Done),
                Err(_) => Ok(Served::Gone),
            },
            Err(error) => Err(error.with("cache-control", NOT_STORED)),
        }
    }

    fn answer(&self, exchange: &mut Exchange<'_>, path: &[u8]) -> Result<Answer, HttpError> {
        let method = exchange.head().method();
        self.gate.check_listener(exchange)?;
        if let Some(answer) = exec::serve(self, exchange, path) {
            return Ok(answer);
        }
        #[cfg(feature = "workers")]
        if workers::is_ours(path) {
            return workers::serve(self, exchange, path);
        }
        #[cfg(feature = "runs")]
        if let Some(answer) = runs::serve(self, exchange, path) {
            return Ok(answer);
        }
        #[cfg(feature = "page")]
        if let Some(answer) = page::serve(self, exchange, path) {
            return answer;
        }
        let route = route(method, path);
        #[cfg(feature = "artifacts")]
        if route == Err(RouteError::NotFound)
            && let Some(response) = self.artifacts.serve(&self.gate, exchange, path)
        {
            return Ok(Answer::Response(response));
        }
        let access = route.as_ref().map_or_else(RouteError::access, Route::access);
        match route {
            Ok(Route::Logs) => self.gate.check_stream(exchange, access)?,
            _ => self.gate.check(exchange, access)?,
        }
        Ok(Answer::Response(match route? {
            Route::Status => status::status(self, exchange)?,
            Route::Health => status::health(self, exchange),
            Route::Metrics => metrics::serve(self),
            #[cfg(feature = "openapi")]
            Route::OpenApi => openapi::serve(exchange.head())?,
            Route::Tickets => tickets::issue(self, exchange)?,
            Route::Await => match status::wait_ready(self, exchange)? {
                Some(response) => response,
                None => return Ok(Answer::Served(Served::Gone)),
            },
            Route::Logs => return logs::serve(self, exchange).map(Answer::Served),
            route @ (Route::Restart | Route::Start | Route::Stop | Route::Interrupt) => {
                control::act(self, exchange, &route)?
            }
            Route::Upload(path) => files::upload(self, exchange, path)?,
            Route::File(path) if method == Method::Delete => files::delete(self, exchange, path)?,
            Route::File(path) => files::get(self, exchange, path)?,
        }))
    }
}

/// A path below `/_frag` as it may stand in a log: the id of an artifact is a secret.
pub fn loggable(below: &[u8]) -> &[u8] {
    #[cfg(feature = "artifacts")]
    return artifacts::loggable(below);
    #[cfg(not(feature = "artifacts"))]
    below
}

/// Whether a request for what follows `/_frag` is for the threads that are kept for control. Artifacts
/// are not: they may be many.
pub fn is_control(below: &[u8]) -> bool {
    #[cfg(feature = "artifacts")]
    if artifacts::is_many(below) {
        return false;
    }
    let _ = below;
    true
}

/// Says so, unless the resource decided otherwise.
fn not_stored(response: Response) -> Response {
    match response.headers.iter().any(|(name, _)| name == "cache-control") {
        true => response,
        false => response.with("cache-control", NOT_STORED),
    }
}
