//! What happens on one connection over several requests: order, keeping, closing, bodies nobody reads.

use crate::binary::client::{Client, End};
use crate::binary::{IDLE, Reserved, Response, Server, Wire, eventually, ok, play};
use std::io::Write;
use std::net::Shutdown;

/// The binary around a command that never listens: enough for the control routes.
fn control_only() -> Server {
    Server::start(IDLE, Reserved::new().port, &[])
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(request.line().as_bytes()));
    let mut client = Client::new(server.address);
    let all: String = (0..100).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(all);
    for n in 0..100 {
        assert_eq!(client.response("GET").body_text(), format!("GET /{n} HTTP/1.1"));
    }
    assert_eq!(seen.lock().unwrap().len(), 100);
}

#[test]
fn pipelined_requests_for_both_pools_are_answered_in_order() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |request| ok(request.line().as_bytes()));
    let mut client = Client::new(server.address);
    let pair = "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /_frag/health HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send(pair.repeat(20));
    for _ in 0..20 {
        assert_eq!(client.response("GET").body_text(), "GET /a HTTP/1.1");
        assert_eq!(client.response("GET").json()["status"], "ok");
    }
}

#[test]
fn a_pipelined_body_ends_where_the_next_request_begins() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(&request.body));
    let mut client = Client::new(server.address);
    client.send(
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
          POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\r\n\
          GET /c HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    for body in ["hello", "abc", ""] {
        assert_eq!(client.response("POST").body_text(), body);
    }
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|s| s.line().to_owned()).collect();
    assert_eq!(lines, ["POST /a HTTP/1.1", "POST /b HTTP/1.1", "GET /c HTTP/1.1"]);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |request| ok(&request.body));
    let mut client = Client::new(server.address);
    let bytes = b"\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for _ in 0..3 {
        for byte in bytes {
            client.send([*byte]);
        }
        assert_eq!(client.response("POST").body_text(), "hello");
    }
}

#[test]
fn connection_close_is_honoured_and_announced() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| ok(b"bye"));
    for target in ["/", "/_frag/health", "/_frag/nothing"] {
        for value in ["close", "Close", "keep-alive, CLOSE"] {
            let mut client = Client::new(server.address);
            client.request("GET", target, &format!("Connection: {value}\r\n"));
            client.request("GET", target, "");
            let answer = client.response("GET");
            assert_eq!(answer.field("connection").as_deref(), Some("close"), "{target} {value}");
            assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "{target} {value}");
        }
    }
}

#[test]
fn a_client_that_vanishes_is_asked_for_after_a_minute() {
    let server = control_only();
    let mut client = Client::new(server.address);
    assert_eq!(client.get("/_frag/health").status, 200);
    let ports = [server.address, client.stream.local_addr().unwrap()].map(|a| format!(":{:04X}", a.port()));
    // `tr` is 2 while the next thing to do is to ask, in `tm->when` hundredths of a second: proc_net_tcp(5).
    eventually("it is to be asked", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1])).unwrap();
        let when = row[5].strip_prefix("02:").and_then(|when| u64::from_str_radix(when, 16).ok());
        when.is_some_and(|when| when <= 6100)
    });
}

