//! The end, on SIGTERM: what is finite is finished, what is not ends cleanly, nobody waits for long,
//! and nothing stays behind.

use crate::binary::client::{Client, End};
use crate::binary::{IDLE, Reserved, Response, Server, Wire, eventually, ok, play, unused_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Far below every grace in these tests but the short one.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Tells it to end and waits until it has begun to.
fn begin_end(server: &Server) {
    let mut idle = Client::new(server.address);
    // Known to the server before the end, not to the kernel only.
    assert_eq!(idle.get("/_frag/health").status, 200);
    kill(Pid::from_raw(server.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(idle.end(), End::Closed);
}

fn ask(server: &Server, target: &str) -> Client {
    let mut client = Client::new(server.address);
    client.request("GET", target, "");
    client
}

fn answer(listener: &std::net::TcpListener, bytes: &str) -> Wire {
    let mut wire = Wire::accept(listener);
    wire.head().unwrap();
    wire.write(bytes.as_bytes());
    wire
}

#[test]
fn a_finite_response_in_flight_is_finished_and_nobody_new_is_let_in() {
    let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "15s"]);
    let mut waiting = ask(&server, "/waiting");
    let mut wire = answer(&listener, "");
    let mut half = ask(&server, "/half");
    let mut half_wire = answer(&listener, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    half.take_through("hello");
    let mut chunked = ask(&server, "/chunked");
    let mut chunked_wire =
        answer(&listener, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    chunked.take_through("hello");
    let mut upload = Client::new(server.address);
    upload.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    let mut upload_wire = answer(&listener, "");

    begin_end(&server);
    eventually("new connections are refused", || TcpStream::connect(server.address).is_err());
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for what is in flight");

    wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    let response = waiting.response("GET");
    assert_eq!((response.status, response.body_text().as_str()), (200, "late"));
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    half_wire.write(b"world");
    assert_eq!(half.take(5), b"world");
    chunked_wire.write(b"5\r\nworld\r\n0\r\n\r\n");
    chunked.take_through("world\r\n0\r\n\r\n");
    upload.send("world");
    assert_eq!(upload_wire.take(10), b"helloworld");
    upload_wire.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nup");
    assert_eq!(upload.response("POST").body_text(), "up");
    let start = Instant::now();
    assert_eq!(server.wait(), Some(0));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    for client in [&mut waiting, &mut half, &mut chunked, &mut upload] {
        assert_eq!(client.end(), End::Closed);
    }
}

#[test]
fn whom_the_kernel_has_greeted_is_let_in_and_answered() {
    const GREETED: usize = 400;
    let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "15s"]);
    play(listener, |_| ok(b"in time"));
    let pid = Pid::from_raw(server.pid());
    // Stopped, it accepts nobody, and has no say in which of the two it sees first.
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut clients: Vec<Client> = (0..GREETED).map(|_| ask(&server, "/greeted")).collect();
    kill(pid, Signal::SIGTERM).unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    for client in &mut clients {
        assert_eq!(client.response("GET").body_text(), "in time");
    }
    drop(clients);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn event_streams_end_cleanly_and_at_once() {
    for (framing, event) in [("Transfer-Encoding: chunked\r\n", "9\r\ndata: 1\n\n\r\n"), ("", "data: 1\n\n")]
    {
        let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "15s"]);
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{framing}\r\n");
        let mut client = ask(&server, "/events");
        let wire = answer(&listener, &format!("{head}{event}"));
        client.take_through("data: 1\n\n");
        // One on which nothing was sent yet.
        let mut silent = ask(&server, "/events");
        let silent_wire = answer(&listener, &head);
        silent.take_through("\r\n\r\n");
        let start = Instant::now();
        assert_eq!(server.terminate(), Some(0));
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        for client in [&mut client, &mut silent] {
            assert_eq!(client.end(), End::Closed);
            assert!(client.buffer.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&client.buffer));
        }
        drop((wire, silent_wire));
    }
}

