//! The three event streams: what is kept for a client that comes back, then each event as it comes.
use super::{RunsApi, wire};
use crate::events::{Next, Start, Stream, now_ms};
use crate::http::{Exchange, HttpError, Served, peer_gone};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a stream looks whether its client is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Where the client was; what is none of our numbers is before all of them.
fn last_event_id(exchange: &Exchange<'_>) -> Option<u64> {
    let value = exchange.head().get("last-event-id")?;
    Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Serves a stream to its end: the client's, ours, or because the client is too slow.
pub(super) fn serve(api: &RunsApi, exchange: &mut Exchange<'_>, stream: Stream) -> Result<Served, HttpError> {
    let after = last_event_id(exchange);
    exchange.seat().leave_pool()?;
    let client = Arc::clone(exchange.client());
    let mut head = exchange.begin(200);
    head.field(b"content-type", b"text/event-stream");
    head.field(b"cache-control", b"no-cache");
    let mut writer = head.body(None);
    let written = (|| -> io::Result<()> {
        if !writer.has_body() {
            return writer.finish();
        }
        let (mut subscription, start) = api.bus.subscribe(stream, after);
        if let Start::State { last, state } = start {
            writer.write(&wire::initial(last, now_ms(), &state, api.bus.streamed()))?;
        }
        writer.flush()?;
        let mut heartbeat = Instant::now() + api.heartbeat;
        loop {
            let now = Instant::now();
            if now >= heartbeat {
                writer.write(&wire::heartbeat(subscription.at(), now_ms()))?;
                heartbeat = now + api.heartbeat;
            }
            match subscription.next(LOOK.min(heartbeat - now)) {
                Next::Events(bytes, _) => writer.write(&bytes)?,
                Next::Nothing if peer_gone(&client) => return Err(io::ErrorKind::BrokenPipe.into()),
                Next::Nothing => {}
                Next::TooSlow | Next::Closed => return writer.finish(),
            }
        }
    })();
    Ok(if written.is_ok() { Served::Done } else { Served::Gone })
}
