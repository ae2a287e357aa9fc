//! The control routes over a socket: what they answer, when, and what is not theirs.

use crate::binary::{
    IDLE, PATIENCE, Reserved, Response, Server, connect, eventually, ok, play, read_to_end, send, unused_port,
};
use crate::common;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const KEYS: [&str; 10] = [
    "status",
    "ready",
    "pid",
    "restarts",
    "uptime_ms",
    "exit",
    "next_retry_ms",
    "command",
    "port",
    "version",
];

/// The wrapped server that answers with its pid, and its port.
fn fixture(flags: &[&str]) -> (Server, u16) {
    let port = Reserved::new().port;
    let command = format!("{} listen {port}", common::fixture());
    let server = Server::start(&command, port, flags);
    assert_eq!(server.get("/_frag/await", "").status, 200);
    (server, port)
}

fn sh(script: &str, flags: &[&str]) -> Server {
    Server::start(&format!("/bin/sh -c '{script}'"), unused_port(), flags)
}

fn post(server: &Server, route: &str) -> Response {
    server.send("POST", &format!("/_frag/{route}"), "", b"")
}

fn state(server: &Server) -> Value {
    server.get("/_frag/status", "").json()["status"].clone()
}

/// Where each key stands in the text: the order on the wire.
fn assert_keys(answer: &Response, keys: &[&str]) {
    let text = answer.body_text();
    let at: Vec<_> = keys.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap_or(usize::MAX)).collect();
    assert!(at.is_sorted() && at.last() < Some(&usize::MAX), "{text}");
    assert_eq!(answer.json().as_object().unwrap().len(), keys.len(), "{text}");
}

#[test]
fn the_status_of_a_running_server() {
    let (server, port) = fixture(&[]);
    let answer = server.get("/_frag/status", "");
    assert_eq!((answer.status, answer.field("content-type").as_deref()), (200, Some("application/json")));
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    assert_keys(&answer, &KEYS);
    let json = answer.json();
    assert!(json["pid"].as_i64().unwrap() > 1 && json["uptime_ms"].is_u64(), "{json}");
    assert_eq!(json["command"], format!("{} listen {port}", common::fixture()));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for (key, value) in [
        ("status", json!("ready")),
        ("ready", json!(true)),
        ("restarts", json!(0)),
        ("exit", Value::Null),
        ("next_retry_ms", Value::Null),
        ("port", json!(port)),
    ] {
        assert_eq!(json[key], value, "{key}");
    }
    let head = server.send("HEAD", "/_frag/status", "", b"");
    assert_eq!((head.status, head.field("content-length").is_some()), (200, true));
}

#[test]
fn the_status_of_a_server_that_ended() {
    for (script, exit) in
        [("exit 7", json!({"code":7,"signal":null})), ("kill -9 $$", json!({"code":null,"signal":9}))]
    {
        let server = sh(script, &["--max-restarts", "0"]);
        eventually("failed", || state(&server) == "failed");
        let answer = server.get("/_frag/status", "");
        assert_eq!(answer.status, 503);
        let mut keys = KEYS.to_vec();
        keys.insert(7, "message");
        assert_keys(&answer, &keys);
        let json = answer.json();
        assert_eq!(json["exit"], exit);
        for key in ["pid", "uptime_ms", "next_retry_ms"] {
            assert_eq!(json[key], Value::Null, "{key}");
        }
    }
    let waiting = sh("exit 1", &[]);
    eventually("waiting for its next start", || {
        let json = waiting.get("/_frag/status", "").json();
        json["status"] == "backoff" && json["next_retry_ms"].as_u64().is_some_and(|ms| ms <= 10_000)
    });
}

