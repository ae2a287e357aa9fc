//! What the wrapped server writes can be read and followed, line by line, none lost unsaid.

use crate::binary::client::{Client, End};
use crate::binary::tunnel::{cpu_time_in_silence, threads};
use crate::binary::{IDLE, Server, eventually, ok, play, unused_port};
use crate::common;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// A server whose lines the test writes: what is put into its pipes comes out of its streams.
struct Talker {
    server: Server,
    out: std::fs::File,
    err: std::fs::File,
}

impl Talker {
    fn start(flags: &[&str]) -> Talker {
        let script = "mkfifo out err && { cat err >&2 & exec cat out; }";
        let server = Server::start(&format!("sh -c '{script}'"), unused_port(), flags);
        let open = |name: &str| -> std::fs::File {
            let path: PathBuf = server.root().join(name);
            eventually("the pipe is there", || path.exists());
            std::fs::OpenOptions::new().write(true).open(path).unwrap()
        };
        let (out, err) = (open("out"), open("err"));
        Talker { server, out, err }
    }

    fn out(&mut self, text: impl AsRef<[u8]>) {
        self.out.write_all(text.as_ref()).unwrap();
    }

    /// The lines now, once there are `count` of the wrapped server's.
    fn lines(&self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        eventually("the lines are there", || {
            lines = self.get("");
            lines.iter().filter(|line| line["stream"] != "system").count() >= count
        });
        lines
    }

    fn get(&self, query: &str) -> Vec<Value> {
        let answer = self.server.get(&format!("/_frag/logs{query}"), "");
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        assert_eq!(answer.field("content-type").as_deref(), Some("application/x-ndjson"));
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
        answer.body_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn follow(&self, query: &str, fields: &str) -> Client {
        let mut client = Client::new(self.server.address);
        client.request("GET", &format!("/_frag/logs{query}"), fields);
        assert!(client.take_through("\r\n\r\n").starts_with("HTTP/1.1 200 "));
        client
    }
}

const EVENTS: &str = "Accept: text/event-stream\r\n";

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter(|line| line["stream"] != "system")
        .map(|line| line["text"].as_str().unwrap())
        .collect()
}

#[test]
fn lines_have_their_number_time_stream_and_text() {
    let mut talker = Talker::start(&[]);
    talker.out("one\n\"quoted\" \\ \t<b>\nthr\u{e9}e\n");
    talker.lines(3);
    talker.err.write_all(b"oops\n").unwrap();
    let lines = talker.lines(4);
    assert_eq!(texts(&lines), ["one", "\"quoted\" \\ \t<b>", "thr\u{e9}e", "oops"]);
    for (line, id) in lines.iter().zip(1..) {
        assert_eq!(line["id"], id);
        let at = line["at"].as_str().unwrap();
        assert!(at.len() >= 20 && at.starts_with("20") && at.ends_with('Z'), "{at}");
        assert_eq!(line.as_object().unwrap().len(), 4, "{line}");
    }
    assert_eq!(lines.last().unwrap()["stream"], "stderr");
    assert_eq!(lines[lines.len() - 2]["stream"], "stdout");
}

#[test]
fn tail_and_stream_choose() {
    let mut talker = Talker::start(&[]);
    for n in 0..10 {
        talker.out(format!("out {n}\n"));
        talker.lines(2 * n + 1);
        talker.err.write_all(format!("err {n}\n").as_bytes()).unwrap();
        talker.lines(2 * n + 2);
    }
    assert_eq!(texts(&talker.get("?tail=3")), ["err 8", "out 9", "err 9"]);
    assert_eq!(texts(&talker.get("?tail=2&stream=stdout")), ["out 8", "out 9"]);
    assert_eq!(texts(&talker.get("?stream=stderr")).len(), 10);
    assert_eq!(talker.get("?tail=0").len(), 0);
    assert_eq!(texts(&talker.get("?tail=99999999999999")).len(), 20);
    assert!(talker.get("?stream=system").iter().all(|line| line["stream"] == "system"));
}

