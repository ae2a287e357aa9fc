//! A request to change the protocol: sent on a connection of its own, its refusal passed on as any
//! response, its agreement byte for byte, and from there on a tunnel.
use super::forward::Failure;
use super::upstream::connect;
use super::{headers, raw, tunnel};
use crate::http::{Exchange, HttpError};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;

/// Serves the request to its end, which may be hours away; `switched` is called when it has become a
/// tunnel, which no restart waits for.
pub(super) fn serve(
    exchange: &mut Exchange<'_>,
    address: SocketAddr,
    switched: impl FnOnce(),
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let text = format!("the wrapped server failed: {error}");
        Failure::Repeatable(HttpError::new(502, "upstream_failed", text))
    };
    let upstream = match connect(address) {
        Ok(upstream) => upstream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Err(error) => return Err(failed(error)),
    };
    exchange.seat().become_tunnel().map_err(Failure::Final)?;
    (&upstream).write_all(&request(exchange)).map_err(failed)?;
    let client = Arc::clone(exchange.client());
    let answer = raw::read_answer(&upstream, &client).map_err(|e| e.map_or(Failure::Gone, Failure::Final))?;
    if !answer.switches() {
        return raw::pass_on(exchange, answer).map_err(|e| e.map_or(Failure::Gone, Failure::Final));
    }
    switched();
    let ahead = exchange.take_ahead();
    // How it ends is the two sides' affair; there is no answer to give any more.
    let ended = tunnel::carry(&client, &upstream, exchange.seat(), ahead, answer.into_bytes());
    log::debug!("a tunnel ended: {ended:?}");
    Err(Failure::Gone)
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
    for (name, value) in &headers::for_request(head, exchange.peer().ip()) {
        field(name.as_str().as_bytes(), value.as_bytes());
    }
    field(b"connection", b"Upgrade");
    head.get_all("upgrade").for_each(|protocol| field(b"upgrade", protocol));
    out.extend_from_slice(b"\r\n");
    out
}
