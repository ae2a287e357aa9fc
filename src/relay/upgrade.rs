//! A request to change the protocol: sent on a connection of its own, its refusal passed on as any
//! response, its agreement byte for byte, and from there on a tunnel.
use super::client::Client;
use super::forward::{Failure, bad_gateway, timed_out};
use super::raw::Reset;
use super::upstream::{connect, wait_for};
use super::{headers, raw, tunnel};
use crate::http::{Exchange, Method, Peek, peek};
use crate::supervisor::InFlight;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a wait for the wrapped server looks up.
const TICK: Duration = Duration::from_secs(1);

/// Serves the request to its end, which may be hours away; once it has become a tunnel it is no longer
/// in flight, and no restart waits for it.
pub(super) fn serve(
    exchange: &mut Exchange<'_>,
    flight: &InFlight,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    // A server of one connection at a time would not take the one that is to come.
    Client::end_of_thread();
    exchange.seat().leave_pool().map_err(Failure::Final)?;
    let client = Arc::clone(exchange.client());
    let deadline = || timeout.map(|timeout| Instant::now() + timeout);
    let connecting = deadline();
    let wait = |socket: &TcpStream, at_most| wait_for(socket, true, Some(&client), at_most, connecting);
    let life = &flight.life;
    let upstream = connect(flight.upstream, life, wait).map_err(|error| ended(error, true))?;
    let repeatable = exchange.head().method().is_repeatable();
    (&upstream).write_all(&request(exchange)).map_err(|error| ended(error, repeatable))?;
    let answering = deadline();
    wait_for_answer(&upstream, &client, answering).map_err(|error| ended(error, repeatable))?;
    let answer = raw::read_answer(&upstream, &client, exchange.seat(), answering)
        .map_err(|e| e.map_or(Failure::Gone, Failure::Final))?;
    if !answer.switches() {
        let passed_on = raw::pass_on(exchange, answer, Reset::Fault);
        return passed_on.map_err(|e| e.map_or(Failure::Gone, Failure::Final));
    }
    flight.leave();
    exchange.seat().meter().answered(101);
    exchange.seat().become_tunnel().map_err(Failure::Final)?;
    let ahead = [exchange.take_ahead(), answer.into_bytes()];
    // How it ends is the two sides' affair; there is no answer to give any more.
    let stopping = exchange.stopping();
    let linger = exchange.limits().idle_timeout;
    let orphaned = || life.is_over();
    let ended = tunnel::carry([&client, &upstream], exchange.seat(), stopping, ahead, &orphaned, linger);
    log::debug!("a tunnel ended: {ended:?}");
    Err(Failure::Gone)
}

/// What an error before any answer means, of a request that may be sent again or not.
fn ended(error: io::Error, repeatable: bool) -> Failure {
    if let Some(failure) = Failure::of_interruption(&error) {
        return failure;
    }
    match error.kind() {
        ErrorKind::TimedOut => Failure::Final(timed_out()),
        ErrorKind::ConnectionRefused => Failure::Refused,
        _ => {
            let failed = bad_gateway("upstream_failed", &format!("the wrapped server failed: {error}"));
            if repeatable { Failure::Repeatable(failed) } else { Failure::Final(failed) }
        }
    }
}

/// Waits until there is something of an answer.
fn wait_for_answer(upstream: &TcpStream, client: &TcpStream, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        match peek(upstream, &mut [0]) {
            Peek::Bytes(_) => return Ok(()),
            Peek::Closed => return Err(io::Error::other("it closed the connection without an answer")),
            Peek::Nothing => wait_for(upstream, false, Some(client), TICK, deadline)?,
        };
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
    // A method that usually has a body says that it has none.
    if matches!(head.method(), Method::Post | Method::Put | Method::Patch) {
        field(b"content-length", b"0");
    }
    field(b"connection", b"Upgrade");
    head.get_all("upgrade").for_each(|protocol| field(b"upgrade", protocol));
    out.extend_from_slice(b"\r\n");
    out
}
