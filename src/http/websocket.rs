//! The server's side of a WebSocket (RFC 6455) on a connection of the front: the handshake, and frames
//! that are sent and received without ever waiting inside a call.
use super::bell::Bell;
use super::exchange::Exchange;
use super::seat::Seat;
use super::socket::close_with_reset;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::error::Error;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Message, Utf8Bytes};

/// Bytes read at a time: clients have little to say.
const READ_BYTES: usize = 4 * 1024;
/// Bytes gathered before a write.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes of a message from a client.
const MESSAGE_BYTES: usize = 64 * 1024;
/// How long a client may take to hear the end and to agree to it.
const FINISH: Duration = Duration::from_secs(2);
/// Bytes it may send meanwhile.
const FINISH_BYTES: usize = 1024 * 1024;

/// What came from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing now.
    Nothing,
    /// A ping or a pong: it is there.
    Sign,
    /// A message, or too much of one.
    Message,
    /// It wants to end, and the answer to that is on its way.
    Close,
    /// The connection is over: both have said so, or it failed.
    Over,
    /// Something that is no WebSocket.
    Broken,
}

/// Why a WebSocket is closed (RFC 6455 section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// 1000: nothing more to come.
    Normal,
    /// 1008: the client did what it may not.
    Policy,
}

/// The socket as tungstenite sees it: nothing blocks, whatever the socket is set to.
#[derive(Debug)]
struct Wire {
    stream: Arc<TcpStream>,
    seat: Seat,
    /// Bytes that the client's end has taken.
    sent: u64,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
        self.seat.meter().received(received);
        Ok(received)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(self.stream.as_raw_fd(), bytes, flags)?;
        self.sent += sent as u64;
        self.seat.meter().sent(sent);
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    inner: tungstenite::WebSocket<Wire>,
    stream: Arc<TcpStream>,
    /// Something is still to be written.
    pending: bool,
    failed: bool,
}

impl WebSocket {
    /// Answers the handshake with this key and takes the connection over. The caller answers
    /// [`Served::Gone`](super::Served::Gone) at its end.
    ///
    /// # Errors
    /// The client is gone.
    pub fn accept(exchange: &mut Exchange<'_>, key: &[u8]) -> io::Result<WebSocket> {
        let stream = Arc::clone(exchange.client());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {}\r\n\r\n",
            derive_accept_key(key)
        );
        (&*stream).write_all(answer.as_bytes())?;
        exchange.seat().meter().answered(101);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let (wire, ahead) = (
            Wire { stream: Arc::clone(&stream), seat: exchange.seat().clone(), sent: 0 },
            exchange.take_ahead(),
        );
        let inner = tungstenite::WebSocket::from_partially_read(wire, ahead, Role::Server, Some(config));
        Ok(WebSocket { inner, stream, pending: false, failed: false })
    }

    /// Takes what the client has sent.
    pub fn receive(&mut self) -> Received {
        if self.failed {
            return Received::Over;
        }
        let received = match self.inner.read() {
            Ok(Message::Ping(_) | Message::Pong(_)) => Received::Sign,
            Ok(Message::Close(_)) => Received::Close,
            Ok(_) | Err(Error::Capacity(_)) => Received::Message,
            Err(Error::Io(error)) if is_not_yet(&error) => return Received::Nothing,
            Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => Received::Over,
            Err(_) => Received::Broken,
        };
        self.failed |= received == Received::Over;
        // A pong or the answer to a close may wait.
        self.flush();
        received
    }

    /// Queues a text message; [`flush`](Self::flush) sends it. The caller queues no more while
    /// [`is_pending`](Self::is_pending) after that.
    pub fn queue_text(&mut self, text: String) {
        self.queue(Message::Text(Utf8Bytes::from(text)));
    }

    /// Queues a ping, likewise.
    pub fn queue_ping(&mut self) {
        self.queue(Message::Ping(Bytes::new()));
    }

    fn queue(&mut self, message: Message) {
        let queued = self.inner.write(message);
        self.note(queued);
        self.pending = true;
    }

    /// Writes what the client takes of what is queued.
    pub fn flush(&mut self) {
        if !self.failed {
            let flushed = self.inner.flush();
            self.note(flushed);
        }
    }

    /// Whether something is still to be written.
    pub fn is_pending(&self) -> bool {
        self.pending && !self.failed
    }

    /// Bytes written so far.
    pub fn sent(&self) -> u64 {
        self.inner.get_ref().sent
    }

    fn note(&mut self, written: Result<(), Error>) {
        match written {
            Ok(()) => self.pending = false,
            Err(Error::Io(error)) if is_not_yet(&error) => self.pending = true,
            Err(Error::ConnectionClosed | Error::Protocol(_)) => self.pending = false,
            Err(_) => self.failed = true,
        }
    }

    /// Waits until the client sends something, takes something that is pending, or the bell rings.
    pub fn wait(&self, bell: &Bell, timeout: Duration) {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, self.is_pending());
        let mut polled =
            [PollFd::new(self.stream.as_fd(), events), PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        // Rounded up: poll(2) counts whole milliseconds.
        let timeout = timeout.saturating_add(Duration::from_millis(1));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => log::warn!("waiting for a WebSocket: {errno}"),
        }
        bell.hush();
    }

    /// Ends it: says why, unless the client was first, and gives the client a moment to take what is queued
    /// and to agree.
    pub fn finish(mut self, reason: Option<CloseReason>) {
        if let Some(reason) = reason {
            let code = match reason {
                CloseReason::Normal => CloseCode::Normal,
                CloseReason::Policy => CloseCode::Policy,
            };
            let closed = self.inner.close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
            self.note(closed);
        }
        let deadline = Instant::now() + FINISH;
        while self.is_pending() && self.poll(PollFlags::POLLOUT, deadline) {
            self.flush();
        }
        if self.is_pending() {
            // Its client takes nothing: an orderly end would wait for that in the kernel.
            return close_with_reset(&self.stream);
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        // Read to the end, as closing with something unread would throw away what we have just sent.
        let mut scratch = [0; READ_BYTES];
        let mut left = FINISH_BYTES;
        while left > 0 && self.poll(PollFlags::POLLIN, deadline) {
            match recv(self.stream.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for one of these; false at the deadline.
    fn poll(&self, events: PollFlags, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        !left.is_zero() && poll(&mut [PollFd::new(self.stream.as_fd(), events)], timeout) != Ok(0)
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_has_its_answer() {
        // RFC 6455 section 1.3.
        assert_eq!(derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
