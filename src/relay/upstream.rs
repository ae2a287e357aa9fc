//! The HTTP client's transport: plain TCP to the wrapped server, which while it waits also watches
//! the client whose request it carries.
use super::buffers::RelayBuffers;
use super::bulk::Spare;
use super::call::{self, EARLY_PATIENCE, Interruption, check_early};
use super::informational;
use crate::http::{IO_TICK, Readiness, begin_connect, finish_connect, peer_gone, wait};
use crate::supervisor::Life;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// How long the kernel is left alone with an attempt to connect, the first time; each further time is twice as
/// long, up to a second. A full queue tells nobody when it has room again, and the kernel would ask ever more
/// rarely, for minutes.
const FIRST_PATIENCE: Duration = Duration::from_millis(50);
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Connects to one address, whatever the URI says.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) life: Life,
    pub(super) spare: Arc<Spare>,
    /// How long the wrapped server may take for each of its parts of a call.
    pub(super) timeout: Option<Duration>,
}

impl Connector<()> for Upstream {
    type Out = UpstreamTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<UpstreamTransport>, ureq::Error> {
        let stream = match self.spare.take() {
            Some(spare) => spare,
            None => {
                let deadline = deadline(details.timeout);
                let wait = |stream: &TcpStream, at_most| tick(stream, true, at_most, deadline);
                let connected = connect(self.address, &self.life, wait);
                Arc::new(connected.map_err(|e| timed_out(e, details.timeout))?)
            }
        };
        let buffers = RelayBuffers::default();
        Ok(Some(UpstreamTransport { stream, buffers, timeout: self.timeout }))
    }
}

/// A connection to the wrapped server whose reads and writes return after a tick. `wait` waits until a socket
/// can be written, for a time at most, and says whether it can; its error ends the attempt, and so does the end
/// of the wrapped server's life.
pub(super) fn connect(
    address: SocketAddr,
    life: &Life,
    wait: impl Fn(&TcpStream, Duration) -> io::Result<bool>,
) -> io::Result<TcpStream> {
    let mut patience = FIRST_PATIENCE;
    let stream = loop {
        let stream = begin_connect(address)?;
        if is_connected(&stream, patience, &wait)? {
            break finish_connect(stream)?;
        }
        if !life.is_ready() {
            return Err(io::Error::other(Interruption::LifeOver));
        }
        patience = (patience * 2).min(LAST_PATIENCE);
    };
    // TCP allows a socket to meet itself when nobody listens on a port from the ephemeral range.
    if stream.local_addr()? == address {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Waits for that as long as `patience` lasts; also true when it has failed.
fn is_connected(
    stream: &TcpStream,
    patience: Duration,
    wait: impl Fn(&TcpStream, Duration) -> io::Result<bool>,
) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Rounded up: poll(2) counts whole milliseconds.
        if wait(stream, left + Duration::from_millis(1))? {
            return Ok(true);
        }
    }
}

/// One connection to the wrapped server.
pub(super) struct UpstreamTransport {
    stream: Arc<TcpStream>,
    buffers: RelayBuffers,
    timeout: Option<Duration>,
}

impl fmt::Debug for UpstreamTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamTransport").field(&self.stream).finish()
    }
}

/// A wait for the wrapped server ended without data: counts it, and looks whether the client is still there.
/// Then waits again, for as long as the request may, but `at_most` so long; true when the connection is ready.
pub(super) fn tick(
    stream: &TcpStream,
    write: bool,
    at_most: Duration,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    let call = call::with(|call| (call.seat.tick(), Arc::clone(&call.client)));
    let (tick, client) = call.map_or((IO_TICK, None), |(tick, client)| (tick, Some(client)));
    wait_for(stream, write, client.as_deref(), tick.min(at_most), deadline)
}

/// Waits until the connection is ready, for a tick at most; false when it is not. Ends with an error when
/// the client leaves, and at the deadline.
pub(super) fn wait_for(
    stream: &TcpStream,
    write: bool,
    client: Option<&TcpStream>,
    tick: Duration,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    // Rounded up: poll(2) counts whole milliseconds.
    let left = |at: Instant| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    match wait(stream, write, client, deadline.map_or(tick, |at| left(at).min(tick)))? {
        Readiness::PeerGone => Err(io::Error::other(Interruption::ClientGone)),
        Readiness::Timeout if deadline.is_some_and(|at| Instant::now() >= at) => {
            Err(ErrorKind::TimedOut.into())
        }
        readiness => Ok(readiness == Readiness::Ready),
    }
}

