//! Our own log and the access log: one line a record on standard error, for people or as JSON.
use crate::base::time::rfc3339;
use log::{LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::SystemTime;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, level and text.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// None.
    #[default]
    Off,
    /// Those for us.
    Control,
    /// All.
    All,
}

/// A line of the access log as an object; a line of text has the same in this order. What is not known
/// is null, and `-` in text.
#[derive(Debug, Default, Serialize)]
pub struct AccessLine<'l> {
    /// When; [`access`] fills it in.
    pub time: String,
    /// `ACCESS`; the same.
    pub level: &'l str,
    /// The client's address.
    pub client: &'l str,
    /// What it asked for.
    pub method: Option<&'l str>,
    /// Where, without the query, which may hold secrets.
    pub path: Option<&'l str>,
    /// What it was answered.
    pub status: Option<u16>,
    /// From the complete head of the request to the end of the response, in microseconds.
    pub duration_us: u64,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// What it was about.
    pub class: &'l str,
    /// The request's id.
    pub id: Option<&'l str>,
    /// Who asked, as the edge says.
    pub user: Option<&'l str>,
}

#[derive(Serialize)]
struct Line<'l> {
    time: &'l str,
    level: &'l str,
    message: &'l str,
}

/// Milliseconds that a line waits for a non-blocking standard error that is full.
const FULL_WAIT: u8 = 250;

static FORMAT: OnceLock<Format> = OnceLock::new();

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The HTTP client's records would repeat every header, tokens among them.
        metadata.target().starts_with("simple_artifact_server")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write(record.level().as_str(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Sends the program's log to standard error, from `level` up. The first call counts.
pub fn install(level: LevelFilter, format: Format) {
    let _ = FORMAT.set(format);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}

/// The line that is there whatever the level: `text` is all of it, unless lines are JSON.
pub fn announce(text: &str) {
    match FORMAT.get() {
        Some(Format::Json) => write("INFO", text),
        _ => put(text.as_bytes().to_vec()),
    }
}

/// A line of the access log.
pub fn access(mut line: AccessLine<'_>) {
    (line.time, line.level) = (rfc3339(SystemTime::now()), "ACCESS");
    if FORMAT.get() == Some(&Format::Json) {
        return json(&line);
    }
    let AccessLine { time, level, client, method, path, status, duration_us, received, sent, .. } = &line;
    let (method, path) = (method.unwrap_or("-"), path.unwrap_or("-"));
    let status = status.map_or("-".to_owned(), |status| status.to_string());
    let (class, id) = (line.class, line.id.unwrap_or("-"));
    // Names of people may have spaces, and quotes.
    let user = line.user.map_or("-".to_owned(), |user| format!("{user:?}"));
    let text = format!(
        "{time} {level} {client} {method} {path} {status} {duration_us}us {received} {sent} {class} {id} {user}"
    );
    put(text.into_bytes());
}

/// Whether a line can be written without a wait, or could within so many milliseconds: a pipe with room has room
/// for a page.
pub fn takes_a_line(within_ms: u8) -> bool {
    // Past the standard library's lock, which another thread may hold in a write that waits.
    let stderr = std::io::stderr();
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::from(within_ms)) == Ok(1)
}

fn write(level: &str, message: &str) {
    let now = rfc3339(SystemTime::now());
    match FORMAT.get() {
        Some(Format::Json) => json(&Line { time: &now, level, message }),
        _ => put(format!("{now} {level:5} {message}").into_bytes()),
    }
}

fn json(line: &impl Serialize) {
    // Numbers and strings always serialise.
    put(serde_json::to_vec(line).unwrap_or_default());
}

fn put(mut line: Vec<u8>) {
    line.push(b'\n');
    let mut stderr = std::io::stderr().lock();
    let mut rest = &line[..];
    // One write a line, where it is taken whole; a closed standard error must not end the server.
    while !rest.is_empty() {
        match stderr.write(rest) {
            Ok(0) => return,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Others may have made it non-blocking: it is theirs as well.
            Err(error) if error.kind() == ErrorKind::WouldBlock && takes_a_line(FULL_WAIT) => {}
            Err(_) => return,
        }
    }
}