#[test]
fn the_status_in_plain_words() {
    let server = Server::start(IDLE, unused_port(), &[]);
    eventually("it runs", || server.get("/_frag/status", "").status == 200);
    let ask = |accept: &str| server.get("/_frag/status", &format!("Accept: {accept}\r\n"));
    for accept in ["text/plain", "TEXT/Plain;q=0.9", "text/plain, application/json"] {
        let answer = ask(accept);
        assert_eq!((answer.status, answer.body_text().as_str()), (200, "Running.\n"), "{accept}");
        assert_eq!(answer.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    }
    for accept in ["*/*", "application/json", "text/html, text/plain", "text/plainer"] {
        assert_eq!(ask(accept).json()["ready"], false, "{accept}");
    }
    assert_eq!(post(&server, "stop").status, 200);
    assert_eq!((ask("text/plain").status, ask("text/plain").body_text()), (503, "Not running.\n".into()));
}

#[test]
fn await_answers_as_soon_as_the_server_is_ready() {
    let port = Reserved::new();
    let server = Server::start(IDLE, port.port, &[]);
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..20).map(|_| scope.spawn(|| server.get("/_frag/await?timeout=19.5", ""))).collect();
        server.give_listener(port);
        for answer in waiting.into_iter().map(|thread| thread.join().unwrap()) {
            assert_eq!((answer.status, &answer.json()["ready"]), (200, &true.into()));
        }
    });
    assert_eq!(server.get("/_frag/await?timeout=0", "").status, 200, "ready at once");
}

#[test]
fn await_gives_up_after_its_time_and_takes_no_odd_one() {
    let server = Server::start(IDLE, unused_port(), &[]);
    let start = Instant::now();
    let answer = server.get("/_frag/await?timeout=0.4", "");
    assert_eq!((answer.status, &answer.json()["ready"]), (503, &false.into()));
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert_eq!(server.get("/_frag/await?timeout=0", "").status, 503);
    for bad in ["", "-1", "301", "soon", "NaN", "1&timeout=1"] {
        let answer = server.get(&format!("/_frag/await?timeout={bad}"), "");
        assert_eq!((answer.status, answer.code()), (400, "bad_parameter".into()), "{bad}");
    }
}

