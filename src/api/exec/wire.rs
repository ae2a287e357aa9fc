//! The JSON of the exec routes: events, the one reply, what a run is in a list.
use crate::base::time::{millis, rfc3339};
use crate::exec::{Gap, Outcome, Piece, Run, Stream};
use crate::http::sse;
use serde::Serialize;

/// The name of every event but the one for what is missing.
const EVENT: &str = "cli";
/// The name of that one, which clients of the contract pass over.
const GAP_EVENT: &str = "gap";

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'e> {
    Started {
        pid: i32,
        run_id: &'e str,
    },
    Stdout {
        data: &'e str,
        offset: u64,
    },
    Stderr {
        data: &'e str,
        offset: u64,
    },
    Error {
        message: &'e str,
    },
    ExitCode {
        code: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        duration_ms: u64,
        truncated: bool,
        timed_out: bool,
    },
}

#[derive(Debug, Serialize)]
struct GapJson {
    stream: &'static str,
    from: u64,
    to: u64,
}

/// Events in the making.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Their text.
    pub(super) out: Vec<u8>,
    json: Vec<u8>,
}

/// Up to where both streams were read, as an event's id.
fn id([stdout, stderr]: [u64; 2]) -> String {
    format!("{stdout}-{stderr}")
}

/// The mark on the id of an error, which is not told twice.
const TOLD: &str = "-e";

/// What [`id`] made: the offsets, and whether the error was told.
pub(super) fn parse_id(id: &[u8]) -> Option<([u64; 2], bool)> {
    let id = std::str::from_utf8(id).ok()?;
    let offsets = id.strip_suffix(TOLD);
    let (stdout, stderr) = offsets.unwrap_or(id).split_once('-')?;
    Some(([parse_offset(stdout)?, parse_offset(stderr)?], offsets.is_some()))
}

/// A number without a sign.
pub(super) fn parse_offset(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl Events {
    fn push(&mut self, id: &str, event: &Event<'_>) {
        self.json.clear();
        // Numbers and strings always serialise.
        let _ = serde_json::to_writer(&mut self.json, event);
        sse::write_event(&mut self.out, id, Some(EVENT), &self.json);
    }

    /// `position` is where reading begins: who leaves right after it comes back to there.
    pub(super) fn started(&mut self, run: &Run, pid: i32, position: [u64; 2]) {
        self.push(&id(position), &Event::Started { pid, run_id: &run.id });
    }

    pub(super) fn output(&mut self, piece: &Piece<'_>) {
        let (data, offset) = (&*piece.text, piece.offset);
        let event = match piece.stream {
            Stream::Stdout => Event::Stdout { data, offset },
            Stream::Stderr => Event::Stderr { data, offset },
        };
        self.push(&id(piece.read), &event);
    }

    pub(super) fn gap(&mut self, gap: &Gap, position: [u64; 2]) {
        let stream = match gap.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        self.json.clear();
        let _ = serde_json::to_writer(&mut self.json, &GapJson { stream, from: gap.from, to: gap.to });
        sse::write_event(&mut self.out, id(position), Some(GAP_EVENT), &self.json);
    }

    pub(super) fn error(&mut self, message: &str, position: [u64; 2]) {
        self.push(&format!("{}{TOLD}", id(position)), &Event::Error { message });
    }

    pub(super) fn exit_code(&mut self, outcome: &Outcome, position: [u64; 2]) {
        let event = Event::ExitCode {
            code: outcome.code,
            signal: outcome.signal,
            duration_ms: millis(outcome.duration),
            truncated: outcome.truncated,
            timed_out: outcome.timed_out,
        };
        self.push(&format!("{}{TOLD}", id(position)), &event);
    }

    pub(super) fn keep_alive(&mut self) {
        self.out.extend_from_slice(sse::KEEP_ALIVE);
    }
}

/// The one reply to who wants no stream.
#[derive(Debug, Serialize)]
pub(super) struct Reply<'r> {
    exit_code: i32,
    signal: Option<i32>,
    stdout: String,
    stderr: String,
    truncated: bool,
    timed_out: bool,
    duration_ms: u64,
    run_id: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'r str>,
}

