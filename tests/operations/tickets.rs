//! Tickets: for clients that cannot send a header, once, for a minute, for what their issuer may.

use crate::binary::sse::Listener;
use crate::binary::{IDLE, Response, Server, send, unused_port};

const AUTH: &str = "Authorization: Bearer correct-horse\r\n";

fn start(flags: &[&str]) -> Server {
    Server::start_with(IDLE, unused_port(), flags, |binary| {
        binary.env("FRAG_TOKEN", "correct-horse");
    })
}

fn ticket(server: &Server) -> String {
    let answer = server.send("POST", "/_frag/tickets", AUTH, b"");
    assert_eq!(answer.status, 201, "{}", answer.body_text());
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    let json = answer.json();
    assert_eq!(json["expires_in_ms"], 60_000);
    let ticket = json["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.len() == 32 && ticket.bytes().all(|b| b.is_ascii_hexdigit()), "{ticket}");
    ticket
}

fn is_refused(answer: &Response) {
    assert_eq!((answer.status, answer.code().as_str()), (401, "ticket_invalid"), "{}", answer.body_text());
    assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer"));
}

#[test]
fn a_ticket_opens_a_stream_once() {
    let server = start(&[]);
    let ticket = ticket(&server);
    let target = format!("/_frag/logs?tail=1&follow=true&ticket={ticket}");
    let _follower = Listener::new(server.address, &target, "Accept: text/event-stream\r\n");
    is_refused(&server.get(&target, ""));
    // The token beside it does not bring it back: whoever shows a ticket is judged by that.
    is_refused(&server.get(&target, AUTH));
    is_refused(&server.get("/_frag/logs?ticket=", ""));
    is_refused(&server.get(&format!("/_frag/logs?ticket={}", "0".repeat(32)), ""));
}

#[test]
fn a_ticket_is_for_streams_alone_and_is_not_used_up_elsewhere() {
    let server = start(&[]);
    let ticket = ticket(&server);
    for (method, target) in [
        ("GET", "/_frag/status"),
        ("GET", "/_frag/files/"),
        ("GET", "/_frag/metrics"),
        ("POST", "/_frag/restart"),
        ("POST", "/_frag/tickets"),
        ("HEAD", "/_frag/logs"),
        ("POST", "/_frag/logs"),
        ("GET", "/_frag/nothing"),
    ] {
        let answer = server.send(method, &format!("{target}?ticket={ticket}"), "", b"");
        assert_eq!(answer.status, 401, "{method} {target}");
    }
    assert_eq!(server.get(&format!("/_frag/logs?ticket={ticket}&ticket={ticket}"), "").status, 401);
    assert_eq!(server.get(&format!("/_frag/logs?ticket={ticket}"), "").status, 200);
}

#[test]
fn who_may_not_come_gets_no_ticket_and_what_restricts_holds_with_one() {
    let server = start(&[]);
    let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
    assert_eq!(server.send("POST", "/_frag/tickets", "", b"").code(), "token_required");
    assert_eq!(server.send("POST", "/_frag/tickets", &format!("{AUTH}{reader}"), b"").status, 403);
    assert_eq!(server.get("/_frag/tickets", AUTH).status, 405);
    let cross = format!("{AUTH}Origin: http://evil.example\r\n");
    assert_eq!(server.send("POST", "/_frag/tickets", &cross, b"").code(), "origin_not_allowed");
    let ticket = ticket(&server);
    assert_eq!(server.get(&format!("/_frag/logs?ticket={ticket}"), reader).code(), "read_only");
}

#[test]
fn a_ticket_is_good_on_the_listener_it_is_from() {
    let server = start(&["--control", "127.0.0.1:0", "--open-control"]);
    let control = server.control.unwrap();
    let issue = || send(control, "POST", "/tickets", "", b"").json()["ticket"].as_str().unwrap().to_owned();
    // Nobody gets from a listener without a token what the other asks one for.
    is_refused(&server.get(&format!("/_frag/logs?ticket={}", issue()), ""));
    assert_eq!(send(control, "GET", &format!("/logs?ticket={}", issue()), "", b"").status, 200);
    let public = ticket(&server);
    assert_eq!(send(control, "GET", &format!("/logs?ticket={public}"), "", b"").status, 401);
}

#[test]
fn no_more_tickets_than_the_bound() {
    let server = start(&[]);
    let mut client = crate::binary::client::Client::new(server.address);
    let mut issue = || {
        client.request("POST", "/_frag/tickets", &format!("{AUTH}Content-Length: 0\r\n"));
        client.response("POST")
    };
    let first = issue().json()["ticket"].as_str().unwrap().to_owned();
    for _ in 1..1024 {
        assert_eq!(issue().status, 201);
    }
    let answer = issue();
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_tickets"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("60"));
    assert_eq!(server.get(&format!("/_frag/logs?ticket={first}"), "").status, 200);
    assert_eq!(issue().status, 201, "the one that was used made room");
}

#[cfg(feature = "runs")]
#[test]
fn event_streams_take_tickets() {
    let server = start(&[]);
    for path in ["/events", "/stream/state", "/stream/actions"] {
        let target = format!("/_frag{path}?ticket={}", ticket(&server));
        let _listener = Listener::new(server.address, &target, "");
        let answer = server.get(&target, "");
        assert_eq!((answer.status, answer.json()["error"].is_string()), (401, true), "{path}");
    }
    assert_eq!(server.get(&format!("/_frag/state?ticket={}", ticket(&server)), "").status, 401);
}

#[cfg(feature = "workers")]
#[test]
fn observers_of_workers_take_tickets() {
    use crate::binary::websocket::Socket;
    use crate::binary::workers::{ASSISTANT, Workers, start};
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let target = format!("/_frag/v1/workers/{id}/events/ws?ticket={}", ticket(&server));
    let mut socket = Socket::open(server.address, &target, "");
    assert!(socket.text().contains("snapshot"));
    let again = server.get(&target, crate::binary::websocket::HANDSHAKE);
    assert_eq!(again.status, 401);
    let target = format!("/_frag/v1/workers?ticket={}", ticket(&server));
    assert_eq!(server.get(&target, "").status, 401, "no stream");
}

#[test]
fn followers_of_a_run_take_tickets() {
    use crate::binary::exec;
    let server = exec::server(&[]);
    let answer = exec::reply(&server, serde_json::json!({"args": ["echo", "x"]}));
    let id = answer["run_id"].as_str().unwrap();
    let target = format!("/_frag/exec/{id}?ticket={}", ticket(&server));
    let followed = server.get(&target, "");
    assert!(followed.body_text().contains("exit_code"), "{followed:?}");
    assert_eq!(server.get(&target, "").status, 401);
}
