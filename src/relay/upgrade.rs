//! A request to change the protocol: sent on a connection of its own, its refusal passed on as any
//! response, its agreement byte for byte, and from there on a tunnel.
use super::forward::{Failure, bad_gateway, timed_out};
use super::upstream::connect;
use super::{headers, raw, tunnel};
use crate::http::{Exchange, HttpError, IO_TICK, Peek, Readiness, peek, wait};
use crate::supervisor::InFlight;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves the request to its end, which may be hours away; once it has become a tunnel it is no longer
/// in flight, and no restart waits for it.
pub(super) fn serve(
    exchange: &mut Exchange<'_>,
    flight: &InFlight,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    exchange.seat().leave_pool().map_err(Failure::Final)?;
    let upstream = match connect(flight.upstream) {
        Ok(upstream) => upstream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Err(error) => return Err(Failure::Repeatable(failed(&error.to_string()))),
    };
    let repeatable = exchange.head().method().is_repeatable();
    let unanswered = |what: &str| {
        let failed = failed(what);
        if repeatable { Failure::Repeatable(failed) } else { Failure::Final(failed) }
    };
    (&upstream).write_all(&request(exchange)).map_err(|error| unanswered(&error.to_string()))?;
    let client = Arc::clone(exchange.client());
    match wait_for_answer(&upstream, &client, timeout).map_err(|error| unanswered(&error.to_string()))? {
        Waited::Answered => {}
        Waited::Closed => return Err(unanswered("it closed the connection without an answer")),
        Waited::Gone => return Err(Failure::Gone),
        Waited::TooLong => return Err(Failure::Final(timed_out())),
    }
    let answer = raw::read_answer(&upstream, &client, exchange.seat())
        .map_err(|e| e.map_or(Failure::Gone, Failure::Final))?;
    if !answer.switches() {
        return raw::pass_on(exchange, answer).map_err(|e| e.map_or(Failure::Gone, Failure::Final));
    }
    flight.leave();
    exchange.seat().meter().answered(101);
    exchange.seat().become_tunnel().map_err(Failure::Final)?;
    let ahead = [exchange.take_ahead(), answer.into_bytes()];
    // How it ends is the two sides' affair; there is no answer to give any more.
    let stopping = exchange.stopping();
    let ended = tunnel::carry([&client, &upstream], exchange.seat(), stopping, ahead, &|| flight.is_over());
    log::debug!("a tunnel ended: {ended:?}");
    Err(Failure::Gone)
}

fn failed(what: &str) -> HttpError {
    bad_gateway("upstream_failed", &format!("the wrapped server failed: {what}"))
}

/// What the wait for an answer ended with.
enum Waited {
    Answered,
    /// By the wrapped server, without a byte.
    Closed,
    /// The client has gone.
    Gone,
    TooLong,
}

fn wait_for_answer(
    upstream: &TcpStream,
    client: &TcpStream,
    timeout: Option<Duration>,
) -> std::io::Result<Waited> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        match peek(upstream, &mut [0]) {
            Peek::Bytes(_) => return Ok(Waited::Answered),
            Peek::Closed => return Ok(Waited::Closed),
            Peek::Nothing => {}
        }
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(Waited::TooLong);
        }
        // Rounded up: poll(2) counts whole milliseconds.
        let tick = (IO_TICK * 4).min(left.saturating_add(Duration::from_millis(1)));
        if wait(upstream, false, Some(client), tick)? == Readiness::PeerGone {
            return Ok(Waited::Gone);
        }
    }
}

/// The request as it goes to the wrapped server: like any other, with the two fields that ask for the
/// change, which are of this hop only, set anew.
fn request(exchange: &Exchange<'_>) -> Vec<u8> {
    let head = exchange.head();
    let mut out = Vec::with_capacity(head.bytes().len() + 256);
    out.extend_from_slice(head.method_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    for (name, value) in &headers::for_request(head, exchange.peer().ip(), exchange.request_id()) {
        field(name.as_str().as_bytes(), value.as_bytes());
    }
    field(b"connection", b"Upgrade");
    head.get_all("upgrade").for_each(|protocol| field(b"upgrade", protocol));
    out.extend_from_slice(b"\r\n");
    out
}
