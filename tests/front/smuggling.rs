//! Requests in disguise, sent to the real binary around a wrapped server that keeps every byte: what
//! reaches it is exactly what RFC 9112 says the client sent, or the connection ends in a refusal.
//!
//! `framing.rs` has the table of what is refused. Here is what passes beside it, byte for byte, and
//! thousands of streams of requests broken at random, held against a second reading of the RFC that
//! shares no code with the program.

use crate::binary;
use crate::binary::client::{Client, End};
use crate::binary::{Response, Server, eventually, peer_closed};
use crate::numbers::Numbers;
use crate::rules::{Plain, plain_chunks};
use simple_artifact_server::http::Framing;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as its bytes came; a chunked body with its frames taken off, for where those stand is our
/// own affair.
#[derive(Clone, Debug, PartialEq)]
struct Raw {
    head: String,
    body: String,
}

#[derive(Default)]
struct Recorded {
    requests: Vec<Raw>,
    /// What is no whole request when its connection ends: a body that broke off, and nothing else.
    cut: Vec<Raw>,
    /// Bytes no request accounts for.
    faults: Vec<String>,
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| b as char).collect()
}

/// The one request at the start of `bytes`, its head and body and how long it is; `Err` with what is
/// there of it. Reads only what we ever send, and by the letter.
fn whole(bytes: &[u8]) -> Result<(Raw, usize), Raw> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Err(Raw { head: latin1(bytes), body: String::new() });
    };
    let (head, rest) = bytes.split_at(end + 4);
    let head = latin1(head);
    let lengths: Vec<&str> = head.split("\r\n").filter_map(|l| l.strip_prefix("content-length: ")).collect();
    let codings: Vec<&str> =
        head.split("\r\n").filter_map(|l| l.strip_prefix("transfer-encoding: ")).collect();
    let cut = |head: String| Raw { head, body: latin1(rest) };
    let (body, length) = match (&lengths[..], &codings[..]) {
        ([], []) => (Vec::new(), 0),
        ([length], []) => {
            let length: usize = length.parse().unwrap_or(usize::MAX);
            match rest.get(..length) {
                Some(body) => (body.to_vec(), length),
                None => return Err(cut(head)),
            }
        }
        ([], ["chunked"]) => match plain_chunks(rest) {
            Some(read) => read,
            None => return Err(cut(head)),
        },
        _ => panic!("we send what can be read two ways: {head:?}"),
    };
    Ok((Raw { head, body: latin1(&body) }, end + 4 + length))
}

/// A wrapped server that keeps what it gets and answers each request with its request line.
fn record(listener: TcpListener) -> Arc<Mutex<Recorded>> {
    let recorded = Arc::new(Mutex::new(Recorded::default()));
    let kept = Arc::clone(&recorded);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let ended = std::panic::catch_unwind(|| converse(&stream, &kept));
                if ended.is_err() {
                    kept.lock().unwrap().faults.push("it could not be read".to_owned());
                }
            });
        }
    });
    recorded
}

fn converse(mut stream: &TcpStream, kept: &Mutex<Recorded>) {
    let (mut buffer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match whole(&buffer) {
            Ok((request, length)) => {
                buffer.drain(..length);
                let line = request.head.split("\r\n").next().unwrap().to_owned();
                kept.lock().unwrap().requests.push(request);
                let line: Vec<u8> = line.chars().map(|c| c as u8).collect();
                let _ = stream.write_all(&binary::ok(&line));
            }
            Err(part) => match stream.read(&mut piece) {
                Ok(n @ 1..) => buffer.extend_from_slice(&piece[..n]),
                _ => {
                    if !part.head.is_empty() {
                        kept.lock().unwrap().cut.push(part);
                    }
                    return;
                }
            },
        }
    }
}

/// What a stream of bytes must do.
struct Stream {
    name: &'static str,
    bytes: &'static [u8],
    /// Every request that arrives: line, the fields the client sent of it, those that frame it, body.
    passed: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// The host they are for.
    host: &'static str,
    /// The status of the refusal behind them; 0 = there is none, and the connection stays.
    refused: u16,
}

