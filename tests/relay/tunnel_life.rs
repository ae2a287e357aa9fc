//! Tunnels beside everything else: counted, waited for by nobody, cheap, and ended with the server.

use crate::binary::client::{Client, End};
use crate::binary::tunnel::{SWITCH, UPGRADE, cpu_time_in_silence, open, open_echo, threads};
use crate::binary::{IDLE, PATIENCE, Reserved, Server, Wire, eventually, ok};
use crate::{binary, common};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// Far below every grace in these tests.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Around the fixture, which turns upgrades into echoes.
fn around_echo(flags: &[&str]) -> Server {
    let port = common::free_port();
    let server = Server::start(&format!("{} web {port}", common::fixture()), port, flags);
    assert_eq!(server.get("/_frag/await", "").status, 200);
    server
}

#[test]
fn a_handshake_during_the_start_is_held() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    client.send("early");
    let listener = server.open_listener(reserved);
    let mut wire = std::iter::from_fn(|| Some(Wire::accept(&listener)));
    // The first connections are readiness probes.
    let mut wire = wire.find_map(|mut wire| wire.head().map(|_| wire)).unwrap();
    wire.write(SWITCH.as_bytes());
    assert_eq!(client.take_through("\r\n\r\n"), SWITCH);
    assert_eq!(wire.take(5), b"early");
}

#[test]
fn a_handshake_without_a_server_is_a_503() {
    let server = Server::start(IDLE, binary::unused_port(), &["--hold-timeout", "100ms"]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let response = client.response("GET");
    assert_eq!((response.status, response.code().as_str()), (503, "server_unavailable"));
}

#[test]
fn a_restart_waits_for_no_tunnel_and_ends_them_all() {
    let server = around_echo(&["--drain", "15s", "--max-streams", "3"]);
    let mut tunnels: Vec<Client> = (0..3).map(|_| open_echo(&server)).collect();
    let start = Instant::now();
    assert_eq!(server.send("POST", "/_frag/restart?wait=ready", "", b"").status, 200);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    for tunnel in &mut tunnels {
        assert_eq!(tunnel.end(), End::Closed);
    }
    // The clients leave their ends open, and still there is room for others.
    let open = || {
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        client.take_through("\r\n\r\n").starts_with("HTTP/1.1 101 ").then_some(client)
    };
    for _ in 0..3 {
        eventually("there is room", || open().map(|client| tunnels.push(client)).is_some());
    }
}

#[test]
fn a_restart_waits_for_requests_beside_a_tunnel() {
    let server = around_echo(&["--drain", "15s"]);
    let tunnel = open_echo(&server);
    let pid = server.get("/pid", "").body_text();
    let mut client = Client::new(server.address);
    client.request("GET", "/sleep/700", "");
    eventually("it is under way", || server.get("/_frag/logs", "").body_text().contains("/sleep/700"));
    let start = Instant::now();
    assert_eq!(server.send("POST", "/_frag/restart?wait=ready", "", b"").status, 200);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(client.response("GET").body_text(), pid, "answered by the life it was sent to");
    assert_ne!(server.get("/pid", "").body_text(), pid);
    drop(tunnel);
}

#[test]
fn a_killed_server_ends_its_tunnels() {
    let server = around_echo(&[]);
    let mut tunnel = open_echo(&server);
    let pid = server.get("/_frag/status", "").json()["pid"].as_i64().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    tunnel.end();
    open_echo(&server);
}

#[test]
fn there_are_so_many_tunnels_and_no_more() {
    let (server, listener) = Server::with_backend(&["--max-streams", "3"]);
    let mut tunnels: Vec<_> = (0..3).map(|_| open(&server, &listener)).collect();
    for _ in 0..2 {
        let mut client = Client::new(server.address);
        client.send(UPGRADE);
        let response = client.response("GET");
        assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
        assert!(response.field("retry-after").is_some());
    }
    // Requests are not tunnels.
    let answered = std::thread::scope(|scope| {
        let client = scope.spawn(|| server.get("/", ""));
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(&ok(b"plain"));
        client.join().unwrap()
    });
    assert_eq!(answered.body_text(), "plain");
    for refused in [false, true] {
        let (client, wire) = tunnels.pop().unwrap();
        if refused {
            drop(wire);
        }
        drop(client);
    }
    // Their places are free again, and so is that of a handshake that came to nothing.
    let refusing = std::thread::spawn(move || {
        for _ in 0..5 {
            let mut wire = Wire::accept(&listener);
            wire.head().unwrap();
            wire.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
        }
        listener
    });
    for _ in 0..5 {
        eventually("there is room", || {
            let mut client = Client::new(server.address);
            client.send(UPGRADE);
            client.response("GET").status == 403
        });
    }
    let listener = refusing.join().unwrap();
    tunnels.push(open(&server, &listener));
}

#[test]
fn one_that_the_wrapped_server_has_ended_waits_for_its_client_no_longer_than_an_idle_connection() {
    let (server, listener) = Server::with_backend(&["--max-streams", "1", "--idle-timeout", "4s"]);
    let (mut client, mut wire) = open(&server, &listener);
    wire.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.end(), End::Closed);
    // As long as the client speaks, it is heard.
    wire.stream.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    for _ in 0..2 {
        assert_eq!(wire.stream.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.send("word");
        assert_eq!(wire.take(4), b"word");
    }
    wire.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(wire.stream.read(&mut [0; 64]).unwrap(), 0, "the other way has ended, too");
    // Its place is free, though its client holds on to it.
    eventually("there is room", || {
        server.get("/_frag/metrics", "").body_text().contains("frag_http_streams 0\n")
    });
    drop(client);
}

#[test]
fn nor_does_it_wait_for_the_wrapped_server_to_take_the_rest() {
    let (server, listener) = Server::with_backend(&["--max-streams", "1", "--idle-timeout", "1s"]);
    let (mut client, wire) = open(&server, &listener);
    wire.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.end(), End::Closed);
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.stream.write(&[b'x'; 64 * 1024]).is_ok() {}
    eventually("there is room", || {
        server.get("/_frag/metrics", "").body_text().contains("frag_http_streams 0\n")
    });
    let mut rest = &wire.stream;
    let error = std::io::copy(&mut rest, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it does not look complete");
}

#[test]
fn at_the_end_tunnels_end_at_once_whatever_their_ends_do() {
    let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "15s"]);
    let mut both: Vec<_> = (0..5).map(|_| open(&server, &listener)).collect();
    both[1].0.stream.shutdown(Shutdown::Write).unwrap();
    both[2].1.stream.shutdown(Shutdown::Write).unwrap();
    both[3].0.send("unread");
    both[4].1.write(b"unread");
    let start = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    for (client, wire) in &mut both {
        client.end();
        while matches!(wire.stream.read(&mut [0; 64]), Ok(1..)) {}
    }
}

