//! Requests arrive at the wrapped server as they were sent, and responses at the client.

use crate::binary::{Response, Seen, Server, ok, play, read_to_end};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// A server whose wrapped server answers each request with the request's body.
fn echo() -> (Server, Arc<Mutex<Vec<Seen>>>) {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(&request.body));
    (server, seen)
}

/// Sends one request as it stands and returns what the wrapped server saw of it.
fn pass(server: &Server, seen: &Mutex<Vec<Seen>>, request: &[u8]) -> Seen {
    let before = seen.lock().unwrap().len();
    let method = request.split(|b| *b == b' ').next().unwrap();
    let answer = Response::parse(&server.raw(request), std::str::from_utf8(method).unwrap());
    assert_eq!(
        answer.status,
        200,
        "{} {answer:?}",
        String::from_utf8_lossy(&request[..request.len().min(200)])
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), before + 1);
    seen[before].clone()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| b as char).collect()
}

fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: app.test:81\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_request_arrives_as_it_was_sent() {
    let (server, seen) = echo();
    let answer = server.send("PATCH", "/a/../b?c=%2F&d", "X-One: 1\r\nX-Two: two\r\n", b"hello");
    assert_eq!((answer.status, answer.body_text().as_str()), (200, "hello"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "PATCH /a/../b?c=%2F&d HTTP/1.1");
    assert_eq!(seen[0].field("x-two").as_deref(), Some("two"));
    assert_eq!(seen[0].field("host").as_deref(), Some("localhost"));
}

#[test]
fn every_method_passes_as_it_is() {
    let (server, seen) = echo();
    for method in
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get", "M-x!"]
    {
        let arrived = pass(&server, &seen, &request(&format!("{method} /x"), ""));
        assert_eq!(arrived.line(), format!("{method} /x HTTP/1.1"));
        assert_eq!(arrived.body, b"");
    }
}

#[test]
fn targets_keep_their_bytes() {
    let (server, seen) = echo();
    let long = format!("/{}", "x".repeat(16 * 1024 - 1));
    for target in [
        "/",
        "//",
        "//x//y",
        "/a/../b/./c",
        "/..",
        "/?",
        "/a?",
        "/a??b",
        "/?a=/_frag/status",
        "/%2F%2f%00",
        "/%5Ffrag/x",
        "/_frag",
        "/_FRAG/x",
        "//_frag/x",
        "/a;b=c,d:@!$&'()*+~-._",
        "/ü/日本?é=ß",
        "/a%",
        "/%zz",
        "/a'b",
        "*",
        &long,
    ] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let arrived = pass(&server, &seen, &request(&format!("{method} {target}"), ""));
        let wire = latin1(target.as_bytes());
        assert_eq!(arrived.line(), format!("{method} {wire} HTTP/1.1"));
    }
}

#[test]
fn every_printable_byte_in_a_target_arrives_raw_or_encoded() {
    let (server, seen) = echo();
    for byte in 0x21..0x7fu8 {
        let target = [b"/a", &[byte][..], b"z?q=", &[byte], b"z"].concat();
        let raw = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"].concat();
        let arrived = pass(&server, &seen, &raw);
        let sent = arrived.line().split(' ').nth(1).unwrap();
        let decoded: Vec<u8> = percent_encoding::percent_decode(sent.as_bytes()).collect();
        assert_eq!(decoded, target, "{:?} became {sent}", byte as char);
    }
}

#[test]
fn an_absolute_target_arrives_as_path_and_host() {
    let (server, seen) = echo();
    for (target, arrives) in [("http://other.test/a?b", "/a?b"), ("http://other.test", "/")] {
        let arrived = pass(&server, &seen, &request(&format!("GET {target}"), ""));
        assert_eq!(arrived.line(), format!("GET {arrives} HTTP/1.1"), "{target}");
        assert_eq!(arrived.fields("host"), ["other.test"]);
    }
}

