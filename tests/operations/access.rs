//! The access log and the lines of the log: what is in them, and what never is.

use crate::binary::client::Client;
use crate::binary::{IDLE, Server, eventually, ok, play, unused_port};
use serde_json::Value;

const TOKEN: &str = "correct-horse";
const AUTH: &str = "Authorization: Bearer correct-horse\r\n";

fn start(flags: &[&str]) -> Server {
    Server::start_with(IDLE, unused_port(), flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    })
}

fn log(server: &Server) -> String {
    server.log.lock().unwrap().clone()
}

/// The lines of the access log, once there is one with this in it.
fn lines_up_to(server: &Server, part: &str) -> Vec<String> {
    let lines = || -> Vec<String> {
        log(server).lines().filter(|line| line.contains("ACCESS")).map(str::to_owned).collect()
    };
    eventually(part, || lines().iter().any(|line| line.contains(part)));
    lines()
}

#[test]
fn off_it_says_nothing() {
    let server = start(&[]);
    server.get("/_frag/status?secret=1", "X-Request-Id: nobody-logs-this\r\n");
    server.get("/_frag/health", "");
    let log = log(&server);
    assert!(!log.contains("nobody-logs-this") && !log.contains("/_frag/status"), "{log}");
}

#[test]
fn a_line_of_text_a_request() {
    let (server, listener) = Server::with_backend(&["--access-log", "all"]);
    play(listener, |_| ok(b"0123456789"));
    let user = "X-Verified-User-Data: {\"user_id\":\"Ann \\\"A\\\"\"}\r\nX-Request-Id: last\r\n";
    server.send("POST", "/a%20b/\"x?q=1", user, b"12345");
    let lines = lines_up_to(&server, " last ");
    let line = lines.last().unwrap();
    let words: Vec<&str> = line.splitn(12, ' ').collect();
    assert!(words[0].ends_with('Z') && words[0].len() == 24, "{line}");
    assert_eq!(words[1..6], ["ACCESS", "127.0.0.1", "POST", "/a%20b/\\\"x", "200"], "{line}");
    let micros: u64 = words[6].strip_suffix("us").unwrap().parse().unwrap();
    assert!((1..20_000_000).contains(&micros), "{line}");
    assert_eq!(words[7..], ["5", "10", "relay", "last", "\"Ann \\\"A\\\"\""], "{line}");
    // What nobody could read has a line, too.
    server.raw(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n");
    let lines = lines_up_to(&server, " unread ");
    let words: Vec<&str> = lines.last().unwrap().split(' ').collect();
    assert_eq!((words[3], words[4], words[5], words[10]), ("-", "-", "400", "-"));
}

#[test]
fn a_client_that_leaves_has_a_line_without_a_status() {
    let (server, listener) = Server::with_backend(&["--access-log", "all", "--log-format", "json"]);
    let mut client = Client::new(server.address);
    client.request("GET", "/left", "");
    crate::binary::Wire::accept(&listener).request().unwrap();
    drop(client);
    let line = lines_up_to(&server, "/left").pop().unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["status"], &line["class"]), (&Value::Null, &Value::from("relay")));
}

#[test]
fn what_ends_while_it_is_held_has_a_line_and_is_counted() {
    let all = ["--access-log", "all", "--log-format", "json"];
    let mut server = Server::start(IDLE, unused_port(), &all);
    let held = |n: usize| {
        let line = format!("\nfrag_http_requests_held {n}\n");
        eventually(&line, || server.get("/_frag/metrics", "").body_text().contains(&line));
    };
    let clients = ["/left", "/stays"].map(|path| {
        let mut client = Client::new(server.address);
        client.request("GET", path, "X-Request-Id: mine\r\n");
        client
    });
    held(2);
    let [left, mut stays] = clients;
    drop(left);
    held(1);
    let metrics = server.get("/_frag/metrics", "").body_text();
    let counted = "frag_http_requests_total{class=\"relay\",code=\"none\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    server.terminate();
    let refused = stays.response("GET");
    assert_eq!(
        (refused.code().as_str(), refused.field("x-request-id").as_deref()),
        ("shutting_down", Some("mine"))
    );
    for (path, status) in [("/left", Value::Null), ("/stays", 503.into())] {
        let line = lines_up_to(&server, path).into_iter().find(|line| line.contains(path)).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["class"], &line["status"], &line["id"]),
            (&"relay".into(), &status, &"mine".into())
        );
        assert!(line["duration_us"].as_u64() > Some(0), "{line}");
    }
}

