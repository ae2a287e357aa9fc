//! What comes before an answer, or instead of one: informational answers, heads in crumbs.

use crate::binary::client::Client;
use crate::binary::{PATIENCE, Response, Server, Wire, peer_closed, read_to_end};
use std::io::Write;
use std::time::{Duration, Instant};

/// Also such as no final answer may be.
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: odd\r\n\r\n\r\n";
/// More than the kernel keeps.
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// Says `crumbs` over and over, with a pause in between, until nobody listens; false when that takes too long.
fn say_on(wire: &mut Wire, crumbs: &[u8], pause: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if wire.stream.write_all(crumbs).is_err() {
            return true;
        }
        std::thread::sleep(pause);
    }
    false
}

/// A request that the wrapped server has read.
fn asked(flags: &[&str], fields: &str) -> (Server, Client, Wire) {
    let (server, listener) = Server::with_backend(flags);
    let mut client = Client::new(server.address);
    client.request("GET", "/", fields);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    (server, client, wire)
}

#[test]
fn they_may_have_fields_of_their_own() {
    let (_server, mut client, mut wire) = asked(&[], "");
    wire.write(b"HTTP/1.1 100 Continue\r\nDate: today\r\n\r\n\r\nHTTP/1.1 100 Con");
    wire.write(b"tinue\r\nTransfer-Encoding: odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let response = client.response("GET");
    assert_eq!((response.status, response.body_text().as_str()), (200, "ok"));
    assert_eq!(response.field("transfer-encoding"), None);
}

#[test]
fn without_an_end_they_are_a_502() {
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: echo\r\n"] {
        let (_server, mut client, mut wire) = asked(&[], upgrade);
        assert!(say_on(&mut wire, &HINTS.repeat(10), Duration::ZERO), "{upgrade}");
        assert_eq!(client.response("GET").status, 502, "{upgrade}");
    }
}

#[test]
fn a_head_in_crumbs_does_not_hide_that_the_client_has_left() {
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: echo\r\n"] {
        let (_server, client, mut wire) = asked(&[], upgrade);
        wire.write(b"HTTP/1.1 200 OK\r\nX: ");
        drop(client);
        assert!(say_on(&mut wire, b"x", Duration::from_millis(2)), "{upgrade}");
    }
}

#[test]
fn a_head_in_crumbs_has_the_time_of_any_answer() {
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: echo\r\n"] {
        let (server, listener) = Server::with_backend(&["--upstream-timeout", "1s"]);
        let mut client = Client::new(server.address);
        client.request("GET", "/", upgrade);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(b"HTTP/1.1 200 OK\r\nX: ");
        assert!(say_on(&mut wire, b"x", Duration::from_millis(2)), "{upgrade}");
        assert_eq!(client.response("GET").status, 504, "{upgrade}");
        client.request("GET", "/", upgrade);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(HINTS);
        assert_eq!(client.response("GET").status, 504, "{upgrade}: nothing more comes");
    }
}

#[test]
fn a_final_answer_behind_them_stops_the_body_of_its_request() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = server.connect();
    write!(client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {BODY_BYTES}\r\n\r\n").unwrap();
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    let mut sending = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || sending.write_all(&vec![b'x'; BODY_BYTES]));
    // More than a first look sees.
    wire.write(&HINTS.repeat(100));
    wire.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    let response = Response::parse(&read_to_end(&mut client), "POST");
    assert_eq!((response.status, response.body_text().as_str()), (413, "no"));
    assert!(sender.join().unwrap().is_err());
    assert!(peer_closed(&client));
}

#[test]
fn behind_them_and_an_empty_line_an_answer_without_a_body_is_one() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.write(HINTS);
    wire.write(b"\r\nHTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.response("GET").status, 204);
    // What comes behind it late is nobody's answer.
    wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    client.request("GET", "/", "");
    let mut next = Wire::accept(&listener);
    next.head().unwrap();
    next.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    assert_eq!(client.response("GET").body_text(), "fine");
}
