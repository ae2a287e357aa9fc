//! Requests that meet no server wait for it, without a thread, and are answered in the end.

use crate::binary::{IDLE, Reserved, Response, Server, Wire, eventually, ok, play, read_to_end};
use crate::common;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far below the ten seconds a request is held.
const AT_ONCE: Duration = Duration::from_secs(4);

fn begin(server: &Server, request: &str) -> TcpStream {
    let mut client = server.connect();
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn finish(client: &mut TcpStream) -> Response {
    Response::parse(&read_to_end(client), "GET")
}

fn entries(server: &Server, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap().count()
}

/// Open descriptors once the command runs, give or take a readiness probe.
fn idle_descriptors(server: &Server) -> usize {
    eventually("the command runs", || !server.status().contains("\"pid\":null"));
    entries(server, "fd")
}

const GET: &str = "GET /held HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[test]
fn requests_during_the_start_wait_and_are_served() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    let mut get = begin(&server, GET);
    let mut post =
        begin(&server, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\n");
    post.write_all(b"hello").unwrap();
    let chunked = "PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let mut put = begin(&server, chunked);
    let listener = server.open_listener(reserved);
    let seen = play(listener, |request| ok(&request.body));
    post.write_all(b"world").unwrap();
    assert_eq!(finish(&mut get).status, 200);
    assert_eq!(finish(&mut post).body_text(), "helloworld");
    assert_eq!(finish(&mut put).body_text(), "hello");
    assert_eq!(seen.lock().unwrap().len(), 3, "each once");
}

#[test]
fn the_hold_ends_with_the_reason() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &["--hold-timeout", "200ms"]);
    let start = Instant::now();
    let answer = server.get("/x", "");
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(start.elapsed() < AT_ONCE);
    assert_eq!((answer.status, answer.code().as_str()), (503, "server_unavailable"));
    assert_eq!(answer.json()["server"]["state"], "starting");
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    let page = server.get("/x", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(page.status, 503);
    assert!(page.body_text().starts_with("<!doctype html>"));
    let post = server.send("POST", "/x", "", b"body");
    assert_eq!((post.status, post.code().as_str()), (503, "server_unavailable"));
}

#[test]
fn a_stopped_or_failed_server_is_a_503_at_once() {
    let (server, _listener) = Server::with_backend(&[]);
    assert_eq!(server.send("POST", "/_frag/stop", "", b"").status, 200);
    let start = Instant::now();
    let answer = server.get("/", "");
    assert_eq!((answer.status, &answer.json()["server"]["state"]), (503, &"stopped".into()));
    assert!(start.elapsed() < AT_ONCE);

    let command = format!("{} exit 3", common::fixture());
    let server = Server::start(&command, common::free_port(), &["--max-restarts", "0"]);
    let start = Instant::now();
    // Held or not when it fails, the answer comes with the failure.
    let answer = server.get("/", "");
    assert_eq!((answer.status, &answer.json()["server"]["state"]), (503, &"failed".into()));
    assert_eq!(answer.json()["server"]["exit_code"], 3);
    assert!(start.elapsed() < AT_ONCE);
}

#[test]
fn held_requests_cost_no_threads_and_all_are_served() {
    let reserved = Reserved::new();
    // With few threads to have, waiting on them could not go unseen.
    let server = Server::start(IDLE, reserved.port, &["--threads-max", "8"]);
    let idle = idle_descriptors(&server);
    let mut clients: Vec<TcpStream> = (0..300).map(|_| begin(&server, GET)).collect();
    eventually("all are accepted", || entries(&server, "fd") >= idle + 290);
    // The control pool answers, and whoever waits has no thread.
    assert!(server.status().contains("starting"));
    assert!(entries(&server, "task") < 30, "{} threads", entries(&server, "task"));
    let seen = play(server.open_listener(reserved), |_| ok(b"served"));
    for client in &mut clients {
        assert_eq!(finish(client).body_text(), "served");
    }
    assert_eq!(seen.lock().unwrap().len(), 300);
}

