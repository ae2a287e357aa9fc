//! Clients of the exec routes: one that plays the contract's reference client by its rules, and one
//! that takes a stream event by event.
use super::{PATIENCE, Response, Server, connect, send};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub const TOKEN: &str = "correct-horse";
pub const ADMIN: &str = "Authorization: Bearer correct-horse\r\n";
const JSON: &str = "Content-Type: application/json\r\nAccept: text/event-stream\r\n";

/// A server whose callers may run anything.
pub fn server(flags: &[&str]) -> Server {
    with_program("any", flags)
}

/// A server whose callers may run this program.
pub fn with_program(program: &str, flags: &[&str]) -> Server {
    let flags = [&["--exec", program], flags].concat();
    Server::start_with(super::IDLE, super::unused_port(), &flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    })
}

/// `sh -c SCRIPT`.
pub fn sh(script: &str) -> Value {
    json!({"args": ["sh", "-c", script]})
}

/// `request` with further fields.
pub fn with(mut request: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("no object") };
    request.as_object_mut().unwrap().extend(fields);
    request
}

/// One event of a stream.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: Value,
}

impl Event {
    pub fn kind(&self) -> &str {
        self.data["type"].as_str().unwrap_or_default()
    }
}

/// What the reference client makes of a stream: only events named `cli` count, what cannot be parsed
/// is passed over, the result is 0 until an `exit_code` says otherwise, the last one counts, and
/// nothing but the end of the body ends it.
#[derive(Debug, Default)]
pub struct Seen {
    pub stdout: String,
    pub stderr: String,
    pub errors: Vec<String>,
    pub exit: i64,
    /// The status or type was not the contract's, or the connection broke off.
    pub connection_error: bool,
    /// Types of events in their order, runs of the same one joined.
    pub kinds: Vec<String>,
    pub exit_codes: usize,
    /// The last event.
    pub last: Value,
}

impl Seen {
    pub fn take(&mut self, event: &Event) {
        if event.name != "cli" {
            return;
        }
        let data = &event.data;
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        match event.kind() {
            "stdout" => self.stdout.push_str(text("data")),
            "stderr" => self.stderr.push_str(text("data")),
            "error" => self.errors.push(text("message").to_owned()),
            "exit_code" => {
                self.exit = data["code"].as_i64().unwrap();
                self.exit_codes += 1;
            }
            "started" => assert!(data["pid"].is_u64() && data["run_id"].is_string(), "{data}"),
            _ => return,
        }
        if self.kinds.last().is_none_or(|last| last != event.kind()) {
            self.kinds.push(event.kind().to_owned());
        }
        self.last = data.clone();
    }

    /// The types in one line.
    pub fn sequence(&self) -> String {
        self.kinds.join(" ")
    }

    fn of(mut live: Live) -> Seen {
        let mut seen = Seen::default();
        if !live.head.starts_with("HTTP/1.1 200 ") || !live.head.contains("content-type: text/event-stream") {
            return Seen { exit: 1, connection_error: true, ..seen };
        }
        while let Some(event) = live.next() {
            seen.take(&event);
        }
        if live.cut {
            return Seen { exit: 1, connection_error: true, ..seen };
        }
        seen
    }
}

/// Runs a request to its end as the reference client would, on `POST /_frag/exec`.
pub fn run(server: &Server, request: &Value) -> Seen {
    Seen::of(start(server, request))
}

/// The same at another place.
pub fn run_at(address: SocketAddr, target: &str, fields: &str, request: &Value) -> Seen {
    Seen::of(Live::open(address, "POST", target, &format!("{fields}{JSON}"), request.to_string().as_bytes()))
}

/// Starts a run and takes its events as they come.
pub fn start(server: &Server, request: &Value) -> Live {
    let fields = format!("{ADMIN}{JSON}");
    Live::open(server.address, "POST", "/_frag/exec", &fields, request.to_string().as_bytes())
}

/// A run whose one answer is JSON.
pub fn reply(server: &Server, request: Value) -> Value {
    let answer = post(server, &with(request, json!({"stream": false})).to_string());
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    answer.json()
}

/// A body sent as it is.
pub fn post(server: &Server, body: &str) -> Response {
    server.send("POST", "/_frag/exec", &format!("{ADMIN}{JSON}"), body.as_bytes())
}

/// A request of an admin below `/_frag/exec`.
pub fn admin(server: &Server, method: &str, below: &str, body: &[u8]) -> Response {
    send(server.address, method, &format!("/_frag/exec{below}"), ADMIN, body)
}

