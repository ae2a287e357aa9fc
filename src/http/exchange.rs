//! One request and its response, as a service sees them.
use super::body::{BodyError, BodyReader, BodyState};
use super::buffer::Buffer;
use super::conn::{Attempts, Conn, Role};
use super::copy_error::CopyError;
use super::date::{DATE, date_field};
use super::error::HttpError;
use super::head::{Head, Method, Version};
use super::limits::{Limits, SMALL_BYTES};
use super::meter::{Class, Record};
use super::rate::MinimumRate;
use super::request_id::{self, OwnId, REQUEST_ID};
use super::response::{Body, Delimiter, Progress, Response, ResponseWriter, field, status_line};
use super::seat::Seat;
use crate::base::stop::StopToken;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a service made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was answered.
    Done,
    /// It cannot be answered now: keep it without a thread, and ask again when
    /// [`Service::can_resume`] says so or the duration since it was first held is over.
    Hold(Duration),
    /// The client is gone; nobody waits for an answer.
    Gone,
}

/// What runs behind the front.
pub trait Service: Send + Sync + 'static {
    /// Answers a request through its exchange.
    ///
    /// # Errors
    /// An error becomes a response if none was begun, else it ends the connection.
    fn serve(&self, exchange: &mut Exchange<'_>) -> Result<Served, HttpError>;

    /// Whether a request for this target goes to the few threads kept for control.
    fn is_control(&self, role: Role, target: &[u8]) -> bool;

    /// Whether held requests may be tried again.
    fn can_resume(&self) -> bool;

    /// A request is over.
    fn served(&self, record: &Record<'_>) {
        let _ = record;
    }

    /// A request is over that no thread of a pool served. The caller must not wait.
    fn refused(&self, record: &Record<'_>) {
        let _ = record;
    }

    /// The calling thread has nothing to do for a while.
    fn rest(&self) {}
}

/// Buffers a worker uses for one request after another.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) out: Vec<u8>,
    pub(super) copy: Buffer,
}

/// A request being answered.
pub struct Exchange<'c> {
    head: Head,
    /// The request's id, unless its head has one.
    id: OwnId,
    conn: &'c mut Conn,
    seat: &'c Seat,
    limits: &'c Limits,
    scratch: &'c mut Scratch,
    body: BodyState,
    progress: Progress,
    close: bool,
    stopping: &'c StopToken,
}

impl std::fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("head", &self.head).finish_non_exhaustive()
    }
}

