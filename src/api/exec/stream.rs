//! A run as server-sent events: from its start or from anywhere in its output, to its exit code, which
//! is always the last event.
use super::wire::Events;
use crate::exec::{Reader, Run};
use crate::http::{Exchange, Served, peer_gone};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a silent run's client is looked for.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// After this long without an event a keep-alive comment goes out.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of events that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What the client has already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) started: bool,
    pub(super) error: bool,
}

/// Sends what the reader reads. Ends with the run, or when the client leaves.
pub(super) fn serve(exchange: &mut Exchange<'_>, run: &Run, mut reader: Reader, known: Known) -> Served {
    let client = Arc::clone(exchange.client());
    let mut head = exchange.begin(200);
    head.field(b"content-type", b"text/event-stream");
    head.field(b"cache-control", b"no-cache, no-store");
    let mut writer = head.body(None);
    let written = (|| -> io::Result<()> {
        let mut events = Events::default();
        if let (false, Some(pid)) = (known.started, run.pid()) {
            events.started(run, pid, reader.position());
            writer.write(&events.out)?;
        }
        writer.flush()?;
        let mut spoke = Instant::now();
        while writer.has_body() {
            events.out.clear();
            let mut batch = reader.read(LOOK);
            for gap in std::mem::take(&mut batch.gaps) {
                events.gap(&gap, batch.position());
            }
            while let Some(piece) = batch.next_piece() {
                events.output(&piece);
                if events.out.len() >= WRITE_BYTES {
                    writer.write(&events.out)?;
                    events.out.clear();
                }
            }
            let position = batch.position();
            let outcome = batch.outcome.take();
            if let Some(outcome) = &outcome {
                if let (false, Some(error)) = (known.error, &outcome.error) {
                    events.error(error, position);
                }
                events.exit_code(outcome, position);
            } else if peer_gone(&client) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if events.out.is_empty() && spoke.elapsed() >= KEEP_ALIVE {
                events.keep_alive();
            }
            if !events.out.is_empty() {
                writer.write(&events.out)?;
                spoke = Instant::now();
            }
            if outcome.is_some() {
                break;
            }
        }
        writer.finish()
    })();
    if written.is_ok() { Served::Done } else { Served::Gone }
}
