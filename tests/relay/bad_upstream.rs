//! What is malformed in an answer is a 502 or a cut, never another request's answer.

use crate::binary;
use crate::binary::{Response, Server, Wire, connect, ok};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How a wrapped server ends a connection after its words.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Kept open: what it says next, it says on the same connection.
    Kept,
    Closed,
    Reset,
}

/// Plays a wrapped server that says `answer` to requests for `/bad` and a proper `fine` to others;
/// counts its connections.
fn bad(listener: TcpListener, answer: Vec<u8>, end: End) -> Arc<AtomicUsize> {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while let Some(request) = wire.request() {
                    if !request.line().contains("/bad") {
                        wire.write(&ok(b"fine"));
                        continue;
                    }
                    wire.write(&answer);
                    match end {
                        End::Kept => continue,
                        End::Closed => wire.close(),
                        End::Reset => reset(wire.stream),
                    }
                    return;
                }
            });
        }
    });
    connections
}

/// Closes with a reset once the other side has read all.
fn reset(stream: TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    binary::eventually("all is read", || unsent(&stream) == 0);
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// Bytes the other side has not acknowledged.
fn unsent(stream: &TcpStream) -> i32 {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
    let link = std::fs::read_link(path).unwrap();
    let inode = link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let row = table.lines().find(|line| line.split_whitespace().nth(9) == Some(&inode));
    let queue = row.and_then(|row| row.split_whitespace().nth(4)).and_then(|q| q.split(':').next());
    queue.map_or(0, |queue| i32::from_str_radix(queue, 16).unwrap())
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// Sends a request for `/bad` and another behind it on one connection; all that comes back.
fn exchange(server: &Server, method: &str) -> Vec<u8> {
    let mut client = connect(server.address);
    write!(client, "{method} /bad HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // The answer to the first may have ended the connection already.
    let _ = client.write_all(NEXT);
    binary::read_to_end(&mut client)
}

fn chunked(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

#[test]
fn a_malformed_head_is_a_502_and_the_next_request_gets_its_own_answer() {
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: v\r\n")).collect::<String>();
    let mut table: Vec<(String, End)> = Vec::new();
    for text in [
        "hello world\r\n\r\n",
        "\0\x01\x02\x03\x04\x05",
        "just text",
        "<html>HTTP/0.9</html>\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n",
        "RTSP/1.0 200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
    ] {
        table.push((text.to_owned(), End::Closed));
        table.push((text.to_owned(), End::Kept));
    }
    // An unfinished head may still be finished: only the end tells.
    table.retain(|(text, end)| {
        *end == End::Closed || !["just text", "HTTP/1.1\r\n\r\n"].contains(&text.as_str())
    });
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length:\r\n",
        "Content-Length: four\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "X: a\x7fb\r\n",
        "X: a\x01b\r\n",
        "X y: z\r\n",
        "X : z\r\n",
        "X: a\r\n b\r\n",
        ": empty\r\n",
        "no colon\r\n",
        "X: a\rb\r\n",
    ] {
        table.push((format!("HTTP/1.1 200 OK\r\n{fields}\r\nbody"), End::Kept));
    }
    table.push((
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n".to_owned(),
        End::Closed,
    ));
    table.push((format!("HTTP/1.1 200 OK\r\n{}Content-Length: 4\r\n\r\nbody", many(128)), End::Kept));
    table.push((
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 4\r\n\r\nbody", "v".repeat(65 * 1024)),
        End::Kept,
    ));
    table.push((format!("HTTP/1.1 200 OK\r\nX: {}", "v".repeat(200 * 1024)), End::Kept));
    table.push((
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_owned(),
        End::Kept,
    ));
    table.push(("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), End::Closed));
    table.push(("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), End::Reset));
    table.push(("HTTP/1.1 103 Early Hints\r\n\r\n".to_owned(), End::Closed));
    table.push((String::new(), End::Closed));
    table.push((String::new(), End::Reset));
    let (server, listener) = Server::with_backend(&[]);
    let shared = Arc::new(std::sync::Mutex::new((Vec::new(), End::Kept)));
    turn_by_turn(listener, Arc::clone(&shared));
    for (answer, end) in table {
        *shared.lock().unwrap() = (answer.clone().into_bytes(), end);
        let what = format!("{:?}", &answer[..answer.len().min(90)]);
        let bytes = exchange(&server, "GET");
        let first = Response::parse(&bytes, "GET");
        assert_eq!(first.status, 502, "{what} {first:?}");
        assert!(["upstream_malformed", "upstream_failed"].contains(&first.code().as_str()), "{what}");
        let second = Response::parse(&first.rest, "GET");
        assert_eq!((second.status, second.body_text().as_str()), (200, "fine"), "{what}");
        assert!(second.rest.is_empty(), "{what}");
    }
}

/// As [`bad`], with words that change from turn to turn.
fn turn_by_turn(listener: TcpListener, turn: Arc<std::sync::Mutex<(Vec<u8>, End)>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let turn = Arc::clone(&turn);
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while let Some(request) = wire.request() {
                    if !request.line().contains("/bad") {
                        wire.write(&ok(b"fine"));
                        continue;
                    }
                    let (answer, end) = turn.lock().unwrap().clone();
                    wire.write(&answer);
                    match end {
                        End::Kept => continue,
                        End::Closed => wire.close(),
                        End::Reset => reset(wire.stream),
                    }
                    return;
                }
            });
        }
    });
}

#[test]
fn chunks_malformed_from_the_start_are_a_502() {
    let (server, listener) = Server::with_backend(&[]);
    let turn = Arc::new(std::sync::Mutex::new((Vec::new(), End::Kept)));
    turn_by_turn(listener, Arc::clone(&turn));
    for body in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "ffffffffffffffff1\r\nhello",
        "\r\nhello",
        "five\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "+0\r\n\r\n",
        "0\r\n: \0\r\n\r\n",
    ] {
        *turn.lock().unwrap() = (chunked(body), End::Closed);
        let first = Response::parse(&exchange(&server, "GET"), "GET");
        assert_eq!((first.status, first.code().as_str()), (502, "upstream_malformed"), "{body:?}");
        assert_eq!(Response::parse(&first.rest, "GET").body_text(), "fine", "{body:?}");
    }
}

/// The client's view of a response that breaks off: its head, then an end before the body's.
fn assert_cut(bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{what}: {text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{what}: no answer follows a cut one: {text}");
    if head.contains("transfer-encoding: chunked") {
        assert!(!body.ends_with("0\r\n\r\n"), "{what} looks complete: {text}");
    } else {
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        assert!(body.len() < length, "{what} looks complete: {text}");
    }
}

#[test]
fn a_body_that_breaks_off_is_cut_and_does_not_look_complete() {
    let hello = "5\r\nhello\r\n";
    let big = "x".repeat(100_000);
    for (answer, end) in [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec(), End::Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec(), End::Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec(), End::Reset),
        (b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec(), End::Reset),
        (format!("HTTP/1.1 200 OK\r\n\r\n{big}").into_bytes(), End::Reset),
        (chunked(hello), End::Closed),
        (chunked(hello), End::Reset),
        (chunked(&format!("{hello}5\r\nhel")), End::Closed),
        (chunked(&format!("{hello}0\r\n")), End::Closed),
        (chunked(&format!("186a0\r\n{big}\r\n+5\r\nhello\r\n0\r\n\r\n")), End::Kept),
        (chunked(&format!("186a0\r\n{big}X\r\n0\r\n\r\n")), End::Kept),
        (chunked(&format!("186a0\r\n{big}\r\n{}", "1".repeat(300_000))), End::Kept),
        (chunked(&format!("186a0\r\n{big}\r\n5;{}", "e".repeat(300_000))), End::Kept),
        (chunked(&format!("186a0\r\n{big}\r\n0\r\nA: {}", "t".repeat(300_000))), End::Kept),
    ] {
        let what = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let (server, listener) = Server::with_backend(&[]);
        bad(listener, answer, end);
        assert_cut(&exchange(&server, "GET"), &what);
        assert_eq!(server.get("/next", "").body_text(), "fine", "{what}");
    }
}

#[test]
fn a_cut_body_without_a_length_reaches_an_old_client_as_a_reset() {
    let (server, listener) = Server::with_backend(&[]);
    bad(listener, b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec(), End::Reset);
    let mut client = server.connect();
    client.write_all(b"GET /bad HTTP/1.0\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let error = client.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_with_bytes_nobody_asked_for_is_not_used_again() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, answer) in [
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n{evil}")),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 80\r\n\r\n{evil}")),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n{evil}")),
        ("GET", String::from_utf8(chunked(&format!("2\r\nok\r\n0\r\n\r\n{evil}"))).unwrap()),
        (
            "GET",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"
            ),
        ),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let connections = bad(listener, answer.clone().into_bytes(), End::Kept);
        let first = Response::parse(&exchange(&server, method), method);
        assert!(first.status < 400, "{answer}");
        assert_eq!(Response::parse(&first.rest, "GET").body_text(), "fine", "{method} {answer}");
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{method} {answer}");
    }
}

