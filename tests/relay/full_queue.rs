//! A wrapped server that lets connections wait in its queue, until that is full, and accepts none.

use crate::binary::client::Client;
use crate::binary::tunnel::UPGRADE;
use crate::binary::{PATIENCE, Server, connect, eventually, ok, play, read_to_end};
use nix::sys::socket::{Backlog, listen};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long the kernel waits before it asks a full queue again, and then some.
const FAR_LESS_THAN_PATIENCE: Duration = Duration::from_secs(4);

/// A ready server, its app's queue full of the connections that are returned.
fn start(flags: &[&str]) -> (Server, TcpListener, Vec<TcpStream>) {
    let (server, listener) = Server::with_backend(flags);
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(connection);
    }
    assert!(!queued.is_empty() && queued.len() < 5, "{} in the queue", queued.len());
    (server, listener, queued)
}

fn metric(server: &Server, line: &str) -> bool {
    server.get("/_frag/metrics", "").body_text().contains(&format!("\n{line}\n"))
}

#[test]
fn a_full_queue_is_waited_for_as_an_answer_is() {
    let (server, _listener, _queued) = start(&["--upstream-timeout", "200ms"]);
    let start = Instant::now();
    let post = server.send("POST", "/", "", b"body");
    assert_eq!((post.status, post.code().as_str()), (504, "upstream_timeout"));
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let upgrade = client.response("GET");
    assert_eq!((upgrade.status, upgrade.code().as_str()), (504, "upstream_timeout"));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(400) && took < FAR_LESS_THAN_PATIENCE, "{took:?}");
}

#[test]
fn who_waits_for_it_has_no_pool_thread_and_is_served_when_it_has_room() {
    const WAITING: usize = 24;
    let (server, listener, queued) = start(&["--threads-max", "4"]);
    let get = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut clients: Vec<TcpStream> = (0..WAITING).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(get).unwrap());
    // This one would be the last of seven rounds if each waited with a thread of the pool.
    eventually("all wait as streams", || metric(&server, &format!("frag_http_streams {WAITING}")));
    drop(queued);
    play(listener, |_| ok(b"served"));
    for client in &mut clients {
        assert!(read_to_end(client).ends_with(b"served"));
    }
}

#[test]
fn a_client_that_leaves_meanwhile_is_noticed() {
    let (server, listener, _queued) = start(&[]);
    let start = Instant::now();
    let mut client = connect(server.address);
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut upgrade = connect(server.address);
    upgrade.write_all(UPGRADE.as_bytes()).unwrap();
    eventually("both wait", || metric(&server, "frag_http_requests_in_flight 3"));
    drop((client, upgrade));
    eventually("nobody waits", || metric(&server, "frag_http_requests_in_flight 1"));
    assert!(start.elapsed() < FAR_LESS_THAN_PATIENCE, "{:?} of {PATIENCE:?}", start.elapsed());
    drop(listener);
}