impl<'c> Exchange<'c> {
    pub(super) fn new(
        head: Head,
        conn: &'c mut Conn,
        seat: &'c Seat,
        limits: &'c Limits,
        scratch: &'c mut Scratch,
        stopping: &'c StopToken,
    ) -> Exchange<'c> {
        let body = BodyState::of(&head, limits.min_rate);
        let close = stopping.is_set() || !head.keep_alive();
        let id = match head.request_id() {
            Some(_) => OwnId::default(),
            None => request_id::own(*conn.hold.number.get_or_insert_with(request_id::next)),
        };
        Exchange { head, id, conn, seat, limits, scratch, body, progress: Progress::None, close, stopping }
    }

    /// The request's head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The request's id: the client's own, if that is a sane one, else one of ours.
    pub fn request_id(&self) -> &[u8] {
        self.head.request_id().unwrap_or(&self.id)
    }

    /// Says what the request is about.
    pub fn set_class(&self, class: Class) {
        self.seat.meter().set_class(class);
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.conn.peer
    }

    /// The listener the request came through.
    pub fn role(&self) -> Role {
        self.conn.role
    }

    /// The client's socket, to watch for its going away.
    pub fn client(&self) -> &Arc<TcpStream> {
        &self.conn.stream
    }

    /// The thread this request occupies.
    pub fn seat(&self) -> &Seat {
        self.seat
    }

    /// The bounds of the front.
    pub fn limits(&self) -> &Limits {
        self.limits
    }

    /// Whether the server is ending: what has no end of its own ends now.
    pub fn stopping(&self) -> &'c StopToken {
        self.stopping
    }

    /// What the client sent behind the request's head, when the connection is to carry another
    /// protocol: the caller has the socket from here on and answers [`Served::Gone`] at its end.
    pub fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.conn.buffer)
    }

    /// When this request was first held, if it was; a life of the wrapped server that took it in vain ends that.
    pub fn held_since(&self) -> Option<Instant> {
        self.conn.hold.since
    }

    /// How often this request was sent to the wrapped server in vain.
    pub fn attempts(&self) -> Attempts {
        self.conn.hold.attempts
    }

    /// Notes that the request was sent in vain to a life of the wrapped server; how often by now.
    pub fn note_attempt(&mut self, life: u64) -> Attempts {
        self.conn.hold.note(life);
        self.conn.hold.attempts
    }

    /// Bounds the request's body, 0 = no bound.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when its declared length is over the bound already.
    pub fn limit_body(&mut self, bytes: u64) -> Result<(), BodyError> {
        if bytes == 0 { Ok(()) } else { self.body.limit(bytes) }
    }

    /// The request's body. The first read sends `100 Continue` if the client waits for it.
    pub fn body(&mut self) -> BodyReader<'_> {
        BodyReader { conn: self.conn, state: &mut self.body, seat: self.seat, watch: None }
    }

    /// The same, and whenever the client lets us wait, `watch` is asked: its error ends the reading.
    pub fn body_watching<'e>(&'e mut self, watch: &'e dyn Fn() -> io::Result<()>) -> BodyReader<'e> {
        BodyReader { watch: Some(watch), ..self.body() }
    }

    /// The request's body in memory, as a whole: of this many bytes at most.
    ///
    /// # Errors
    /// [`BodyError`]; also when so much of others is in memory that there is no room.
    pub fn whole_body(&mut self, bytes: u64) -> Result<Vec<u8>, BodyError> {
        self.limit_body(bytes)?;
        let seat = self.seat;
        // Most are small and have come with the head.
        let mut whole = Vec::with_capacity(self.conn.buffer.len().min(SMALL_BYTES));
        loop {
            let piece = self.body().take(SMALL_BYTES as u64).read_to_end(&mut whole);
            match piece.map_err(|error| BodyError::of(&error).unwrap_or(BodyError::Incomplete))? {
                0 => return Ok(whole),
                read if !seat.keep(read) => return Err(BodyError::NoRoom),
                _ => {}
            }
        }
    }

    /// Whether nothing of a response was sent.
    pub fn is_unanswered(&self) -> bool {
        self.progress == Progress::None
    }

    /// Whether a response was begun and not ended.
    pub(super) fn is_cut(&self) -> bool {
        self.progress == Progress::Started
    }

    /// Lets the connection end with this response.
    pub fn close_after(&mut self) {
        self.close = true;
    }

    /// Begins a response; fields follow, then the body.
    pub fn begin(&mut self, status: u16) -> ResponseHeadWriter<'_, 'c> {
        self.scratch.out.clear();
        self.seat.meter().answered(status);
        status_line(&mut self.scratch.out, status);
        ResponseHeadWriter { exchange: self, status, has_id: false, has_date: false }
    }

    /// Sends a complete response.
    ///
    /// # Errors
    /// The client is gone or too slow, or a file body could not be read.
    pub fn respond(&mut self, response: Response) -> io::Result<()> {
        if let Body::Bytes(bytes) = &response.body
            && bytes.len() > SMALL_BYTES
        {
            // It is there already. If it goes slowly, it is the one that is cut.
            let _ = self.seat.keep(bytes.len());
        }
        // A 304 tells no length of its own: it would be taken for that of the 200 it stands for.
        let length = (response.status != 304).then(|| response.length());
        let mut head = self.begin(response.status);
        for (name, value) in &response.headers {
            head.field(name.as_bytes(), value);
        }
        let mut writer = head.body(length);
        match response.body {
            _ if !writer.has_body() => {}
            Body::Empty => {}
            Body::Bytes(bytes) => writer.write(&bytes)?,
            Body::File(file, length) => writer.copy(&mut file.take(length)).map_err(CopyError::into_io)?,
        }
        writer.finish()
    }

    /// Counts the request, which is over but for the rest of its body.
    pub(super) fn record(&self) -> Record<'_> {
        let began = self.conn.hold.began.unwrap_or_else(|| self.seat.began());
        let from = (self.conn.peer, self.conn.role);
        self.seat.meter().end(Some((&self.head, self.request_id())), from, began.elapsed())
    }

    /// After the service: drains the body and tells whether the connection can carry another request.
    pub(super) fn conclude(mut self) -> bool {
        let kept = self.progress == Progress::Complete && !self.close && self.body().drain();
        let bytes = self.head.into_bytes();
        if kept && self.conn.buffer.is_empty() {
            // The head's memory serves the next head.
            self.conn.buffer = bytes;
            self.conn.buffer.clear();
        }
        kept
    }

    /// Puts the head back in front of what follows it, to be served again later.
    pub(super) fn put_back(self) {
        let mut bytes = self.head.into_bytes();
        bytes.append(&mut self.conn.buffer);
        self.conn.buffer = bytes;
        self.conn.scanned = 0;
    }
}