/// Looks for what a wait would have told, beside an answer that leaves none.
pub(super) fn look_up(client: &TcpStream, deadline: Option<Instant>) -> io::Result<()> {
    if peer_gone(client) {
        return Err(io::Error::other(Interruption::ClientGone));
    }
    if deadline.is_some_and(|at| Instant::now() >= at) {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(())
}

impl UpstreamTransport {
    /// Sends the request's head, which comes in one piece, or a piece of its body.
    fn send(&mut self, amount: usize, deadline: Option<Instant>) -> io::Result<()> {
        let body = call::with(|call| call.upstream.is_some()).unwrap_or(false);
        if body {
            check_early(&self.stream)?;
        } else {
            restore_authorization(self.buffers.sending(amount));
        }
        // The HTTP client does not bound this part.
        let last_moment = || self.timeout.map(|timeout| Instant::now() + timeout);
        let mut deadline = deadline.or_else(last_moment);
        let mut sent = 0;
        while sent < amount {
            match (&*self.stream).write(&self.buffers.sending(amount)[sent..]) {
                Ok(n) => {
                    sent += n;
                    deadline = last_moment();
                    call::sent(n, &self.stream);
                }
                Err(e) if is_not_yet(&e) => {
                    if body {
                        check_early(&self.stream)?;
                    }
                    let at_most = if body { EARLY_PATIENCE / 4 } else { Duration::MAX };
                    tick(&self.stream, true, at_most, deadline).map_err(call::or_early)?;
                }
                // It stopped reading: it may have said why.
                Err(e) if body && is_closed(&e) => return Err(io::Error::other(Interruption::EarlyResponse)),
                Err(e) => return Err(e),
            }
        }
        if !body {
            self.buffers.head_is_sent();
        }
        Ok(())
    }

    /// Drops informational answers that are here; whether there were some.
    fn drop_informational(&mut self) -> io::Result<bool> {
        let dropped = self.buffers.drop_informational();
        call::with(|call| informational::count(&mut call.informational, dropped)).transpose()?;
        Ok(dropped > 0)
    }

    fn receive(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        if self.buffers.is_full() {
            return Err(io::Error::other("a line of the wrapped server's answer is too long"));
        }
        call::check_form()?;
        if let Some(client) = call::to_look_up() {
            look_up(&client, deadline)?;
        }
        loop {
            call::check_ending()?;
            match (&*self.stream).read(self.buffers.free()) {
                Ok(n) => return Ok(n),
                Err(e) if is_not_yet(&e) => {
                    self.buffers.rest();
                    while !tick(&self.stream, false, Duration::MAX, deadline)? {
                        call::check_ending()?;
                    }
                }
                // The library takes a reset for the end of a body that has no length; it is not.
                Err(e) if is_closed(&e) => {
                    return Err(io::Error::other("the wrapped server reset the connection"));
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Puts the true bytes of an `Authorization` back in the place of what stood for them.
fn restore_authorization(head: &mut [u8]) {
    const NAME: &[u8] = b"\r\nauthorization: ";
    call::with(|call| {
        if let Some(value) = &call.authorization
            && let Some(at) = head.windows(NAME.len()).position(|window| window == NAME)
            && let Some(place) = head.get_mut(at + NAME.len()..at + NAME.len() + value.len())
        {
            place.copy_from_slice(value);
        }
    });
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
        let deadline = deadline(timeout);
        loop {
            let n = self.receive(deadline).map_err(|e| timed_out(e, timeout))?;
            self.buffers.filled(n);
            let in_head = call::with(|call| {
                call.answered |= n > 0;
                call.seat.moved(n);
                call.in_head
            });
            // The HTTP client refuses a 100 that has fields.
            if in_head == Some(true) && self.drop_informational()? && n > 0 && self.buffers.input().is_empty()
            {
                continue;
            }
            return Ok(n > 0);
        }
    }

    fn is_open(&mut self) -> bool {
        self.buffers.input().is_empty() && call::allows(&self.stream)
    }
}
