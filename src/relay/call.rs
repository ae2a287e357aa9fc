//! The call a thread is in. The HTTP client hands its transport no context, so what the transport and
//! the relay tell each other is kept in a thread-local: a call never leaves its thread.
use super::informational;
use crate::base::stop::StopToken;
use crate::http::{
    Decoder, Framing, Head, IO_TICK, Length, Method, Peek, ResponseHead, Seat, list_elements, peek,
    peer_gone, read_response_head,
};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a call ended that is not the wrapped server's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// The client has gone.
    ClientGone,
    /// The wrapped server answered (or closed) while the request's body was being sent.
    EarlyResponse,
    /// We are ending, and the response has no end of its own.
    Ending,
    /// The wrapped server's life ended, or is about to, before the request was sent.
    LifeOver,
}

impl Interruption {
    pub(super) fn of(error: &io::Error) -> Option<Interruption> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interruption::ClientGone => "the client has gone",
            Interruption::EarlyResponse => "the wrapped server answered before the request was sent",
            Interruption::Ending => "the server is ending",
            Interruption::LifeOver => "the wrapped server is gone",
        })
    }
}

impl std::error::Error for Interruption {}

/// What is known of the call.
pub(super) struct Call {
    pub(super) client: Arc<TcpStream>,
    pub(super) seat: Seat,
    /// No connection that was used before: the last one failed.
    pub(super) fresh: bool,
    /// The true bytes of an `Authorization` the HTTP client would refuse.
    pub(super) authorization: Option<Vec<u8>>,
    /// The connection in use, once something was sent on it.
    pub(super) upstream: Option<Arc<TcpStream>>,
    /// A byte of the response has arrived.
    pub(super) answered: bool,
    /// The head of the final answer has not.
    pub(super) in_head: bool,
    /// When somebody last looked up from an answer's head that arrives in pieces.
    looked_up: Option<Instant>,
    /// Bytes of informational answers.
    pub(super) informational: usize,
    /// Bytes of the response received and not yet taken.
    pub(super) buffered: usize,
    /// Room the request's head may need in one piece.
    pub(super) head_room: usize,
    /// The request's body is chunked.
    pub(super) chunked: bool,
    /// The connection is not for another call: an app that sends a body behind an answer that has none (to
    /// `HEAD`, 204, 304) may do so after the last look at it, and the next answer would be that body.
    last: bool,
    /// Since when a final answer was there and nothing of the request's body went on.
    stalled: Option<Instant>,
    /// Tells that we are ending; there only while the response has no end of its own.
    stopping: Option<StopToken>,
    /// Follows a chunked response beside the HTTP client, which is lenient.
    chunks: Option<Decoder>,
    /// What was wrong with its chunks.
    malformed: Option<String>,
}

/// Bytes of an answer that tell whether it is informational.
const ENOUGH: usize = 10;
/// How long nothing of a body may go on beside an answer that is no refusal.
pub(super) const EARLY_PATIENCE: Duration = Duration::from_secs(1);
/// As far as the first look for a final answer behind informational ones goes, while the request is being sent.
const LOOK_BYTES: usize = 4 * 1024;

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Looks at the current call; `None` outside of one (a pooled connection that is being dropped).
pub(super) fn with<R>(look: impl FnOnce(&mut Call) -> R) -> Option<R> {
    CALL.with_borrow_mut(|call| call.as_mut().map(look))
}

/// The HTTP client has taken these bytes of the response.
pub(super) fn consumed(bytes: &[u8]) {
    with(|call| match &mut call.chunks {
        Some(chunks) => {
            if let Err(wrong) = follow(chunks, bytes) {
                call.malformed.get_or_insert(wrong);
            }
        }
        None => call.last |= is_bodiless(bytes),
    });
}

/// Whether this is the head of a response that has no body, whatever its fields say.
fn is_bodiless(head: &[u8]) -> bool {
    let head = informational::past_empty_lines(head);
    head.starts_with(b"HTTP/1.") && matches!(head.get(9..12), Some(b"204" | b"304"))
}

fn follow(chunks: &mut Decoder, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        let data = bytes.len().min(usize::try_from(chunks.data_left()).unwrap_or(usize::MAX));
        if data > 0 {
            chunks.took(data as u64);
            bytes = &bytes[data..];
        } else if chunks.is_done() {
            return Err("bytes after its last chunk".to_owned());
        } else {
            // Without room for data this stops where data begins.
            let (used, _) = chunks.decode(bytes, &mut []).map_err(|error| error.to_string())?;
            bytes = &bytes[used..];
        }
    }
    Ok(())
}