impl<'r> Reply<'r> {
    pub(super) fn of(run: &'r Run, outcome: &'r Outcome) -> Reply<'r> {
        let [(stdout, whole_stdout), (stderr, whole_stderr)] = Stream::BOTH.map(|stream| run.kept(stream));
        let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        Reply {
            exit_code: outcome.code,
            signal: outcome.signal,
            stdout: text(stdout),
            stderr: text(stderr),
            truncated: outcome.truncated || !whole_stdout || !whole_stderr,
            timed_out: outcome.timed_out,
            duration_ms: millis(outcome.duration),
            run_id: &run.id,
            error: outcome.error.as_deref(),
        }
    }
}

/// A run in a list. Its arguments are not there: they may hold secrets.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    run_id: String,
    state: &'static str,
    program: String,
    args: usize,
    pid: Option<i32>,
    detached: bool,
    keep_background: bool,
    started_at: String,
    duration_ms: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    truncated: bool,
    error: Option<String>,
}

impl Summary {
    pub(super) fn of(run: &Run) -> Summary {
        let outcome = run.outcome();
        let [stdout_bytes, stderr_bytes] = run.written();
        let told = outcome.as_ref();
        Summary {
            run_id: run.id.clone(),
            state: if told.is_some() { "exited" } else { "running" },
            program: run.program.clone(),
            args: run.args,
            pid: run.pid(),
            detached: run.detached,
            keep_background: run.keeps_background,
            started_at: rfc3339(run.started_at),
            duration_ms: millis(run.duration()),
            stdout_bytes,
            stderr_bytes,
            exit_code: told.map(|outcome| outcome.code),
            signal: told.and_then(|outcome| outcome.signal),
            timed_out: told.is_some_and(|outcome| outcome.timed_out),
            truncated: told.is_some_and(|outcome| outcome.truncated),
            error: outcome.and_then(|outcome| outcome.error),
        }
    }
}

/// All runs that are kept.
#[derive(Debug, Serialize)]
pub(super) struct ListJson {
    pub(super) runs: Vec<Summary>,
}

/// What was written to a run's standard input.
#[derive(Debug, Serialize)]
pub(super) struct StdinJson {
    pub(super) bytes: u64,
    pub(super) closed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_both_offsets() {
        assert_eq!(parse_id(id([1, u64::MAX]).as_bytes()), Some(([1, u64::MAX], false)));
        assert_eq!(parse_id(b"0-0-e"), Some(([0, 0], true)));
        for bad in [
            "",
            "1",
            "-",
            "1-",
            "-1",
            "1-2-3",
            "+1-2",
            "1- 2",
            "1-2-e-e",
            "18446744073709551616-0",
            "\u{661}-1",
        ] {
            assert_eq!(parse_id(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn events_are_the_contracts() {
        let mut events = Events::default();
        events.output(&Piece { stream: Stream::Stdout, offset: 7, read: [9, 3], text: "a\"\n".into() });
        let outcome = Outcome {
            end: None,
            code: -1,
            signal: Some(9),
            error: None,
            timed_out: true,
            truncated: false,
            duration: std::time::Duration::from_millis(1500),
        };
        events.exit_code(&outcome, [9, 3]);
        let text = String::from_utf8(events.out).unwrap();
        let wanted = "id: 9-3\nevent: cli\ndata: {\"type\":\"stdout\",\"data\":\"a\\\"\\n\",\"offset\":7}\n\n\
            id: 9-3-e\nevent: cli\ndata: {\"type\":\"exit_code\",\"code\":-1,\"signal\":9,\"duration_ms\":1500,\
            \"truncated\":false,\"timed_out\":true}\n\n";
        assert_eq!(text, wanted);
    }
}
