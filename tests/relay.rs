//! What passes through the relay, in both directions.
#![allow(clippy::unwrap_used)]
mod binary;

use binary::{Server, ok, play};

#[test]
fn a_request_arrives_as_it_was_sent() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| ok(&request.body));
    let answer = server.send("PATCH", "/a/../b?c=%2F&d", "X-One: 1\r\nX-Two: two\r\n", b"hello");
    assert_eq!((answer.status, answer.body_text().as_str()), (200, "hello"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "PATCH /a/../b?c=%2F&d HTTP/1.1");
    assert_eq!(seen[0].field("x-two").as_deref(), Some("two"));
    assert_eq!(seen[0].field("host").as_deref(), Some("localhost"));
}
