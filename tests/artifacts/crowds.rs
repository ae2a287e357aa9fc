//! Many at once who send slowly: what that costs in memory is bounded, and nobody else pays.

use crate::binary::{IDLE, Server, eventually, peer_closed, send, unused_port};
use std::io::Write;
use std::net::TcpStream;

/// More mebibytes than all bodies in memory may have together.
const CROWD: usize = 48;

fn server() -> Server {
    // They are to be cut for the memory they take, not for their slowness.
    Server::start(IDLE, unused_port(), &["--control", "127.0.0.1:0", "--min-rate", "0"])
}

fn closed(crowd: &[TcpStream]) -> usize {
    crowd.iter().filter(|client| peer_closed(client)).count()
}

/// A body of a mebibyte, whole.
fn body() -> Vec<u8> {
    format!("{{\"payload\":\"{}\"{}}}", "\u{20ac}".repeat(340_000), " ".repeat(28_560)).into_bytes()
}

#[test]
fn slow_senders_take_no_more_memory_than_there_is() {
    let server = server();
    let body = body();
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut client = server.connect();
            let head =
                "POST /_frag/api/artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n";
            client.write_all(head.as_bytes()).unwrap();
            // All but the last byte; that others were there before may have ended it already.
            let _ = client.write_all(&body[..1_000_000]);
            client
        })
        .collect();
    // What came of a piece does not count before it is whole.
    eventually("those who are too many are gone", || closed(&crowd) >= CROWD - 34);
    assert!(closed(&crowd) <= CROWD / 2, "the others are still waited for");
    // Who has something to send gets the place of one who does not go on.
    let mut stored = 0;
    eventually("others are served", || {
        let answer = send(server.control.unwrap(), "POST", "/api/artifacts", "", &body);
        assert!(matches!(answer.status, 201 | 503), "{}", answer.body_text());
        stored += usize::from(answer.status == 201);
        stored == 5
    });
    let answer = server.get("/_frag/status", "");
    assert!(answer.status == 200 || answer.status == 503, "{}", answer.status);
}