/// Whether a connection can carry a call. What is already there to read was not asked for.
///
/// The HTTP client asks twice: before it puts a connection away, and before it takes it out for another
/// call. The second look sees all that the first would, so only that one costs a system call.
pub(super) fn allows(pooled: &TcpStream) -> bool {
    let known = with(|call| {
        let putting_away = call.upstream.is_some();
        (call.fresh || call.malformed.is_some() || (putting_away && call.last), putting_away)
    });
    let (refused, putting_away) = known.unwrap_or((false, false));
    !refused && (putting_away || peek(pooled, &mut [0]) == Peek::Nothing)
}

/// What there is of an answer while the request is being sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    /// Nothing, or something informational.
    Nothing,
    /// A final answer of a server that may want the rest of the body all the same.
    Answer,
    /// A refusal, the end, or something that is no answer.
    Refusal,
}

/// A refusal (or the end) that is there while the request is being sent wins. So does any other answer, once the
/// server has taken nothing of the body for a while: it may have answered before it reads.
pub(super) fn check_early(upstream: &TcpStream) -> io::Result<()> {
    let over = match early(upstream) {
        Early::Nothing => return Ok(()),
        Early::Refusal => true,
        Early::Answer => {
            let now = Instant::now();
            let stalled = with(|call| *call.stalled.get_or_insert(now));
            stalled.is_none_or(|since| now - since >= EARLY_PATIENCE)
        }
    };
    if over { Err(io::Error::other(Interruption::EarlyResponse)) } else { Ok(()) }
}

fn early(upstream: &TcpStream) -> Early {
    let mut start = [0; ENOUGH];
    let early = match peek(upstream, &mut start) {
        Peek::Nothing => Early::Nothing,
        Peek::Closed => Early::Refusal,
        Peek::Bytes(n) if n < ENOUGH => Early::Nothing,
        Peek::Bytes(_) => behind(upstream),
    };
    // One that has closed, too, reads no more.
    if early == Early::Answer && peer_gone(upstream) { Early::Refusal } else { early }
}

/// What begins here and is not informational. A server that says that it will close is not sent more than it
/// takes: it would answer that with a reset, and the rest of its answer would be lost.
fn kind(start: &[u8]) -> Early {
    if !start.starts_with(b"HTTP/1.1 2") && !start.starts_with(b"HTTP/1.1 3") {
        return Early::Refusal;
    }
    let ends = |head: &ResponseHead| head.length != Length::Close || matches!(head.status, 204 | 304);
    match read_response_head(start) {
        Ok(Some(head)) if !ends(&head) || closes(&head) => Early::Refusal,
        Ok(_) => Early::Answer,
        Err(_) => Early::Refusal,
    }
}

fn closes(head: &ResponseHead) -> bool {
    let mut fields = head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    fields.any(|(_, value)| list_elements(value).any(|word| word.eq_ignore_ascii_case(b"close")))
}

/// What stands there, behind informational answers and empty lines if there are some.
fn behind(upstream: &TcpStream) -> Early {
    for most in [LOOK_BYTES, informational::BYTES_MAX] {
        let mut start = vec![0; most];
        let Peek::Bytes(n) = peek(upstream, &mut start) else { return Early::Nothing };
        let behind = informational::past_empty_lines(&start[informational::whole(&start[..n])..n]);
        if behind.len() >= ENOUGH && !informational::begins(behind) {
            return kind(behind);
        }
        if n < most {
            return Early::Nothing;
        }
    }
    // More than they may have in all is the end of it, too.
    Early::Refusal
}

/// What a time that ran out while the request was being sent means: with an answer there, that is it.
pub(super) fn or_early(error: io::Error) -> io::Error {
    let stalled = with(|call| call.stalled.is_some());
    match error.kind() {
        io::ErrorKind::TimedOut if stalled == Some(true) => io::Error::other(Interruption::EarlyResponse),
        _ => error,
    }
}

/// Bytes of the request went on.
pub(super) fn sent(bytes: usize, upstream: &Arc<TcpStream>) {
    with(|call| {
        call.seat.moved(bytes);
        call.stalled = None;
        call.upstream.get_or_insert_with(|| Arc::clone(upstream));
    });
}