#[test]
fn http_1_0_closes_unless_asked_to_keep() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| ok(b"old"));
    for target in ["/", "/_frag/health"] {
        let mut client = Client::new(server.address);
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!(client.response("GET").field("connection").as_deref(), Some("close"));
        assert_eq!(client.end(), End::Closed);

        let mut client = Client::new(server.address);
        for _ in 0..3 {
            client.send(format!("GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
            let answer = client.response("GET");
            assert_eq!(answer.field("connection").as_deref(), Some("keep-alive"));
        }
    }
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |request| match request.line().split(' ').nth(1).unwrap() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n".to_vec(),
        "/304-bare" => b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
    });
    std::fs::write(server.root().join("file"), vec![b'x'; 4321]).unwrap();
    let etag = server.get("/_frag/files/file", "").field("etag").unwrap();
    let matching = format!("If-None-Match: {etag}\r\n");
    let mut client = Client::new(server.address);
    for (method, target, fields, status, length) in [
        ("HEAD", "/", "", 200, Some("1234")),
        ("HEAD", "/_frag/files/file", "", 200, Some("4321")),
        ("HEAD", "/_frag/nothing", "", 404, None),
        ("GET", "/204", "", 204, None),
        ("GET", "/304", "", 304, Some("7")),
        ("GET", "/304-bare", "", 304, None),
        ("GET", "/_frag/files/file", matching.as_str(), 304, None),
        ("DELETE", "/_frag/files/file", "", 204, None),
    ] {
        client.request(method, target, fields);
        let answer = client.response(method);
        assert_eq!(answer.status, status, "{method} {target}");
        if target != "/_frag/nothing" {
            assert_eq!(answer.field("content-length").as_deref(), length, "{method} {target}");
        }
        assert_eq!(answer.field("transfer-encoding"), None, "{method} {target}");
        // Nothing of a body stands before the next response.
        assert_eq!(client.get("/_frag/health").status, 200, "after {method} {target}");
    }
}

#[test]
fn the_body_is_asked_for_when_it_is_read() {
    let server = control_only();
    let mut client = Client::new(server.address);
    client.request("PUT", "/_frag/upload/file", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let go_on = client.response("PUT");
    assert_eq!((go_on.status, go_on.head.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
    client.send(b"hello");
    assert_eq!(client.response("PUT").status, 200);
    assert_eq!(client.get("/_frag/files/file").body_text(), "hello");
}

#[test]
fn the_wrapped_server_gets_a_body_that_was_waited_for() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(&request.body));
    let mut client = Client::new(server.address);
    client.request("POST", "/", "Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n");
    assert_eq!(client.response("POST").status, 100);
    client.send(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").body_text(), "hello");
    assert_eq!(seen.lock().unwrap()[0].field("expect"), None);
}

#[test]
fn a_refused_request_is_never_asked_for_its_body() {
    let server = control_only();
    for (target, fields, status) in [
        ("/_frag/upload/..%2Fout", "", 400),
        ("/_frag/upload/file", "X-Verified-User-Data: {\"readOnly\":true}\r\n", 403),
        ("/_frag/upload/file", "If-Match: \"00\"\r\n", 412),
        ("/_frag/status", "", 405),
    ] {
        let mut client = Client::new(server.address);
        client.request("POST", target, &format!("Content-Length: 5\r\nExpect: 100-continue\r\n{fields}"));
        let answer = client.response("POST");
        assert_eq!(answer.status, status, "{target}");
        // Whether the body comes all the same is not to be known.
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{target}");
        assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "{target}");
    }
    assert_eq!(server.get("/_frag/files/file", "").status, 404);
}

#[test]
fn an_expectation_without_a_body_is_not_answered() {
    let server = control_only();
    let mut client = Client::new(server.address);
    client.request("GET", "/_frag/health", "Expect: 100-continue\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send(
        b"PUT /_frag/upload/f HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\
          Content-Length: 2\r\n\r\nhi",
    );
    assert_eq!(client.response("PUT").status, 200, "HTTP/1.0 knows no 100");
}

#[test]
fn a_short_body_nobody_reads_is_read_away() {
    let server = control_only();
    let mut client = Client::new(server.address);
    let body = "GET /_frag/hidden HTTP/1.1\r\n".repeat(3000);
    let body = &body.as_bytes()[..64 * 1024];
    client.request("POST", "/_frag/health", "Content-Length: 65536\r\n");
    client.send(body);
    assert_eq!(client.response("POST").status, 405);
    client.request("POST", "/_frag/health", "Transfer-Encoding: chunked\r\n");
    client.send(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 405);
    assert_eq!(client.get("/_frag/health").status, 200);
}

#[test]
fn a_long_body_nobody_reads_closes_after_the_response_is_seen() {
    let server = control_only();
    for size in [64 * 1024 + 1, 1024 * 1024] {
        let mut client = Client::new(server.address);
        client.request("POST", "/_frag/health", &format!("Content-Length: {size}\r\n"));
        // All of it goes out before the response is looked at.
        client.send(vec![b'x'; size]);
        let answer = client.response("POST");
        assert_eq!(answer.status, 405);
        assert_eq!(answer.field("connection").as_deref(), Some("close"));
        assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "{size}");
    }
    let mut client = Client::new(server.address);
    client.request("POST", "/_frag/health", "Transfer-Encoding: chunked\r\n");
    client.send(b"10000\r\n");
    client.send(vec![b'x'; 0x10000]);
    client.send(b"\r\n1\r\nx\r\n");
    assert_eq!(client.response("POST").status, 405);
    assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "chunks without end");
}