#[test]
fn what_was_not_meant_is_a_400() {
    let talker = Talker::start(&[]);
    for (query, fields) in [
        ("?tail=-1", ""),
        ("?tail=x", ""),
        ("?tail=1&tail=2", ""),
        ("?tail=18446744073709551616", ""),
        ("?stream=stdin", ""),
        ("?follow=perhaps", ""),
        ("", "Accept: text/event-stream\r\nLast-Event-ID: x\r\n"),
        ("", "Accept: text/event-stream\r\nLast-Event-ID: -1\r\n"),
    ] {
        let answer = talker.server.get(&format!("/_frag/logs{query}"), fields);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{query} {fields}");
    }
    let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
    assert_eq!(talker.server.get("/_frag/logs", reader).status, 403);
    assert_eq!(talker.server.get("/_frag/logs?follow=true", reader).status, 403);
    assert_eq!(talker.server.send("POST", "/_frag/logs", "", b"").status, 405);
}

#[test]
fn a_follower_gets_each_line_as_it_comes() {
    let mut talker = Talker::start(&[]);
    talker.out("before\n");
    talker.lines(1);
    let mut all = talker.follow("?follow=true", "");
    let mut errors = talker.follow("?follow=true&stream=stderr&tail=0", "");
    all.take_through("before");
    for n in 0..20 {
        talker.out(format!("line {n}\n"));
        // The next is written when this one has arrived.
        all.take_through(&format!("\"line {n}\"}}\n"));
    }
    talker.err.write_all(b"failed\n").unwrap();
    let got = errors.take_through("\"failed\"}\n");
    assert!(!got.contains("line"), "{got}");
}

/// The next event that is one: its id, name and data.
fn event(client: &mut Client) -> (u64, Option<String>, Value) {
    loop {
        let text = client.take_through("\n\n");
        let value = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
        };
        if let (Some(id), Some(data)) = (value("id:"), value("data:")) {
            return (id.parse().unwrap(), value("event:"), serde_json::from_str(&data).unwrap());
        }
    }
}

#[test]
fn events_have_ids_and_a_resume_neither_loses_nor_doubles() {
    let mut talker = Talker::start(&[]);
    let (mut last, mut client) = (0, talker.follow("", EVENTS));
    let mut seen = Vec::new();
    for round in 0..5 {
        for n in 0..10 {
            talker.out(format!("{}\n", round * 10 + n));
        }
        talker.lines((round + 1) * 10);
        // Leaves in the middle.
        while seen.len() < round * 10 + 7 {
            let (id, name, data) = event(&mut client);
            assert_eq!((name, &data["id"]), (None, &Value::from(id)));
            assert_eq!(id, last + 1);
            last = id;
            if data["stream"] == "stdout" {
                seen.push(data["text"].as_str().unwrap().parse::<usize>().unwrap());
            }
        }
        client = talker.follow("", &format!("{EVENTS}Last-Event-ID: {last}\r\n"));
    }
    assert_eq!(seen, (0..47).collect::<Vec<_>>());
    // A line of JSON is resumed as well, and without following.
    let after = talker.server.get("/_frag/logs", &format!("Last-Event-ID: {last}\r\n")).body_text();
    assert_eq!(after.lines().count(), 3, "{after}");
}

#[test]
fn what_is_gone_is_said_to_be() {
    let mut talker = Talker::start(&["--log-lines", "5"]);
    let (id, ..) = event(&mut talker.follow("", EVENTS));
    for n in 0..100 {
        talker.out(format!("{n}\n"));
    }
    eventually("all are there", || texts(&talker.get("")).last() == Some(&"99"));
    let mut client = talker.follow("", &format!("{EVENTS}Last-Event-ID: {id}\r\n"));
    let (gap, name, data) = event(&mut client);
    assert_eq!(name.as_deref(), Some("gap"));
    assert_eq!(data["first"], gap + 1);
    for n in 95..100 {
        let (id, name, data) = event(&mut client);
        assert_eq!((name, data["text"].as_str()), (None, Some(n.to_string().as_str())));
        assert_eq!(id, gap + 1 + (n - 95));
    }
    // An id of another life of the program.
    let mut client = talker.follow("", &format!("{EVENTS}Last-Event-ID: 1000000\r\n"));
    assert_eq!(event(&mut client).2["text"], "95");
}

