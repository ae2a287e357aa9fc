//! Responses of the wrapped server reach the client with their status, fields and body.

use crate::binary;
use crate::binary::{Response, Seen, Server, eventually, ok, play};
use std::io::Write;

/// A server whose wrapped server says these bytes to every request, then closes.
fn saying(answer: &[u8]) -> Server {
    let (server, listener) = Server::with_backend(&[]);
    let answer = answer.to_vec();
    play_once(listener, move |_| answer.clone());
    server
}

/// Plays a wrapped server that ends each connection after one answer.
fn play_once(listener: std::net::TcpListener, answer: impl Fn(&Seen) -> Vec<u8> + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut wire = binary::Wire::new(stream);
            if let Some(request) = wire.request() {
                wire.write(&answer(&request));
            }
            wire.close();
        }
    });
}

#[test]
fn every_status_passes() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |request| {
        let status = request.line().split(['/', ' ']).nth(2).unwrap().to_owned();
        let body = if ["204", "304"].contains(&&*status) { "" } else { "Content-Length: 4\r\n" };
        let end = if body.is_empty() { "" } else { "body" };
        format!("HTTP/1.1 {status} Some Reason\r\n{body}Location: http://other.test/x\r\nX-Status: {status}\r\n\r\n{end}").into_bytes()
    });
    let mut stream = server.connect();
    for status in (200..600).step_by(7).chain([
        201, 204, 205, 206, 226, 300, 301, 302, 303, 304, 307, 308, 401, 407, 418, 426, 500, 502, 503, 504,
        599, 600, 999,
    ]) {
        use std::io::Write;
        write!(stream, "GET /{status} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let answer = read_one(&mut stream, "GET");
        assert_eq!(answer.status, status);
        assert_eq!(answer.fields("x-status"), [status.to_string()]);
        assert_eq!(answer.fields("location"), ["http://other.test/x"], "a redirect is not followed");
        assert_eq!(answer.body_text(), if matches!(status, 204 | 304) { "" } else { "body" }, "{status}");
    }
}

/// Reads from a kept connection until a response with a length is whole.
fn read_one(stream: &mut std::net::TcpStream, method: &str) -> Response {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..n]);
        let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|r| r.lines().next()?.parse().ok());
        let bodiless = method == "HEAD" || head[9..].starts_with("204") || head[9..].starts_with("304");
        if bytes.len() >= at + 4 + if bodiless { 0 } else { length.unwrap_or(0) } {
            return Response::parse(&bytes, method);
        }
    }
}

#[test]
fn fields_of_a_response_pass_in_order_and_byte_for_byte() {
    let answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nX-One: 1\r\nset-cookie: b=\xe9\xc3\xa9\r\nServer: s\r\nDate: d\r\nVia: v\r\n\
        Vary: a\r\nVary: b\r\nContent-Encoding: gzip\r\nContent-Type: text/x\r\nETag: \"e\"\r\nEmpty:\r\nContent-Length: 3\r\n\r\nzip";
    let response = saying(answer).get("/", "");
    assert_eq!(response.fields("set-cookie"), ["a=1; Path=/", "b=\u{e9}\u{c3}\u{a9}"]);
    assert_eq!(response.fields("vary"), ["a", "b"]);
    for (name, value) in [
        ("server", "s"),
        ("date", "d"),
        ("via", "v"),
        ("content-encoding", "gzip"),
        ("etag", "\"e\""),
        ("empty", ""),
        ("x-one", "1"),
        ("content-length", "3"),
    ] {
        assert_eq!(response.fields(name), [value], "{name}");
    }
    assert_eq!(response.body_text(), "zip");
}

#[test]
fn fields_of_one_hop_do_not_reach_the_client() {
    let hop = [
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
    ];
    let mut answer = String::from(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Listed\r\nConnection: x-too\r\nX-Listed: 1\r\nX-TOO: 2\r\nX-Stays: 3\r\nContent-Length: 0\r\n",
    );
    for name in hop {
        answer += &format!("{name}: x\r\n");
    }
    let response = saying(format!("{answer}\r\n").as_bytes()).get("/", "");
    for name in hop.iter().chain(&["X-Listed", "X-Too"]) {
        assert_eq!(response.fields(name), [""; 0], "{name}");
    }
    assert_eq!(response.fields("x-stays"), ["3"]);
    assert_eq!(response.fields("connection"), ["close"], "ours, as the client asked");
}

#[test]
fn every_way_to_delimit_a_body_arrives_whole() {
    let big = "b".repeat(64 * 1024);
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: t\r\n\r\n".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n".to_owned(), ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), ""),
        ("HTTP/1.0 200 OK\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello".to_owned(), "hello"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n{big}"), &*big),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n{big}\r\n0\r\n\r\n"), &*big),
        (format!("HTTP/1.1 200 OK\r\n\r\n{big}"), &*big),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), "ok"),
    ] {
        let server = saying(answer.as_bytes());
        let what = &answer[..answer.len().min(120)];
        let response = server.get("/", "");
        assert_eq!((response.status, response.rest.len()), (200, 0), "{what}");
        assert!(response.body == body.as_bytes(), "{what}");
        assert_eq!(response.fields("x-trailer").len() + response.fields("link").len(), 0);
        let framed = response.fields("content-length").len() + response.fields("transfer-encoding").len();
        assert_eq!(framed, 1, "{what}: {}", response.head);
        // An old client gets no chunks.
        let old = Response::parse(&server.raw(b"GET / HTTP/1.0\r\n\r\n"), "GET");
        assert_eq!(old.fields("transfer-encoding"), [""; 0], "{what}");
        assert!(old.body == body.as_bytes(), "{what}");
    }
}

#[test]
fn an_answer_to_head_keeps_its_length_and_has_no_body() {
    for (answer, length) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", Some("1234")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\n\r\n", None),
    ] {
        let response = saying(answer.as_bytes()).send("HEAD", "/", "", b"");
        assert_eq!((response.status, response.rest.len()), (200, 0), "{answer}");
        assert_eq!(response.field("content-length").as_deref(), length);
        assert_eq!(response.fields("transfer-encoding"), [""; 0], "{answer}");
    }
    let answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n";
    let response = saying(answer).get("/", "");
    assert_eq!((response.status, response.rest.len()), (304, 0));
    assert_eq!(response.fields("etag"), ["\"x\""]);
}

#[test]
fn every_response_has_a_date_its_own_or_ours() {
    let (server, listener) = Server::with_backend(&["--head-timeout", "50ms"]);
    play(listener, |request| match request.line().contains("/own") {
        true => {
            b"HTTP/1.1 200 OK\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        false => ok(b""),
    });
    let own = server.get("/own", "");
    assert_eq!(own.fields("date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    let refused = Response::parse(&server.raw(b"GET / HTTP/1.1\r\n"), "GET");
    for response in [server.get("/none", ""), server.get("/_frag/health", ""), refused] {
        let date = response.field("date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
}

#[test]
fn trailers_without_an_end_are_cut() {
    let (server, listener) = Server::with_backend(&[]);
    let app = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
        let mut sent = stream.write_all(head);
        while sent.is_ok() {
            sent = stream.write_all(&b"a: b\r\n".repeat(1000));
        }
    });
    let answer = server.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
    eventually("the app is told", || app.is_finished());
}
