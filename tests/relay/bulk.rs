//! Long bodies of known length go from socket to socket: whole, cut as visibly as short ones, and on
//! connections that serve the next request, too.

use crate::binary::client::{Client, End};
use crate::binary::tunnel::noise;
use crate::binary::{PATIENCE, Server, Wire, eventually};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;

/// From where bodies are spliced.
const BULK: usize = 256 * 1024;

fn head(length: usize, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n").into_bytes()
}

/// The wrapped server's end of the connection the next request comes on: this one, or a new one. Which is
/// up to the machine: connections are kept by thread, and a busy one may have it served by another.
fn next_wire(listener: &TcpListener, wire: Wire) -> (Wire, bool) {
    let mut watched =
        [&wire.stream as &dyn AsFd, listener].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert!(poll(&mut watched, patience).unwrap() > 0, "nobody asks");
    let same = watched[0].any() == Some(true) && wire.stream.peek(&mut [0]).is_ok_and(|n| n > 0);
    if same { (wire, true) } else { (Wire::accept(listener), false) }
}

#[test]
fn a_long_body_arrives_whole_and_its_connection_serves_on() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    let mut served_on = false;
    for round in 0..20 {
        for (n, length) in [BULK - 1, BULK, BULK + 1, 1 << 20, 5_000_003].into_iter().enumerate() {
            let body = noise(length, n as u64 + 1);
            wire.head().unwrap();
            wire.write(&[head(length, ""), body.clone()].concat());
            assert!(client.response("GET").body == body, "{length}");
            client.request("GET", "/", "");
            let (next, same) = next_wire(&listener, wire);
            wire = next;
            served_on |= same && length >= BULK;
        }
        if served_on {
            return;
        }
        assert!(round < 19, "no connection serves on");
    }
}

#[test]
fn pieces_arrive_as_they_come() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.write(&head(BULK + 10, "X-Kind: long\r\n"));
    assert!(client.take_through("\r\n\r\n").to_lowercase().contains("x-kind: long"));
    for piece in [&b"a"[..], b"few", b"bytes."] {
        wire.write(piece);
        assert_eq!(client.take(piece.len()), piece);
    }
    let rest = noise(BULK, 9);
    wire.write(&rest);
    assert!(client.take(rest.len()) == rest);
}

#[test]
fn one_that_ends_too_early_is_cut_for_the_client() {
    let (server, listener) = Server::with_backend(&[]);
    for sent in [0, 1, BULK, BULK + 99] {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(&head(BULK + 100, ""));
        client.take_through("\r\n\r\n");
        let body = noise(sent, 3);
        wire.write(&body);
        wire.close();
        assert_eq!(client.end(), End::Reset, "{sent} bytes look like all");
    }
}

#[test]
fn what_follows_it_is_nobodys_answer() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    let body = noise(BULK, 4);
    wire.write(
        &[head(BULK, ""), body.clone(), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec()]
            .concat(),
    );
    assert!(client.response("GET").body == body);
    client.request("GET", "/own", "");
    let mut other = Wire::accept(&listener);
    assert!(other.head().unwrap().starts_with("GET /own "));
    other.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    assert_eq!(client.response("GET").body_text(), "good");
}

#[test]
fn a_connection_that_is_to_close_is_not_used_again() {
    let (server, listener) = Server::with_backend(&[]);
    for (line, fields) in [("HTTP/1.1 200 OK", "Connection: x, Close\r\n"), ("HTTP/1.0 200 OK", "")] {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        let body = noise(BULK, 5);
        wire.write(format!("{line}\r\n{fields}Content-Length: {BULK}\r\n\r\n").as_bytes());
        wire.write(&body);
        assert!(client.response("GET").body == body);
        client.request("GET", "/again", "");
        let mut other = Wire::accept(&listener);
        assert!(other.head().unwrap().starts_with("GET /again "));
        other.write(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.response("GET").status, 204);
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_frees_both_connections() {
    let (server, listener) = Server::with_backend(&[]);
    for silent in [false, true] {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(&head(1 << 30, ""));
        client.take_through("\r\n\r\n");
        drop(client);
        if silent {
            assert_eq!(wire.head(), None);
        } else {
            let piece = noise(64 * 1024, 6);
            eventually("the wrapped server learns of it", || wire.stream.write_all(&piece).is_err());
        }
    }
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let (server, listener) = Server::with_backend(&["--min-rate", "1000000"]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.write(&head(1 << 30, ""));
    std::thread::spawn(move || while wire.stream.write_all(&[0; 64 * 1024]).is_ok() {});
    client.take_through("\r\n\r\n");
    assert_eq!(client.end_unread(), End::Reset);
}