#[test]
fn at_the_end_a_handshake_under_way_has_its_answer() {
    let (mut server, listener) = Server::with_backend(&["--shutdown-grace", "15s"]);
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    let mut idle = Client::new(server.address);
    let ended = std::thread::spawn(move || {
        let code = server.terminate();
        (code, server)
    });
    // The end has begun when the silent connection is closed.
    assert_eq!(idle.end(), End::Closed);
    wire.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.response("GET").body_text(), "no");
    assert_eq!(ended.join().unwrap().0, Some(0));
}

#[test]
fn idle_tunnels_cost_nothing_and_are_in_nobodys_way() {
    let server = around_echo(&[]);
    let mut tunnels: Vec<Client> = (0..200).map(|_| open_echo(&server)).collect();
    let silence = cpu_time_in_silence(&server, &tunnels[0], Duration::from_secs(1));
    assert!(silence <= Duration::from_millis(50), "{silence:?} of a second");
    let mut longest = Duration::ZERO;
    for n in 0..50 {
        let start = Instant::now();
        let target = if n % 2 == 0 { "/_frag/status" } else { "/" };
        assert_eq!(server.get(target, "").status, 200);
        longest = longest.max(start.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    for (n, tunnel) in tunnels.iter_mut().enumerate() {
        let text = format!("number {n}");
        tunnel.send(&text);
        assert_eq!(tunnel.take(text.len()), text.as_bytes());
    }
    let busy = threads(&server);
    drop(tunnels);
    eventually("their threads are free", || threads(&server) < busy - 180);
}