#[test]
fn nothing_is_invented_and_nothing_of_the_end_to_end_fields_is_lost() {
    let (server, seen) = echo();
    let arrived = pass(&server, &seen, b"GET / HTTP/1.1\r\nHost: app.test:81\r\n\r\nGET /_frag/health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut names: Vec<_> =
        arrived.head.split("\r\n").skip(1).filter_map(|l| Some(l.split_once(':')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"]);
    assert_eq!(arrived.fields("host"), ["app.test:81"]);
    let fields = "Accept: a\r\nAccept-Encoding: br\r\nUser-Agent: u\r\nReferer: r\r\nRange: bytes=0-\r\nIf-None-Match: \"x\"\r\n\
         Origin: null\r\nAuthorization: Basic eA==\r\nForwarded: for=x\r\nVia: 1.0 y\r\nX-Real-Ip: 1.1.1.1\r\nCache-Control: no-cache\r\n\
         Content-Type: text/plain\r\nSec-Fetch-Mode: cors\r\nX-Verified-Path: /p\r\nMax-Forwards: 3\r\nEmpty:\r\n";
    let arrived = pass(&server, &seen, &request("GET /", fields));
    for line in fields.lines() {
        let (name, value) = line.split_once(':').unwrap();
        assert_eq!(arrived.fields(name), [value.trim()], "{name}");
    }
}

#[test]
fn header_values_are_bytes_and_repeated_names_keep_their_order() {
    let (server, seen) = echo();
    let every: Vec<u8> = (0x21..=0xffu8).filter(|b| *b != 0x7f).collect();
    let fields = [
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-All: ",
        &every[..],
        b"\r\nCookie: a=1; b=\xc3\xa9\r\nX-Many: 1\r\nAuthorization: Bearer caf\xe9\x80\r\nX-Many: 2, 3\r\nCookie: c=\xe9\r\nX-Many:\r\nX-Tab: a\tb\r\n\r\n",
    ]
    .concat();
    let arrived = pass(&server, &seen, &fields);
    assert_eq!(arrived.fields("x-all"), [latin1(&every)]);
    assert_eq!(arrived.fields("cookie"), [latin1(b"a=1; b=\xc3\xa9"), latin1(b"c=\xe9")]);
    assert_eq!(arrived.fields("x-many"), ["1", "2, 3", ""]);
    assert_eq!(arrived.fields("x-tab"), ["a\tb"]);
    assert_eq!(arrived.fields("authorization"), [latin1(b"Bearer caf\xe9\x80")]);
}

#[test]
fn fields_of_one_hop_do_not_reach_the_wrapped_server() {
    let (server, seen) = echo();
    for name in [
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
    ] {
        for spelling in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            let arrived =
                pass(&server, &seen, &request("GET /", &format!("{spelling}: x\r\nX-Stays: y\r\n")));
            assert_eq!(arrived.fields(name), [""; 0], "{spelling}");
            assert_eq!(arrived.fields("x-stays"), ["y"]);
        }
    }
    let raw = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: X-One , close,x-two\r\nConnection: X-Three\r\nX-One: 1\r\nX-TWO: 2\r\nx-three: 3\r\nX-Four: 4\r\n\r\n";
    let arrived = pass(&server, &seen, raw);
    for name in ["connection", "x-one", "x-two", "x-three"] {
        assert_eq!(arrived.fields(name), [""; 0], "{name}");
    }
    assert_eq!(arrived.fields("x-four"), ["4"]);
}

#[test]
fn forwarded_fields_are_appended_or_kept() {
    let (server, seen) = echo();
    let arrived = pass(&server, &seen, &request("GET /", ""));
    assert_eq!(arrived.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(arrived.fields("x-forwarded-proto"), ["http"]);
    assert_eq!(arrived.fields("x-forwarded-host"), ["app.test:81"]);
    let fields = "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.test\r\n";
    let arrived = pass(&server, &seen, &request("GET /", fields));
    assert_eq!(arrived.fields("x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1"]);
    assert_eq!(arrived.fields("x-forwarded-proto"), ["https"]);
    assert_eq!(arrived.fields("x-forwarded-host"), ["public.test"]);
}

#[test]
fn bodies_of_every_size_pass_both_ways() {
    let (server, seen) = echo();
    for size in [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 5 * 1024 * 1024] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let answer = server.send("POST", "/", "", &body);
        assert_eq!(answer.status, 200, "{size}");
        assert!(answer.body == body, "{size}");
        let arrived = seen.lock().unwrap().pop().unwrap();
        assert_eq!(arrived.fields("content-length"), [size.to_string()]);
        assert!(arrived.body == body, "{size}");
    }
}

#[test]
fn chunked_request_bodies_arrive_whole_and_chunked() {
    let (server, seen) = echo();
    for size in [1, 7, 4095, 4096, 10_239, 10_241, 65_537] {
        let body: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
        let mut raw = request("PUT /", "Transfer-Encoding: chunked\r\n");
        // A whole body of single bytes would only be slow.
        let body = &body[..body.len().min(size * 2000)];
        for (n, chunk) in body.chunks(size).enumerate() {
            raw.extend(
                format!("{:X}{}\r\n", chunk.len(), if n % 2 == 0 { "" } else { ";ext=\"1\"" }).bytes(),
            );
            raw.extend(chunk);
            raw.extend(b"\r\n");
        }
        raw.extend(b"0\r\nX-Trailer: dropped\r\n\r\n");
        let arrived = pass(&server, &seen, &raw);
        assert_eq!(arrived.fields("transfer-encoding"), ["chunked"]);
        assert_eq!(arrived.fields("content-length"), [""; 0]);
        assert!(arrived.body == body, "{size}");
        assert_eq!(arrived.fields("x-trailer"), [""; 0]);
    }
}

#[test]
fn empty_bodies_stay_empty_and_unusual_ones_pass() {
    let (server, seen) = echo();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"] {
        for fields in ["Content-Length: 0\r\n", ""] {
            let arrived = pass(&server, &seen, &request(&format!("{method} /"), fields));
            assert_eq!(arrived.body, b"", "{method} {fields}");
            assert_eq!(arrived.fields("transfer-encoding"), [""; 0], "{method} {fields}");
            let length = arrived.field("content-length");
            assert!(length.is_none() || length.as_deref() == Some("0"), "{method} {fields} {length:?}");
            assert!(!["POST", "PUT", "PATCH"].contains(&method) || length.is_some(), "{method} {fields}");
        }
        let sized = [&request(&format!("{method} /"), "Content-Length: 5\r\n")[..], b"hello"].concat();
        assert_eq!(pass(&server, &seen, &sized).body, b"hello", "{method}");
        let chunked = request(&format!("{method} /"), "Transfer-Encoding: chunked\r\n");
        let chunked = [&chunked[..], b"5\r\nhello\r\n0\r\n\r\n"].concat();
        assert_eq!(pass(&server, &seen, &chunked).body, b"hello", "{method}");
        let empty = request(&format!("{method} /"), "Transfer-Encoding: chunked\r\n");
        assert_eq!(pass(&server, &seen, &[&empty[..], b"0\r\n\r\n"].concat()).body, b"", "{method}");
    }
}

#[test]
fn large_heads_pass_both_ways() {
    let (server, listener) = Server::with_backend(&[]);
    let fields = |count: usize, size: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "v".repeat(size))).collect()
    };
    let seen = play(listener, move |request| {
        let (count, size) = if request.line().contains("one") { (1, 40 * 1024) } else { (120, 500) };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", fields(count, size)).into_bytes()
    });
    for (target, count, size) in [("/one", 1, 40 * 1024), ("/many", 120, 500)] {
        let answer = server.get(target, &fields(count, size));
        assert_eq!((answer.status, answer.body_text().as_str()), (200, "ok"), "{target}");
        assert_eq!(answer.field(&format!("x-{}", count - 1)).unwrap().len(), size);
        assert_eq!(answer.head.matches("vvv\r\n").count(), count);
        let arrived = seen.lock().unwrap().pop().unwrap();
        assert_eq!(arrived.head.matches("vvv\r\n").count(), count);
    }
}

#[test]
fn requests_one_behind_the_other_get_their_answers_in_order() {
    let (server, seen) = echo();
    let mut stream = server.connect();
    let mut all = Vec::new();
    for n in 0..5 {
        all.extend(format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nbody-{n}").bytes());
    }
    all.extend(b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(&all).unwrap();
    let mut bytes = read_to_end(&mut stream);
    for n in 0..5 {
        let answer = Response::parse(&bytes, "POST");
        assert_eq!(answer.body_text(), format!("body-{n}"));
        bytes = answer.rest;
    }
    assert_eq!(Response::parse(&bytes, "GET").status, 200);
    assert_eq!(seen.lock().unwrap().len(), 6);
}
