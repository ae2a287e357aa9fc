//! Programs over HTTP: `POST exec` runs one and streams what it writes; the other routes list runs,
//! follow one, write to its input, stop it. Off, each of them is 404.
mod error;
mod identity;
mod request;
mod route;
mod start;
mod stream;
mod wire;

pub use identity::user;

use super::query::Query;
use super::{Answer, Api};
use crate::auth::Access;
use crate::exec::{Exec, Run, StdinError, Stream};
use crate::http::{Exchange, HttpError, Response, Served, peer_gone};
use error::ExecError;
use route::{Route, RouteError, route};
use std::io::Read;
use std::sync::Arc;
use stream::{Known, LOOK};
use wire::{ListJson, StdinJson, Summary};

/// Bytes of standard input taken from a request at once.
const STDIN_BYTES: usize = 16 * 1024;

/// Answers a request below one of our paths; none for others'.
pub(super) fn serve(api: &Api, exchange: &mut Exchange<'_>, path: &[u8]) -> Option<Answer> {
    let route = route(exchange.head().method(), path)?;
    Some(answer(api, exchange, route).unwrap_or_else(|error| Answer::Response(error.response())))
}

fn answer(
    api: &Api,
    exchange: &mut Exchange<'_>,
    route: Result<Route<'_>, RouteError>,
) -> Result<Answer, ExecError> {
    let checked = match route {
        Ok(Route::Follow(_)) => api.gate.check_stream(exchange, Access::Admin),
        _ => api.gate.check(exchange, Access::Admin),
    };
    checked.map_err(|denied| {
        ExecError::denied(denied, exchange.head().get_all("authorization").next().is_some())
    })?;
    let exec = api.exec.as_ref().ok_or_else(ExecError::off)?;
    let find = |id: &str| exec.get(id).ok_or_else(ExecError::no_such_run);
    match route? {
        Route::Start => start::serve(api, exec, exchange),
        Route::List => {
            let runs = exec.list().iter().map(|run| Summary::of(run)).collect();
            Ok(Answer::Response(Response::json(200, &ListJson { runs })))
        }
        Route::Follow(id) => follow(exchange, &find(id)?),
        Route::Stop(id) => stop(exec, exchange, &*find(id)?),
        Route::Stdin(id) => stdin(exchange, &*find(id)?),
    }
}

/// From the beginning, from the offsets in the query, or, when the client comes back, from behind the
/// last event it saw.
fn follow(exchange: &mut Exchange<'_>, run: &Arc<Run>) -> Result<Answer, ExecError> {
    let head = exchange.head();
    let query = Query::parse(head.query());
    let mut at = [0; 2];
    let mut known = Known::default();
    for (at, name) in at.iter_mut().zip(["stdout", "stderr"]) {
        if let Some(text) = query.get(name)? {
            let bad = || ExecError::bad_request(format!("parameter `{name}` is not an offset"));
            *at = wire::parse_offset(text).ok_or_else(bad)?;
        }
    }
    // A browser that reconnects asks for the same address again: its word is the newer one.
    if let Some(id) = head.get("last-event-id") {
        let bad = || ExecError::bad_request("Last-Event-ID is not one of ours");
        let (offsets, told) = wire::parse_id(id).ok_or_else(bad)?;
        at = offsets;
        known = Known { started: true, error: told };
    }
    let written = run.written();
    if Stream::BOTH.iter().any(|&stream| at[stream as usize] > written[stream as usize]) {
        return Err(ExecError::bad_request("the run has not written that much"));
    }
    exchange.seat().leave_pool()?;
    let reader = run.read_from(at, false);
    Ok(Answer::Served(stream::serve(exchange, run, reader, known)))
}

fn stop(exec: &Exec, exchange: &Exchange<'_>, run: &Run) -> Result<Answer, ExecError> {
    // A program may take its grace to end.
    exchange.seat().leave_pool_to_wait();
    exec.stop(run);
    Ok(Answer::Response(Response::json(200, &Summary::of(run))))
}

/// Passes the body on as the program takes it.
fn stdin(exchange: &mut Exchange<'_>, run: &Run) -> Result<Answer, ExecError> {
    let close = Query::parse(exchange.head().query()).flag("close")?;
    exchange.seat().leave_pool()?;
    let client = Arc::clone(exchange.client());
    let mut buffer = vec![0; STDIN_BYTES];
    let mut bytes = 0;
    loop {
        let read = exchange.body().read(&mut buffer).map_err(HttpError::from)?;
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match run.write_stdin(rest, LOOK) {
                Ok(count) => rest = &rest[count..],
                Err(StdinError::Full) if peer_gone(&client) => return Ok(Answer::Served(Served::Gone)),
                Err(StdinError::Full) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes += read as u64;
    }
    if close {
        run.close_stdin()?;
    } else if bytes == 0 {
        // Nothing was written: whether it could have been is the answer.
        run.write_stdin(b"", LOOK)?;
    }
    Ok(Answer::Response(Response::json(200, &StdinJson { bytes, closed: close })))
}
