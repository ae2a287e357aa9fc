//! An upgraded connection is the wrapped server's: every byte, each end, each failure passes.

use crate::binary;
use crate::binary::client::{Client, End};
use crate::binary::tunnel::{SWITCH, UPGRADE, cpu_time_in_silence, noise, open};
use crate::binary::{Server, Wire, eventually, ok, play, read_to_end};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

#[test]
fn the_agreement_arrives_byte_for_byte_with_what_is_behind_it() {
    let (server, listener) = Server::with_backend(&[]);
    let switch = b"HTTP/1.1 101 As You Like It\r\nuPGRADE:echo\r\nX-Odd:  two  spaces \r\nSet-Cookie: b\r\nset-cookie: a\r\nX-Latin: \xe9\r\nConnection: Keep-Alive , UPGRADE\r\n\r\n";
    let behind = noise(10_000, 1);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.write(&[switch.as_slice(), &behind].concat());
    assert_eq!(client.take(switch.len()), switch);
    assert_eq!(client.take(behind.len()), behind);
}

#[test]
fn an_agreement_in_pieces_is_one() {
    let (server, listener) = Server::with_backend(&[]);
    for at in [1, 9, 20, SWITCH.len() - 1] {
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        wire.write(&SWITCH.as_bytes()[..at]);
        wire.write(&SWITCH.as_bytes()[at..]);
        assert_eq!(client.take_through("\r\n\r\n"), SWITCH);
        wire.write(b"more");
        assert_eq!(client.take(4), b"more");
    }
}

#[test]
fn what_the_client_sends_before_the_agreement_is_not_lost() {
    for (count, at_once) in [(10, true), (10, false), (300_000, true), (300_000, false)] {
        let (server, listener) = Server::with_backend(&[]);
        let early = noise(count, 2);
        let mut client = Client::new(server.address);
        if at_once {
            client.send([UPGRADE.as_bytes(), &early].concat());
        } else {
            client.send(UPGRADE);
        }
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        if !at_once {
            client.send(&early);
        }
        wire.write(SWITCH.as_bytes());
        assert!(wire.take(count) == early, "{count} {at_once}");
        client.send("later");
        assert_eq!(wire.take(5), b"later");
    }
}

#[test]
fn bytes_pass_both_ways_at_once_in_odd_sizes() {
    fn send(mut to: &TcpStream, bytes: &[u8]) {
        let (mut rest, mut size) = (bytes, 1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            to.write_all(piece).unwrap();
            (rest, size) = (after, (size * 7 + 3) % 70_001);
        }
    }
    fn receive(mut from: &TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).unwrap();
        bytes
    }
    let (server, listener) = Server::with_backend(&[]);
    let (client, wire) = open(&server, &listener);
    let (up, down) = (noise(MIB + 1, 3), noise(MIB + 77, 4));
    std::thread::scope(|scope| {
        scope.spawn(|| send(&client.stream, &up));
        scope.spawn(|| send(&wire.stream, &down));
        let got = scope.spawn(|| receive(&wire.stream, up.len()));
        assert!(receive(&client.stream, down.len()) == down);
        assert!(got.join().unwrap() == up);
    });
}