/// Writes the fields of a response, then opens its body.
#[derive(Debug)]
pub struct ResponseHeadWriter<'e, 'c> {
    exchange: &'e mut Exchange<'c>,
    status: u16,
    /// The wrapped server has an id of its own for the request.
    has_id: bool,
    has_date: bool,
}

impl<'e> ResponseHeadWriter<'e, '_> {
    /// Adds a field. Fields that frame the message are not the caller's to add.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.has_id |= name.eq_ignore_ascii_case(REQUEST_ID.as_bytes());
        self.has_date |= name.eq_ignore_ascii_case(DATE.as_bytes());
        field(&mut self.exchange.scratch.out, name, value);
    }

    /// Ends the head and opens the body: of this length, or of a length its end will tell. Nothing is
    /// written until the first piece of body, a flush or the finish.
    pub fn body(self, length: Option<u64>) -> ResponseWriter<'e> {
        let Exchange { head, id, conn, seat, limits, scratch, body, progress, close, stopping } =
            self.exchange;
        let bodiless = head.method() == Method::Head || matches!(self.status, 204 | 304);
        let delimiter = match length {
            _ if bodiless => Delimiter::None,
            Some(length) => Delimiter::Length(length),
            None if head.version() == Version::Http10 => Delimiter::Close,
            None => Delimiter::Chunks,
        };
        // The end may have begun since the request did.
        *close |= delimiter == Delimiter::Close || !body.is_drainable() || stopping.is_set();
        let Scratch { out, copy } = &mut **scratch;
        match (delimiter, length) {
            (Delimiter::Length(n), _) | (Delimiter::None, Some(n)) if self.status != 204 => {
                field(out, b"content-length", n.to_string().as_bytes());
            }
            (Delimiter::Chunks, _) => field(out, b"transfer-encoding", b"chunked"),
            _ => {}
        }
        if !self.has_date {
            date_field(out);
        }
        if !self.has_id {
            field(out, REQUEST_ID.as_bytes(), head.request_id().unwrap_or(id));
        }
        if *close {
            field(out, b"connection", b"close");
        } else if head.version() == Version::Http10 {
            field(out, b"connection", b"keep-alive");
        }
        out.extend_from_slice(b"\r\n");
        ResponseWriter {
            conn,
            seat,
            pending: out,
            copy,
            delimiter,
            rate: MinimumRate::new(limits.min_rate),
            progress,
        }
    }
}