#[test]
fn a_client_that_leaves_await_frees_its_place() {
    let server = Server::start(IDLE, unused_port(), &["--max-streams", "1"]);
    let mut first = None;
    let second = || server.get("/_frag/await?timeout=0.01", "");
    eventually("one has the only place", || {
        // Whichever comes first has it; one that was too late tries again.
        let mut stream = connect(server.address);
        stream.write_all(b"GET /_frag/await?timeout=300 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        first = Some(stream);
        second().code() == "overloaded"
    });
    drop(first);
    eventually("the place is free", || second().status == 503 && second().json()["status"] == "starting");
}

#[test]
fn restart_stop_and_start_answer_when_it_has_happened() {
    let (server, _) = fixture(&[]);
    let pid = || server.get("/_frag/status", "").json()["pid"].clone();
    for wait in ["", "?wait=ready"] {
        let before = pid();
        let answer = post(&server, &format!("restart{wait}"));
        assert_eq!(answer.status, 200, "{wait}");
        assert_ne!(answer.json()["pid"], before, "{wait}");
        assert!(!std::path::Path::new(&format!("/proc/{before}")).exists());
        assert!(wait.is_empty() || answer.json()["ready"] == true);
    }
    assert_eq!(post(&server, "restart?wait=ready").json()["restarts"], 3);
    let stopped = post(&server, "stop?wait=ready");
    assert_eq!((stopped.status, &stopped.json()["status"]), (200, &"stopped".into()));
    assert_eq!(post(&server, "stop").status, 200, "already");
    let answer = post(&server, "interrupt");
    assert_eq!((answer.status, answer.code()), (409, "not_running".into()));
    let started = post(&server, "start?wait=ready");
    assert_eq!((started.status, &started.json()["ready"]), (200, &true.into()));
    let again = post(&server, "start?wait=ready");
    assert_eq!((again.status, &again.json()["pid"]), (200, &started.json()["pid"]));
    for bad in ["restart?wait", "start?wait=1", "stop?wait=ready&wait=ready", "interrupt?wait=yes"] {
        assert_eq!(post(&server, bad).code(), "bad_parameter", "{bad}");
    }
    assert_eq!(pid(), started.json()["pid"], "what was refused did nothing");
}

#[test]
fn an_interrupt_reaches_the_server_as_the_signal_that_was_set() {
    for (flags, name) in [(&[][..], "INT"), (&["--interrupt-signal=HUP"], "HUP")] {
        let script = format!("trap \"touch got\" {name}; touch set; while :; do sleep 0.01; done");
        let server = sh(&script, flags);
        eventually("the trap is set", || server.root().join("set").exists());
        // The script may be ahead of the thread that started it.
        eventually("it is known", || !server.get("/_frag/status", "").json()["pid"].is_null());
        assert_eq!(post(&server, "interrupt").status, 200);
        eventually("it was caught", || server.root().join("got").exists());
        assert_eq!(server.get("/_frag/status", "").json()["restarts"], 0);
    }
}

#[test]
fn a_command_that_cannot_run_fails_every_start() {
    let server = Server::start("/nonexistent/program", unused_port(), &[]);
    for route in ["restart", "start", "restart?wait=ready", "start?wait=ready"] {
        let answer = post(&server, route);
        assert_eq!((answer.status, answer.code()), (503, "spawn_failed".into()), "{route}");
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    }
}

#[test]
fn waiting_for_readiness_ends_when_the_server_has_failed() {
    let server = sh("exit 3", &["--max-restarts", "0"]);
    let start = Instant::now();
    let answer = post(&server, "restart?wait=ready");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &"failed".into()));
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn other_methods_are_told_which_there_are() {
    let server = Server::start(IDLE, unused_port(), &["--control", "127.0.0.1:0"]);
    let (read, file) = ("GET, HEAD", "GET, HEAD, DELETE");
    for (path, allowed) in [
        ("/status", read),
        ("/await", read),
        ("/health", read),
        ("/restart", "POST"),
        ("/interrupt", "POST"),
        ("/stop", "POST"),
        ("/start", "POST"),
        ("/upload/f", "POST, PUT"),
        ("/files", file),
        ("/files/", file),
        ("/files/f", file),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"] {
            if allowed.split(", ").any(|known| known == method) {
                continue;
            }
            for (address, prefix) in [(server.address, "/_frag"), (server.control.unwrap(), "")] {
                let answer = send(address, method, &format!("{prefix}{path}"), "", b"");
                assert_eq!(answer.status, 405, "{method} {prefix}{path}");
                assert_eq!(answer.field("allow").as_deref(), Some(allowed), "{method} {prefix}{path}");
                if method != "HEAD" {
                    assert_eq!(answer.code(), "method_not_allowed", "{method} {prefix}{path}");
                }
            }
        }
    }
}

#[test]
fn only_the_exact_prefix_is_ours() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"app"));
    let theirs = [
        "/_frag",
        "/_frag?x=/_frag/",
        "/_FRAG/status",
        "/_Frag/status",
        "//_frag/status",
        "/%5Ffrag/status",
        "/%5ffrag/status",
        "/_frag%2Fstatus",
        "/_frag.html",
        "/_fragment/status",
        "/x/_frag/status",
        "/./_frag/status",
        "/x/../_frag/status",
        "/_frag;/status",
        "/status",
        "/?/_frag/status",
    ];
    for target in theirs {
        let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
        assert_eq!(server.get(target, reader).body_text(), "app", "{target}");
    }
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines, theirs.map(|target| format!("GET {target} HTTP/1.1")));
    for target in ["/_frag//", "/_frag//status", "/_frag/status/", "/_frag/%73tatus", "/_frag/./status"] {
        let answer = server.get(target, "");
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()), "{target}");
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    }
    assert_eq!(seen.lock().unwrap().len(), theirs.len(), "and none of those went to the app");
}