/// Sends until nothing is taken any more; what was.
fn fill(mut stream: &TcpStream) -> Vec<u8> {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (block, mut sent) = (noise(64 * 1024 - 5, 5), Vec::new());
    loop {
        match stream.write(&block) {
            Ok(n) => sent.extend_from_slice(&block[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return sent,
            Err(e) => panic!("{e}"),
        }
        assert!(sent.len() < 200 * MIB, "somebody keeps it all");
    }
}

fn peak_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_slow_reader_on_either_side_costs_no_memory_and_loses_nothing() {
    let (server, listener) = Server::with_backend(&[]);
    let (mut client, mut wire) = open(&server, &listener);
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
    let before = peak_kib(&server);
    // Both ways are full at once, and nobody reads.
    let (up, down) = (fill(&client.stream), fill(&wire.stream));
    let grown = peak_kib(&server) - before;
    assert!(grown < 1024, "{grown} KiB for {} and {} bytes", up.len(), down.len());
    // On a busy machine the last bytes may still be on their way.
    binary::eventually("at rest while nothing can move", || {
        cpu_time_in_silence_of_nobody(&server) < Duration::from_millis(100)
    });
    assert!(wire.take(up.len()) == up);
    assert!(client.take(down.len()) == down);
    client.send("on");
    assert_eq!(wire.take(2), b"on");
}

/// Processor time within half a second in which a connection without a request hears nothing.
fn cpu_time_in_silence_of_nobody(server: &Server) -> Duration {
    cpu_time_in_silence(server, &Client::new(server.address), Duration::from_millis(500))
}

#[test]
fn each_way_ends_by_itself() {
    let (server, listener) = Server::with_backend(&[]);
    for client_first in [true, false] {
        let (mut client, mut wire) = open(&server, &listener);
        let bytes = noise(100_000, 6);
        if client_first {
            client.send("last words");
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(wire.take(10), b"last words");
            assert_eq!(wire.stream.read(&mut [0]).unwrap(), 0);
            let busy = cpu_time_in_silence(&server, &client, Duration::from_millis(500));
            assert!(busy < Duration::from_millis(100), "{busy:?} of 500 ms");
            wire.write(&bytes);
            assert!(client.take(bytes.len()) == bytes);
            wire.close();
            assert_eq!(client.end(), End::Closed);
        } else {
            wire.write(b"last words");
            wire.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.take(10), b"last words");
            assert_eq!(client.end(), End::Closed);
            client.send(&bytes);
            assert!(wire.take(bytes.len()) == bytes);
            drop(client);
            assert_eq!(wire.stream.read(&mut [0]).unwrap(), 0);
        }
    }
}

/// Bytes sent on this connection that the other end's kernel has not taken (SIOCOUTQ of `tcp(7)`). Not
/// from `/proc/net/tcp`: with the thousands of closed connections other tests leave there, reading it
/// once takes a tenth of a second.
#[allow(unsafe_code)]
fn unsent(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the request writes one int, which `bytes` is.
    let result = unsafe { nix::libc::ioctl(stream.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes
}

#[test]
fn the_rest_for_a_slow_reader_is_kept_after_both_ends() {
    let (server, listener) = Server::with_backend(&[]);
    let (mut client, mut wire) = open(&server, &listener);
    wire.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.end(), End::Closed);
    let up = fill(&client.stream);
    let mut got = Vec::new();
    let start = std::time::Instant::now();
    while unsent(&client.stream) > 0 {
        // All may be here before the system has told the client so.
        got.extend(wire.take((up.len() - got.len()).min(64 * 1024)));
        assert!(start.elapsed() < binary::PATIENCE, "the client's end is not known");
    }
    drop(client);
    // It has gone in order, and its bytes are still to be read: nothing to be busy with.
    let busy = cpu_time_in_silence_of_nobody(&server);
    assert!(busy < Duration::from_millis(100), "{busy:?} of 500 ms");
    got.extend(wire.take(up.len() - got.len()));
    assert!(got == up);
    assert_eq!(wire.stream.read(&mut [0]).unwrap(), 0);
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}

#[test]
fn a_reset_of_either_side_is_one_for_the_other() {
    let (server, listener) = Server::with_backend(&[]);
    for full in [false, true] {
        let (client, wire) = open(&server, &listener);
        if full {
            fill(&client.stream);
        }
        reset(client.stream);
        let mut other = Client { stream: wire.stream, buffer: Vec::new() };
        assert_eq!(other.end(), End::Reset, "the client's, full: {full}");

        let (mut client, wire) = open(&server, &listener);
        if full {
            fill(&wire.stream);
        }
        reset(wire.stream);
        assert_eq!(client.end(), End::Reset, "the wrapped server's, full: {full}");
    }
}

#[test]
fn a_refusal_is_a_response_like_any_other() {
    for (answer, length) in [
        ("HTTP/1.1 403 No\r\nX-Why: rules\r\nContent-Length: 7\r\n\r\nnot you", Some("7")),
        (
            "HTTP/1.1 403 No\r\nX-Why: rules\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n4\r\n you\r\n0\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 403 No\r\nX-Why: rules\r\nConnection: close\r\n\r\nnot you", None),
        ("HTTP/1.0 403 No\r\nX-Why: rules\r\n\r\nnot you", None),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(answer.as_bytes());
        wire.close();
        let response = client.response("GET");
        assert_eq!((response.status, response.body_text().as_str()), (403, "not you"), "{answer}");
        assert_eq!(response.field("x-why").as_deref(), Some("rules"));
        assert_eq!(response.field("content-length").as_deref(), length);
        // Or bytes meant for another protocol would be taken for requests.
        assert_eq!(client.end(), End::Closed);
        assert_eq!(server.get("/_frag/health", "").status, 200);
    }
}

#[test]
fn the_head_of_a_refusal_does_not_wait_for_its_body() {
    let (server, listener) = Server::with_backend(&[]);
    for end in [false, true] {
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(b"HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\n");
        client.take_through("\r\n\r\n");
        if end {
            wire.close();
            assert_eq!(client.end(), End::Reset);
        } else {
            wire.write(b"why !");
            client.take_through("why !");
        }
    }
}

#[test]
fn an_offer_of_an_upgrade_says_that_it_has_no_body() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("POST", "/", "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n");
    let head = Wire::accept(&listener).head().unwrap();
    let seen = binary::Seen { head, body: Vec::new() };
    assert_eq!(
        (seen.fields("content-length"), seen.fields("upgrade")),
        (vec!["0".into()], vec!["h2c".into()])
    );
}

#[test]
fn a_refusal_that_breaks_off_does_not_look_complete() {
    let (server, listener) = Server::with_backend(&[]);
    for answer in ["HTTP/1.1 403 No\r\nConnection: close\r\n\r\nnot", "HTTP/1.0 403 No\r\n\r\nnot"] {
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(answer.as_bytes());
        client.take_through("not");
        reset(wire.stream);
        assert_eq!(client.end(), End::Reset, "{answer}");
    }
}

#[test]
fn the_request_arrives_with_its_upgrade_and_without_what_is_of_one_hop() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.send(
        "GET /a?b=%20c HTTP/1.1\r\nHost: example.com:99\r\nConnection: keep-alive, X-Mine , Upgrade\r\n\
         Upgrade: websocket\r\nX-Mine: secret\r\nTE: trailers\r\nProxy-Authorization: x\r\nKeep-Alive: timeout=5\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
         Cookie: a=1\r\nCookie: b=\u{e9}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    );
    let mut wire = Wire::accept(&listener);
    let head = wire.head().unwrap();
    let seen = binary::Seen { head, body: Vec::new() };
    assert_eq!(seen.line(), "GET /a?b=%20c HTTP/1.1");
    for (name, values) in [
        ("host", &["example.com:99"][..]),
        ("connection", &["Upgrade"]),
        ("upgrade", &["websocket"]),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
        ("sec-websocket-protocol", &["chat, superchat"]),
        ("cookie", &["a=1", "b=\u{c3}\u{a9}"]),
        ("x-forwarded-for", &["192.0.2.1, 127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-host", &["example.com:99"]),
        ("x-mine", &[]),
        ("te", &[]),
        ("proxy-authorization", &[]),
        ("keep-alive", &[]),
    ] {
        assert_eq!(seen.fields(name), values, "{name}");
    }
}

#[test]
fn an_upgrade_with_a_body_or_of_http_1_0_is_a_plain_request() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(&request.body));
    let fields = "Connection: Upgrade, close\r\nUpgrade: h2c\r\n";
    let mut client = Client::new(server.address);
    client.request("POST", "/", &format!("{fields}Transfer-Encoding: chunked\r\n"));
    client.send("6\r\nchunks\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").body_text(), "chunks");
    let answer = server.send("POST", "/", "Upgrade: h2c\r\n", b"body");
    assert_eq!((answer.status, answer.body_text().as_str()), (200, "body"));
    let old = server.raw(b"GET /old HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(old.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&old));
    assert_eq!(seen.lock().unwrap().len(), 3);
    for request in seen.lock().unwrap().iter() {
        assert_eq!((request.fields("upgrade"), request.fields("connection")), (vec![], vec![]));
    }
}