#[test]
fn a_connection_whose_answer_has_no_body_is_not_used_again() {
    // A body may come behind the answer at any time: the next request must not find it.
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 80\r\n\r\n"),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let connections = bad(listener, answer.as_bytes().to_vec(), End::Kept);
        let first = Response::parse(&exchange(&server, method), method);
        assert!(first.status < 400, "{answer}");
        assert_eq!(Response::parse(&first.rest, "GET").body_text(), "fine", "{answer}");
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{answer}");
    }
}

#[test]
fn a_proper_answer_leaves_the_connection_for_the_next_request() {
    for answer in [ok(b"ok"), ok(b""), chunked("2\r\nok\r\n0\r\n\r\n")] {
        let (server, listener) = Server::with_backend(&[]);
        let connections = bad(listener, answer, End::Kept);
        let first = Response::parse(&exchange(&server, "GET"), "GET");
        assert_eq!(Response::parse(&first.rest, "GET").body_text(), "fine");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_answer_before_any_request_is_nobodys() {
    let (server, listener) = Server::with_backend(&[]);
    let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let mut client = server.connect();
    client.write_all(b"GET /one HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut wire = Wire::accept(&listener);
    wire.request().unwrap();
    wire.write(&ok(b"one"));
    let mut got = Vec::new();
    while !got.ends_with(b"one") {
        let mut piece = [0; 1024];
        let n = client.read(&mut piece).unwrap();
        got.extend_from_slice(&piece[..n]);
    }
    // The connection is idle now; what comes on it belongs to no request.
    wire.write(evil);
    client.write_all(NEXT).unwrap();
    let mut other = Wire::accept(&listener);
    other.request().unwrap();
    other.write(&ok(b"two"));
    assert_eq!(Response::parse(&binary::read_to_end(&mut client), "GET").body_text(), "two");
}
