//! Observing a worker through a WebSocket: a snapshot, what is kept after the cursor, then every event as
//! it comes. The client only listens. One thread an observer; a slow one loses its place, nobody else's.
use super::frame::{Diagnostic, Envelope, Frame, Payload, Snapshot};
use super::pulse::{Beat, Pulse};
use super::refuse::Refused;
use super::take;
use crate::api::Answer;
use crate::api::query::Query;
use crate::http::{
    Bell, CloseReason, Exchange, HttpError, Received, Served, WebSocket, bound_send_buffer, handshake_key,
};
use crate::workers::{Closing, Cursor, CursorFault, Event, Feed, Observing, Runtime, Taken};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of events taken at a time, or one event.
const BATCH_BYTES: usize = 256 * 1024;

/// How observing ended.
enum End {
    /// The client is gone, or said so.
    Left,
    /// There is nothing more.
    Over,
    /// The client is told why.
    Diagnosed(&'static str, String),
}

/// `GET /v1/workers/{id}/events/ws`. The cursor is looked at before the answer, and a bad one told after
/// it, in a frame: that is where clients look.
pub(super) fn serve(
    runtime: &Runtime,
    exchange: &mut Exchange<'_>,
    worker_id: &str,
) -> Result<Answer, Refused> {
    let key = handshake_key(exchange.head())?;
    let query = Query::parse(exchange.head().query());
    let cursor = take::text(&query, "cursor")?;
    let feed = runtime.feed(worker_id)?;
    exchange.seat().leave_pool()?;
    let bell = Bell::new().map_err(|error| {
        log::warn!("no bell for an observer: {error}");
        HttpError::overloaded("out of descriptors for an observer")
    })?;
    // What the kernel keeps for it stands before a ping, too: it has half a minute to read both.
    bound_send_buffer(exchange.client());
    let began = begin(&feed, cursor, worker_id, &bell);
    if let Ok(socket) = WebSocket::accept(exchange, &key) {
        let batch = runtime.limits().max_event_batch_items;
        observe(socket, began, worker_id, &bell, batch);
    }
    Ok(Answer::Served(Served::Gone))
}

/// Where observing begins: the snapshot's cursor if there is one, and the place or why there is none.
type Began = (Option<Cursor>, Result<Observing, End>);

fn begin(feed: &Arc<Feed>, cursor: Option<&str>, worker_id: &str, bell: &Bell) -> Began {
    let from = match cursor.map(|text| Cursor::parse(text).ok_or(text)).transpose() {
        Ok(from) => from,
        Err(text) => {
            let message = format!("invalid request: worker observation cursor {text} is malformed");
            return (None, Err(End::Diagnosed("runtime.cursor_malformed", message)));
        }
    };
    let ring = bell.clone();
    match feed.observe(from, Box::new(move || ring.ring())) {
        Ok(observing) => (Some(from.unwrap_or(observing.after())), Ok(observing)),
        Err(fault) => {
            let from = from.unwrap_or(Cursor(0));
            let fault = if fault == CursorFault::Unknown { "unknown" } else { "expired" };
            let message = format!(
                "invalid request: worker observation cursor {from} is {fault} for worker {worker_id}"
            );
            (Some(from), Err(End::Diagnosed("runtime.cursor_unknown_or_expired", message)))
        }
    }
}

fn observe(mut socket: WebSocket, (snapshot, place): Began, worker_id: &str, bell: &Bell, batch: usize) {
    if let Some(cursor) = snapshot {
        queue(&mut socket, &snapshot_frame(cursor, worker_id));
    }
    let end = match place {
        Ok(observing) => follow(&mut socket, observing, worker_id, bell, batch),
        Err(end) => end,
    };
    let reason = match end {
        End::Left => None,
        End::Over => Some(CloseReason::Normal),
        End::Diagnosed(code, message) => {
            queue(&mut socket, &Frame::Diagnostic { diagnostic: Diagnostic { code, message: &message } });
            Some(CloseReason::Policy)
        }
    };
    socket.finish(reason);
}

/// Sends events until there is an end.
fn follow(
    socket: &mut WebSocket,
    mut observing: Observing,
    worker_id: &str,
    bell: &Bell,
    batch: usize,
) -> End {
    let mut pulse = Pulse::new(Instant::now());
    loop {
        match hear(socket) {
            Ok(true) => pulse.hear(Instant::now()),
            Ok(false) => {}
            Err(end) => return end,
        }
        socket.flush();
        let taken =
            if socket.is_pending() { observing.over() } else { Some(observing.take(batch, BATCH_BYTES)) };
        match taken {
            Some(Taken::Events(events)) => {
                events.iter().for_each(|event| queue(socket, &event_frame(event, worker_id)));
                continue;
            }
            Some(Taken::Nothing) | None => {}
            Some(Taken::Overrun) => return overrun(),
            Some(Taken::Closed(Closing::Ending)) => return End::Over,
            Some(Taken::Closed(Closing::Forgotten)) => {
                let message = format!("worker {worker_id} was forgotten");
                return End::Diagnosed("runtime.worker_not_found", message);
            }
        }
        let wait = loop {
            match pulse.beat(Instant::now(), socket.is_pending(), socket.sent()) {
                Beat::Ping => {
                    socket.queue_ping();
                    socket.flush();
                }
                Beat::Gone => return End::Left,
                Beat::Stalled => return overrun(),
                Beat::Wait(time) => break time,
            }
        };
        socket.wait(bell, wait);
    }
}

/// Takes what the client sent; whether it gave a sign of life.
fn hear(socket: &mut WebSocket) -> Result<bool, End> {
    let mut sign = false;
    loop {
        match socket.receive() {
            Received::Nothing => return Ok(sign),
            Received::Sign => sign = true,
            Received::Message => {
                let message = "runtime worker event WebSocket is observation-only".to_owned();
                return Err(End::Diagnosed("runtime.observation_only", message));
            }
            Received::Close | Received::Over => return Err(End::Left),
            Received::Broken => {
                let message = "the client does not speak the WebSocket protocol".to_owned();
                return Err(End::Diagnosed("runtime.websocket_error", message));
            }
        }
    }
}

fn overrun() -> End {
    End::Diagnosed("runtime.cursor_expired", "runtime observation backlog was overrun".to_owned())
}

fn queue(socket: &mut WebSocket, frame: &Frame<'_>) {
    // Strings, numbers and what was JSON before always serialise.
    socket.queue_text(serde_json::to_string(frame).unwrap_or_default());
}

fn event_frame<'f>(event: &'f Event, worker_id: &'f str) -> Frame<'f> {
    let cursor = event.cursor.to_string();
    let payload = Payload::Published(&event.payload);
    Frame::Event { envelope: Envelope { event_id: cursor.clone(), cursor, worker_id, payload } }
}

fn snapshot_frame(cursor: Cursor, worker_id: &str) -> Frame<'_> {
    let payload = Payload::Snapshot(Snapshot::of(worker_id));
    let (cursor, event_id) = (cursor.to_string(), format!("snapshot:{cursor}"));
    Frame::Event { envelope: Envelope { cursor, event_id, worker_id, payload } }
}
