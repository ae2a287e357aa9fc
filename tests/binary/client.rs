//! A client's connection, kept over several requests and read response by response.
use super::{Response, connect, dechunk, field_in};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an orderly close.
    Closed,
    /// With a reset.
    Reset,
}

pub struct Client {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { stream: connect(address), buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request with these complete header lines beside Host.
    pub fn request(&mut self, method: &str, target: &str, fields: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    }

    /// `GET`, and its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, "");
        self.response("GET")
    }

    /// The next response to a request of this method.
    pub fn response(&mut self, method: &str) -> Response {
        loop {
            if let Some(length) = complete(&self.buffer, method) {
                let bytes: Vec<u8> = self.buffer.drain(..length).collect();
                return Response::parse(&bytes, method);
            }
            let end = self.fill();
            assert!(end.is_none(), "{end:?} after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Reads once; tells the end of the connection.
    pub fn fill(&mut self) -> Option<End> {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => Some(End::Closed),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                None
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(e) => panic!("after {:?}: {e}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// Exactly this many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let end = self.fill();
            assert!(end.is_none(), "{end:?}, {} bytes early", count - self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads until what came contains `text`; all of it up to there.
    pub fn take_through(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(text.len()).position(|w| w == text.as_bytes()) {
                let taken: Vec<u8> = self.buffer.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let end = self.fill();
            assert!(end.is_none(), "{end:?} after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Reads until the connection ends; what came stays in the buffer.
    pub fn end(&mut self) -> End {
        loop {
            if let Some(end) = self.fill() {
                return end;
            }
        }
    }

    /// Waits for the connection's end without reading a byte of it.
    pub fn end_unread(&self) -> End {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        // No events asked for: only an error or a complete end is told.
        let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let patience = PollTimeout::try_from(super::PATIENCE).unwrap();
        assert_eq!(poll(&mut polled, patience), Ok(1), "the connection does not end");
        let reset = polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if reset { End::Reset } else { End::Closed }
    }

    /// Whether a byte, or the end, can be read at once.
    pub fn has_data(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }
}

/// How long the response at the start of `bytes` is, if it is whole. One that lasts until the
/// connection ends never is.
fn complete(bytes: &[u8], method: &str) -> Option<usize> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status: u16 = head[9..12].parse().unwrap();
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return Some(end);
    }
    if field_in(&head, "transfer-encoding").is_some() {
        return dechunk(&bytes[end..]).map(|(_, used)| end + used);
    }
    let length: usize = field_in(&head, "content-length")?.parse().unwrap();
    (bytes.len() >= end + length).then_some(end + length)
}
