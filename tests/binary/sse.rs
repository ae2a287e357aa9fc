//! A listener of server-sent events over a plain socket.
use super::{PATIENCE, connect};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub id: u64,
    pub text: String,
    pub data: Value,
}

/// A response without an end of its own, its chunks taken apart.
pub struct Listener {
    pub stream: TcpStream,
    pub head: String,
    raw: Vec<u8>,
    text: Vec<u8>,
    /// Whether the last chunk, which is empty, has come.
    pub finished: bool,
    /// Whether the connection has ended.
    pub closed: bool,
}

impl Listener {
    /// Asks for `target` with these complete header lines, and reads the head of the answer.
    pub fn new(address: SocketAddr, target: &str, fields: &str) -> Listener {
        let stream = connect(address);
        let mut listener = Listener {
            stream,
            head: String::new(),
            raw: Vec::new(),
            text: Vec::new(),
            finished: false,
            closed: false,
        };
        write!(listener.stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").unwrap();
        loop {
            if let Some(at) = listener.raw.windows(4).position(|w| w == b"\r\n\r\n") {
                listener.head = listener.raw.drain(..at + 4).map(char::from).collect();
                break;
            }
            assert!(listener.fill(PATIENCE), "no head: {:?}", String::from_utf8_lossy(&listener.raw));
        }
        assert!(listener.head.starts_with("HTTP/1.1 200 "), "{}", listener.head);
        listener
    }

    /// Reads once; false when the time is over or the connection has ended.
    fn fill(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => self.closed = true,
            Ok(n) => {
                self.raw.extend_from_slice(&piece[..n]);
                return true;
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.closed = true,
        }
        false
    }

    fn take_chunks(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|w| w == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if self.raw.len() < line + 2 + size + 2 {
                return;
            }
            self.text.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
            self.raw.drain(..line + 2 + size + 2);
            self.finished |= size == 0;
        }
    }

    /// The next event, if one comes within this time.
    pub fn next_within(&mut self, time: Duration) -> Option<Event> {
        let until = Instant::now() + time;
        loop {
            self.take_chunks();
            if let Some(end) = self.text.windows(2).position(|w| w == b"\n\n") {
                let text: Vec<u8> = self.text.drain(..end + 2).collect();
                return Some(event(&String::from_utf8(text).unwrap()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.closed || self.finished {
                return None;
            }
            self.fill(left);
        }
    }

    /// The next event that is no heartbeat.
    pub fn next(&mut self) -> Event {
        loop {
            let event = self.next_within(PATIENCE);
            let event = event.unwrap_or_else(|| panic!("no event; closed: {}", self.closed));
            if event.name != "heartbeat" {
                return event;
            }
        }
    }

    /// Events up to the first for which `wanted` holds, which is the last.
    pub fn until(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if wanted(&events[events.len() - 1]) {
                return events;
            }
        }
    }

    /// Events up to the action of this type.
    pub fn until_action(&mut self, kind: &str) -> Vec<Event> {
        self.until(|event| event.data["action"]["type"] == kind)
    }

    /// Reads to the end; whether that was a proper one.
    pub fn end(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while !self.finished && !self.closed {
            assert!(Instant::now() < until, "the stream does not end");
            self.next_within(Duration::from_millis(100));
        }
        self.finished
    }
}

/// An event's lines: its name, one of data, its number, nothing.
fn event(text: &str) -> Event {
    let lines: Vec<&str> = text.split('\n').collect();
    let [name, data, id, "", ""] = lines[..] else { panic!("not an event: {text:?}") };
    let value = |line: &str, field: &str| {
        line.strip_prefix(field).unwrap_or_else(|| panic!("no {field:?} in {text:?}")).to_owned()
    };
    let data = value(data, "data: ");
    let event = Event {
        name: value(name, "event: "),
        id: value(id, "id: ").parse().unwrap(),
        data: serde_json::from_str(&data).unwrap(),
        text: data,
    };
    assert_eq!(event.data["type"], event.name.as_str());
    assert!(event.data["timestamp"].is_u64());
    event
}

/// The state as a client of a stream knows it.
#[derive(Default)]
pub struct Known(pub serde_json::Map<String, Value>);

impl Known {
    /// Takes an event in.
    #[cfg(feature = "runs")]
    pub fn take(&mut self, event: &Event) {
        match event.name.as_str() {
            "state.initial" => self.0 = event.data["slices"].as_object().unwrap().clone(),
            "state.update" => {
                let slice = event.data["slice"].as_str().unwrap();
                let (patches, value) = (event.data.get("patches"), event.data.get("value"));
                assert!(patches.is_some() != value.is_some(), "exactly one: {}", event.text);
                if let Some(patches) = patches {
                    let patch: json_patch::Patch = serde_json::from_value(patches.clone()).unwrap();
                    assert!(!patch.0.is_empty());
                    json_patch::patch(self.0.get_mut(slice).unwrap(), &patch).unwrap();
                } else {
                    self.0.insert(slice.to_owned(), value.unwrap().clone());
                }
            }
            _ => {}
        }
    }
}