#[test]
fn held_requests_with_heavy_heads_wait_for_room_and_are_all_served() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    // Those under way may have 4 MiB beyond 8 KiB each; these are 6.6 MiB beyond.
    let heavy =
        format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(64_000));
    let mut clients = Vec::new();
    for n in 1..=120 {
        clients.push(begin(&server, &heavy));
        if n % 40 == 0 {
            let held = format!("\nfrag_http_requests_held {n}\n");
            eventually("they are held", || server.get("/_frag/metrics", "").body_text().contains(&held));
        }
    }
    play(server.open_listener(reserved), |_| ok(b"served"));
    for client in &mut clients {
        assert_eq!(finish(client).body_text(), "served");
    }
}

#[test]
fn a_heavy_head_that_has_no_room_yet_keeps_none_behind_it_waiting() {
    let reserved = Reserved::new();
    let port = reserved.port;
    let server = Server::start(IDLE, port, &["--hold-timeout", "60s"]);
    let listener = server.give_listener(reserved);
    let heavy = |path: &str| {
        let x = "x".repeat(64_000);
        format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {x}\r\n\r\n")
    };
    let light = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    // One fewer than those under way may be, by what their heads have beyond 8 KiB each.
    let fit = 4 * 1024 * 1024 / (heavy("/").len() - 8 * 1024);
    let under_way: Vec<(TcpStream, Wire)> = (1..fit)
        .map(|_| {
            let client = begin(&server, &heavy("/"));
            let mut wire = Wire::accept(&listener);
            wire.head().unwrap();
            (client, wire)
        })
        .collect();
    drop(listener);
    let mut held = Vec::new();
    for request in [heavy("/first"), heavy("/later"), light("/light")] {
        held.push(begin(&server, &request));
        let line = format!("\nfrag_http_requests_held {}\n", held.len());
        eventually("it is held", || server.get("/_frag/metrics", "").body_text().contains(&line));
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let passed = Arc::clone(&gate);
    play(listener, move |request| {
        if request.line().contains("/first") {
            drop(passed.lock().unwrap());
        }
        ok(b"served")
    });
    let [first, later, light] = &mut held[..] else { unreachable!() };
    assert_eq!(finish(light).body_text(), "served");
    drop((closed, under_way));
    assert_eq!(finish(first).body_text(), "served");
    assert_eq!(finish(later).body_text(), "served");
}

#[test]
fn after_a_crash_slow_answers_keep_no_request_from_being_sent() {
    // Each has its turn, a quarter of a second of it: more than the others may be held for.
    const SLOW: usize = 20;
    let reserved = Reserved::new();
    let port = reserved.port;
    let server = Server::start(IDLE, port, &["--hold-timeout", "2s"]);
    let listener = server.give_listener(reserved);
    let mut clients: Vec<TcpStream> = (0..SLOW).map(|_| begin(&server, GET)).collect();
    let wires: Vec<Wire> = clients
        .iter()
        .map(|_| {
            let mut wire = Wire::accept(&listener);
            wire.head().unwrap();
            wire
        })
        .collect();
    let child = || serde_json::from_str::<serde_json::Value>(&server.status()).unwrap()["pid"].as_i64();
    let first = child().unwrap();
    drop(listener);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::SIGKILL).unwrap();
    drop(wires);
    eventually("another life", || child().is_some_and(|pid| pid != first));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let sent = AtomicUsize::new(0);
    play(listener, move |_| {
        sent.fetch_add(1, Ordering::SeqCst);
        eventually("all are sent", || sent.load(Ordering::SeqCst) == SLOW);
        ok(b"served")
    });
    for client in &mut clients {
        assert_eq!(finish(client).body_text(), "served");
    }
}

#[test]
fn who_was_held_is_held_again_when_a_life_ends_that_took_it() {
    const HOLD: Duration = Duration::from_secs(3);
    let reserved = Reserved::new();
    let port = reserved.port;
    let server = Server::start(IDLE, port, &["--hold-timeout", "3s"]);
    let mut client = begin(&server, GET);
    let held = "\nfrag_http_requests_held 1\n";
    eventually("it is held", || server.get("/_frag/metrics", "").body_text().contains(held));
    let began = Instant::now();
    let listener = server.open_listener(reserved);
    // Behind the readiness probes.
    let wire =
        std::iter::repeat_with(|| Wire::accept(&listener)).find_map(|mut wire| wire.head().map(|_| wire));
    eventually("the app has had it for so long", || began.elapsed() > HOLD);
    let child = || serde_json::from_str::<serde_json::Value>(&server.status()).unwrap()["pid"].as_i64();
    let first = child().unwrap();
    drop(listener);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::SIGKILL).unwrap();
    drop(wire);
    eventually("another life", || child().is_some_and(|pid| pid != first));
    play(TcpListener::bind(("127.0.0.1", port)).unwrap(), |_| ok(b"served"));
    assert_eq!(finish(&mut client).body_text(), "served");
}