/// The client, when it is time to look up from an answer's head: its pieces may come without a pause, for ever.
/// That counts as a wait.
pub(super) fn to_look_up() -> Option<Arc<TcpStream>> {
    with(|call| {
        if !call.in_head || !call.answered {
            return None;
        }
        let now = Instant::now();
        if now - *call.looked_up.get_or_insert(now) < IO_TICK {
            return None;
        }
        call.looked_up = Some(now);
        call.seat.tick();
        Some(Arc::clone(&call.client))
    })
    .flatten()
}

/// Before more of a response is read: the HTTP client would go through trailers without an end.
pub(super) fn check_form() -> io::Result<()> {
    let wrong = with(|call| call.malformed.clone()).flatten();
    wrong.map_or(Ok(()), |wrong| Err(io::Error::other(wrong)))
}

/// Before more of a response is read: an event stream ends when we do.
pub(super) fn check_ending() -> io::Result<()> {
    let ending = with(|call| call.stopping.as_ref().is_some_and(StopToken::is_set));
    if ending == Some(true) { Err(io::Error::other(Interruption::Ending)) } else { Ok(()) }
}

/// Marks the calling thread as being in a call, until it is dropped.
pub(super) struct CallGuard(());

impl CallGuard {
    pub(super) fn enter(
        client: &Arc<TcpStream>,
        seat: &Seat,
        head: &Head,
        authorization: Option<Vec<u8>>,
        fresh: bool,
    ) -> CallGuard {
        CALL.set(Some(Call {
            client: Arc::clone(client),
            seat: seat.clone(),
            fresh,
            authorization,
            upstream: None,
            answered: false,
            in_head: true,
            looked_up: None,
            informational: 0,
            buffered: 0,
            // Percent-encoding may triple the target; a few fields are added.
            head_room: head.bytes().len() * 3 + 1024,
            chunked: head.framing() == Framing::Chunked,
            last: head.method() == Method::Head,
            chunks: None,
            malformed: None,
            stalled: None,
            stopping: None,
        }));
        CallGuard(())
    }

    /// Whether a byte of the request was sent.
    pub(super) fn is_sent(&self) -> bool {
        with(|call| call.upstream.is_some()).unwrap_or(false)
    }

    /// Whether any byte of a response has arrived.
    pub(super) fn is_answered(&self) -> bool {
        with(|call| call.answered).unwrap_or(false)
    }

    /// The final answer's head is here.
    pub(super) fn has_head(&self) {
        with(|call| call.in_head = false);
    }

    /// Whether bytes of the response are here, so that reading will not wait.
    pub(super) fn has_buffered(&self) -> bool {
        with(|call| call.buffered > 0).unwrap_or(false)
    }

    /// While the client lets us wait for its body: has the wrapped server answered meanwhile?
    pub(super) fn watch(&self) -> io::Result<()> {
        let upstream = with(|call| call.upstream.clone()).flatten();
        upstream.map_or(Ok(()), |upstream| check_early(&upstream))
    }

    /// The connection in use.
    pub(super) fn upstream(&self) -> Option<Arc<TcpStream>> {
        with(|call| call.upstream.clone()).flatten()
    }

    /// From here on the response is chunked, and held to it strictly.
    pub(super) fn follow_chunks(&self) {
        with(|call| call.chunks = Some(Decoder::new()));
    }

    /// The response is an event stream: it ends when we do.
    pub(super) fn end_with(&self, stopping: &StopToken) {
        with(|call| call.stopping = Some(stopping.clone()));
    }

    fn check_chunks(&self, ended: bool) -> io::Result<()> {
        let wrong = with(|call| match (&call.malformed, &call.chunks) {
            (Some(wrong), _) => Some(wrong.clone()),
            (None, Some(chunks)) if ended && !chunks.is_done() => Some("it ended too early".to_owned()),
            _ => None,
        });
        wrong.flatten().map_or(Ok(()), |wrong| Err(io::Error::other(wrong)))
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        CALL.set(None);
    }
}

/// The body of a response, of which nothing malformed is passed on.
pub(super) struct Checked<'c, R> {
    pub(super) call: &'c CallGuard,
    pub(super) body: R,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(out)?;
        self.call.check_chunks(n == 0)?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_followed_in_any_pieces() {
        let body = b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nA: b\r\n\r\n";
        for piece in 1..=body.len() {
            let mut chunks = Decoder::new();
            body.chunks(piece).for_each(|bytes| assert_eq!(follow(&mut chunks, bytes), Ok(())));
            assert!(chunks.is_done(), "{piece}");
            assert!(follow(&mut chunks, b"x").is_err());
        }
        assert!(follow(&mut Decoder::new(), b"+5\r\nhello\r\n").is_err());
    }
}