#[test]
fn control_routes_take_chunked_bodies() {
    let server = control_only();
    let mut client = Client::new(server.address);
    client.request("PUT", "/_frag/upload/a/b", "Transfer-Encoding: chunked\r\n");
    client.send(b"4\r\nWiki\r\n");
    client.send(b"5\r\npedia\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(client.response("PUT").json()["bytes"], 9);
    assert_eq!(client.get("/_frag/files/a/b").body_text(), "Wikipedia");
}

#[test]
fn a_body_of_unknown_length_is_chunked_or_ends_with_the_connection() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n".to_vec()
    });
    let mut client = Client::new(server.address);
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.field("transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(answer.field("content-length"), None);
        assert_eq!(answer.body_text(), "Wikipedia");
    }
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.end(), End::Closed);
    let answer = Response::parse(&client.buffer, "GET");
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    assert_eq!(answer.body_text(), "Wikipedia");
}

#[test]
fn a_response_that_breaks_off_never_looks_whole() {
    let (server, listener) = Server::with_backend(&[]);
    for version in ["1.1", "1.0"] {
        for head in ["Transfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n", "Content-Length: 9\r\n\r\nWiki"] {
            let mut client = Client::new(server.address);
            client.send(format!("POST / HTTP/{version}\r\nHost: h\r\n\r\n"));
            let mut wire = Wire::accept(&listener);
            wire.request().unwrap();
            wire.write(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes());
            while !client.buffer.ends_with(b"Wiki") && !client.buffer.ends_with(b"Wiki\r\n") {
                assert_eq!(client.fill(), None);
            }
            wire.close();
            assert_eq!(client.end(), End::Reset, "HTTP/{version} {head}");
            assert!(!client.buffer.ends_with(b"0\r\n\r\n"));
        }
    }
}

#[test]
fn a_body_that_ends_early_is_never_a_short_success() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b""));
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\na\r\nhello"] {
        for target in ["/_frag/upload/file", "/relayed"] {
            let mut client = Client::new(server.address);
            client.send(format!("POST {target} HTTP/1.1\r\nHost: h\r\n{framing}"));
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.end();
            if !client.buffer.is_empty() {
                let answer = Response::parse(&client.buffer, "POST");
                assert_eq!((answer.status, answer.code().as_str()), (400, "body_incomplete"), "{target}");
            } else {
                // The relay takes a client's end of sending for its going away.
                assert_eq!(target, "/relayed");
            }
        }
    }
    assert_eq!(server.get("/_frag/files/file", "").status, 404);
    assert_eq!(std::fs::read_dir(server.root()).unwrap().count(), 0);
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_client_that_resets_harms_nobody() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| ok(b"fine"));
    for bytes in [
        &b""[..],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx",
    ] {
        for _ in 0..20 {
            let mut stream = server.connect();
            stream.write_all(bytes).unwrap();
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        }
    }
    assert_eq!(server.get("/", "").body_text(), "fine");
    assert_eq!(server.get("/_frag/health", "").status, 200);
}
