//! Our own log and the access log: one line a record on standard error, for people or as JSON.
use crate::base::lock::lock;
use crate::base::outlet::{has_room, write_now};
use crate::base::time::rfc3339;
use log::{LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use serde::Serialize;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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

/// How long a line waits for a standard error that is full. Then it is lost: whoever logs has others waiting
/// for it.
const FULL_WAIT: Duration = Duration::from_millis(250);

/// How long writing a line takes, at most, where there is room for it.
const WRITE_TIME: Duration = Duration::from_millis(1);

/// Nobody took the last line in that time: the next ones do not wait.
static STALLED: AtomicBool = AtomicBool::new(false);

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

/// A line of the access log. One that may not wait is lost where a slow reader leaves no room for it, or where
/// others are written for so long.
pub fn access(mut line: AccessLine<'_>, may_wait: bool) {
    let put = |line| put_within(line, if may_wait { FULL_WAIT } else { Duration::ZERO });
    (line.time, line.level) = (rfc3339(SystemTime::now()), "ACCESS");
    if FORMAT.get() == Some(&Format::Json) {
        return put(json(&line));
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

fn write(level: &str, message: &str) {
    let now = rfc3339(SystemTime::now());
    match FORMAT.get() {
        Some(Format::Json) => put(json(&Line { time: &now, level, message })),
        _ => put(format!("{now} {level:5} {message}").into_bytes()),
    }
}

fn json(line: &impl Serialize) -> Vec<u8> {
    // Numbers and strings always serialise.
    serde_json::to_vec(line).unwrap_or_default()
}

fn put(line: Vec<u8>) {
    put_within(line, FULL_WAIT);
}

/// Who writes to standard error: lines do not mix, however long they are.
struct Desk {
    taken: bool,
    /// Who has it waits for room.
    waits: bool,
    /// The last line was not written to its end.
    cut: bool,
}

static DESK: Mutex<Desk> = Mutex::new(Desk { taken: false, waits: false, cut: false });
static DESK_IS_FREE: Condvar = Condvar::new();

/// The one who writes.
struct Turn {
    /// The line before, or as much as is written of this one, has no end.
    cut: bool,
}

impl Turn {
    /// The turn, if it comes in this time. Who has no time waits for a line that is being written, but not for
    /// one that waits for room.
    fn take(within: Duration) -> Option<Turn> {
        let others = |desk: &mut Desk| desk.taken && !(desk.waits && within.is_zero());
        let desk = DESK_IS_FREE.wait_timeout_while(lock(&DESK), within.max(WRITE_TIME), others);
        let (mut desk, _) = desk.unwrap_or_else(PoisonError::into_inner);
        if desk.taken {
            return None;
        }
        desk.taken = true;
        Some(Turn { cut: desk.cut })
    }

    /// Waits so long for room; whether there is some.
    fn wait_for_room(&self, within: Duration) -> nix::Result<bool> {
        lock(&DESK).waits = true;
        let room = has_room(io::stderr().as_fd(), PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO));
        lock(&DESK).waits = false;
        room
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&DESK) = Desk { taken: false, waits: false, cut: self.cut };
        DESK_IS_FREE.notify_one();
    }
}

fn put_within(mut line: Vec<u8>, wait: Duration) {
    line.push(b'\n');
    let Some(mut turn) = Turn::take(wait) else { return };
    if turn.cut {
        line.insert(0, b'\n');
    }
    let mut until = None;
    let mut rest = &line[..];
    while !rest.is_empty() {
        match write_now(io::stderr().as_fd(), rest) {
            Ok(written @ 1..) => {
                rest = &rest[written..];
                turn.cut = !rest.is_empty();
                STALLED.store(false, Ordering::Relaxed);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if !STALLED.load(Ordering::Relaxed) => {
                let until = *until.get_or_insert_with(|| Instant::now() + wait);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                STALLED.store(turn.wait_for_room(left) == Ok(false), Ordering::Relaxed);
            }
            // A closed standard error must not end the server.
            _ => return,
        }
    }
}