#[test]
fn a_quiet_event_stream_is_kept_alive() {
    let talker = Talker::start(&[]);
    let mut client = talker.follow("?tail=0", EVENTS);
    let kept = client.take_through(":\n\n");
    assert!(!kept.contains("data"), "{kept}");
}

#[test]
fn nothing_kept_is_nothing_to_be_busy_with() {
    let mut talker = Talker::start(&["--log-lines", "0"]);
    talker.out("gone\n");
    let follower = talker.follow("", EVENTS);
    let json = talker.follow("?follow=true", "");
    let busy = cpu_time_in_silence(&talker.server, &follower, Duration::from_millis(500));
    assert!(busy < Duration::from_millis(100), "{busy:?} of 500 ms");
    assert_eq!(talker.get("").len(), 0);
    drop(json);
}

#[test]
fn a_follower_that_leaves_frees_its_thread() {
    let talker = Talker::start(&["--max-streams", "4"]);
    let followers: Vec<Client> = (0..4).map(|_| talker.follow("?follow=true", "")).collect();
    let refused = talker.server.get("/_frag/logs?follow=true", "");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    // Without following it is no stream.
    assert_eq!(talker.server.get("/_frag/logs", "").status, 200);
    drop(followers);
    let mut free = None;
    eventually("there is room", || {
        let mut client = Client::new(talker.server.address);
        client.request("GET", "/_frag/logs?follow=true", "");
        let admitted = client.take_through("\r\n\r\n").starts_with("HTTP/1.1 200 ");
        free = Some(client);
        admitted
    });
    assert!(threads(&talker.server) < 40);
}

