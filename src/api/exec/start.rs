//! `POST exec`: what the request and its headers say becomes a run, whose output is the answer.
use super::error::ExecError;
use super::identity::{identity, usable_id};
use super::request::{self, Request};
use super::stream::{self, Known, LOOK};
use super::wire::Reply;
use crate::api::{Answer, Api};
use crate::exec::{Exec, Program, Run, Wanted};
use crate::files::{Entered, RelativePath};
use crate::http::{Exchange, Head, Response, Served, peer_gone};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The header a client names its context with.
const CONTEXT: &str = "x-context-id";

/// Starts a run and answers with it.
pub(super) fn serve(api: &Api, exec: &Exec, exchange: &mut Exchange<'_>) -> Result<Answer, ExecError> {
    let request = request::read(exchange)?;
    let entered = request.cwd.as_deref().map(|cwd| enter(api, exec.root(), cwd)).transpose()?;
    let streams = request.stream;
    let wanted = wanted(exec, exchange.head(), request, entered.as_ref())?;
    exchange.seat().leave_pool()?;
    // Each run is one of the journal's, and its end cannot wait.
    #[cfg(feature = "runs")]
    if !api.runs.wait_for_room(exchange)? {
        return Ok(Answer::Served(Served::Gone));
    }
    let run = exec.start(wanted)?;
    drop(entered);
    let owner = run.own(exec.stop_grace());
    let answer = if streams {
        let reader = run.read_from([0; 2], !run.detached);
        Answer::Served(stream::serve(exchange, &run, reader, Known::default()))
    } else {
        reply(exchange, &run)
    };
    drop(owner);
    Ok(answer)
}

/// A directory named relative to the root, or absolutely below it.
fn enter(api: &Api, root: &Path, cwd: &str) -> Result<Entered, ExecError> {
    let below = Path::new(cwd).strip_prefix(root).ok().and_then(Path::to_str);
    Ok(api.root.enter(&RelativePath::of_text(below.unwrap_or(cwd))?)?)
}

fn wanted(
    exec: &Exec,
    head: &Head,
    request: Request,
    entered: Option<&Entered>,
) -> Result<Wanted, ExecError> {
    let context = context(head, request.context_id)?;
    let our_env = match exec.settings().program {
        Program::Fixed(_) => identity(head, context),
        Program::Any => Vec::new(),
    };
    Ok(Wanted {
        args: request.args,
        timeout: Duration::from_secs(request.timeout_secs).min(exec.settings().max_timeout),
        cwd: entered.map(|entered| entered.path(exec.root())),
        env: request.env,
        our_env,
        stdin: request.stdin,
        keep_stdin: request.keep_stdin,
        detach: request.detach,
        awaits_reader: request.stream && !request.detach,
        keep_background: request.keep_background,
    })
}

/// The context's id: the header's, else the body's.
fn context(head: &Head, body: Option<String>) -> Result<String, ExecError> {
    let mut values = head.get_all(CONTEXT);
    let id = match (values.next(), values.next()) {
        (None, _) => body.unwrap_or_default(),
        (Some(value), None) => String::from_utf8_lossy(value).into_owned(),
        _ => return Err(ExecError::bad_request("x-context-id is repeated")),
    };
    match usable_id(&id) {
        true => Ok(id),
        false => Err(ExecError::bad_request("the context id is too long or has control characters")),
    }
}

/// Waits for the end of a run; its client may leave meanwhile.
fn reply(exchange: &Exchange<'_>, run: &Arc<Run>) -> Answer {
    // Nothing that is kept is forgotten until it was read.
    let _reader = run.read_from([0; 2], false);
    while !run.wait_end(LOOK) {
        if peer_gone(exchange.client()) {
            return Answer::Served(Served::Gone);
        }
    }
    match run.outcome() {
        Some(outcome) => Answer::Response(Response::json(200, &Reply::of(run, &outcome))),
        None => Answer::Served(Served::Gone),
    }
}