/// Follows a run from somewhere.
pub fn follow(server: &Server, run_id: &str, query: &str, fields: &str) -> Live {
    let target = format!("/_frag/exec/{run_id}{query}");
    Live::open(server.address, "GET", &target, &format!("{ADMIN}{fields}"), b"")
}

/// What is listed of a run.
pub fn summary(server: &Server, run_id: &str) -> Value {
    let list = admin(server, "GET", "", b"").json();
    let runs = list["runs"].as_array().unwrap();
    runs.iter().find(|run| run["run_id"] == run_id).cloned().unwrap_or(Value::Null)
}

/// A stream as it comes.
pub struct Live {
    pub stream: TcpStream,
    pub head: String,
    /// Comments passed over.
    pub comments: usize,
    /// It broke off before its end.
    pub cut: bool,
    raw: Vec<u8>,
    text: Vec<u8>,
    /// How much of it has no end of an event.
    scanned: usize,
    /// Bytes of the current chunk still to come, with its line end.
    chunk: usize,
    ended: bool,
}

impl Live {
    pub fn open(address: SocketAddr, method: &str, target: &str, fields: &str, body: &[u8]) -> Live {
        let mut stream = connect(address);
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{fields}\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut live = Live {
            stream,
            head: String::new(),
            comments: 0,
            cut: false,
            raw: Vec::new(),
            text: Vec::new(),
            scanned: 0,
            chunk: 0,
            ended: false,
        };
        let end = loop {
            if let Some(at) = live.raw.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(live.receive(), "no head");
        };
        live.head = String::from_utf8(live.raw.drain(..end).collect()).unwrap().to_ascii_lowercase();
        live.head = live.head.replacen("http/1.1", "HTTP/1.1", 1);
        live
    }

    fn receive(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(n) => {
                self.raw.extend_from_slice(&piece[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => false,
            Err(e) => panic!("nothing for {PATIENCE:?}: {e}"),
        }
    }

    /// Takes chunks apart; false once there are no more.
    fn fill(&mut self) -> bool {
        loop {
            if self.ended {
                return false;
            }
            if self.chunk > 2 && !self.raw.is_empty() {
                let n = self.raw.len().min(self.chunk - 2);
                self.text.extend(self.raw.drain(..n));
                self.chunk -= n;
                return true;
            }
            if self.chunk > 0 && self.chunk <= 2 && self.raw.len() >= 2 {
                self.raw.drain(..2);
                self.chunk = 0;
            }
            if self.chunk == 0
                && let Some(line) = self.raw.windows(2).position(|w| w == b"\r\n")
            {
                let size = std::str::from_utf8(&self.raw[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                self.raw.drain(..line + 2);
                self.chunk = size + 2;
                self.ended = size == 0;
                continue;
            }
            if !self.receive() {
                self.ended = true;
                self.cut = true;
            }
        }
    }

    /// The next event; none at the end of the body.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let found = self.text[self.scanned..].windows(2).position(|w| w == b"\n\n");
            if let Some(end) = found.map(|at| self.scanned + at) {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                self.scanned = 0;
                let block = String::from_utf8(block).unwrap();
                if block.starts_with(':') {
                    self.comments += 1;
                    continue;
                }
                let mut lines = block.lines();
                let mut field = |name: &str| {
                    let line = lines.next().unwrap_or_default();
                    line.strip_prefix(name).unwrap_or_else(|| panic!("{name:?} in {block:?}")).to_owned()
                };
                let (id, name, data) = (field("id: "), field("event: "), field("data: "));
                let data = serde_json::from_str(&data).unwrap();
                return Some(Event { id, name, data });
            }
            self.scanned = self.text.len().saturating_sub(1);
            if !self.fill() {
                assert!(self.text.is_empty() || self.cut, "{:?}", String::from_utf8_lossy(&self.text));
                return None;
            }
        }
    }

    /// The next event, which is of this type.
    pub fn expect(&mut self, kind: &str) -> Event {
        let event = self.next().unwrap_or_else(|| panic!("the stream ended before {kind}"));
        assert_eq!(event.kind(), kind, "{event:?}");
        event
    }

    /// The `started` event's run id and pid.
    pub fn started(&mut self) -> (String, i32) {
        let event = self.expect("started");
        let id = event.data["run_id"].as_str().unwrap().to_owned();
        (id, event.data["pid"].as_i64().unwrap() as i32)
    }

    /// The rest of it, as the reference client sees it.
    pub fn rest(self) -> Seen {
        Seen::of(self)
    }
}
