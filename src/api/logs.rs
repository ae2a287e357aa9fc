//! The wrapped server's output: the last lines at once, or every further one as it comes.
use super::Api;
use super::query::Query;
use crate::base::time::rfc3339;
use crate::http::{Exchange, HttpError, Served, peer_gone, sse};
use crate::supervisor::{LogLine, LogStream};
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

/// How often a follower looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(500);
/// After this long without a line a keep-alive comment goes out.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
struct LineJson<'l> {
    id: u64,
    at: String,
    stream: &'static str,
    text: &'l str,
}

fn json(line: &LogLine) -> Vec<u8> {
    let stream = match line.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::System => "system",
    };
    let json = LineJson { id: line.id, at: rfc3339(line.at), stream, text: &line.text };
    // Numbers and strings always serialise.
    serde_json::to_vec(&json).unwrap_or_default()
}

/// What was asked for.
struct Wanted {
    stream: Option<LogStream>,
    follow: bool,
    events: bool,
    /// The id of the last line the client has, when it resumes.
    after: Option<u64>,
    tail: Option<usize>,
}

impl Wanted {
    fn of(exchange: &Exchange<'_>) -> Result<Wanted, HttpError> {
        let bad = |what: &str| HttpError::new(400, "bad_parameter", what);
        let head = exchange.head();
        let query = Query::parse(head.query());
        let number = |text: &str| text.parse::<u64>().ok();
        let stream = match query.get("stream")? {
            None | Some("") => None,
            Some("stdout") => Some(LogStream::Stdout),
            Some("stderr") => Some(LogStream::Stderr),
            Some("system") => Some(LogStream::System),
            Some(_) => return Err(bad("parameter `stream` is not stdout, stderr or system")),
        };
        let tail = query.get("tail")?.map(|text| number(text).ok_or(bad("parameter `tail` is not a number")));
        let last = head.get("last-event-id").map(|id| std::str::from_utf8(id).ok().and_then(number));
        let after = match last {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(bad("Last-Event-ID is not one of ours")),
        };
        let events = head.get_all("accept").any(|accept| accept.starts_with(b"text/event-stream"));
        Ok(Wanted {
            stream,
            follow: query.flag("follow")? || events,
            events,
            after,
            tail: tail.transpose()?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        })
    }

    fn takes(&self, line: &LogLine) -> bool {
        self.stream.is_none_or(|stream| stream == line.stream)
    }

    fn append(&self, out: &mut Vec<u8>, line: &LogLine) {
        if self.events {
            sse::write_event(out, line.id, None, &json(line));
        } else {
            out.extend_from_slice(&json(line));
            out.push(b'\n');
        }
    }
}

/// `GET logs`: JSON lines, or server-sent events for who accepts them.
pub(super) fn serve(api: &Api, exchange: &mut Exchange<'_>) -> Result<Served, HttpError> {
    let wanted = Wanted::of(exchange)?;
    if wanted.follow {
        exchange.seat().leave_pool()?;
    }
    let client = std::sync::Arc::clone(exchange.client());
    let stopping = exchange.stopping();
    let mut head = exchange.begin(200);
    let content_type: &[u8] = if wanted.events { b"text/event-stream" } else { b"application/x-ndjson" };
    head.field(b"content-type", content_type);
    head.field(b"cache-control", b"no-store");
    let mut writer = head.body(None);
    let written = (|| -> io::Result<()> {
        let mut out = Vec::new();
        let mut last = first_lines(api, &wanted, &mut out);
        writer.write(&out)?;
        writer.flush()?;
        let mut spoke = Instant::now();
        while wanted.follow && writer.has_body() && !stopping.is_set() && !peer_gone(&client) {
            let closed = api.supervisor.logs().is_closed();
            let (lines, first) = api.supervisor.logs().after(last, LOOK);
            let was_last = closed && lines.is_empty();
            out.clear();
            append_lines(&wanted, &mut last, lines, first, &mut out);
            if out.is_empty() && wanted.events && spoke.elapsed() >= KEEP_ALIVE {
                out.extend_from_slice(sse::KEEP_ALIVE);
            }
            if !out.is_empty() {
                writer.write(&out)?;
                spoke = Instant::now();
            }
            if was_last {
                break;
            }
        }
        writer.finish()
    })();
    Ok(if written.is_ok() { Served::Done } else { Served::Gone })
}

/// Appends the lines that come after `last`, the first of which that is kept being `first`.
fn append_lines(wanted: &Wanted, last: &mut u64, lines: Vec<LogLine>, first: u64, out: &mut Vec<u8>) {
    if wanted.events && !lines.is_empty() && first > *last + 1 {
        let data = format!("{{\"first\":{first}}}");
        sse::write_event(out, first - 1, Some("gap"), data.as_bytes());
    }
    for line in lines {
        *last = line.id;
        if wanted.takes(&line) {
            wanted.append(out, &line);
        }
    }
}

/// Where the client begins: after the line it has, or with the last `tail`. Returns the id to go on from.
fn first_lines(api: &Api, wanted: &Wanted, out: &mut Vec<u8>) -> u64 {
    let logs = api.supervisor.logs();
    if let Some(after) = wanted.after
        && wanted.follow
    {
        return after;
    }
    let kept = logs.tail(usize::MAX, None);
    // An id of the future is from another life of this program.
    let newest = kept.last().map_or(0, |line| line.id);
    let after = wanted.after.filter(|after| *after <= newest).unwrap_or(0);
    let lines: Vec<&LogLine> = kept.iter().filter(|line| line.id > after && wanted.takes(line)).collect();
    for line in &lines[lines.len().saturating_sub(wanted.tail.unwrap_or(usize::MAX))..] {
        wanted.append(out, line);
    }
    newest
}
