//! Runs the real binary for a test, with a wrapped server the test plays itself.
//!
//! The wrapped server's port is bound from the start, so nobody else gets it, and listens only once
//! the binary has spawned its command: so the test holds the wrapped server's end of every connection.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(feature = "runs")]
pub mod agent;
pub mod client;
pub mod exec;
pub mod sse;
pub mod tunnel;
pub mod websocket;
pub mod workers;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket,
    sockopt,
};

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs until it is told to end, and does not listen.
pub const IDLE: &str = "sleep 1000";

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A port that is ours until the test process ends. It refuses connections until somebody
/// [`listen`](Self::listen)s, or binds a listener to its number.
pub struct Reserved {
    pub port: u16,
}

impl Reserved {
    pub fn new() -> Reserved {
        let guard = bound(0);
        let port = getsockname::<SockaddrIn>(guard.as_raw_fd()).unwrap().port();
        // Whatever asks for any port gets another as long as this one is bound: a test may drop its
        // listener and bind a second one later.
        std::mem::forget(guard);
        Reserved { port }
    }

    pub fn listen(self) -> TcpListener {
        let socket = bound(self.port);
        listen(&socket, Backlog::new(1024).unwrap()).unwrap();
        socket.into()
    }
}

/// A socket that leaves its address to others that ask for just this one, while none of them listens.
fn bound(port: u16) -> OwnedFd {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    socket
}

/// A running binary; killed on drop.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub control: Option<SocketAddr>,
    pub root: tempfile::TempDir,
    pub log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts the binary around `command`, in an empty root, on free ports, with further flags.
    pub fn start(command: &str, app_port: u16, flags: &[&str]) -> Server {
        Self::start_with(command, app_port, flags, |_| {})
    }

    /// The same, with a look at the command before it runs (environment, user).
    pub fn start_with(
        command: &str,
        app_port: u16,
        flags: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Server {
        let root = tempfile::tempdir().unwrap();
        let mut binary = Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FRAG_") {
                binary.env_remove(name);
            }
        }
        binary
            .args(["--command", command, "--host", "127.0.0.1", "--port", "0"])
            .args(["--subprocess-port", &app_port.to_string()])
            .arg("--root")
            .arg(root.path())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        prepare(&mut binary);
        let mut child = binary.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let first = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            said.push_str(&line);
            if line.contains("listening on") {
                break line;
            }
        };
        let mut addresses = first.split("http://").skip(1).map(|rest| {
            let end = rest.find([',', ' ', '\n']).unwrap_or(rest.len());
            rest[..end].parse::<SocketAddr>().unwrap()
        });
        let (address, control) = (addresses.next().unwrap(), addresses.next());
        let log = Arc::new(Mutex::new(said));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap_or(0) > 0 {
                sink.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Server { child, address, control, root, log }
    }

    /// The same, by a user to whom something is closed: to root nothing is.
    pub fn start_unprivileged(command: &str, app_port: u16, flags: &[&str]) -> Server {
        Self::start_with(command, app_port, flags, |binary| {
            if nix::unistd::geteuid().is_root() {
                let root = binary.get_args().skip_while(|word| *word != "--root").nth(1).unwrap();
                std::os::unix::fs::chown(root, Some(65534), None).unwrap();
                std::os::unix::process::CommandExt::uid(binary, 65534);
            }
        })
    }

    /// Starts the binary with a wrapped server that the test plays: `backend` gets its listener once
    /// the binary takes it for ready.
    pub fn with_backend(flags: &[&str]) -> (Server, TcpListener) {
        let reserved = Reserved::new();
        let server = Self::start(IDLE, reserved.port, flags);
        let listener = server.give_listener(reserved);
        (server, listener)
    }

    /// Lets the reserved port listen after the command runs, and waits for readiness.
    pub fn give_listener(&self, reserved: Reserved) -> TcpListener {
        let listener = self.open_listener(reserved);
        eventually("ready", || self.status().contains("\"ready\":true"));
        // What the readiness probes left behind.
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {}
        listener.set_nonblocking(false).unwrap();
        listener
    }

    /// Lets the reserved port listen after the command runs. Its first connections are readiness probes
    /// or requests that waited.
    pub fn open_listener(&self, reserved: Reserved) -> TcpListener {
        eventually("the command runs", || {
            self.status().contains("\"pid\":") && !self.status().contains("\"pid\":null")
        });
        reserved.listen()
    }

    /// The body of `GET /_frag/status`, without credentials.
    pub fn status(&self) -> String {
        self.get("/_frag/status", "").body_text()
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends raw bytes on a new connection and reads until the server closes it.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may refuse before all is sent.
        let _ = stream.write_all(bytes);
        read_to_end(&mut stream)
    }

    /// One request on its own connection; `fields` are complete lines.
    pub fn send(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Response {
        send(self.address, method, target, fields, body)
    }

    pub fn get(&self, target: &str, fields: &str) -> Response {
        self.send("GET", target, fields, b"")
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Tells it to end and waits; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        self.wait()
    }

    /// Waits for its end; its exit code, None for a signal.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }
}

