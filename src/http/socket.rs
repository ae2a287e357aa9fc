//! What the standard library's sockets lack: a backlog, timeouts a listener hands down, waiting for
//! one of several things, looking without taking.
use super::limits::{CROWD_TICK, STREAM_AFTER};
use super::unsent::bound_unsent;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, listen, recv,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// One blocking step of I/O: after it the waits are counted, deadlines looked at, peers checked.
pub const IO_TICK: Duration = STREAM_AFTER;

/// How long a worker waits on a connection for the next request (the kernel rounds up to its tick). It
/// costs a thread that has nothing else to do; 20 ms gave about a tenth more requests than 2 ms, at 16
/// connections and at 128, on a noisy machine.
const LINGER: Duration = Duration::from_millis(20);

/// When the kernel asks a silent client whether it is still there, how often, and how many times in vain: `tcp(7)`.
/// With the usual two hours one that vanished would keep a thread as long where no time of ours runs.
const KEEP_ALIVE_IDLE_SECONDS: u32 = 60;
const KEEP_ALIVE_INTERVAL_SECONDS: u32 = 10;
const KEEP_ALIVE_PROBES: u32 = 3;

/// Connections the kernel queues for us; with the usual 128 a burst of 500 takes seconds.
const BACKLOG: i32 = 4096;

/// Bytes the kernel keeps for a client of a stream that does not read, times two.
#[cfg(any(feature = "runs", feature = "workers"))]
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Opens a listening socket. What is set here, accepted connections inherit.
pub(super) fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family(address), SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_SECONDS)?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &KEEP_ALIVE_INTERVAL_SECONDS)?;
    setsockopt(&fd, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &timeval(LINGER))?;
    setsockopt(&fd, sockopt::SendTimeout, &timeval(CROWD_TICK))?;
    bound_unsent(&fd);
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
    Ok(fd.into())
}

/// Begins to connect, without waiting: the socket can be written once it is connected or has failed.
///
/// # Errors
/// Those of `socket(2)` and `connect(2)`.
pub fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family(address), SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(fd.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// What begun there has come to: a connection whose reads and writes return after a tick.
///
/// # Errors
/// Why it failed.
pub fn finish_connect(stream: TcpStream) -> io::Result<TcpStream> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    setsockopt(&stream, sockopt::TcpNoDelay, &true)?;
    setsockopt(&stream, sockopt::ReceiveTimeout, &timeval(CROWD_TICK))?;
    setsockopt(&stream, sockopt::SendTimeout, &timeval(IO_TICK))?;
    Ok(stream)
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn timeval(duration: Duration) -> TimeVal {
    TimeVal::microseconds(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// What [`wait`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The first socket is ready (or failed, which the next call on it will tell).
    Ready,
    /// The watched peer has gone.
    PeerGone,
    /// Neither, in that time.
    Timeout,
}

/// Waits until `socket` can be read (or written), for at most `timeout`. If `peer` is given, its going
/// away ends the wait too: its data does not, or pipelined requests would spin us.
///
/// # Errors
/// Those of `poll(2)`, except EINTR.
pub fn wait(
    socket: &impl AsFd,
    write: bool,
    peer: Option<&TcpStream>,
    timeout: Duration,
) -> io::Result<Readiness> {
    let events = if write { PollFlags::POLLOUT } else { PollFlags::POLLIN };
    // nix does not name this one; what it cannot name it reports as None.
    let hang_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let watched = peer.map_or(socket.as_fd(), AsFd::as_fd);
    let mut both = [PollFd::new(socket.as_fd(), events), PollFd::new(watched, hang_up)];
    let used = if peer.is_some() { 2 } else { 1 };
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
        match poll(&mut both[..used], PollTimeout::from(ms)) {
            Ok(0) | Err(Errno::EINTR) if left.as_millis() > u128::from(u16::MAX) => {}
            Ok(0) => return Ok(Readiness::Timeout),
            Ok(_) => {
                let [first, second] = &both;
                return Ok(match (first.any(), used == 2 && second.revents() != Some(PollFlags::empty())) {
                    (Some(true), _) => Readiness::Ready,
                    (_, true) => Readiness::PeerGone,
                    _ => Readiness::Timeout,
                });
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits until the client takes more, for at most `timeout`. Its end, which may be its own word (it has said all
/// it wants to say) or feigned to wake us, ends the wait, too.
///
/// # Errors
/// Those of `poll(2)`, except EINTR.
pub(super) fn wait_to_write(client: &TcpStream, timeout: Duration) -> io::Result<Readiness> {
    wait(client, true, Some(client), timeout)
}

/// What stands at the front of a socket's receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Nothing; the connection is open.
    Nothing,
    /// This many bytes, up to the size of the buffer.
    Bytes(usize),
    /// The peer has closed, or the connection failed.
    Closed,
}

/// Looks at what is to be read without taking it or waiting for it.
pub fn peek(stream: &TcpStream, buffer: &mut [u8]) -> Peek {
    match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Peek::Closed,
        Ok(n) => Peek::Bytes(n),
        Err(Errno::EAGAIN | Errno::EINTR) => Peek::Nothing,
        Err(_) => Peek::Closed,
    }
}

/// Makes the last close of a socket a reset; what is still to be sent is thrown away.
pub fn close_with_reset(stream: &TcpStream) {
    // Fails on a broken socket only, which has no orderly end anyway.
    let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Bounds what the kernel keeps for a client that does not read; else that grows to megabytes.
#[cfg(any(feature = "runs", feature = "workers"))]
pub fn bound_send_buffer(stream: &TcpStream) {
    // Fails on a broken socket only, which the next write will tell of.
    let _ = setsockopt(stream, sockopt::SndBuf, &SEND_BUFFER_BYTES);
}

/// Reads what is there; `None` when nothing is yet.
pub(super) fn recv_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(n) => Ok(Some(n)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the peer has closed its side, or the connection failed.
pub fn peer_gone(stream: &TcpStream) -> bool {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
    match poll(&mut watched, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => false,
        Ok(_) | Err(_) => true,
    }
}