#[test]
fn a_held_client_that_leaves_is_forgotten() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    let idle = idle_descriptors(&server);
    let leavers: Vec<TcpStream> = (0..20).map(|_| begin(&server, GET)).collect();
    eventually("they are there", || entries(&server, "fd") >= idle + 15);
    drop(leavers);
    eventually("they are gone", || entries(&server, "fd") < idle + 8);
    let seen = play(server.open_listener(reserved), |_| ok(b""));
    assert_eq!(server.get("/stays", "").status, 200);
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|s| s.line().to_owned()).collect();
    assert_eq!(lines, ["GET /stays HTTP/1.1"]);
}

#[test]
fn a_listener_that_goes_and_comes_back_is_waited_for() {
    let reserved = Reserved::new();
    let port = reserved.port;
    let server = Server::start(IDLE, port, &[]);
    drop(server.give_listener(reserved));
    let mut get = begin(&server, GET);
    let mut post =
        begin(&server, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody");
    eventually("the refusal is noticed", || server.status().contains("\"ready\":false"));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    play(listener, |request| ok(&request.body));
    assert_eq!(finish(&mut get).status, 200);
    assert_eq!(finish(&mut post).body_text(), "body", "nothing of it had been sent");
}

/// Plays a wrapped server that closes its connection on the first `closing` requests for `/bad`.
fn closing(listener: TcpListener, closing: usize) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (record, left) = (Arc::clone(&lines), Arc::new(AtomicUsize::new(closing)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (record, left) = (Arc::clone(&record), Arc::clone(&left));
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while let Some(request) = wire.request() {
                    record.lock().unwrap().push(request.line().to_owned());
                    let bad = request.line().contains("/bad");
                    if bad
                        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
                    {
                        return wire.close();
                    }
                    wire.write(&ok(b"fine"));
                }
            });
        }
    });
    lines
}

#[test]
fn a_connection_that_went_stale_is_replaced_unseen() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for times in [1, 2] {
            let (server, listener) = Server::with_backend(&[]);
            let lines = closing(listener, times);
            assert_eq!(server.get("/first", "").status, 200);
            let answer = server.send(method, "/bad", "", b"");
            assert_eq!(answer.status, 200, "{method}");
            assert_eq!(lines.lock().unwrap().len(), 2 + times, "{method}");
        }
    }
}

#[test]
fn what_may_not_be_repeated_is_not() {
    for (method, body) in [
        ("POST", &b""[..]),
        ("POST", b"body"),
        ("PUT", b"body"),
        ("DELETE", b"body"),
        ("PATCH", b""),
        ("PROPFIND", b""),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let lines = closing(listener, 1);
        let start = Instant::now();
        let answer = server.send(method, "/bad", "", body);
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"), "{method}");
        assert!(start.elapsed() < AT_ONCE);
        assert_eq!(lines.lock().unwrap().len(), 1, "{method}");
    }
}

#[test]
fn a_server_that_hangs_up_on_one_client_keeps_nobody_else_waiting() {
    let (server, listener) = Server::with_backend(&[]);
    let lines = closing(listener, usize::MAX);
    std::thread::scope(|scope| {
        let bad = scope.spawn(|| server.get("/bad", ""));
        for _ in 0..50 {
            assert!(server.status().contains("\"ready\":true"));
            assert_eq!(server.get("/good", "").status, 200);
        }
        let answer = bad.join().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
    });
    assert_eq!(lines.lock().unwrap().iter().filter(|line| line.contains("/bad")).count(), 3);
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504() {
    let (server, listener) = Server::with_backend(&["--upstream-timeout", "200ms"]);
    let held = std::thread::spawn(move || {
        let mut wires = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::accept(&listener);
            wire.request().unwrap();
            // The end of the connection, and nothing else.
            assert!(wire.request().is_none());
            wires.push(wire);
        }
    });
    for (method, body) in [("GET", &b""[..]), ("POST", b"body")] {
        let answer = server.send(method, "/", "", body);
        assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{method}");
    }
    held.join().unwrap();
}
