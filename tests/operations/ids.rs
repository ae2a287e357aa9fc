//! Ids of requests, from clients, to the wrapped server and back.

use crate::binary::client::Client;
use crate::binary::{IDLE, Reserved, Server, Wire, ok, play};
use std::collections::BTreeSet;

fn is_ours(id: &str) -> bool {
    let (first, number) = id.split_once('-').unwrap_or_default();
    [first, number].iter().all(|part| part.len() == 12 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn a_request_without_an_id_gets_one_that_both_sides_see() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"x"));
    let mut client = Client::new(server.address);
    let mut ids = Vec::new();
    for target in ["/", "/", "/_frag/status", "/_frag/nothing"] {
        let id = client.get(target).field("x-request-id").unwrap();
        assert!(is_ours(&id), "{id}");
        ids.push(id);
    }
    let told: Vec<String> = seen.lock().unwrap().iter().map(|s| s.field("x-request-id").unwrap()).collect();
    assert_eq!(ids[..2], told);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each has its own");
    let beginning = |id: &String| id.split('-').next().unwrap().to_owned();
    assert_eq!(ids.iter().map(beginning).collect::<BTreeSet<_>>().len(), 1, "one for the process");
}

#[test]
fn a_sane_id_is_kept_and_another_replaced() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"x"));
    let longest = "x".repeat(128);
    for id in ["a", "A.b_c-9", "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", &longest] {
        for target in ["/", "/_frag/status"] {
            let answer = server.get(target, &format!("X-Request-ID: {id}\r\n"));
            assert_eq!(answer.field("x-request-id").as_deref(), Some(id));
        }
        assert_eq!(seen.lock().unwrap().pop().unwrap().field("x-request-id").as_deref(), Some(id));
    }
    for fields in [
        "X-Request-Id: \r\n".to_owned(),
        format!("X-Request-Id: x{longest}\r\n"),
        "X-Request-Id: a b\r\n".to_owned(),
        "X-Request-Id: a\"b\r\n".to_owned(),
        "X-Request-Id: a/../b\r\n".to_owned(),
        "X-Request-Id: caf\u{e9}\r\n".to_owned(),
        "X-Request-Id: one\r\nx-request-id: two\r\n".to_owned(),
        "X-Request-Id: one\r\nx-request-id: one\r\nX-Request-Id: one\r\n".to_owned(),
    ] {
        let id = server.get("/", &fields).field("x-request-id").unwrap();
        assert!(is_ours(&id), "{fields}: {id}");
        let told = seen.lock().unwrap().pop().unwrap().fields("x-request-id");
        assert_eq!(told, [id], "{fields}");
    }
}

#[test]
fn what_the_app_says_of_its_own_passes() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| b"HTTP/1.1 200 OK\r\nX-Request-Id: the app's\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert_eq!(server.get("/", "X-Request-Id: mine\r\n").fields("x-request-id"), ["the app's"]);
}

#[test]
fn a_held_request_keeps_its_id() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/first", "");
    // It is held at least once before this one is answered.
    server.get("/_frag/status", "");
    let seen = play(server.open_listener(reserved), |_| ok(b"x"));
    let id = client.response("GET").field("x-request-id").unwrap();
    assert!(is_ours(&id));
    let seen = seen.lock().unwrap();
    let told: Vec<_> = seen.iter().filter(|s| s.line().contains("/first")).collect();
    assert_eq!(told.last().unwrap().field("x-request-id"), Some(id));
}

#[test]
fn an_upgrade_has_one_too() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "Connection: upgrade\r\nUpgrade: x\r\nX-Request-Id: up\r\n");
    let head = Wire::accept(&listener).head().unwrap();
    assert!(head.contains("\r\nx-request-id: up\r\n"), "{head}");
}

#[test]
fn trace_context_passes_untouched() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"x"));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // What is no trace context is not ours to judge either.
    for value in [parent, "ff-odd", "00-zz"] {
        server.get("/", &format!("Traceparent: {value}\r\nTracestate: a=1\r\nTracestate: b=2\r\n"));
        let seen = seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen.fields("traceparent"), [value]);
        assert_eq!(seen.fields("tracestate"), ["a=1", "b=2"]);
    }
    server.get("/", "");
    assert_eq!(seen.lock().unwrap().pop().unwrap().fields("traceparent"), [""; 0], "none is made");
}
