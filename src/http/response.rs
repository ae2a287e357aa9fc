//! Responses: small ones as values, long ones through a writer that frames them for the client.
use super::buffer::Buffer;
use super::conn::Conn;
use super::copy_error::CopyError;
use super::date::date_field;
use super::limits::CROWD_TICK;
use super::rate::MinimumRate;
use super::seat::Seat;
use super::socket::{Readiness, wait, wait_to_write};
use super::splice::{Pipe, is_impossible};
use nix::errno::Errno;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes up to which a piece of body is joined to what is written before it.
const JOIN_BYTES: usize = 16 * 1024;

/// The body of a [`Response`].
#[derive(Debug)]
pub enum Body {
    /// No bytes.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This many bytes from a file, from where it stands.
    File(File, u64),
}

/// A complete response as a value.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Fields, without those that frame the body.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The body.
    pub body: Body,
}

/// Fields of a response, but for a few.
const MOST_HAVE: usize = 8;

impl Response {
    /// A response without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::with_capacity(MOST_HAVE), body: Body::Empty }
    }

    /// A response with bytes of the given type.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        let mut response = Response::empty(status).with("content-type", content_type.as_bytes());
        response.body = Body::Bytes(body.into());
        response
    }

    /// A compact JSON response; what cannot be serialised (a map with odd keys) is a bug and a 500.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(body) => Response::bytes(status, "application/json", body),
            Err(error) => {
                log::error!("a response could not be serialised: {error}");
                Response::empty(500)
            }
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl AsRef<[u8]>) -> Response {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// The length of the body in bytes.
    pub fn length(&self) -> u64 {
        match &self.body {
            Body::Empty => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(_, length) => *length,
        }
    }

    /// The whole response as bytes that end the connection, for a client without a worker. A file
    /// body is left out: no such response is ever made there; so is any body of an answer to `HEAD`.
    pub(super) fn to_final_bytes(&self, to_head: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        status_line(&mut out, self.status);
        for (name, value) in &self.headers {
            field(&mut out, name.as_bytes(), value);
        }
        date_field(&mut out);
        field(&mut out, b"content-length", self.length().to_string().as_bytes());
        field(&mut out, b"connection", b"close");
        out.extend_from_slice(b"\r\n");
        if let Body::Bytes(bytes) = &self.body
            && !to_head
        {
            out.extend_from_slice(bytes);
        }
        out
    }
}

/// Appends `HTTP/1.1 200 OK` and its line end.
pub(super) fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&decimal(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn decimal(status: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or(0);
    [digit(status / 100), digit(status / 10), digit(status)]
}

/// Appends one header field. A line end inside a value would make two fields of one: it becomes a space.
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        out.extend(value.iter().map(|&b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }));
    } else {
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
}

/// The standard phrase of a status (RFC 9110 section 15), empty for one without.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// How a response's body is delimited for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// A response without a body whatever its header says: to HEAD, 204, 304.
    None,
    /// This many bytes to come.
    Length(u64),
    /// Chunks.
    Chunks,
    /// The end of the connection.
    Close,
}

/// How far the response to the current request was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is written: an error can still become a response.
    None,
    /// Some of it is: an error can only end the connection.
    Started,
    /// All of it is.
    Complete,
}

/// Writes the body of a response as it comes. Dropped without [`finish`](Self::finish), the response
/// is cut: the connection ends without the mark of a complete body.
pub struct ResponseWriter<'e> {
    pub(super) conn: &'e Conn,
    pub(super) seat: &'e Seat,
    /// The head, until it is written with the first piece of body.
    pub(super) pending: &'e mut Vec<u8>,
    pub(super) copy: &'e mut Buffer,
    pub(super) delimiter: Delimiter,
    pub(super) rate: MinimumRate,
    pub(super) progress: &'e mut Progress,
}

impl std::fmt::Debug for ResponseWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseWriter").field("delimiter", &self.delimiter).finish_non_exhaustive()
    }
}

