//! A response read from a raw connection, past the HTTP client: one that arrives while the request's
//! body is still being sent (413, 401, …), or the answer to an upgrade. Both connections end with it.
use super::call::Interruption;
use super::forward::{bad_gateway, is_event_stream, timed_out};
use super::upstream::{look_up, wait_for};
use super::{headers, informational};
use crate::base::stop::StopToken;
use crate::http::{
    CopyError, Decoder, Exchange, HttpError, IO_TICK, Length, ResponseHead, Seat, read_response_head,
};
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// A raw connection read through what was read ahead.
struct Raw<'u> {
    upstream: &'u TcpStream,
    client: &'u TcpStream,
    seat: Seat,
    /// When the answer is to have begun.
    deadline: Option<Instant>,
    /// Tells that we are ending; there only while the answer has no end of its own.
    stopping: Option<StopToken>,
    buffer: Vec<u8>,
}

impl Raw<'_> {
    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let n = self.receive(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    fn receive(&self, out: &mut [u8]) -> io::Result<usize> {
        let mut upstream = self.upstream;
        loop {
            if self.stopping.as_ref().is_some_and(StopToken::is_set) {
                return Err(io::Error::other(Interruption::Ending));
            }
            match upstream.read(out) {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    wait_for(upstream, false, Some(self.client), self.seat.tick(), self.deadline)?;
                }
                result => return result,
            }
        }
    }
}

impl Read for Raw<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.receive(out);
        }
        let n = out.len().min(self.buffer.len());
        out[..n].copy_from_slice(&self.buffer[..n]);
        self.buffer.drain(..n);
        Ok(n)
    }
}

/// Decodes a chunked body; an end before its last chunk is an error.
struct Chunked<'u> {
    raw: Raw<'u>,
    decoder: Decoder,
}

impl Read for Chunked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let decoded = self.decoder.decode(&self.raw.buffer, out);
            let (used, made) = decoded.map_err(|error| io::Error::other(error.to_string()))?;
            self.raw.buffer.drain(..used);
            if made > 0 || self.decoder.is_done() {
                return Ok(made);
            }
            if self.raw.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// What a reset means behind an answer that only the end of its connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// The wrapped server closed with some of the request unread, and its kernel made a reset of that.
    End,
    /// It had the whole request: something of its answer may be missing.
    Fault,
}

/// A body that ends with the connection, even if that is reset.
struct UntilReset<'u>(Raw<'u>);

impl Read for UntilReset<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            result => result,
        }
    }
}

/// The head of such a response, and the connection behind it.
pub(super) struct Answer<'u> {
    head: ResponseHead,
    raw: Raw<'u>,
}

impl Answer<'_> {
    /// Whether the wrapped server agreed to another protocol.
    pub(super) fn switches(&self) -> bool {
        self.head.status == 101
    }

    /// The head and what was read behind it, byte for byte.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.raw.buffer
    }
}

fn failed(what: &str) -> Option<HttpError> {
    Some(bad_gateway("upstream_failed", &format!("the wrapped server failed: {what}")))
}

/// Reads the head of the final answer, which is to be there by then; `Err(None)` when the client has gone.
pub(super) fn read_answer<'u>(
    upstream: &'u TcpStream,
    client: &'u TcpStream,
    seat: &Seat,
    deadline: Option<Instant>,
) -> Result<Answer<'u>, Option<HttpError>> {
    let mut raw = Raw { upstream, client, seat: seat.clone(), deadline, stopping: None, buffer: Vec::new() };
    let (mut informational, mut looked_up) = (0, Instant::now());
    loop {
        if looked_up.elapsed() >= IO_TICK {
            looked_up = Instant::now();
            seat.tick();
            look_up(client, deadline).map_err(|error| ended(&error))?;
        }
        let whole = informational::whole(&raw.buffer);
        let rest = informational::past_empty_lines(&raw.buffer[whole..]).len();
        let dropped = raw.buffer.drain(..raw.buffer.len() - rest).len();
        informational::count(&mut informational, dropped).map_err(|error| ended(&error))?;
        if let Some(head) = read_response_head(&raw.buffer).map_err(failed)? {
            raw.deadline = None;
            return Ok(Answer { head, raw });
        }
        if raw.fill().map_err(|error| ended(&error))? == 0 {
            return Err(failed("it closed the connection without an answer"));
        }
    }
}

/// What an error means: none of ours when the client has gone.
fn ended(error: &io::Error) -> Option<HttpError> {
    match Interruption::of(error) {
        Some(Interruption::ClientGone) => None,
        _ if error.kind() == ErrorKind::TimedOut => Some(timed_out()),
        _ => failed(&error.to_string()),
    }
}

/// Passes an early response on; `Err(None)` when the client has gone.
pub(super) fn relay(
    exchange: &mut Exchange<'_>,
    upstream: &TcpStream,
    deadline: Option<Instant>,
) -> Result<(), Option<HttpError>> {
    let client = Arc::clone(exchange.client());
    let answer = read_answer(upstream, &client, exchange.seat(), deadline)?;
    if answer.switches() {
        return Err(failed("it switched protocols without being asked"));
    }
    pass_on(exchange, answer, Reset::End)
}

/// Passes the response on; `Err(None)` when the client has gone.
pub(super) fn pass_on(
    exchange: &mut Exchange<'_>,
    answer: Answer<'_>,
    reset: Reset,
) -> Result<(), Option<HttpError>> {
    let Answer { head, mut raw } = answer;
    raw.buffer.drain(..head.bytes);
    let mut types = head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-type"));
    if types.any(|(_, value)| is_event_stream(value)) {
        raw.stopping = Some(exchange.stopping().clone());
    }
    exchange.close_after();
    let mut out = exchange.begin(head.status);
    let fields = || head.fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    for (name, value) in headers::for_response(fields) {
        out.field(name, value);
    }
    let length = if let Length::Bytes(n) = head.length { Some(n) } else { None };
    let mut writer = out.body(length);
    if writer.has_body() && length != Some(0) && raw.buffer.is_empty() {
        // Its body may be long in coming: the client sees the head now.
        writer.flush().map_err(|_| None)?;
    }
    let copied = match head.length {
        _ if !writer.has_body() => Ok(()),
        Length::Bytes(n) => writer.copy(&mut raw.take(n)),
        Length::Close if reset == Reset::End => writer.copy(&mut UntilReset(raw)),
        Length::Close => writer.copy(&mut raw),
        Length::Chunks => writer.copy(&mut Chunked { raw, decoder: Decoder::new() }),
    };
    match copied {
        Ok(()) => writer.finish().map_err(|_| None),
        Err(CopyError::Write(_)) => Err(None),
        Err(CopyError::Read(error)) if Interruption::of(&error) == Some(Interruption::Ending) => {
            writer.finish().map_err(|_| None)
        }
        Err(CopyError::Read(error)) => Err(ended(&error)),
    }
}
