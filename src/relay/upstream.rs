//! The HTTP client's transport: plain TCP to the wrapped server, which while it waits also watches
//! the client whose request it carries.
//!
//! The client library hands a transport no context of the call, so the call in progress is kept in
//! a thread-local: a call never leaves its thread.
use crate::http::{IO_TICK, Peek, Readiness, Seat, peek, set_read_tick, wait};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Input and output buffers begin with this many bytes …
const BUFFER_BYTES: usize = 8 * 1024;
/// … and the input grows, by doubling, to this many when what arrives fills it. A response head can
/// not be larger than this less one byte.
const INPUT_BYTES_MAX: usize = 128 * 1024;
/// Output while a body is sent.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// A connect to loopback answers at once, or the wrapped server's queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call ended that is not the wrapped server's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// The client has gone.
    ClientGone,
    /// The wrapped server answered (or closed) while the request's body was being sent.
    EarlyResponse,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interruption::ClientGone => "the client has gone",
            Interruption::EarlyResponse => "the wrapped server answered before the request was sent",
        })
    }
}

impl std::error::Error for Interruption {}

/// The call a thread is in.
struct Call {
    client: Arc<TcpStream>,
    seat: Seat,
    /// The request's head is sent: what follows is its body.
    head_sent: bool,
    /// A byte of the response has arrived.
    answered: bool,
    /// The connection an early response is to be read from.
    early: Option<Arc<TcpStream>>,
    /// Bytes of the response received and not yet taken.
    buffered: usize,
    /// Room the request's head may need in one piece.
    head_room: usize,
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Marks the calling thread as being in a call, until it is dropped.
pub(super) struct CallGuard(());

impl CallGuard {
    pub(super) fn enter(client: &Arc<TcpStream>, seat: &Seat, head_bytes: usize) -> CallGuard {
        let call = Call {
            client: Arc::clone(client),
            seat: seat.clone(),
            head_sent: false,
            answered: false,
            early: None,
            buffered: 0,
            // Percent-encoding may triple the target; a few fields are added.
            head_room: head_bytes * 3 + 1024,
        };
        CALL.set(Some(call));
        CallGuard(())
    }

    /// Whether a byte of the request was sent (or tried to be).
    pub(super) fn is_sent(&self) -> bool {
        CALL.with_borrow(|call| call.as_ref().is_some_and(|c| c.head_sent))
    }

    /// Whether any byte of a response has arrived.
    pub(super) fn is_answered(&self) -> bool {
        CALL.with_borrow(|call| call.as_ref().is_some_and(|c| c.answered))
    }

    /// Whether bytes of the response are here, so that reading will not wait.
    pub(super) fn has_buffered(&self) -> bool {
        CALL.with_borrow(|call| call.as_ref().is_some_and(|c| c.buffered > 0))
    }

    /// The connection with the early response, after [`Interruption::EarlyResponse`].
    pub(super) fn take_early(&self) -> Option<Arc<TcpStream>> {
        CALL.with_borrow_mut(|call| call.as_mut().and_then(|c| c.early.take()))
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        CALL.set(None);
    }
}

/// Connects to one address, whatever the URI says.
#[derive(Debug)]
pub(super) struct Upstream(pub(super) SocketAddr);

impl Connector<()> for Upstream {
    type Out = UpstreamTransport;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<UpstreamTransport>, ureq::Error> {
        let stream = TcpStream::connect_timeout(&self.0, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        set_read_tick(&stream)?;
        Ok(Some(UpstreamTransport { stream: Arc::new(stream), buffers: RelayBuffers::default() }))
    }
}

/// One connection to the wrapped server.
pub(super) struct UpstreamTransport {
    stream: Arc<TcpStream>,
    buffers: RelayBuffers,
}

impl fmt::Debug for UpstreamTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamTransport").field(&self.stream).finish()
    }
}

impl UpstreamTransport {
    /// A wait ended without data: counts it, and looks whether the client is still there.
    fn tick(&self, write: bool, deadline: Option<Instant>) -> io::Result<()> {
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let (tick, client) = CALL.with_borrow(|call| match call {
            Some(call) => (call.seat.tick(), Some(Arc::clone(&call.client))),
            None => (IO_TICK, None),
        });
        match wait(&*self.stream, write, client.as_deref(), left.min(tick))? {
            Readiness::PeerGone => Err(io::Error::other(Interruption::ClientGone)),
            Readiness::Timeout if deadline.is_some_and(|at| Instant::now() >= at) => {
                Err(ErrorKind::TimedOut.into())
            }
            _ => Ok(()),
        }
    }