const fn kept(
    name: &'static str,
    bytes: &'static [u8],
    passed: &'static [(&'static str, &'static str, &'static str, &'static str)],
) -> Stream {
    Stream { name, bytes, passed, host: "h", refused: 0 }
}

const fn refused(
    name: &'static str,
    bytes: &'static [u8],
    passed: &'static [(&'static str, &'static str, &'static str, &'static str)],
) -> Stream {
    Stream { name, bytes, passed, host: "h", refused: 400 }
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

#[rustfmt::skip]
const STREAMS: &[Stream] = &[
    // One request is one request, to the byte.
    kept("nothing but a host", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "", "")]),
    kept("fields in their order, names in lower case", b"GET /a HTTP/1.1\r\nX-B: 1\r\nHost: h\r\nX-A:2 \r\nX-B:\t3\r\n\r\n", &[("GET /a", "x-b: 1\r\nx-b: 3\r\nx-a: 2\r\n", "", "")]),
    kept("a length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", &[("POST /a", "", "content-length: 3\r\n", "abc")]),
    kept("a length with zeros before it", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0000000000000000000000000000003\r\n\r\nabc", &[("POST /a", "", "content-length: 3\r\n", "abc")]),
    kept("a length of nothing", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &[("POST /a", "", "content-length: 0\r\n", "")]),
    kept("a POST that speaks of no body", b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 0\r\n", "")]),
    kept("chunks of nothing", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[("POST /a", "", CHUNKED, "")]),
    kept("chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=\"\\\"0\"\r\nab\r\n01\r\nc\r\n000\r\n\r\n", &[("POST /a", "", CHUNKED, "abc")]),
    // Requests behind each other, whatever delimits them.
    kept("three without bodies", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "", ""), ("GET /b", "", "", ""), ("GET /c", "", "", "")]),
    kept("an empty line between two", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "", ""), ("GET /b", "", "", "")]),
    kept("an empty line behind a body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 1\r\n", "x"), ("GET /b", "", "", "")]),
    kept("one behind a length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 5\r\n", "hello"), ("GET /b", "", "", "")]),
    kept("one behind chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", CHUNKED, "hello"), ("GET /b", "", "", "")]),
    kept("one behind trailers that forge its framing", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 30\r\nHost: forged\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", CHUNKED, ""), ("GET /b", "", "", "")]),
    kept("a trailer that looks like a request", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", CHUNKED, ""), ("GET /b", "", "", "")]),
    kept("one hidden in a body that GET has", b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "content-length: 33\r\n", "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"), ("GET /b", "", "", "")]),
    kept("one hidden in a body that DELETE has", b"DELETE /a HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n", &[("DELETE /a", "", "content-length: 33\r\n", "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n")]),
    kept("one hidden in an extension", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;GET /hidden HTTP/1.1\r\nx\r\n0\r\n\r\n", &[("POST /a", "", CHUNKED, "x")]),
    kept("a chunk that looks like the end and a request", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n\r\n0\r\n\r\n", &[("POST /a", "", CHUNKED, "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n")]),
    kept("a body of line ends", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 4\r\n", "\r\n\r\n"), ("GET /b", "", "", "")]),
    // Names that only look like those that frame.
    kept("an underscore", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\nContent-Length: 1\r\n\r\nx", &[("POST /a", "transfer_encoding: chunked\r\n", "content-length: 1\r\n", "x")]),
    kept("a name that begins like one", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length-X: 9\r\nX-Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx", &[("POST /a", "content-length-x: 9\r\nx-transfer-encoding: chunked\r\n", "content-length: 1\r\n", "x")]),
    kept("a coding in a value", b"POST /a HTTP/1.1\r\nHost: h\r\nX: Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx", &[("POST /a", "x: Transfer-Encoding: chunked\r\n", "content-length: 1\r\n", "x")]),
    kept("what TE offers is no coding", b"POST /a HTTP/1.1\r\nHost: h\r\nTE: chunked\r\nContent-Length: 1\r\n\r\nx", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    kept("trailers that are announced", b"POST /a HTTP/1.1\r\nHost: h\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 0\r\n\r\n", &[("POST /a", "", CHUNKED, "x")]),
    // What Connection lists is taken out, and takes nothing that frames or names the host along.
    kept("Connection lists Content-Length", b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: Content-Length\r\nContent-Length: 1\r\n\r\nx", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    kept("Connection lists Transfer-Encoding", b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", &[("POST /a", "", CHUNKED, "x")]),
    kept("Connection lists Host", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Host\r\n\r\n", &[("GET /a", "", "", "")]),
    kept("Connection lists what we add", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: X-Forwarded-For, x-forwarded-host\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\n\r\n", &[("GET /a", "", "", "")]),
    kept("an upgrade that Connection does not list", b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", &[("GET /a", "http2-settings: AAMAAABk\r\n", "", "")]),
    kept("Connection lists an upgrade that is not there", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "", ""), ("GET /b", "", "", "")]),
    kept("an upgrade with a body in which one hides", b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 33\r\n", "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"), ("GET /b", "", "", "")]),
    kept("fields of proxies", b"GET /a HTTP/1.1\r\nHost: h\r\nProxy-Connection: close\r\nProxy-Authorization: x\r\nKeep-Alive: timeout=9\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a", "", "", ""), ("GET /b", "", "", "")]),
    // Host and target.
    Stream { name: "an absolute target outdoes Host", bytes: b"GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n", passed: &[("GET /a", "", "", "")], host: "other", refused: 0 },
    Stream { name: "an absolute target with our prefix in its query", bytes: b"GET http://other/a?/_frag/status HTTP/1.1\r\nHost: h\r\n\r\n", passed: &[("GET /a?/_frag/status", "", "", "")], host: "other", refused: 0 },
    kept("a target that two slashes begin", b"GET //other/a HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET //other/a", "", "", "")]),
    kept("a target that holds a URL", b"GET /http://other/a HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /http://other/a", "", "", "")]),
    kept("a target that holds an encoded line end", b"GET /a%0d%0aHost:%20evil HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a%0d%0aHost:%20evil", "", "", "")]),
    kept("dots", b"GET /a/../_frag/status HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a/../_frag/status", "", "", "")]),
    kept("a fragment is encoded, not cut", b"GET /a#/b HTTP/1.1\r\nHost: h\r\n\r\n", &[("GET /a%23/b", "", "", "")]),
    kept("other names for the host", b"GET /a HTTP/1.1\r\nHost: h\r\nX-Host: evil\r\nForwarded: host=evil\r\n\r\n", &[("GET /a", "x-host: evil\r\nforwarded: host=evil\r\n", "", "")]),
    // The first stands, what is wrong behind it does not, nor what is behind that.
    refused("a bare LF in the second", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\nHost: h\r\n\r\n", &[("GET /a", "", "", "")]),
    refused("a body without a length is a request", b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n0\r\n\r\n", &[("POST /a", "", "content-length: 0\r\n", "")]),
    refused("a byte more than the length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxyGET /b HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    refused("a chunk behind the last", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[("POST /a", "", CHUNKED, "")]),
    refused("a length and chunks in the second", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[("GET /a", "", "", "")]),
    refused("no host in the second", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\n\r\n", &[("GET /a", "", "", "")]),
    refused("a folded line in the second", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", &[("GET /a", "", "", "")]),
    refused("a NUL behind a body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\0GET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    refused("a bare CR behind a body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\rGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    refused("a bare LF behind a body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &[("POST /a", "", "content-length: 1\r\n", "x")]),
    Stream { name: "HTTP/2 behind a request", bytes: b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", passed: &[("GET /a", "", "", "")], host: "h", refused: 505 },
    Stream { name: "CONNECT behind a request", bytes: b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nCONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n", passed: &[("GET /a", "", "", "")], host: "h", refused: 501 },
];

#[test]
fn what_passes_is_byte_for_byte_what_was_sent() {
    let (server, listener) = Server::with_backend(&[]);
    let recorded = record(listener);
    for stream in STREAMS {
        let mut client = Client::new(server.address);
        client.send(stream.bytes);
        let host = stream.host;
        for (line, ..) in stream.passed {
            let answer = client.response("GET");
            assert_eq!(
                (answer.status, answer.body_text()),
                (200, format!("{line} HTTP/1.1")),
                "{}",
                stream.name
            );
        }
        if stream.refused == 0 {
            // Nothing is left over on the connection: the next request is the next request.
            assert_eq!(client.get("/next").body_text(), "GET /next HTTP/1.1", "{}", stream.name);
            assert!(!client.has_data(), "{}", stream.name);
        } else {
            let answer = client.response("GET");
            assert_eq!(answer.status, stream.refused, "{}: {}", stream.name, answer.body_text());
            assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "{}", stream.name);
        }
        let mut seen = std::mem::take(&mut *recorded.lock().unwrap());
        for request in &mut seen.requests {
            request.head = without_id(&request.head);
        }
        if stream.refused == 0 {
            let next = seen.requests.pop().unwrap();
            assert_eq!(next.head.split(' ').nth(1), Some("/next"), "{}", stream.name);
        }
        let expected: Vec<Raw> = stream
            .passed
            .iter()
            .map(|(line, fields, framing, body)| Raw {
                head: as_sent(line, host, fields, framing),
                body: (*body).to_owned(),
            })
            .collect();
        assert_eq!(seen.requests, expected, "{}", stream.name);
        assert!(seen.faults.is_empty() && seen.cut.is_empty(), "{}: {:?}", stream.name, seen.cut);
    }
}

/// The head without the one line that differs from request to request, the id we give it.
fn without_id(head: &str) -> String {
    const NAME: &str = "\r\nx-request-id: ";
    let at = head.find(NAME).unwrap_or_else(|| panic!("it has an id: {head:?}"));
    let (before, rest) = head.split_at(at);
    let (id, behind) = rest[NAME.len()..].split_at(rest[NAME.len()..].find("\r\n").unwrap());
    assert!(id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') && !behind.contains(NAME), "{head:?}");
    format!("{before}{behind}")
}

/// A head as the wrapped server gets it: the client's fields, then ours.
fn as_sent(line: &str, host: &str, fields: &str, framing: &str) -> String {
    let ours = format!(
        "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: {host}\r\nhost: {host}\r\n"
    );
    let (before, behind) = if framing == CHUNKED { (framing, "") } else { ("", framing) };
    format!("{line} HTTP/1.1\r\n{before}{fields}{ours}{behind}\r\n")
}

/// What a plain reading makes of a stream.
#[derive(Debug)]
struct Reading {
    /// Method, target and body of each whole request.
    requests: Vec<(String, String, String)>,
    end: Ending,
}

#[derive(Debug, PartialEq)]
enum Ending {
    /// All was used, and the connection stays.
    Open,
    /// The last whole request ends the connection.
    Last,
    /// What follows is no request.
    Refused,
    /// What follows is the start of one, or of a body, that may be malformed.
    Unfinished,
}

fn read_plainly(mut bytes: &[u8]) -> Reading {
    let mut requests = Vec::new();
    let end = loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        if bytes.is_empty() {
            break Ending::Open;
        }
        let Some(length) = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
            break Ending::Unfinished;
        };
        let (head, rest) = bytes.split_at(length);
        let Some(plain) = Plain::read(head).filter(Plain::is_taken) else { break Ending::Refused };
        let (Some((target, _)), Some(framing)) = (plain.target(), plain.framing()) else {
            break Ending::Refused;
        };
        let body = match framing {
            Framing::None => Some((Vec::new(), 0)),
            Framing::Length(n) => usize::try_from(n).ok().and_then(|n| Some((rest.get(..n)?.to_vec(), n))),
            Framing::Chunked => plain_chunks(rest),
        };
        let Some((body, used)) = body else { break Ending::Unfinished };
        requests.push((latin1(plain.method), decoded(&latin1(target)), latin1(&body)));
        bytes = &rest[used..];
        if !plain.is_kept() {
            break Ending::Last;
        }
    };
    Reading { requests, end }
}

/// A target's characters may arrive encoded where ours are raw.
fn decoded(target: &str) -> String {
    let bytes: Vec<u8> = target.chars().map(|c| c as u8).collect();
    latin1(&percent_encoding::percent_decode(&bytes).collect::<Vec<u8>>())
}

/// Lines that make two servers disagree.
#[rustfmt::skip]
const LINES: &[&[u8]] = &[
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length : 5\r\n",
    b"Content-Length: 30\r\n", b"content-length:\t7 \r\n", b"Content-Length: 18446744073709551615\r\n", b"Content_Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b"transfer-encoding: CHUNKED\t\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b"X: y\rTransfer-Encoding: chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\n", b"Host: other\r\n", b"Connection: close\r\n", b"Connection: Transfer-Encoding\r\n",
    b"Connection: Content-Length\r\n", b"\r\n", b"\n", b" folded\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n", b"Expect: 100-continue\r\n",
    b"Trailer: X\r\n", b"X: \0\r\n", b"5;x=y\r\nhello\r\n", b"ffffffffffffffff\r\n",
];

/// A stream of one to four requests, most of them broken in a place or two.
fn generate(numbers: &mut Numbers) -> Vec<u8> {
    const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut stream = Vec::new();
    for number in 0..=numbers.below(4) {
        let method = ["GET", "POST", "PUT", "DELETE", "BREW"][numbers.below(5)];
        let body = [&HIDDEN.repeat(numbers.below(3)), "hello", "0\r\n\r\n", ""][numbers.below(4)].to_owned();
        let mut framed = String::new();
        let framing = match numbers.below(3) {
            0 => String::new(),
            1 => {
                framed = body;
                format!("Content-Length: {}\r\n", framed.len())
            }
            _ => {
                for piece in body.as_bytes().chunks(1 + numbers.below(40)) {
                    let extension = ["", ";a", ";a=\"b\"", ";GET /hidden HTTP/1.1"][numbers.below(4)];
                    framed += &format!("{:x}{extension}\r\n{}\r\n", piece.len(), latin1(piece));
                }
                framed +=
                    ["0\r\n\r\n", "0\r\nHost: forged\r\n\r\n", "00;x\r\nContent-Length: 9\r\nA: b\r\n\r\n"]
                        [numbers.below(3)];
                "Transfer-Encoding: chunked\r\n".to_owned()
            }
        };
        let version = if numbers.below(20) == 0 { "1.0" } else { "1.1" };
        let connection =
            ["", "Connection: close\r\n", "Connection: keep-alive, x\r\n"][numbers.below(20) / 9];
        let head =
            format!("{method} /r{number} HTTP/{version}\r\nHost: h\r\n{connection}{framing}X: y\r\n\r\n");
        stream.extend_from_slice(head.as_bytes());
        stream.extend_from_slice(framed.as_bytes());
    }
    for _ in 0..numbers.below(3) {
        let at = numbers.below(stream.len() + 1);
        // Most faults that matter stand where a line begins.
        let line = stream[..at].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let end = (at + 1 + numbers.below(6)).min(stream.len());
        match numbers.below(8) {
            0 => drop(stream.drain(at..end)),
            1 if at < stream.len() => stream[at] = numbers.below(256) as u8,
            2 if at < stream.len() => stream[at] ^= 0x20,
            3 => stream.insert(at, b"\r\n\0 \t:,;0"[numbers.below(9)]),
            4 => {
                let again = stream[at..end].to_vec();
                stream.splice(at..at, again);
            }
            _ => drop(stream.splice(line..line, LINES[numbers.below(LINES.len())].iter().copied())),
        }
    }
    stream
}

/// Sends a stream; everything that comes back until the end of the connection, as answers.
fn answers(server: &Server, stream: &[u8], reading: &Reading) -> Vec<Response> {
    let mut client = Client::new(server.address);
    // It may be refused in the middle.
    let _ = client.stream.write_all(stream);
    let mut answers = Vec::new();
    while answers.iter().filter(|answer: &&Response| answer.status == 200).count() < reading.requests.len() {
        answers.push(client.response("GET"));
    }
    if matches!(reading.end, Ending::Open | Ending::Unfinished) {
        let _ = client.stream.shutdown(Shutdown::Write);
    }
    client.end();
    while !client.buffer.is_empty() {
        answers.push(client.response("GET"));
    }
    answers.retain(|answer| answer.status != 100);
    answers
}

fn streams_broken_at_random(seed: u64, count: usize) {
    let (server, listener) = Server::with_backend(&[]);
    let recorded = record(listener);
    let mut numbers = Numbers(seed);
    let mut ends = [0; 4];
    for case in 0..count {
        let stream = generate(&mut numbers);
        let reading = read_plainly(&stream);
        let what = format!("case {case} of {seed}: b\"{}\" {reading:?}", stream.escape_ascii());
        let answers = answers(&server, &stream, &reading);
        let seen = std::mem::take(&mut *recorded.lock().unwrap());
        let passed: Vec<_> = seen
            .requests
            .iter()
            .map(|request| {
                let mut words = request.head.split(' ');
                let (method, target) = (words.next().unwrap(), words.next().unwrap());
                (method.to_owned(), decoded(target), request.body.clone())
            })
            .collect();
        assert_eq!(passed, reading.requests, "{what}");
        assert!(seen.faults.is_empty(), "{:?} {what}", seen.faults);
        for (answer, request) in answers.iter().zip(&seen.requests) {
            let line = request.head.split("\r\n").next().unwrap();
            assert_eq!(
                (answer.status, answer.body.as_slice()),
                (200, latin1_bytes(line).as_slice()),
                "{what}"
            );
        }
        let rest: Vec<u16> = answers[reading.requests.len()..].iter().map(|answer| answer.status).collect();
        let proper = match reading.end {
            Ending::Open | Ending::Last => rest.is_empty(),
            Ending::Refused => matches!(rest[..], [400..=599]),
            Ending::Unfinished => rest.len() <= 1 && rest.iter().all(|status| (400..=599).contains(status)),
        };
        assert!(proper, "{rest:?} {what}");
        ends[match reading.end {
            Ending::Open => 0,
            Ending::Last => 1,
            Ending::Refused => 2,
            Ending::Unfinished => 3,
        }] += 1;
    }
    // All ways to end were met, none of them hardly.
    assert!(ends.iter().all(|met| *met * 100 > count), "{ends:?}");
}

fn latin1_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u8).collect()
}

/// `FRAG_SMUGGLING_STREAMS=100000/7` takes so many, from another seed.
#[test]
fn streams_broken_at_random_mean_what_a_plain_reading_means() {
    const THREADS: u64 = 4;
    let wanted = std::env::var("FRAG_SMUGGLING_STREAMS").unwrap_or_else(|_| "2000/1".to_owned());
    let (count, seed) = wanted.split_once('/').unwrap();
    let (count, seed): (usize, u64) = (count.parse().unwrap(), seed.parse().unwrap());
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            scope.spawn(move || streams_broken_at_random(seed << 8 | thread, count / THREADS as usize));
        }
    });
}

/// A refusal in the middle of a body: what the wrapped server has of it never ends.
#[test]
fn a_body_that_turns_out_malformed_is_cut_for_the_wrapped_server() {
    let (server, listener) = Server::with_backend(&[]);
    let recorded = record(listener);
    let mut client = Client::new(server.address);
    client.send("POST /cut HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    eventually("it is under way", || peer_closed(&client.stream) || server.status().contains("ready"));
    client.send("+0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response("POST").status, 400);
    assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0));
    eventually("it sees the end", || !recorded.lock().unwrap().cut.is_empty());
    let seen = recorded.lock().unwrap();
    assert!(seen.requests.is_empty(), "{:?}", seen.requests);
    assert!(seen.cut[0].head.starts_with("POST /cut ") && !seen.cut[0].body.contains("0\r\n\r\n"));
}