impl ResponseWriter<'_> {
    /// Whether body bytes are sent at all (not to HEAD, 204, 304).
    pub fn has_body(&self) -> bool {
        self.delimiter != Delimiter::None
    }

    /// Writes a piece of body, at once.
    ///
    /// # Errors
    /// The client is gone or too slow, or more is written than the length that was announced.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.delimiter {
            _ if data.is_empty() => return Ok(()),
            Delimiter::None => return Ok(()),
            Delimiter::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| io::Error::other("a body longer than its announced length"))?;
                self.put(data, b"")
            }
            Delimiter::Close => self.put(data, b""),
            Delimiter::Chunks => {
                let _ = write!(self.pending, "{:x}\r\n", data.len());
                self.put(data, b"\r\n")
            }
        }?;
        self.seat.meter().sent(data.len());
        Ok(())
    }

    /// Writes what is pending (a head without a body yet), so that the client sees it now.
    ///
    /// # Errors
    /// The client is gone or too slow.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.put(b"", b"") }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// The client is gone or too slow, or bytes are missing from the announced length.
    pub fn finish(mut self) -> io::Result<()> {
        match self.delimiter {
            Delimiter::Chunks => self.put(b"0\r\n\r\n", b"")?,
            Delimiter::Length(left) if left > 0 => {
                return Err(io::Error::other("a body shorter than its announced length"));
            }
            _ => self.flush()?,
        }
        *self.progress = Progress::Complete;
        Ok(())
    }

    fn put(&mut self, data: &[u8], end: &[u8]) -> io::Result<()> {
        *self.progress = Progress::Started;
        let (seat, rate) = (self.seat, &mut self.rate);
        let total = self.pending.len() + data.len() + end.len();
        let step = |moved, waited| step(seat, rate, moved, waited);
        let written = if self.pending.is_empty() && end.is_empty() {
            self.conn.write_all(&mut [IoSlice::new(data)], step)
        } else if total <= JOIN_BYTES {
            self.pending.extend_from_slice(data);
            self.pending.extend_from_slice(end);
            self.conn.write_all(&mut [IoSlice::new(self.pending)], step)
        } else {
            let parts = &mut [IoSlice::new(self.pending), IoSlice::new(data), IoSlice::new(end)];
            self.conn.write_all(parts, step)
        };
        self.pending.clear();
        written
    }

    /// Copies `from` to its end, each piece as it comes.
    ///
    /// # Errors
    /// Which side failed, and how.
    pub fn copy(&mut self, from: &mut dyn Read) -> Result<(), CopyError> {
        self.copy_while(from, || true).map(drop)
    }

    /// The same, as long as there is more to take; true when the end came first.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy).
    pub fn copy_while(
        &mut self,
        from: &mut dyn Read,
        mut is_more: impl FnMut() -> bool,
    ) -> Result<bool, CopyError> {
        // The buffer is taken out for the time, so that writing can use the rest of the writer.
        let mut buffer = std::mem::take(self.copy);
        let result = loop {
            if !is_more() {
                break Ok(false);
            }
            match from.read(buffer.get()) {
                Ok(0) => break Ok(true),
                Ok(n) => {
                    if let Err(error) = self.write(&buffer.get()[..n]) {
                        break Err(CopyError::Write(error));
                    }
                    buffer.used(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(CopyError::Read(error)),
            }
        };
        *self.copy = buffer;
        result
    }

    /// Moves what is left of a body of announced length from a socket whose reads time out, without
    /// copying it; `waited` is called after each time out, and may end it. False when that cannot be
    /// done here: nothing was moved then.
    ///
    /// # Errors
    /// Which side failed, and how; the end of `from` before that of the body is a failure of its.
    pub fn splice(
        &mut self,
        from: &TcpStream,
        mut waited: impl FnMut() -> io::Result<()>,
    ) -> Result<bool, CopyError> {
        let Delimiter::Length(mut left) = self.delimiter else { return Ok(false) };
        let Some(mut pipe) = Pipe::new() else { return Ok(false) };
        self.flush().map_err(CopyError::Write)?;
        let (mut first, mut tick) = (true, CROWD_TICK);
        while left > 0 || pipe.held > 0 {
            if pipe.held > 0 {
                let start = Instant::now();
                let sent = match pipe.empty(&self.conn.stream) {
                    Ok(sent) => sent,
                    Err(Errno::EAGAIN | Errno::EINTR) => {
                        let waited = wait_to_write(&self.conn.stream, tick).map_err(CopyError::Write)?;
                        if waited == Readiness::PeerGone && !self.seat.is_cut() {
                            wait(&*self.conn.stream, true, None, tick).map_err(CopyError::Write)?;
                        }
                        0
                    }
                    Err(errno) => return Err(CopyError::Write(errno.into())),
                };
                self.seat.meter().sent(sent);
                tick = step(self.seat, &mut self.rate, sent, start.elapsed()).map_err(CopyError::Write)?;
                continue;
            }
            match pipe.fill(from, left) {
                Ok(0) => return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    left -= n as u64;
                    self.delimiter = Delimiter::Length(left);
                    self.seat.moved(n);
                    first = false;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => waited().map_err(CopyError::Read)?,
                Err(errno) if first && is_impossible(errno) => return Ok(false),
                Err(errno) => return Err(CopyError::Read(errno.into())),
            }
        }
        Ok(true)
    }
}

/// A step towards the client; the last one it gets when it is too slow. How long the next may take.
fn step(seat: &Seat, rate: &mut MinimumRate, moved: usize, waited: Duration) -> io::Result<Duration> {
    if seat.is_cut() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    // Only if stuck: on a busy machine every client is waited for a little, and each thread that becomes a
    // stream's takes a new one, with a new connection to the wrapped server.
    let tick = seat.step(moved, waited, moved == 0);
    if rate.step(moved, waited) { Ok(tick) } else { Err(io::ErrorKind::TimedOut.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::limits::WAITED;
    use super::super::seat::tests::in_a_crowd;
    use super::*;

    #[test]
    fn a_download_leaves_the_pool_at_once_only_when_stuck() {
        for (moved, stays) in [(1, true), (0, false)] {
            let seat = in_a_crowd();
            step(&seat, &mut MinimumRate::new(0), moved, WAITED).unwrap();
            assert_eq!(seat.end(), stays, "{moved}");
        }
    }
}