    /// Before a piece of body is sent: an answer that is already there wins, unless it is
    /// informational.
    fn check_early(&self) -> io::Result<()> {
        let mut start = [0; 10];
        let early = match peek(&self.stream, &mut start) {
            Peek::Nothing => false,
            Peek::Closed => true,
            Peek::Bytes(n) => !(n == start.len() && start.starts_with(b"HTTP/1.") && start[9] == b'1'),
        };
        if early { Err(self.early()) } else { Ok(()) }
    }

    fn early(&self) -> io::Error {
        CALL.with_borrow_mut(|call| {
            if let Some(call) = call {
                call.early = Some(Arc::clone(&self.stream));
            }
        });
        io::Error::other(Interruption::EarlyResponse)
    }

    fn send(&mut self, amount: usize, deadline: Option<Instant>) -> io::Result<()> {
        let body = CALL.with_borrow_mut(|call| {
            call.as_mut().is_some_and(|call| std::mem::replace(&mut call.head_sent, true))
        });
        if body {
            self.check_early()?;
        }
        let mut sent = 0;
        while sent < amount {
            match (&*self.stream).write(&self.buffers.output[sent..amount]) {
                Ok(n) => {
                    sent += n;
                    CALL.with_borrow(|call| call.iter().for_each(|call| call.seat.moved(n)));
                }
                Err(e) if is_not_yet(&e) => {
                    if body {
                        self.check_early()?;
                    }
                    self.tick(true, deadline)?;
                }
                // It stopped reading: it may have said why.
                Err(e) if body && is_closed(&e) => return Err(self.early()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        loop {
            match (&*self.stream).read(self.buffers.free()) {
                Ok(n) => return Ok(n),
                Err(e) if is_not_yet(&e) => self.tick(false, deadline)?,
                // The library takes a reset for the end of a body that has no length; it is not.
                Err(e) if is_closed(&e) => {
                    return Err(io::Error::other("the wrapped server reset the connection"));
                }
                Err(e) => return Err(e),
            }
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

fn deadline(timeout: NextTimeout) -> Option<Instant> {
    if timeout.after.is_not_happening() { None } else { Some(Instant::now() + *timeout.after) }
}

fn timed_out(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

impl Transport for UpstreamTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.send(amount, deadline(timeout)).map_err(|e| timed_out(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let n = self.receive(deadline(timeout)).map_err(|e| timed_out(e, timeout))?;
        self.buffers.filled(n);
        CALL.with_borrow_mut(|call| {
            if let Some(call) = call {
                call.answered |= n > 0;
                call.seat.moved(n);
            }
        });
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        // Asked twice, before a connection is put away and before it is used again: the second look
        // sees all the first would, so only that one costs a system call.
        let putting_away = CALL.with_borrow(|call| call.as_ref().is_some_and(|call| call.head_sent));
        self.buffers.input().is_empty() && (putting_away || peek(&self.stream, &mut [0]) == Peek::Nothing)
    }
}

/// Buffers that start small and grow with what passes through them: most responses are small, and
/// idle connections keep theirs.
#[derive(Default)]
struct RelayBuffers {
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    progress: bool,
}

impl RelayBuffers {
    /// Room behind what is buffered; at least a little, at most the bound.
    fn free(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            let grown =
                (self.input.len() * 2).clamp(BUFFER_BYTES, INPUT_BYTES_MAX.max(self.end + BUFFER_BYTES));
            self.input.resize(grown, 0);
        }
        &mut self.input[self.end..]
    }

    fn filled(&mut self, n: usize) {
        self.end += n;
        // A read that filled the buffer had more to give.
        if self.start == 0 && self.end == self.input.len() && self.end < INPUT_BYTES_MAX {
            self.input.resize(self.end * 2, 0);
        }
        self.note();
    }

    fn note(&self) {
        CALL.with_borrow_mut(|call| {
            if let Some(call) = call {
                call.buffered = self.end - self.start;
            }
        });
    }
}

impl Buffers for RelayBuffers {
    fn output(&mut self) -> &mut [u8] {
        let room = CALL.with_borrow(|call| call.as_ref().map_or(0, |call| call.head_room));
        if self.output.len() < room.max(BUFFER_BYTES) {
            self.output.resize(room.max(BUFFER_BYTES), 0);
        }
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.free()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
        self.note();
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        if self.output.len() < OUTPUT_BYTES_MAX {
            self.output.resize(OUTPUT_BYTES_MAX, 0);
        }
        let end = self.end;
        if self.input.len() - end < OUTPUT_BYTES_MAX {
            self.input.resize(end + OUTPUT_BYTES_MAX, 0);
        }
        (&mut self.input[end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.end > self.start && self.progress
    }
}
