//! One client connection: its socket, what was received and not yet used, its place in the count.
use super::buffer::FIRST_BYTES;
use super::error::HttpError;
use super::head::Head;
use super::limits::{CROWD_TICK, HEAD_BYTES, LINGER_BYTES};
use super::meter::Stats;
use super::scan::{Scan, leading_empty_lines, scan};
use super::socket::{Readiness, close_with_reset, recv_now, wait, wait_to_write};
use super::weight::Weight;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The open port: relays, and control routes below their prefix.
    Public,
    /// The control listener: control routes only.
    Control,
}

/// A place among the open connections, given back on drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Stats>, Role);

impl Slot {
    pub(super) fn take(stats: &Arc<Stats>, role: Role) -> Slot {
        stats.connections.fetch_add(1, Ordering::Relaxed);
        stats.control_connections.fetch_add(usize::from(role == Role::Control), Ordering::Relaxed);
        Slot(Arc::clone(stats), role)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In this order: in between one counts that does not, rather than the other way round.
        self.0.control_connections.fetch_sub(usize::from(self.1 == Role::Control), Ordering::Relaxed);
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often a request was sent in vain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// The life of the wrapped server it was last sent to.
    life: u64,
    /// How often to this one.
    pub in_life: u32,
    /// To how many lives.
    pub lives: u32,
}

impl Attempts {
    /// Whether it was sent to an earlier life than this.
    pub fn outlived(&self, life: u64) -> bool {
        self.lives > 0 && self.life != life
    }

    fn is_first_in(&self, life: u64) -> bool {
        self.lives == 0 || self.life != life
    }

    fn note(&mut self, life: u64) {
        if self.is_first_in(life) {
            *self = Attempts { life, in_life: 0, lives: self.lives + 1 };
        }
        self.in_life += 1;
    }
}

/// A request that waits for the wrapped server without a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    /// When it was first held, or first since a life of the server took it.
    pub(super) since: Option<Instant>,
    /// How it was sent to the wrapped server in vain.
    pub(super) attempts: Attempts,
    /// When it was first served.
    pub(super) began: Option<Instant>,
    /// The number of its id, if that is one of ours.
    pub(super) number: Option<u64>,
}

impl Hold {
    /// The request was sent in vain to this life. That life was there: what was waited for it is over.
    pub(super) fn note(&mut self, life: u64) {
        if self.attempts.is_first_in(life) {
            self.since = None;
        }
        self.attempts.note(life);
    }
}

