//! Connections to the wrapped server: waited for while its queue is full, let go when nobody needs them, and
//! made to where it listens now.

use crate::binary::client::Client;
use crate::binary::tunnel::UPGRADE;
use crate::binary::{PATIENCE, Server, Wire, connect, eventually, ok, play, read_to_end};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Pid;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
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

#[test]
fn who_waits_for_it_is_held_when_its_life_ends() {
    let (server, listener, queued) = start(&[]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(server.address)).collect();
    clients[..2].iter_mut().for_each(|client| client.request("POST", "/", ""));
    clients[2..].iter_mut().for_each(|client| client.send(UPGRADE));
    eventually("all wait", || metric(&server, "frag_http_requests_in_flight 5"));
    let status: serde_json::Value = serde_json::from_str(&server.status()).unwrap();
    let child = status["pid"].as_i64().unwrap();
    kill(Pid::from_raw(child as i32), Signal::SIGKILL).unwrap();
    // The kernel tells them nothing.
    eventually("all are held", || metric(&server, "frag_http_requests_held 4"));
    drop((queued, listener));
}

/// A server that serves one connection at a time.
fn one_at_a_time() -> Server {
    let (server, listener) = Server::with_backend(&[]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut wire = Wire::new(stream);
            while wire.request().is_some() {
                wire.write(&ok(b"mine"));
            }
        }
    });
    server
}

#[test]
fn a_server_of_one_connection_at_a_time_serves_one_client_after_the_other() {
    let server = one_at_a_time();
    // More than there are threads that always wait, so that each would have a connection.
    for _ in 0..10 {
        assert_eq!(server.get("/", "").body_text(), "mine");
    }
}

#[test]
fn nor_does_one_client_that_is_never_idle_keep_it_to_itself() {
    let server = one_at_a_time();
    let busy = &AtomicBool::new(true);
    std::thread::scope(|scope| {
        let mut first = Client::new(server.address);
        assert_eq!(first.get("/").body_text(), "mine");
        scope.spawn(move || {
            while busy.load(Ordering::Relaxed) {
                assert_eq!(first.get("/").body_text(), "mine");
            }
        });
        let second = std::panic::catch_unwind(|| server.get("/", "").body_text());
        busy.store(false, Ordering::Relaxed);
        assert_eq!(second.unwrap(), "mine");
    });
}

#[test]
fn nor_does_a_thread_that_has_gone_on_to_something_else() {
    let server = one_at_a_time();
    let began = Instant::now();
    let mut client = Client::new(server.address);
    assert_eq!(client.get("/").body_text(), "mine");
    // On a connection of its own.
    client.send(UPGRADE);
    assert_eq!(client.response("GET").body_text(), "mine");
    // Served by us, and slowly sent.
    let mut client = Client::new(server.address);
    assert_eq!(client.get("/").body_text(), "mine");
    client.send("POST /_frag/api/artifacts HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(server.get("/", "").body_text(), "mine");
    assert!(began.elapsed() < FAR_LESS_THAN_PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_server_that_moves_to_another_address_is_found_there() {
    let (server, listener) = Server::with_backend(&[]);
    let port = listener.local_addr().unwrap().port();
    let Ok(elsewhere) = TcpListener::bind(("::1", port)) else { return };
    drop(elsewhere);
    let first = listener.try_clone().unwrap();
    // No connection is kept: each answer needs a new one.
    let here = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nhere";
    let seen = play(first, |_| here.to_vec());
    let mut clients: Vec<Client> = (0..8).map(|_| Client::new(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").body_text(), "here");
    }
    assert_eq!(seen.lock().unwrap().len(), 8);
    // Its thread still waits to accept; this makes it end.
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&listener), nix::sys::socket::Shutdown::Both)
        .unwrap();
    drop(listener);
    let elsewhere = TcpListener::bind(("::1", port)).unwrap();
    play(elsewhere, |_| ok(b"there"));
    for client in &mut clients {
        assert_eq!(client.get("/").body_text(), "there");
    }
}

#[test]
fn a_server_that_takes_no_more_of_a_body_is_not_waited_for_longer_than_for_an_answer() {
    let (server, listener) = Server::with_backend(&["--upstream-timeout", "200ms"]);
    let mut client = connect(server.address);
    client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let mut sink = client.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        (0..100).all(|_| sink.write_all(&piece).is_ok())
    });
    let unread = Wire::accept(&listener);
    let answer = read_to_end(&mut client);
    assert!(answer.starts_with(b"HTTP/1.1 504 "), "{}", String::from_utf8_lossy(&answer));
    assert!(!sent.join().unwrap(), "nobody took all of it");
    drop(unread);
}