#[test]
fn head_and_http_1_0_are_served_as_they_should() {
    let mut talker = Talker::start(&[]);
    talker.out("line\n");
    talker.lines(1);
    let mut client = Client::new(talker.server.address);
    for (query, fields) in [("", ""), ("?follow=true", ""), ("", EVENTS)] {
        client.request("HEAD", &format!("/_frag/logs{query}"), fields);
        assert_eq!(client.response("HEAD").status, 200);
    }
    client.send("GET /_frag/logs?follow=true HTTP/1.0\r\nHost: h\r\n\r\n");
    let got = client.take_through("\"line\"}\n");
    assert!(!got.contains("chunked"), "{got}");
    talker.out("more\n");
    client.take_through("\"more\"}\n");
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_long_lines_cut() {
    let mut talker = Talker::start(&[]);
    talker.out(b"caf\xe9 \xff\xfe ok\n");
    talker.out([vec![b'x'; 20_000], b"\n".to_vec()].concat());
    let lines = talker.lines(4);
    let texts = texts(&lines);
    assert_eq!(texts[0], "caf\u{fffd} \u{fffd}\u{fffd} ok");
    assert_eq!(texts[1..].iter().map(|text| text.len()).collect::<Vec<_>>(), [8192, 8192, 3616]);
}

#[test]
fn followers_stay_over_restarts_and_stops() {
    let port = common::free_port();
    let server = Server::start(&format!("{} web {port}", common::fixture()), port, &[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/_frag/logs", EVENTS);
    client.take_through("\r\n\r\n");
    assert_eq!(server.get("/_frag/await", "").status, 200);
    server.get("/sleep/1", "");
    client.take_through("/sleep/1");
    for (what, status) in [("restart", 200), ("stop", 200), ("start", 200)] {
        assert_eq!(
            server.send("POST", &format!("/_frag/{what}?wait=ready"), "", b"").status,
            status,
            "{what}"
        );
        // What we did is said, too.
        let (_, _, data) = event(&mut client);
        assert_eq!(data["stream"], "system", "{what}: {data}");
    }
    server.get("/sleep/2", "");
    client.take_through("/sleep/2");
    assert_eq!(server.send("POST", "/_frag/stop", "", b"").status, 200);
    let kept = server.get("/_frag/logs", "").body_text();
    assert!(kept.contains("/sleep/1") && kept.contains("/sleep/2"), "{kept}");
}

#[test]
fn the_servers_end_is_a_clean_end_of_the_stream() {
    let mut talker = Talker::start(&[]);
    talker.out("line\n");
    talker.lines(1);
    let mut json = talker.follow("?follow=true", "");
    let mut events = talker.follow("", EVENTS);
    // One that follows a stream on which nothing was ever said.
    let mut silent = talker.follow("?follow=true&stream=stderr", "");
    json.take_through("\"line\"");
    events.take_through("\"line\"");
    assert_eq!(talker.server.terminate(), Some(0));
    for client in [&mut json, &mut events, &mut silent] {
        assert_eq!(client.end(), End::Closed);
        assert!(client.buffer.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&client.buffer));
    }
}

#[test]
fn a_client_that_only_ends_its_sending_is_gone() {
    let talker = Talker::start(&[]);
    let mut client = talker.follow("?follow=true", "");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.end(), End::Closed);
}

/// A server that writes this many numbers, a line each, to a standard output that the test reads.
fn counting(numbers: usize, flags: &[&str], prepare: impl FnOnce(&PipeWriter)) -> (Server, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    prepare(&writer);
    let command = format!("sh -c 'seq 1 {numbers}; exec sleep 1000'");
    let server = Server::start_with(&command, unused_port(), flags, |binary| {
        binary.stdout(writer);
    });
    (server, reader)
}

fn can_be_read(reader: &impl AsRawFd, bytes: i32) -> bool {
    let mut there = 0;
    // SAFETY: FIONREAD writes one int, to where one is.
    #[allow(unsafe_code)]
    let done = unsafe { nix::libc::ioctl(reader.as_raw_fd(), nix::libc::FIONREAD, &raw mut there) };
    assert_eq!(done, 0);
    there >= bytes
}

#[test]
fn a_standard_output_that_somebody_made_non_blocking_loses_nothing() {
    let (_server, mut reader) = counting(100_000, &[], |writer| {
        fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    });
    let all: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let mut read = vec![0; all.len()];
    let (slowly, rest) = read.split_at_mut(all.len() - 80_000);
    for piece in slowly.chunks_mut(16 * 1024) {
        eventually("it is full", || can_be_read(&reader, 60_000));
        reader.read_exact(piece).unwrap();
    }
    reader.read_exact(rest).unwrap();
    assert!(read == all.as_bytes());
}

#[test]
fn a_standard_output_that_nobody_reads_holds_no_thread_of_an_earlier_life() {
    let (server, reader) = counting(100_000, &["--stop-grace", "0", "--drain", "0"], |_| {});
    for _ in 0..4 {
        eventually("it is full", || can_be_read(&reader, 60_000));
        assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    }
    let outputs = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name == "output\n").count()
    };
    eventually("the others have given up", || outputs() == 1);
}

/// Whether a write to this pipe would wait.
fn takes_nothing(writer: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).unwrap() == 0
}

#[test]
fn a_standard_error_that_nobody_reads_keeps_no_restart_and_no_end_waiting() {
    let script = "until [ -e go ]; do sleep 0.01; done; seq 1 100000 >&2; exec sleep 1000";
    let flags = ["--stop-grace", "0", "--drain", "0"];
    let mut server = Server::start(&format!("sh -c '{script}'"), unused_port(), &flags);
    let pipe = std::fs::File::options().write(true).open(format!("/proc/{}/fd/2", server.pid())).unwrap();
    let log = std::sync::Arc::clone(&server.log);
    // Who reads it waits for this.
    let _stalled = log.lock().unwrap();
    std::fs::write(server.root().join("go"), "").unwrap();
    for _ in 0..2 {
        eventually("it is full", || takes_nothing(&pipe));
        assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    }
    eventually("it is full", || takes_nothing(&pipe));
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_standard_error_that_nobody_reads_keeps_nobody_from_being_let_in() {
    let server = Server::start(IDLE, unused_port(), &["--access-log", "all"]);
    let log = std::sync::Arc::clone(&server.log);
    let _stalled = log.lock().unwrap();
    let requests = |held: u8| {
        let line = format!("\nfrag_http_requests_held {held}\n");
        eventually("they are held, or gone", || server.get("/_frag/metrics", "").body_text().contains(&line));
    };
    for _ in 0..4 {
        let mut client = Client::new(server.address);
        client.send(format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "X".repeat(40_000)));
        requests(1);
        drop(client);
        // The listener thread has its line to write.
        requests(0);
    }
}