#[test]
fn an_answer_that_is_none_is_a_502() {
    for answer in ["", "SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 101 Switching\r\nUpgrade: e"] {
        let (server, listener) = Server::with_backend(&[]);
        let mut client = Client::new(server.address);
        client.send(UPGRADE.replace("GET", "POST"));
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(answer.as_bytes());
        wire.close();
        let response = client.response("POST");
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_failed"), "{answer:?}");
    }
}

#[test]
fn a_handshake_that_finds_its_server_gone_is_tried_again() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.close();
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.write(SWITCH.as_bytes());
    assert_eq!(client.take_through("\r\n\r\n"), SWITCH);
    client.send("here");
    assert_eq!(wire.take(4), b"here");
}

#[test]
fn a_handshake_is_answered_in_time_or_with_a_504() {
    let (server, listener) = Server::with_backend(&["--upstream-timeout", "200ms"]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    let response = client.response("GET");
    assert_eq!((response.status, response.code().as_str()), (504, "upstream_timeout"));
    assert!(wire.request().is_none());
}

#[test]
fn a_client_that_leaves_before_the_agreement_takes_the_connection_along() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    drop(client);
    assert_eq!(read_to_end(&mut wire.stream), b"");
    eventually("its thread is free", || binary::tunnel::threads(&server) < 20);
}

#[test]
fn a_reader_that_takes_nothing_keeps_its_tunnel_only_as_long_as_the_app_lives() {
    let (server, listener) = Server::with_backend(&[]);
    let (client, wire) = open(&server, &listener);
    fill(&wire.stream);
    drop(listener);
    let streams = |count: u8| {
        let line = format!("\nfrag_http_streams {count}\n");
        server.get("/_frag/metrics", "").body_text().contains(&line)
    };
    assert!(streams(1));
    assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    binary::eventually("its place is free", || streams(0));
    drop((client, wire));
}