impl Drop for Server {
    #[allow(clippy::print_stderr, reason = "it is what a failed test prints")]
    fn drop(&mut self) {
        // SIGTERM first, so that its children end with it.
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(log) = self.log.try_lock()
        {
            eprintln!("the server said:\n{log}");
        }
    }
}

/// Whether the other side has closed or reset, whatever is still to be read.
pub fn peer_closed(stream: &TcpStream) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    // POLLRDHUP, which nix does not name.
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::from_bits_retain(0x2000))];
    poll(&mut watched, PollTimeout::ZERO) == Ok(1)
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn send(address: SocketAddr, method: &str, target: &str, fields: &str, body: &[u8]) -> Response {
    let mut stream = connect(address);
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}{fields}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    Response::parse(&read_to_end(&mut stream), method)
}

/// All bytes until the other side closes or resets.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            // With a timeout set, a machine that was suspended meanwhile gives this without a signal.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => panic!("after {:?}: {e}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// A complete response, body decoded.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// What came after the response on the connection.
    pub rest: Vec<u8>,
}

impl Response {
    pub fn parse(bytes: &[u8], method: &str) -> Response {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes))) + 4;
        let head: String = bytes[..end].iter().map(|&b| b as char).collect();
        let status = head[9..12].parse().unwrap();
        let after = &bytes[end..];
        let field = |name: &str| field_in(&head, name);
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let (body, used) = if bodiless {
            (Vec::new(), 0)
        } else if field("transfer-encoding").as_deref() == Some("chunked") {
            dechunk(after).unwrap_or_else(|| panic!("a cut chunked body: {head}"))
        } else if let Some(length) = field("content-length") {
            let length: usize = length.parse().unwrap();
            assert!(after.len() >= length, "a cut body: {head} {}", after.len());
            (after[..length].to_vec(), length)
        } else {
            (after.to_vec(), after.len())
        };
        Response { status, head, body, rest: after[used..].to_vec() }
    }

    /// The value of a field, if it is there exactly once.
    pub fn field(&self, name: &str) -> Option<String> {
        field_in(&self.head, name)
    }

    /// All values of a field.
    pub fn fields(&self, name: &str) -> Vec<String> {
        fields_in(&self.head, name)
    }

    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body_text()))
    }

    /// `error.code` of the body, or `code` in the shape of the contracts that have it there.
    pub fn code(&self) -> String {
        let json = self.json();
        json["error"]["code"].as_str().or(json["code"].as_str()).unwrap_or_default().to_owned()
    }
}

fn fields_in(head: &str, name: &str) -> Vec<String> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).collect()
}

fn field_in(head: &str, name: &str) -> Option<String> {
    let mut values = fields_in(head, name);
    if values.len() == 1 { values.pop() } else { None }
}

fn dechunk(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, whole) = (Vec::new(), bytes.len());
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        bytes = &bytes[line + 2..];
        if bytes.len() < size + 2 {
            return None;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
        if size == 0 {
            return Some((body, whole - bytes.len()));
        }
    }
}

/// A request as the wrapped server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap()
    }

    pub fn field(&self, name: &str) -> Option<String> {
        field_in(&self.head, name)
    }

    pub fn fields(&self, name: &str) -> Vec<String> {
        fields_in(&self.head, name)
    }
}

/// One connection of the wrapped server's, read request by request.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn accept(listener: &TcpListener) -> Wire {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::from(PATIENCE.as_millis() as u16);
        assert_eq!(poll(&mut watched, patience), Ok(1), "nobody connects");
        Wire::new(listener.accept().unwrap().0)
    }

    pub fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
        }
    }

    /// The next request's head; None when the connection ended instead.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).map(|b| b as char).collect();
                return Some(head);
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "a cut head: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        }
    }

    /// The next request with its whole body; None when the connection ended instead of a request.
    pub fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        let body = if field_in(&head, "transfer-encoding").as_deref() == Some("chunked") {
            loop {
                if let Some((body, used)) = dechunk(&self.buffer) {
                    self.buffer.drain(..used);
                    break body;
                }
                assert!(self.fill(), "a cut chunked body after {head}");
            }
        } else {
            let length = field_in(&head, "content-length").map_or(0, |l| l.parse().unwrap());
            while self.buffer.len() < length {
                assert!(self.fill(), "a cut body after {head}");
            }
            self.buffer.drain(..length).collect()
        };
        Some(Seen { head, body })
    }

    /// Exactly this many bytes, from what was read beyond the last head on.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "ended {} bytes early", count - self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Throws away what was read beyond the last head; how much that was.
    pub fn take_buffered(&mut self) -> usize {
        std::mem::take(&mut self.buffer).len()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn close(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Plays a wrapped server on its own threads: answers every request with `answer`'s bytes and keeps
/// what it saw. A connection ends when `answer` returns nothing.
pub fn play(
    listener: TcpListener,
    answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
) -> Arc<Mutex<Vec<Seen>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (record, answer) = (Arc::clone(&seen), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while let Some(request) = wire.request() {
                    let bytes = answer(&request);
                    record.lock().unwrap().push(request);
                    if bytes.is_empty() {
                        return;
                    }
                    wire.write(&bytes);
                }
            });
        }
    });
    seen
}

/// `200 OK` with this body.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A port on which nobody ever listens.
pub fn unused_port() -> u16 {
    Reserved::new().port
}
