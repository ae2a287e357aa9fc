//! The three event streams: what is kept for a client that comes back, then each event as it comes.
use super::{RunsApi, wire};
use crate::base::lock::lock;
use crate::events::{Next, Slices, Start, State, Stream, now_ms};
use crate::http::{Exchange, HttpError, Served, bound_send_buffer, peer_gone};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How often a stream looks whether its client is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What a stream of the state begins with, made once for all who begin with the same: of a crowd that does
/// not read it, each would keep some hundred kilobytes.
#[derive(Debug, Default)]
pub struct Beginning(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    last: u64,
    state: State,
    bytes: Weak<[u8]>,
}

impl Beginning {
    fn bytes(&self, last: u64, state: State, slices: Slices) -> Arc<[u8]> {
        let mut made = lock(&self.0);
        if let Some(made) = &*made
            && made.last == last
            && made.state.is_same(&state)
            && let Some(bytes) = made.bytes.upgrade()
        {
            return bytes;
        }
        let bytes: Arc<[u8]> = wire::initial(last, now_ms(), &state, slices).into();
        *made = Some(Made { last, state, bytes: Arc::downgrade(&bytes) });
        bytes
    }
}

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
    bound_send_buffer(&client);
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
            writer.write(&api.beginning.bytes(last, state, api.bus.streamed()))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Action;
    use serde_json::json;

    #[test]
    fn a_crowd_shares_one_beginning() {
        let (beginning, mut state) = (Beginning::default(), State::default());
        let make = |last, state: &State| beginning.bytes(last, state.clone(), Slices::all());
        let first = make(1, &state);
        assert!(Arc::ptr_eq(&first, &make(1, &state)));
        assert!(!Arc::ptr_eq(&first, &make(2, &state)), "another number");
        let first = make(1, &state);
        state.reduce(&Action::new("NOTE", json!({"text": "x"})));
        let second = make(1, &state);
        assert!(String::from_utf8_lossy(&second).contains("\"NOTE\"") && first != second, "another state");
    }
}