#[test]
fn a_refusal_before_anybody_reads_it_has_a_line() {
    let server = Server::start(IDLE, unused_port(), &["--access-log", "all", "--head-timeout", "50ms"]);
    let answer = server.raw(b"GET / HTTP/1.1\r\nHost: ");
    assert!(answer.starts_with(b"HTTP/1.1 408 "));
    let answer = server.raw(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(70_000)).as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 431 "));
    let lines = lines_up_to(&server, " 431 ");
    for (line, status) in lines.iter().filter(|line| line.contains(" unread ")).zip(["408", "431"]) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[2], words[3], words[4], words[5]), ("127.0.0.1", "-", "-", status));
    }
    assert!(lines.iter().any(|line| line.contains(" 408 ")), "{lines:?}");
}

#[test]
fn control_alone_if_that_is_asked_for() {
    let (server, listener) = Server::with_backend(&["--access-log", "control"]);
    play(listener, |_| ok(b"x"));
    server.get("/relayed", "");
    server.get("/_frag/health", "X-Request-Id: the-end\r\n");
    let lines = lines_up_to(&server, "the-end");
    assert!(lines.iter().all(|line| line.contains(" /_frag/") && !line.contains("/relayed")), "{lines:?}");
}

#[test]
fn every_line_is_json_if_that_is_asked_for() {
    let mut server = start(&["--access-log", "all", "--log-format", "json", "--log-level", "debug"]);
    let user = "X-Verified-User-Data: {\"sub\":7}\r\nX-Request-Id: last\r\n";
    server.get("/_frag/metrics", &format!("{AUTH}{user}"));
    lines_up_to(&server, "\"last\"");
    server.terminate();
    // The thread that reads the log sees its end a moment later.
    eventually("the last line", || log(&server).contains("\"ended\""));
    let lines: Vec<Value> = log(&server)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        assert!(line["time"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{line}");
        assert_eq!(line["level"] == "ACCESS", line["message"].is_null(), "{line}");
    }
    assert!(
        lines.iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains("listening on http")))
    );
    let line = lines.iter().find(|line| line["id"] == "last").unwrap();
    for (name, value) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "GET".into()),
        ("path", "/_frag/metrics".into()),
        ("status", 200.into()),
        ("received", 0.into()),
        ("class", "control".into()),
        ("user", "7".into()),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert!(line["sent"].as_u64() > Some(0) && line["duration_us"].as_u64() > Some(0), "{line}");
}

#[test]
fn secrets_are_in_no_line() {
    let server = start(&["--access-log", "all", "--exec", "any"]);
    let ticket =
        server.send("POST", "/_frag/tickets", AUTH, b"").json()["ticket"].as_str().unwrap().to_owned();
    server.get(&format!("/_frag/logs?ticket={ticket}"), "");
    server.get("/_frag/status?token=correct-horse", AUTH);
    server.get("/_frag/status", "Authorization: Bearer incorrect-battery\r\n");
    server.get("/_frag/status", "Cookie: session=staple\r\n");
    let exec = r#"{"args":["echo","argument-of-exec"],"env":{"V":"variable-of-exec"},"stdin":"input-of-exec","stream":false}"#;
    let json = format!("{AUTH}Content-Type: application/json\r\n");
    let answer = server.send("POST", "/_frag/exec", &json, exec.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    let mut secrets = vec![
        TOKEN.to_owned(),
        ticket,
        "incorrect-battery".to_owned(),
        "staple".to_owned(),
        "argument-of-exec".to_owned(),
        "variable-of-exec".to_owned(),
        "input-of-exec".to_owned(),
    ];
    if cfg!(feature = "artifacts") {
        let answer =
            server.send("POST", "/_frag/api/artifacts", &json, br#"{"payload":"payload-of-artifact"}"#);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        server.get(&format!("/_frag/{id}"), "");
        server.get(&format!("/_frag/api/artifacts/{id}"), AUTH);
        server.get(&format!("/_frag/x/../{id}"), "");
        for odd in [format!("{id}."), format!("{id}.txt"), format!("{id})"), format!("api/artifacts/{id}/x")]
        {
            server.get(&format!("/_frag/{odd}"), "");
        }
        let lines = lines_up_to(&server, &format!("/_frag/{}…", &id[..8]));
        assert!(
            lines.iter().any(|line| line.contains(&format!("/api/artifacts/{}…", &id[..8]))),
            "{lines:?}"
        );
        secrets.extend([id, "payload-of-artifact".to_owned()]);
    }
    server.get("/_frag/health", "X-Request-Id: the-end\r\n");
    lines_up_to(&server, "the-end");
    let log = log(&server);
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret}: {log}");
    }
}