#[test]
fn so_do_those_whose_client_would_rather_speak_another_protocol() {
    let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "100s"]);
    let mut client = Client::new(server.address);
    client.request("GET", "/events", "Connection: Upgrade\r\nUpgrade: h2c\r\n");
    let _wire = answer(&listener, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    client.take_through("\r\n\r\n");
    begin_end(&server);
    assert_eq!(client.end(), End::Closed);
    assert_eq!(client.buffer, b"0\r\n\r\n");
    drop(client);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn who_waits_for_the_server_is_told() {
    let server = Server::start(IDLE, unused_port(), &["--shutdown-grace", "15s"]);
    let mut awaiting = ask(&server, "/_frag/await?timeout=60");
    let mut held: Vec<Client> = (0..20).map(|_| ask(&server, "/held")).collect();
    let mut looking = Client::new(server.address);
    looking.request("HEAD", "/held", "");
    // Each of them is served before this one.
    let mut last = ask(&server, "/_frag/await?timeout=0");
    assert_eq!(last.response("GET").status, 503);
    let start = Instant::now();
    begin_end(&server);
    assert_eq!(awaiting.response("GET").status, 503);
    for client in &mut held {
        let response = client.response("GET");
        assert_eq!((response.status, response.code().as_str()), (503, "shutting_down"));
        assert_eq!(client.end(), End::Closed);
    }
    assert_eq!(looking.response("HEAD").status, 503);
    assert_eq!((looking.end(), looking.buffer.len()), (End::Closed, 0), "a HEAD has no body");
    let mut server = server;
    assert_eq!(server.wait(), Some(0));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn what_has_no_end_is_cut_at_the_grace_and_seen_to_be() {
    for (head, chunk) in [
        ("Transfer-Encoding: chunked\r\n", "4\r\nmore\r\n"),
        ("Content-Length: 1000000000\r\n", "more"),
        ("", "more"),
    ] {
        let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "700ms"]);
        let mut client = ask(&server, "/endless");
        let mut wire = answer(&listener, &format!("HTTP/1.1 200 OK\r\n{head}\r\n{chunk}"));
        let endless = std::thread::spawn(move || {
            use std::io::Write;
            while wire.stream.write_all(chunk.as_bytes()).is_ok() {
                std::thread::yield_now();
            }
        });
        let mut silent = ask(&server, "/silent");
        let silent_wire = answer(&listener, "");
        let start = Instant::now();
        kill(Pid::from_raw(server.pid()), Signal::SIGTERM).unwrap();
        client.end();
        silent.end();
        assert_eq!(server.wait(), Some(0));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(700) && took < AT_ONCE, "{took:?}");
        assert!(!client.buffer.ends_with(b"\r\n0\r\n\r\n"), "it looks complete");
        endless.join().unwrap();
        drop(silent_wire);
    }
}

#[test]
fn a_client_that_never_says_a_whole_word_is_not_waited_for() {
    let (mut server, _listener) = Server::with_backend(&["--shutdown-grace", "30s"]);
    let mut head = Client::new(server.address);
    head.send("GET / HTT");
    let mut nothing = Client::new(server.address);
    let start = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    // A moment for the rest of the head, and one for reading the refusal.
    assert!(start.elapsed() < AT_ONCE * 4, "{:?}", start.elapsed());
    let _ = (head.end(), nothing.end());
}

#[test]
fn children_and_their_children_are_gone() {
    let script = "trap \"sleep 0.2; echo bye >bye; exit\" TERM; sleep 1001 & setsid sleep 1002 & while :; do sleep 0.01; done";
    let mut server = Server::start(&format!("sh -c '{script}'"), unused_port(), &["--stop-grace", "10s"]);
    let own = format!("{}", server.root().display());
    // All of them work in the root.
    let inside = || -> usize {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let works_here = |path: std::path::PathBuf| {
            std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy() == own)
        };
        processes.filter(|entry| works_here(entry.path())).count()
    };
    eventually("they run", || inside() >= 3);
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(inside(), 0);
    assert!(server.root().join("bye").exists(), "it had its time to end");
}

#[test]
fn a_stop_under_way_does_not_keep_the_end_waiting() {
    let command = "sh -c 'trap \"\" TERM; echo deaf; while :; do sleep 0.01; done'";
    let mut server = Server::start(command, unused_port(), &["--stop-grace", "500ms"]);
    eventually("it is deaf", || server.get("/_frag/logs", "").body_text().contains("deaf"));
    let mut stopping = Client::new(server.address);
    stopping.request("POST", "/_frag/stop", "");
    eventually("it stops", || server.status().contains("\"stopping\""));
    let start = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    let response = Response::parse(
        &{
            stopping.end();
            stopping.buffer.clone()
        },
        "POST",
    );
    assert!([200, 503].contains(&response.status), "{}", response.head);
}

#[test]
fn held_by_a_port_that_never_opens_it_ends_all_the_same() {
    let reserved = Reserved::new();
    let mut server = Server::start(IDLE, reserved.port, &[]);
    let start = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}
