//! `logs`: what was written, and on request what is being written, over lost connections too.
use super::arguments::Logs;
use super::events::Events;
use super::failure::Failure;
use super::output::{Output, note};
use super::server::{Content, Server, broken};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::thread::sleep;
use std::time::{Duration, Instant};
use ureq::http::Method;

/// Bytes of a line of JSON: a line of output has 8 KiB, each of which may be told as `\u001b`.
const LINE_BYTES: u64 = 1 << 20;
/// Pauses between tries to come back.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that is away for longer is given up.
const AWAY: Duration = Duration::from_secs(60);

pub(super) fn run(server: &Server, output: Output, wanted: &Logs) -> Result<(), Failure> {
    let mut query = Vec::new();
    if let Some(stream) = &wanted.stream {
        if !["stdout", "stderr", "system"].contains(&stream.as_str()) {
            return Err(Failure::Usage(format!("--stream: `{stream}` is not stdout, stderr or system")));
        }
        query.push(format!("stream={stream}"));
    }
    query.extend(wanted.tail.map(|tail| format!("tail={tail}")));
    let target = format!("logs?{}", query.join("&"));
    if wanted.follow { follow(server, output, &target) } else { once(server, output, &target) }
}

fn once(server: &Server, output: Output, target: &str) -> Result<(), Failure> {
    let answer = server.send(Method::GET, target, &[], Content::None, None)?;
    let mut lines = BufReader::new(answer.body.into_reader());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| broken(error.into()))? == 0 {
            return Ok(());
        }
        let json = serde_json::from_slice(&line)
            .map_err(|_| Failure::Unreachable("the answer is not lines of JSON".to_owned()))?;
        show(output, &json)?;
    }
}

/// Follows, and comes back after the last line that was shown until the server is away for too long.
fn follow(server: &Server, output: Output, target: &str) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    let mut connected = false;
    let mut pause = FIRST_PAUSE;
    let mut lost: Option<Instant> = None;
    loop {
        let failure = match attempt(server, output, target, &mut last, &mut connected) {
            Ok(()) => Failure::Unreachable("the stream has ended".to_owned()),
            Err(failure) => failure,
        };
        let can_wait = match &failure {
            Failure::Unreachable(_) => true,
            // Whoever is in front of the server says that it is away.
            Failure::Refused(refusal) => matches!(refusal.status, 502..=504),
            _ => false,
        };
        // What never worked is no lost connection.
        if !can_wait || !connected && lost.is_none() {
            return Err(failure);
        }
        if std::mem::take(&mut connected) {
            lost = None;
            pause = FIRST_PAUSE;
        }
        if lost.is_none() {
            note(format_args!("{failure}; trying again"));
        }
        if lost.get_or_insert_with(Instant::now).elapsed() > AWAY {
            return Err(failure);
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn attempt(
    server: &Server,
    output: Output,
    target: &str,
    last: &mut Option<String>,
    connected: &mut bool,
) -> Result<(), Failure> {
    let accept = ("accept", "text/event-stream");
    let answer = match last {
        Some(id) => {
            server.send(Method::GET, target, &[accept, ("last-event-id", id)], Content::None, None)?
        }
        None => server.send(Method::GET, target, &[accept], Content::None, None)?,
    };
    *connected = true;
    let mut events = Events::of(answer.body.into_reader());
    while let Some(event) = events.next().map_err(|error| broken(error.into()))? {
        if event.name.as_deref() == Some("gap") {
            note("lines are missing here: the server keeps --log-lines of them");
        } else if let Ok(json) = serde_json::from_str(&event.data) {
            show(output, &json)?;
        }
        *last = event.id.or(last.take());
    }
    Ok(())
}

fn show(output: Output, line: &Value) -> Result<(), Failure> {
    output.result(line, |line| line["text"].as_str().unwrap_or_default().to_owned())
}
