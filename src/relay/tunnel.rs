//! A connection that became another protocol's (WebSocket): bytes pass both ways untouched, each way
//! ends by itself, and an idle tunnel holds no buffer.
use crate::base::stop::StopToken;
use crate::http::{Buffer, Seat, close_with_reset};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// After this long without a byte the grown buffer is given back.
const IDLE_MS: u16 = 10;
/// How often a tunnel that is open one way only, or whose reader takes nothing, looks whether it still has a
/// wrapped server.
const ORPHAN_LOOK_MS: u16 = 1000;
/// After so many looks without one, and without a byte taken, there is no more waiting for that reader.
const ORPHAN_LOOKS: u32 = 10;

/// One way of a tunnel.
struct Way<'s> {
    /// Told of what was sent.
    count: &'s dyn Fn(usize),
    from: &'s TcpStream,
    to: &'s TcpStream,
    /// Read and not yet sent.
    pending: Vec<u8>,
    sent: usize,
    /// `to` takes nothing now, and what is for it waits in the kernel.
    blocked: bool,
    /// `from` has ended.
    ended: bool,
    /// `to` was told so.
    closed: bool,
}

impl<'s> Way<'s> {
    fn new(count: &'s dyn Fn(usize), [from, to]: [&'s TcpStream; 2], pending: Vec<u8>) -> Way<'s> {
        Way { count, from, to, pending, sent: 0, blocked: false, ended: false, closed: false }
    }

    fn wants_to_read(&self) -> bool {
        !self.ended && !self.wants_to_write()
    }

    fn wants_to_write(&self) -> bool {
        self.blocked || !self.pending.is_empty()
    }

    /// Reads a piece and sends what the other side takes of it; the number of bytes read. Of a large
    /// piece only what was sent is taken from the kernel: a slow reader costs us no memory.
    fn read(&mut self, buffer: &mut Buffer) -> nix::Result<usize> {
        let large = buffer.is_grown();
        let buffer = buffer.get();
        let peek = if large { MsgFlags::MSG_PEEK } else { MsgFlags::empty() };
        match recv(self.from.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | peek) {
            Ok(0) => {
                self.ended = true;
                self.close_if_done();
                Ok(0)
            }
            Ok(n) => {
                let sent = self.send(&buffer[..n])?;
                if large {
                    self.drop_received(&mut buffer[..sent])?;
                    self.blocked = sent < n;
                } else if sent < n {
                    self.pending = buffer[sent..n].to_vec();
                    self.sent = 0;
                }
                Ok(n)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// Drops as much of what was received as `place` is long, without copying it there.
    fn drop_received(&self, mut place: &mut [u8]) -> nix::Result<()> {
        while !place.is_empty() {
            match recv(self.from.as_raw_fd(), place, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                // It was there a moment ago, and nobody else reads.
                Ok(0) => return Err(Errno::ECONNRESET),
                Ok(n) => place = &mut place[n..],
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> nix::Result<()> {
        // The next read has what waits.
        self.blocked = false;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.sent += self.send(&self.pending[self.sent..])?;
        if self.sent == self.pending.len() {
            self.pending = Vec::new();
            self.sent = 0;
            self.close_if_done();
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> nix::Result<usize> {
        match send(self.to.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => {
                (self.count)(n);
                Ok(n)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// The end of one side is the end of what we send to the other, and of nothing else.
    fn close_if_done(&mut self) {
        if self.ended && self.pending.is_empty() && !self.closed {
            self.closed = true;
            let _ = self.to.shutdown(Shutdown::Write);
        }
    }
}

/// Carries bytes until both ways have ended, one side failed, or the server ends. What was read ahead of
/// the switch goes first. Of a tunnel that is open one way only, or blocked, it is asked now and then whether
/// it is `orphaned`: it may never end by itself. A blocked one gets some seconds for what is on its way. One
/// that the wrapped server has ended is over after `linger` of silence.
pub(super) fn carry(
    [client, upstream]: [&TcpStream; 2],
    seat: &Seat,
    stopping: &StopToken,
    [from_client, from_upstream]: [Vec<u8>; 2],
    orphaned: &dyn Fn() -> bool,
    linger: Duration,
) -> io::Result<()> {
    let (received, sent) = (|n| seat.meter().received(n), |n| seat.meter().sent(n));
    let mut up = Way::new(&received, [client, upstream], from_client);
    let mut down = Way::new(&sent, [upstream, client], from_upstream);
    let mut buffer = Buffer::default();
    let mut looks = 0;
    let mut quiet_since = Instant::now();
    while !(up.closed && down.closed || stopping.is_set()) {
        let half = up.closed || down.closed;
        let blocked = up.wants_to_write() || down.wants_to_write();
        let timeout = match (half, buffer.is_grown(), blocked) {
            (true, ..) | (_, false, true) => PollTimeout::from(ORPHAN_LOOK_MS),
            (_, true, _) => PollTimeout::from(IDLE_MS),
            (_, false, false) => PollTimeout::NONE,
        };
        let moved = match turn(&mut up, &mut down, seat, &mut buffer, timeout) {
            Ok(0) if half && orphaned() => break,
            Ok(0) if down.closed && quiet_since.elapsed() >= linger => {
                if !blocked {
                    break;
                }
                Err(Errno::ETIMEDOUT)
            }
            Ok(0) => {
                looks = if blocked && !buffer.is_grown() && orphaned() { looks + 1 } else { 0 };
                buffer.shrink();
                if looks < ORPHAN_LOOKS { Ok(()) } else { Err(Errno::ETIMEDOUT) }
            }
            Ok(_) => {
                looks = 0;
                quiet_since = Instant::now();
                Ok(())
            }
            Err(errno) => Err(errno),
        };
        match moved {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(errno) => {
                // As one side failed, so does the other: an orderly end would say that this was all.
                close_with_reset(client);
                close_with_reset(upstream);
                return Err(errno.into());
            }
        }
    }
    Ok(())
}

/// Waits for either side and moves what can be moved; how many sides had news.
fn turn<'s>(
    up: &mut Way<'s>,
    down: &mut Way<'s>,
    seat: &Seat,
    buffer: &mut Buffer,
    timeout: PollTimeout,
) -> nix::Result<i32> {
    let mut polled = [
        PollFd::new(up.from.as_fd(), interest(up, down)),
        PollFd::new(down.from.as_fd(), interest(down, up)),
    ];
    // A side we have ended and want nothing from now may have ended, too, and would tell that for ever.
    let no_news = |out: &Way<'_>, back: &Way<'_>| back.closed && !out.wants_to_read();
    let range = match (no_news(up, down), no_news(down, up)) {
        (true, _) => 1..2,
        (_, true) => 0..1,
        _ => 0..2,
    };
    let ready = poll(&mut polled[range], timeout)?;
    let [client, upstream] = polled.map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
    // What one way waits for is no news for the other: only a failure is for both.
    let (no_write, no_read) = (PollFlags::POLLIN, PollFlags::POLLOUT);
    for (way, from, to) in [(up, client, upstream), (down, upstream, client)] {
        if way.wants_to_write() && !(to - no_write).is_empty() {
            way.write()?;
        } else if way.wants_to_read() && !(from - no_read).is_empty() {
            let n = way.read(buffer)?;
            seat.moved(n);
            buffer.used(n);
        } else if from.contains(PollFlags::POLLERR) {
            // Nobody would read this end's failure: it would wake us for ever.
            return Err(Errno::ECONNRESET);
        }
    }
    Ok(ready)
}

/// What to wait for on the side that `out` reads from and `back` writes to.
fn interest(out: &Way<'_>, back: &Way<'_>) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::POLLIN, out.wants_to_read());
    flags.set(PollFlags::POLLOUT, back.wants_to_write());
    flags
}