#[test]
fn a_line_that_is_cut_is_a_line_of_its_own() {
    let flags = ["--access-log", "control", "--log-format", "json"];
    let (server, listener) = Server::with_backend(&flags);
    play(listener, |_| ok(b"fine"));
    let pipe = std::fs::File::options().write(true).open(format!("/proc/{}/fd/2", server.pid())).unwrap();
    // A page: as much of a long line as is written at once.
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let log = std::sync::Arc::clone(&server.log);
    let mut client = Client::new(server.address);
    // A request's line comes before it is no longer in flight, and perhaps after its answer.
    let mut asked = 0;
    eventually("no other line is to come", || {
        asked += 1;
        client.get("/_frag/metrics").body_text().contains("\nfrag_http_requests_in_flight 1\n")
    });
    eventually("all is read", || log.lock().unwrap().matches("/_frag/metrics").count() == asked);
    let stalled = log.lock().unwrap();
    // A line is written, or lost, before the next request of its connection is looked at; that of `/` has none.
    let mut say = |path: &str| {
        assert_eq!(client.get(&format!("/_frag/{path}")).status, 404);
        assert_eq!(client.get("/").status, 200);
    };
    say("first");
    eventually("who reads has that, and waits", || !can_be_read(&pipe, 1));
    // Each of these takes two bytes in JSON.
    say(&"\\".repeat(2040));
    drop(stalled);
    let lines = || log.lock().unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("the next one is there", || {
        say("next");
        lines().iter().any(|line| line.contains("/_frag/next"))
    });
    let lines = lines();
    let long: Vec<_> = lines.iter().filter(|line| line.contains(r"\\\\")).map(|line| &line[4000..]).collect();
    assert!(!long.is_empty() && !long[0].ends_with('}'), "it is cut, and nothing is glued to it: {long:?}");
}

/// Both ends of a new terminal.
fn terminal() -> (std::fs::File, std::fs::File) {
    let reader = std::fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let (mut number, unlocked) = (0, 0);
    // SAFETY: each takes a pointer to one int, which is there.
    #[allow(unsafe_code)]
    let done = unsafe {
        nix::libc::ioctl(reader.as_raw_fd(), nix::libc::TIOCSPTLCK, &raw const unlocked)
            + nix::libc::ioctl(reader.as_raw_fd(), nix::libc::TIOCGPTN, &raw mut number)
    };
    assert_eq!(done, 0);
    let flags = OFlag::O_NOCTTY.bits();
    let mut options = std::fs::File::options();
    let ours = options.read(true).write(true).custom_flags(flags).open(format!("/dev/pts/{number}")).unwrap();
    (reader, ours)
}

/// Whether its reader leaves so much of what the wrapped server wrote to standard output where it is.
fn is_behind(server: &Server, bytes: i32) -> bool {
    let status = server.get("/_frag/status", "").json();
    let pipe = format!("/proc/{}/fd/1", status["pid"]);
    std::fs::File::options().write(true).open(pipe).is_ok_and(|pipe| can_be_read(&pipe, bytes))
}

#[test]
fn a_terminal_that_nobody_reads_keeps_no_restart_and_no_end_waiting() {
    let (_reader, terminal) = terminal();
    let flags = ["--stop-grace", "0", "--drain", "0"];
    let prepare = |binary: &mut std::process::Command| {
        binary.stdout(terminal);
    };
    let command = "sh -c 'seq 1 100000; exec sleep 1000'";
    let mut server = Server::start_with(command, unused_port(), &flags, prepare);
    // More than a terminal has room for.
    eventually("it is full", || is_behind(&server, 60_000));
    for _ in 0..2 {
        assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    }
    assert_eq!(server.terminate(), Some(0));
}
