//! State, events, runs, approvals and the agent over HTTP. Errors here are `{"error":"text"}`.
mod approvals;
mod discovery;
mod error;
mod list;
mod route;
mod state;
mod stream;
mod wire;

pub use discovery::Identity;
pub use stream::Beginning;
pub use wire::encode;

use super::{Answer, Api};
use crate::events::{Action, Bus, Json};
use crate::http::{Exchange, HttpError, Served, peer_gone};
use crate::runs::{Contracts, Runs};
use error::Failure;
use percent_encoding::percent_decode;
use route::{Route, RouteError, route};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Bytes of a request's body.
const BODY_BYTES: u64 = 1 << 20;
/// How long a request waits for a journal that has no room.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// How often it looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(250);
/// Characters of a client's text that an error repeats.
const SHOWN_CHARS: usize = 128;

/// What these routes work on.
#[derive(Debug)]
pub struct RunsApi {
    /// The state and its listeners.
    pub bus: Bus,
    /// The runs.
    pub runs: Runs,
    /// The actions there are.
    pub contracts: Contracts,
    /// Who the manifest says we are.
    pub identity: Identity,
    /// Runs that a list has unless it is asked for more.
    pub history_size: usize,
    /// How often a stream says that it is there.
    pub heartbeat: Duration,
    /// What streams of the state begin with.
    pub beginning: Beginning,
}

impl RunsApi {
    /// Notes what another route did. A journal that has no room keeps nobody from that.
    pub(super) fn happened(&self, kind: &'static str, payload: Value) {
        self.runs.act_if_room(&Action::new(kind, payload));
    }

    /// Waits until the journal has room for what a request is about to cause; false when the client leaves
    /// meanwhile: nobody would know that it was done after all.
    pub(super) fn wait_for_room(&self, exchange: &Exchange<'_>) -> Result<bool, HttpError> {
        let until = Instant::now() + ROOM_WAIT;
        while !self.runs.has_room() {
            exchange.seat().leave_pool()?;
            let has_room = self.runs.wait_for_room(LOOK);
            if peer_gone(exchange.client()) {
                return Ok(false);
            }
            if has_room {
                break;
            }
            if Instant::now() >= until || exchange.stopping().is_set() {
                return Err(HttpError::overloaded("The journal has no room"));
            }
        }
        Ok(true)
    }
}

/// Answers a request below one of our paths; none for others'.
pub(super) fn serve(api: &Api, exchange: &mut Exchange<'_>, path: &[u8]) -> Option<Answer> {
    let route = route(exchange.head().method(), path)?;
    Some(answer(api, exchange, route).unwrap_or_else(|failure| Answer::Response(failure.response())))
}

fn answer(
    api: &Api,
    exchange: &mut Exchange<'_>,
    route: Result<Route<'_>, RouteError>,
) -> Result<Answer, Failure> {
    let access = route.map_or_else(RouteError::access, Route::access);
    match route {
        Ok(Route::Stream(_)) => api.gate.check_stream(exchange, access)?,
        _ => api.gate.check(exchange, access)?,
    }
    let runs = &api.runs;
    Ok(Answer::Response(match route? {
        Route::Stream(stream) => return Ok(Answer::Served(stream::serve(runs, exchange, stream)?)),
        Route::State => state::state(runs, exchange)?,
        Route::Slice(name) => state::slice(runs, name)?,
        Route::Invoke => state::invoke(runs, exchange)?,
        Route::Abort => state::abort(runs, exchange)?,
        Route::Dispatch => match state::dispatch(api, exchange)? {
            Some(response) => response,
            None => return Ok(Answer::Served(Served::Gone)),
        },
        Route::Runs => list::list(runs, exchange)?,
        Route::Run(id) => list::one(runs, exchange, id)?,
        Route::Cancel(id) => list::cancel(runs, exchange, id)?,
        Route::Continue(id) => list::go_on(runs, exchange, id)?,
        Route::Approvals => match approvals::pending(runs, exchange)? {
            Some(response) => response,
            None => return Ok(Answer::Served(Served::Gone)),
        },
        Route::ApprovalHistory => approvals::history(runs),
        Route::Approval(id) => approvals::one(runs, id)?,
        Route::Decide(id) => approvals::decide(runs, exchange, id)?,
        Route::Manifest => discovery::manifest(runs, &api.gate, exchange),
        Route::Contracts => discovery::contracts(runs),
    }))
}

/// The request's body.
fn body(exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure> {
    Ok(exchange.whole_body(BODY_BYTES).map_err(HttpError::from)?)
}

/// The request's body as JSON. What it has that we do not know is ignored.
fn object(exchange: &mut Exchange<'_>) -> Result<Json, Failure> {
    parse(&body(exchange)?)
}

/// A client's JSON, which may become a part of ours.
fn parse(text: &[u8]) -> Result<Json, Failure> {
    let json = Json::parse(text).ok().filter(Json::is_shallow);
    json.ok_or_else(|| Failure::new(400, "Invalid JSON body"))
}

/// A text that is there and is not empty.
fn text_field<'j>(json: &'j Json, name: &str) -> Option<&'j str> {
    json.get(name).and_then(Json::as_str).filter(|text| !text.is_empty())
}

/// A part of a path as a text that can be repeated.
fn shown(raw: &[u8]) -> String {
    percent_decode(raw).decode_utf8_lossy().chars().take(SHOWN_CHARS).collect()
}
