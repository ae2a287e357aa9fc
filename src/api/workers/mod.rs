//! The worker runtime's face: everything below `/v1/`. Its clients knew another server before this
//! one, so shapes, statuses and texts are that server's.
mod frame;
mod pulse;
mod refuse;
mod route;
mod stream;
mod take;
mod wire;

use super::gate::Gate;
use super::query::Query;
use super::{Answer, Api};
use crate::auth::Access;
use crate::http::{Exchange, HttpError, Response};
use crate::workers::{ConfigBundle, ConfigBundleRef, Ending, Runtime};
use refuse::{Bad, Refused};
use route::{Route, Segment, route};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use wire::{
    AckAnswer, AvailabilityAnswer, BundlesAnswer, InputAckJson, LifecycleAckJson, RuntimeAnswer,
    TranscriptAnswer, WorkerAnswer, WorkersAnswer,
};

/// Items of a transcript unless asked otherwise. With a lower maximum such a request is refused, as it
/// always was.
const TRANSCRIPT_LIMIT: usize = 256;

#[derive(Deserialize)]
struct SyncRequest {
    bundle: ConfigBundle,
}

/// Whether a path is one of ours.
pub(super) fn is_ours(path: &[u8]) -> bool {
    path.starts_with(b"/v1/")
}

/// Answers a request below `/v1/`.
pub(super) fn serve(api: &Api, exchange: &mut Exchange<'_>, path: &[u8]) -> Result<Answer, HttpError> {
    match answer(&api.gate, &api.workers, exchange, path) {
        Ok(answer) => Ok(answer),
        Err(Refused::Response(response)) => Ok(Answer::Response(response)),
        Err(Refused::Error(error)) => Err(error),
    }
}

fn answer(
    gate: &Gate,
    runtime: &Arc<Runtime>,
    exchange: &mut Exchange<'_>,
    path: &[u8],
) -> Result<Answer, Refused> {
    // Who may not use the runtime learns nothing of it, routes included.
    let route = route(exchange.head().method(), path);
    match route {
        Ok(Route::Events(_)) => gate.check_stream(exchange, Access::Admin)?,
        _ => gate.check(exchange, Access::Admin)?,
    }
    match route? {
        Route::Runtime => json(&RuntimeAnswer { runtime: runtime.summary().into() }),
        Route::Bundles => {
            let bundles = runtime.bundles();
            json(&BundlesAnswer { bundles: bundles.iter().map(|bundle| (&**bundle).into()).collect() })
        }
        Route::SyncBundle => {
            let SyncRequest { bundle } = take::json(exchange)?;
            exchange.seat().leave_pool_to_wait();
            json(&AvailabilityAnswer::from(&*runtime.sync_bundle(bundle)?))
        }
        Route::Availability(id) => {
            let id = id.decode().ok_or(Bad::BundleId)?.into_owned();
            let query = Query::parse(exchange.head().query());
            let digest = take::required(&query, "digest")?.to_owned();
            json(&AvailabilityAnswer::from(&*runtime.available(&ConfigBundleRef { id, digest })?))
        }
        Route::Workers => {
            let workers = runtime.workers();
            json(&WorkersAnswer { workers: workers.iter().map(Into::into).collect() })
        }
        Route::Create => {
            let request = take::json(exchange)?;
            exchange.seat().leave_pool_to_wait();
            json(&WorkerAnswer::from(&runtime.create(request)?))
        }
        Route::Worker(id) => json(&WorkerAnswer::from(&runtime.worker(&worker_id(id)?)?)),
        Route::Input(id) => {
            let id = worker_id(id)?;
            let input = take::json(exchange)?;
            exchange.seat().leave_pool_to_wait();
            json(&AckAnswer { ack: InputAckJson::from(runtime.input(&id, &input)?) })
        }
        Route::Stop(id) => end(runtime, exchange, id, Ending::Stop),
        Route::Cancel(id) => end(runtime, exchange, id, Ending::Cancel),
        Route::Transcript(id) => {
            let id = worker_id(id)?;
            let query = Query::parse(exchange.head().query());
            let start = take::number(&query, "start")?.unwrap_or(0);
            let limit = take::number(&query, "limit")?.unwrap_or(TRANSCRIPT_LIMIT);
            json(&TranscriptAnswer { transcript: runtime.transcript(&id, start, limit)? })
        }
        Route::Events(id) => stream::serve(runtime, exchange, &worker_id(id)?),
    }
}

fn end(
    runtime: &Runtime,
    exchange: &mut Exchange<'_>,
    id: Segment<'_>,
    ending: Ending,
) -> Result<Answer, Refused> {
    let id = worker_id(id)?;
    let request = take::lifecycle(exchange)?;
    // A process that does not want to end takes seconds.
    exchange.seat().leave_pool_to_wait();
    let ack = runtime.end(&id, ending, request.reason.as_deref())?;
    json(&AckAnswer { ack: LifecycleAckJson::from(ack) })
}

fn json(value: &impl Serialize) -> Result<Answer, Refused> {
    Ok(Answer::Response(Response::json(200, value)))
}

fn worker_id(segment: Segment<'_>) -> Result<Cow<'_, str>, Bad> {
    match segment.decode() {
        Some(id) if id.trim().is_empty() => Err(Bad::WorkerId("must not be empty")),
        Some(id) => Ok(id),
        None => Err(Bad::WorkerId("is not UTF-8")),
    }
}
