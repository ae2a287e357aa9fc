//! Whether somebody listens on the wrapped server's port, and answers. Loopback only, every wait
//! bounded. Called by the watcher.
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The pauses between probes: short at first, as most servers start fast.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// A connection over loopback is made at once, unless the listener's queue is full.
const CONNECT: Duration = Duration::from_millis(100);
/// For a whole probe of a path.
const ANSWER: Duration = Duration::from_millis(500);
/// `HTTP/1.1 200`
const STATUS_LINE_BYTES: usize = 12;

pub(super) fn next_pause(pause: Duration) -> Duration {
    (pause * 3 / 2).min(LAST_PAUSE)
}

/// The first loopback address on which a connection is accepted. IPv6 as well: some development
/// servers bind `localhost`, which may mean `::1` alone.
pub(super) fn accepts(port: u16) -> Option<SocketAddr> {
    addresses(port).into_iter().find(|address| connect(*address, CONNECT).is_ok())
}

/// The address that accepts and, given a path, answers `GET path` with 2xx or 3xx.
pub(super) fn probe(port: u16, path: Option<&str>) -> Option<SocketAddr> {
    let Some(path) = path else { return accepts(port) };
    let until = Instant::now() + ANSWER;
    addresses(port)
        .into_iter()
        .find(|address| status(*address, path, until).is_ok_and(|status| (200..400).contains(&status)))
}

fn addresses(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)?;
    // TCP allows a socket to meet itself when nobody listens on a port from the ephemeral range.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

fn status(address: SocketAddr, path: &str, until: Instant) -> io::Result<u16> {
    let mut stream = connect(address, CONNECT)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let port = address.port();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut line, mut filled) = ([0; STATUS_LINE_BYTES], 0);
    while filled < line.len() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut line[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    parse_status(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What is left of a deadline; never zero, which would mean no limit.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn parse_status(line: &[u8; STATUS_LINE_BYTES]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let (version, status) = line.split_once(' ')?;
    (version.starts_with("HTTP/1.") && status.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    status.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(parse_status(b"HTTP/1.1 204"), Some(204));
        assert_eq!(parse_status(b"HTTP/1.0 302"), Some(302));
        for line in [b"HTTP/1.1 20x", b"HTTP/2.0 200", b"HTTP/1.1  20", b"SSH-2.0-Open", b"HTTP/1.1 +20"] {
            assert_eq!(parse_status(line), None);
        }
    }

    #[test]
    fn pauses_grow_to_a_tenth_of_a_second() {
        let mut pause = FIRST_PAUSE;
        for _ in 0..10 {
            pause = next_pause(pause);
        }
        assert_eq!(pause, LAST_PAUSE);
    }
}