/// What a connection's buffer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not yet a whole head.
    Unfinished,
    /// A head, or what can never become one: parsing it will say.
    Complete,
    /// More than a head may have.
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) stream: Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) role: Role,
    /// Received and unused.
    pub(super) buffer: Vec<u8>,
    /// How much of `buffer` was searched for the end of a head.
    pub(super) scanned: usize,
    pub(super) hold: Hold,
    pub(super) weight: Weight,
    /// Its last request came soon after the one before: the next is likely to, too.
    pub(super) busy: bool,
    /// Its client has taken an answer before without having been waited for.
    pub(super) known: bool,
    _slot: Slot,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, role: Role, slot: Slot) -> Conn {
        Conn {
            stream: Arc::new(stream),
            peer,
            role,
            buffer: Vec::new(),
            scanned: 0,
            hold: Hold::default(),
            weight: Weight::default(),
            busy: false,
            known: false,
            _slot: slot,
        }
    }

    /// Looks for a head at the start of the buffer, past empty lines.
    pub(super) fn find_head(&mut self) -> Found {
        let empty = leading_empty_lines(&self.buffer);
        if empty > 0 {
            self.consume(empty);
        }
        match scan(&self.buffer, self.scanned) {
            Scan::Complete(length) if length > HEAD_BYTES => Found::TooLarge,
            Scan::More if self.buffer.len() > HEAD_BYTES => Found::TooLarge,
            Scan::Complete(_) | Scan::Broken => Found::Complete,
            Scan::More => {
                self.scanned = self.buffer.len();
                Found::Unfinished
            }
        }
    }

    /// Takes the head off the front of the buffer.
    pub(super) fn take_head(&mut self) -> Result<Head, HttpError> {
        let length = match scan(&self.buffer, 0) {
            Scan::Complete(length) => length,
            // What cannot become a head is parsed whole, for its message.
            Scan::Broken | Scan::More => self.buffer.len(),
        };
        let rest = self.buffer.split_off(length);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.scanned = 0;
        Head::parse(bytes).map_err(|(error, _)| error.into())
    }

    /// Counts the request at the front among those under way; false when there is no room for its head.
    pub(super) fn weigh(&mut self) -> bool {
        self.weight = Weight::default();
        let weight = Weight::of(self.buffer.len());
        weight.map(|weight| self.weight = weight).is_some()
    }

    /// Appends a piece of what has arrived; `Some(0)` is the end of the stream. A small piece: what comes
    /// behind a head is kept as long as its request lasts.
    pub(super) fn receive_now(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let room = scratch.len().min(FIRST_BYTES);
        let received = recv_now(&self.stream, &mut scratch[..room])?;
        if let Some(n) = received {
            self.buffer.extend_from_slice(&scratch[..n]);
        }
        Ok(received)
    }

    /// Appends what arrives within the linger time of the socket; `None` when nothing does.
    pub(super) fn receive_soon(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let room = scratch.len().min(FIRST_BYTES);
        match (&*self.stream).read(&mut scratch[..room]) {
            Ok(n) => {
                self.buffer.extend_from_slice(&scratch[..n]);
                Ok(Some(n))
            }
            Err(e) if is_not_yet(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes from the buffer, else from the socket, into `out`. `step` is told of each step's bytes
    /// and time, and may end it.
    pub(super) fn read_body(
        &mut self,
        out: &mut [u8],
        mut step: impl FnMut(usize, Duration) -> io::Result<Duration>,
    ) -> io::Result<usize> {
        let mut tick = CROWD_TICK;
        if !self.buffer.is_empty() {
            let n = out.len().min(self.buffer.len());
            out[..n].copy_from_slice(&self.buffer[..n]);
            self.consume(n);
            step(n, Duration::ZERO)?;
            return Ok(n);
        }
        loop {
            let start = Instant::now();
            match (&*self.stream).read(out) {
                Ok(n) => {
                    step(n, start.elapsed())?;
                    return Ok(n);
                }
                Err(e) if is_not_yet(&e) => {
                    wait(&*self.stream, false, None, tick)?;
                    tick = step(0, start.elapsed())?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Drops the first `n` bytes of the buffer.
    pub(super) fn consume(&mut self, n: usize) {
        if n == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..n);
        }
        self.scanned = 0;
    }

    /// Writes all of `parts`. `step` is told of each step's bytes and time, says how long the next wait may be,
    /// and may end it.
    pub(super) fn write_all(
        &self,
        mut parts: &mut [IoSlice<'_>],
        mut step: impl FnMut(usize, Duration) -> io::Result<Duration>,
    ) -> io::Result<()> {
        let mut tick = CROWD_TICK;
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let start = Instant::now();
            let written = match &*parts {
                [one] => (&*self.stream).write(one),
                several => (&*self.stream).write_vectored(several),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut parts, n);
                    step(n, start.elapsed())?;
                }
                Err(e) if is_not_yet(&e) => {
                    if wait_to_write(&self.stream, tick)? == Readiness::PeerGone {
                        step(0, Duration::ZERO)?;
                        wait(&*self.stream, true, None, tick)?;
                    }
                    tick = step(0, start.elapsed())?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes the end of the connection a failure the client can see: after this, dropping it resets.
    pub(super) fn cut(&self) {
        close_with_reset(&self.stream);
    }

    /// Says that nothing more comes from us; the client may still be sending.
    pub(super) fn end_writing(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Throws away what has arrived. True while the client may still be sending and `thrown` is
    /// within its bound.
    pub(super) fn discard(&self, scratch: &mut [u8], thrown: &mut usize) -> bool {
        match recv_now(&self.stream, scratch) {
            Ok(Some(0)) | Err(_) => false,
            Ok(Some(n)) => {
                *thrown += n;
                *thrown <= LINGER_BYTES
            }
            Ok(None) => true,
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