#[test]
fn the_control_listener_serves_the_same_and_relays_nothing() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &["--control", "127.0.0.1:0"]);
    let seen = play(server.give_listener(reserved), |_| ok(b"app"));
    let control = server.control.unwrap();
    for prefix in ["", "/_frag"] {
        let ask = |method: &str, path: &str| send(control, method, &format!("{prefix}{path}"), "", b"");
        assert_eq!(ask("GET", "/status").json()["ready"], true, "{prefix}");
        assert_eq!(ask("GET", "/health").json()["status"], "ok", "{prefix}");
        assert_eq!(ask("POST", "/upload/f").status, 200, "{prefix}");
        assert_eq!(ask("DELETE", "/files/f").status, 204, "{prefix}");
    }
    for target in ["//", "/index.html", "/_frag", "/_FRAG/status", "/%5Ffrag/status", "//_frag/status"] {
        let answer = send(control, "GET", target, "", b"");
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()), "{target}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
    assert_eq!(server.get("/", "").body_text(), "app");
}

#[test]
fn health_is_ours_and_not_the_apps() {
    let server = Server::start("/nonexistent/program", unused_port(), &[]);
    let answer = server.get("/_frag/health", "X-Verified-User-Data: {\"readOnly\":true}\r\n");
    assert_eq!(answer.status, 200);
    assert_keys(&answer, &["status", "timestamp"]);
    assert!(answer.json()["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
}

#[test]
fn programs_learn_why_the_app_is_not_there() {
    let server = sh("echo one; echo \"<b>two\" >&2; exit 4", &["--max-restarts", "0"]);
    eventually("failed", || state(&server) == "failed");
    for (method, accept) in [("GET", ""), ("GET", "Accept: */*\r\n"), ("POST", "Accept: text/html\r\n")] {
        let answer = server.send(method, "/any", accept, b"");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
        let json = answer.json();
        assert_eq!(
            (&json["error"]["code"], &json["server"]["state"]),
            (&"server_unavailable".into(), &"failed".into())
        );
        assert_eq!(json["server"]["exit_code"], 4);
        let lines = json["server"]["logs"].as_array().unwrap();
        assert!(lines.contains(&"one".into()) && lines.contains(&"<b>two".into()), "{lines:?}");
    }
    assert_eq!(post(&server, "stop").status, 200);
    assert_eq!(server.get("/any", "").json()["server"]["state"], "stopped");
}

#[test]
fn people_get_a_page_that_comes_back_by_itself() {
    let server = sh("echo \"<script>alert(1)</script> & \\\"quoted\\\"\"; exit 4", &["--max-restarts=0"]);
    eventually("failed", || state(&server) == "failed");
    let page = |fields: &str| server.get("/any", &format!("Accept: text/html,*/*;q=0.8\r\n{fields}"));
    let answer = page("");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    let html = answer.body_text();
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot;"), "{html}");
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(html.contains("exit code 4"), "{html}");
    for (prefix, taken) in [
        ("/app/x~1.y", "/app/x~1.y"),
        ("/app/", "/app"),
        ("//evil.example", ""),
        ("/a'+alert(1)+'", ""),
        ("/a\\b", ""),
        ("app", ""),
        ("https://evil.example", ""),
    ] {
        let html = page(&format!("X-Verified-Path: {prefix}\r\n")).body_text();
        assert!(html.contains(&format!("fetch('{taken}/_frag/await")), "{prefix}: {html}");
    }
    let head = server.send("HEAD", "/any", "Accept: text/html\r\n", b"");
    assert_eq!((head.status, head.field("content-type").as_deref()), (503, Some("text/html; charset=utf-8")));
}

#[test]
fn a_request_to_a_stopped_server_is_not_held() {
    let (server, _) = fixture(&["--hold-timeout", "1h"]);
    assert_eq!(post(&server, "stop").status, 200);
    assert_eq!(server.get("/", "").status, 503);
    let mut held = connect(server.address);
    assert_eq!(post(&server, "start").status, 200);
    held.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Response::parse(&read_to_end(&mut held), "GET").status, 200, "held until it was ready");
}
