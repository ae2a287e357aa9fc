//! Restart, interrupt, stop and start: each answers after it took effect.
use super::query::Query;
use super::route::Route;
use super::{Api, status};
use crate::http::{Exchange, HttpError, Response};
use crate::supervisor::{ControlError, State};
use std::time::Duration;

/// How long `?wait=ready` waits.
const READY: Duration = Duration::from_secs(60);

/// Acts, and answers with the state after it.
pub(super) fn act(api: &Api, exchange: &mut Exchange<'_>, route: &Route<'_>) -> Result<Response, HttpError> {
    let query = Query::parse(exchange.head().query());
    let wait = match query.get("wait")? {
        None => false,
        Some("ready") => true,
        Some(_) => return Err(HttpError::new(400, "bad_parameter", "parameter `wait` is not `ready`")),
    };
    // Ending a stubborn process takes seconds, in which the few control threads must not be missing.
    exchange.seat().leave_pool_to_wait();
    #[cfg(feature = "runs")]
    match route {
        Route::Restart => api.runs.happened("SERVER_RESTART", serde_json::json!({})),
        Route::Interrupt => api.runs.happened("SERVER_INTERRUPT", serde_json::json!({})),
        _ => {}
    }
    match route {
        Route::Restart => api.supervisor.restart(),
        Route::Start => api.supervisor.start(),
        Route::Stop => api.supervisor.stop(),
        _ => api.supervisor.interrupt(),
    }
    .map_err(failed)?;
    let mut code = 200;
    if wait && matches!(route, Route::Restart | Route::Start) {
        // What has failed or was stopped meanwhile only somebody else brings back.
        let hopeless = |state| matches!(state, State::Failed | State::Stopped);
        status::wait_for(api, exchange, READY, hopeless)?;
        code = if api.supervisor.status().ready { 200 } else { 503 };
    }
    Ok(status::report(api, code, &api.supervisor.status()))
}

/// What a control operation that failed is to a client.
pub(super) fn failed(error: ControlError) -> HttpError {
    let (status, code) = match error {
        ControlError::NotRunning => (409, "not_running"),
        ControlError::Spawn(_) => (503, "spawn_failed"),
        ControlError::Deadline => (504, "deadline"),
        ControlError::ShuttingDown => (503, "shutting_down"),
    };
    HttpError::new(status, code, error.to_string())
}
