//! Every bound of the front: filled exactly it holds, exceeded by one it refuses with its status, and
//! what was refused gives its place back.

use crate::binary;
use crate::binary::client::{Client, End};
use crate::binary::{IDLE, Reserved, Server, Wire, eventually, ok, play};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The binary around a command that never listens: enough for the control routes.
fn control_only(flags: &[&str]) -> Server {
    Server::start(IDLE, Reserved::new().port, flags)
}

/// Takes every connection of a listener and never answers; what arrives is told.
fn black_hole(listener: TcpListener) -> Receiver<TcpStream> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = sender.send(stream);
        }
    });
    receiver
}

/// A request head of exactly this many bytes.
fn head_of(target: &str, bytes: usize) -> Vec<u8> {
    let start = format!("GET {target} HTTP/1.1\r\nHost: h\r\nX: ");
    let fill = "x".repeat(bytes - start.len() - 4);
    format!("{start}{fill}\r\n\r\n").into_bytes()
}

/// Waits for this long or until the connection has something to say.
fn pause(stream: &TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_read_timeout(Some(binary::PATIENCE)).unwrap();
    !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_head_of_64_kib_passes_and_one_more_byte_is_refused() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |request| ok(request.head.len().to_string().as_bytes()));
    for target in ["/", "/_frag/health"] {
        let mut client = Client::new(server.address);
        client.send(head_of(target, 64 * 1024));
        assert_eq!(client.response("GET").status, 200, "{target}");
        client.send(head_of(target, 64 * 1024 + 1));
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (431, "head_too_large"), "{target}");
        assert_eq!(client.end(), End::Closed);
        // One that does not end is not waited for.
        let mut client = Client::new(server.address);
        client.send(&head_of(target, 64 * 1024 + 10)[..64 * 1024 + 1]);
        assert_eq!(client.response("GET").status, 431, "{target}");
    }
}

#[test]
fn empty_lines_before_a_request_are_no_part_of_its_head() {
    let server = control_only(&[]);
    let mut client = Client::new(server.address);
    client.send(b"\r\n".repeat(50_000));
    client.send(head_of("/_frag/health", 64 * 1024));
    assert_eq!(client.response("GET").status, 200);
}

#[test]
fn a_head_of_128_fields_passes_and_one_more_is_refused() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b""));
    let fields = |n: usize| (1..n).map(|i| format!("X-{i}: {i}\r\n")).collect::<String>();
    for target in ["/", "/_frag/health"] {
        let mut client = Client::new(server.address);
        client.request("GET", target, &fields(128));
        assert_eq!(client.response("GET").status, 200, "{target}");
        client.request("GET", target, &fields(129));
        assert_eq!(client.response("GET").status, 431, "{target}");
        assert_eq!(client.end(), End::Closed);
    }
    assert_eq!(seen.lock().unwrap()[0].field("x-127").as_deref(), Some("127"));
}

#[test]
fn a_target_of_16_kib_passes_and_one_more_byte_is_refused() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b""));
    let target = |n: usize| format!("/{}", "t".repeat(n - 1));
    let mut client = Client::new(server.address);
    assert_eq!(client.get(&target(16 * 1024)).status, 200);
    let answer = client.get(&target(16 * 1024 + 1));
    assert_eq!((answer.status, answer.code().as_str()), (414, "target_too_long"));
    assert_eq!(client.end(), End::Closed);
    assert_eq!(seen.lock().unwrap()[0].line().len(), 16 * 1024 + "GET  HTTP/1.1".len());
}

#[test]
fn a_head_must_come_in_time_however_its_bytes_are_spread() {
    let server = control_only(&["--head-timeout", "400ms"]);
    for first in ["G", "GET / HTTP/1.1\r\nHost: h\r\n", "\r\n\r\nGET"] {
        let mut client = Client::new(server.address);
        let start = Instant::now();
        client.send(first);
        // A byte now and then buys no time.
        while !pause(&client.stream, Duration::from_millis(50)) {
            assert!(start.elapsed() < Duration::from_secs(10), "it waits as long as bytes come");
            let _ = client.stream.write_all(b"x");
        }
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (408, "head_timeout"), "{first}");
        // The connection is a moment older than `start`.
        assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
        client.end();
    }
}

#[test]
fn a_connection_that_never_speaks_is_closed_without_a_word() {
    let server = control_only(&["--head-timeout", "300ms"]);
    for empty_lines in [0, 3] {
        let start = Instant::now();
        let mut client = Client::new(server.address);
        client.send(b"\r\n".repeat(empty_lines));
        assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0));
        assert!(start.elapsed() >= Duration::from_millis(300));
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_a_used_one_is_kept() {
    let server = control_only(&["--idle-timeout", "1s", "--head-timeout", "10s"]);
    let mut client = Client::new(server.address);
    let start = Instant::now();
    let mut last = start;
    while start.elapsed() < Duration::from_millis(2500) {
        last = Instant::now();
        assert_eq!(client.get("/_frag/health").status, 200);
        pause(&client.stream, Duration::from_millis(100));
    }
    assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0));
    assert!(last.elapsed() >= Duration::from_millis(900) && last.elapsed() < Duration::from_secs(8));
}

#[test]
fn over_the_connection_bound_the_longest_waiting_one_closes() {
    let server = control_only(&["--max-connections", "8"]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::new(server.address)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.get("/_frag/health").status, 200);
        if index < 2 {
            assert!(!pause(&client.stream, Duration::from_millis(50)));
        }
    }
    // All eight are open; the first is used again, so the second has waited longest.
    assert_eq!(clients[0].get("/_frag/health").status, 200);
    let mut ninth = Client::new(server.address);
    assert_eq!(ninth.get("/_frag/health").status, 200);
    assert_eq!((clients[1].end(), clients[1].buffer.len()), (End::Closed, 0));
    for (index, client) in clients.iter_mut().enumerate().filter(|(index, _)| *index != 1) {
        assert_eq!(client.get("/_frag/health").status, 200, "{index} was closed, too");
    }
}

#[test]
fn who_fills_the_public_port_does_not_fill_the_control_listener() {
    let flags = ["--max-connections", "3", "--control", "127.0.0.1:0"];
    let (server, listener) = Server::with_backend(&flags);
    let arrived = black_hole(listener);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        busy.push((client, arrived.recv_timeout(binary::PATIENCE).unwrap()));
    }
    assert_eq!(Client::new(server.address).response("GET").status, 503);
    let mut control: Vec<_> = (0..32).map(|_| Client::new(server.control.unwrap())).collect();
    let mut all_answer = || {
        for client in &mut control {
            client.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(client.response("GET").status, 200);
        }
    };
    all_answer();
    assert_eq!(Client::new(server.address).response("GET").status, 503);
    // Nor did they make room for that one.
    all_answer();
    // One more counts, and has the place of the one that has waited longest.
    let mut further = Client::new(server.control.unwrap());
    assert_eq!(control[0].end(), End::Closed);
    further.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(further.response("GET").status, 200);
    assert!(!busy.iter().any(|(client, _)| client.has_data()));
}

#[test]
fn with_all_connections_busy_the_next_is_refused_until_one_is_done() {
    let (server, listener) = Server::with_backend(&["--max-connections", "3"]);
    let arrived = black_hole(listener);
    let (mut busy, mut upstream) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        upstream.push(arrived.recv_timeout(binary::PATIENCE).unwrap());
        busy.push(client);
    }
    let mut refused: Vec<Client> = (0..5).map(|_| Client::new(server.address)).collect();
    for client in &mut refused {
        // Nobody closes a connection here, and still none of the five slips in.
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    }
    drop(refused);
    upstream.pop().unwrap().write_all(&ok(b"done")).unwrap();
    // The connection is between requests now and makes room.
    let served = busy.iter_mut().position(|client| pause(&client.stream, Duration::from_millis(300)));
    assert_eq!(busy[served.unwrap()].response("GET").body_text(), "done");
    eventually("there is room", || server.get("/_frag/health", "").status == 200);
}

/// Long enough for an answer that has been sent.
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn over_the_stream_bound_long_waits_are_refused() {
    let server = control_only(&["--max-streams", "3"]);
    let wait = || {
        let mut client = Client::new(server.address);
        client.request("GET", "/_frag/await?timeout=60", "");
        client
    };
    let mut waiting: Vec<Client> = (0..5).map(|_| wait()).collect();
    // Whichever come first: three are taken.
    let mut refused = Vec::new();
    eventually("two are refused", || {
        let (with_answer, without) = waiting.drain(..).partition(|client| pause(&client.stream, SHORT));
        waiting = without;
        refused.extend::<Vec<Client>>(with_answer);
        refused.len() >= 2
    });
    assert_eq!(waiting.len(), 3);
    let refused = refused[0].response("GET");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
    // A place comes back when its client leaves.
    waiting.pop();
    eventually("a place comes back", || !pause(&wait().stream, Duration::from_millis(400)));
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|client| !client.has_data()));
}

#[test]
fn over_the_stream_bound_the_slowest_transfer_makes_room() {
    let (server, listener) = Server::with_backend(&["--max-streams", "1"]);
    let arrived = black_hole(listener);
    let blocked = || {
        let mut client = Client::new(server.address);
        client.request("GET", "/", "");
        (client, arrived.recv_timeout(binary::PATIENCE).unwrap())
    };
    let (mut first, _first) = blocked();
    assert!(!pause(&first.stream, Duration::from_millis(600)), "one fits");
    let (mut second, mut answer) = blocked();
    assert!(matches!(first.end(), End::Closed | End::Reset), "the first is cut");
    assert!(first.buffer.is_empty());
    assert!(!pause(&second.stream, Duration::from_millis(300)), "the second stays");
    answer.write_all(&ok(b"fine")).unwrap();
    assert_eq!(second.response("GET").body_text(), "fine");
}

#[test]
fn what_is_cut_in_the_middle_of_a_body_without_a_length_does_not_look_complete() {
    let (server, listener) = Server::with_backend(&["--max-streams", "1"]);
    let arrived = black_hole(listener);
    let begun = || {
        let mut client = Client::new(server.address);
        client.send("GET / HTTP/1.0\r\n\r\n");
        let mut answer = arrived.recv_timeout(binary::PATIENCE).unwrap();
        answer.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").unwrap();
        client.take_through("\r\n\r\nhalf");
        (client, answer)
    };
    let (mut first, _first) = begun();
    assert!(!pause(&first.stream, Duration::from_millis(600)), "one fits");
    let _second = begun();
    assert_eq!(first.end(), End::Reset);
}

#[test]
fn a_transfer_that_nothing_holds_up_makes_room_too() {
    let (server, listener) = Server::with_backend(&["--max-streams", "1"]);
    let arrived = black_hole(listener);
    let mut endless = Client::new(server.address);
    endless.send("GET / HTTP/1.0\r\n\r\n");
    let mut answer = arrived.recv_timeout(binary::PATIENCE).unwrap();
    std::thread::spawn(move || {
        answer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while answer.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    });
    let reader = std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < binary::PATIENCE {
            endless.buffer.clear();
            if let Some(end) = endless.fill() {
                return Some(end);
            }
        }
        None
    });
    let streams = || server.get("/_frag/metrics", "").body_text().contains("\nfrag_http_streams 1\n");
    eventually("it is a stream", streams);
    let mut second = Client::new(server.address);
    second.request("GET", "/", "");
    let mut answer = arrived.recv_timeout(binary::PATIENCE).unwrap();
    assert_eq!(reader.join().unwrap(), Some(End::Reset));
    answer.write_all(&ok(b"fine")).unwrap();
    assert_eq!(second.response("GET").body_text(), "fine");
}

#[test]
fn a_crowd_that_waits_for_the_app_has_more_than_a_quarter_of_the_streams_only_if_it_lasts() {
    let flags = ["--max-streams", "8", "--threads-min", "1", "--threads-max", "2"];
    let (server, listener) = Server::with_backend(&flags);
    let arrived = black_hole(listener);
    let began = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::new(server.address);
            client.request("GET", "/", "");
            client
        })
        .collect();
    // Two streams and two threads of the pool. The others wait in the queue, and not for ever.
    let _asked: Vec<_> = (0..8).map(|_| arrived.recv_timeout(binary::PATIENCE).unwrap()).collect();
    assert!(began.elapsed() > Duration::from_secs(2));
    assert!(!clients.iter().any(Client::has_data), "nobody is cut or refused");
    assert_eq!(server.get("/_frag/health", "").status, 200);
}

#[test]
fn waits_for_an_upgrade_or_behind_an_early_answer_take_no_thread_of_the_pool() {
    let (server, listener) = Server::with_backend(&["--threads-min", "1", "--threads-max", "1"]);
    let arrived = black_hole(listener);
    let next = || arrived.recv_timeout(binary::PATIENCE).unwrap();
    let mut upgrade = Client::new(server.address);
    upgrade.request("GET", "/", "Connection: Upgrade\r\nUpgrade: any\r\n");
    let _unanswered = next();
    let mut early = Client::new(server.address);
    early.request("POST", "/", "Content-Length: 100000\r\n");
    early.send("x");
    let mut half = next();
    half.write_all(b"HTTP/1.1 401 Un").unwrap();
    let mut other = Client::new(server.address);
    other.request("GET", "/", "");
    next().write_all(&ok(b"fine")).unwrap();
    assert_eq!(other.response("GET").body_text(), "fine");
    assert!(!upgrade.has_data() && !early.has_data());
}

#[test]
fn slow_clients_have_a_quarter_of_the_streams_and_who_waits_for_the_app_is_not_cut_for_them() {
    let (server, listener) = Server::with_backend(&["--max-streams", "8"]);
    let arrived = black_hole(listener);
    let begin = |method: &str, fields: &str, body: &[u8]| {
        let mut client = Client::new(server.address);
        client.request(method, "/", fields);
        client.send(body);
        (client, arrived.recv_timeout(binary::PATIENCE).unwrap())
    };
    let mut waiting: Vec<_> = (0..3).map(|_| begin("GET", "", b"")).collect();
    assert!(!pause(&waiting[0].0.stream, Duration::from_millis(600)), "they last");
    let slow = |bytes: usize| begin("POST", "Content-Length: 100000\r\n", &vec![b'x'; bytes]);
    let (mut slowest, _slowest) = slow(1);
    let (mut faster, mut answer) = slow(50_000);
    assert!(!pause(&slowest.stream, Duration::from_millis(600)), "two fit");
    let (newcomer, _newcomer) = slow(1);
    assert!(matches!(slowest.end(), End::Closed | End::Reset), "the slowest is cut");
    assert!(String::from_utf8_lossy(&slowest.buffer).starts_with("HTTP/1.1 503 "), "and told why");
    assert!(!pause(&newcomer.stream, Duration::from_millis(600)) && !faster.has_data(), "two stay");
    faster.send(vec![b'x'; 50_000]);
    answer.write_all(&ok(b"fine")).unwrap();
    assert_eq!(faster.response("POST").body_text(), "fine");
    for (client, upstream) in &mut waiting {
        upstream.write_all(&ok(b"fine")).unwrap();
        assert_eq!(client.response("GET").body_text(), "fine");
    }
}

#[test]
fn a_body_of_the_bound_passes_and_one_more_byte_is_refused() {
    let (server, listener) = Server::with_backend(&["--max-body", "10"]);
    let seen = play(listener, |request| ok(&request.body));
    let mut client = Client::new(server.address);
    client.request("POST", "/", "Content-Length: 10\r\n");
    client.send(b"0123456789");
    assert_eq!(client.response("POST").status, 200);
    client.request("POST", "/", "Transfer-Encoding: chunked\r\n");
    client.send(b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(seen.lock().unwrap().len(), 2);

    client.request("POST", "/", "Content-Length: 11\r\nExpect: 100-continue\r\n");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "unread");
    assert_eq!(client.end(), End::Closed);

    let mut client = Client::new(server.address);
    client.request("POST", "/", "Transfer-Encoding: chunked\r\n");
    client.send(b"5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);
    assert_eq!(client.end(), End::Closed);
    assert_eq!(seen.lock().unwrap().len(), 2, "neither came through whole");
    assert_eq!(server.get("/", "").status, 200);
}

#[test]
fn who_sends_too_slowly_is_refused() {
    let (server, listener) = Server::with_backend(&["--min-rate", "1000"]);
    let arrived = black_hole(listener);
    std::thread::scope(|scope| {
        for target in ["/_frag/upload/file", "/relayed"] {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::new(server.address);
                client.request("POST", target, "Content-Length: 1000000\r\n");
                let start = Instant::now();
                // Far below the rate, and with pieces so frequent that no single wait is long.
                while !pause(&client.stream, Duration::from_millis(20)) {
                    assert!(start.elapsed() < Duration::from_secs(15), "{target}: still waiting");
                    let _ = client.stream.write_all(b"x");
                }
                assert!(start.elapsed() > Duration::from_secs(9), "{target}: {:?}", start.elapsed());
                let answer = client.response("POST");
                assert_eq!((answer.status, answer.code().as_str()), (408, "body_too_slow"), "{target}");
                client.end();
            });
        }
        scope.spawn(|| {
            let mut client = Client::new(server.address);
            client.request("POST", "/_frag/upload/steady", "Content-Length: 30000\r\n");
            // Above the rate: ten times 100 ms a second, 250 bytes each.
            for _ in 0..119 {
                client.send([b'y'; 250]);
                assert!(!pause(&client.stream, Duration::from_millis(100)), "cut above the rate");
            }
            client.send([b'y'; 250]);
            assert_eq!(client.response("POST").status, 200);
        });
    });
    assert_eq!(server.get("/_frag/files/file", "").status, 404);
    drop(arrived);
}

#[test]
fn who_reads_too_slowly_is_cut() {
    let (server, listener) = Server::with_backend(&["--min-rate", "1000"]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                let _ = wire.head();
                let _ = wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                while wire.stream.write_all(&[b'z'; 64 * 1024]).is_ok() {}
            });
        }
    });
    std::fs::File::create(server.root().join("big")).unwrap().set_len(1_000_000_000).unwrap();
    let narrow = || {
        let client = Client::new(server.address);
        setsockopt(&client.stream, sockopt::RcvBuf, &4096).unwrap();
        client
    };
    std::thread::scope(|scope| {
        for target in ["/_frag/files/big", "/"] {
            scope.spawn(move || {
                let mut client = narrow();
                client.request("GET", target, "");
                let start = Instant::now();
                assert_eq!(client.end_unread(), End::Reset, "{target}");
                assert!(start.elapsed() > Duration::from_secs(9), "{target}: {:?}", start.elapsed());
            });
        }
        scope.spawn(|| {
            let mut client = narrow();
            client.request("GET", "/", "");
            let start = Instant::now();
            let mut piece = [0; 20_000];
            while start.elapsed() < Duration::from_secs(13) {
                client.stream.read_exact(&mut piece).expect("cut above the rate");
                // Always something to read: only time tells.
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
    });
}

#[test]
fn unfinished_heads_have_a_total_and_the_oldest_go_first() {
    let server = control_only(&["--head-timeout", "60s"]);
    let part = head_of("/_frag/health", 64 * 1024);
    let part = &part[..64 * 1000];
    // 262 of these fit into 16 MiB.
    let mut clients: Vec<Client> = (0..262).map(|_| Client::new(server.address)).collect();
    for client in &mut clients {
        client.send(part);
    }
    assert_eq!(server.get("/_frag/health", "").status, 200);
    assert!(!pause(&clients[0].stream, Duration::from_millis(300)), "they fit");
    let mut last = Client::new(server.address);
    last.send(part);
    assert!(matches!(clients[0].end(), End::Closed | End::Reset));
    assert!(clients[0].buffer.is_empty());
    assert!(clients[1..].iter().all(|client| !client.has_data()), "one is enough");
    last.send(&head_of("/_frag/health", 64 * 1024)[part.len()..]);
    assert_eq!(last.response("GET").status, 200);
}

#[test]
fn large_heads_under_way_have_a_total() {
    let (server, listener) = Server::with_backend(&[]);
    let arrived = black_hole(listener);
    // 4 MiB beyond 8 KiB each.
    let fit = 4 * 1024 / (64 - 8);
    let mut clients: Vec<Client> = (0..fit + 10)
        .map(|_| {
            let mut client = Client::new(server.address);
            client.send(head_of("/", 64 * 1024));
            client
        })
        .collect();
    let reached: Vec<TcpStream> = (0..fit).map(|_| arrived.recv_timeout(binary::PATIENCE).unwrap()).collect();
    eventually("the others are refused", || clients.iter().filter(|client| client.has_data()).count() == 10);
    let refused = clients.iter_mut().find(|client| client.has_data()).unwrap().response("GET");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    // Small ones pass beside them.
    let mut small = Client::new(server.address);
    small.request("GET", "/", "");
    arrived.recv_timeout(binary::PATIENCE).unwrap().write_all(&ok(b"fine")).unwrap();
    assert_eq!(small.response("GET").body_text(), "fine");
    // Their room comes back when they end.
    drop(reached);
    drop(clients);
    std::thread::spawn(move || {
        for mut upstream in arrived {
            let _ = upstream.read(&mut [0; 1024]);
            let _ = upstream.write_all(&ok(b"fine"));
        }
    });
    eventually("there is room again", || {
        let mut client = Client::new(server.address);
        client.send(head_of("/", 64 * 1024));
        client.response("GET").status == 200
    });
}

#[test]
fn held_requests_have_a_total() {
    let server = control_only(&["--hold-timeout", "60s"]);
    let request = head_of("/", 64 * 1024);
    let mut clients: Vec<Client> = (0..260).map(|_| Client::new(server.address)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&request);
        if n % 50 == 49 {
            // Heads under way have a total of their own; those that are held are not among them.
            let held = format!("\nfrag_http_requests_held {}\n", n + 1);
            eventually("they are held", || server.get("/_frag/metrics", "").body_text().contains(&held));
        }
    }
    let refused = |clients: &[Client]| clients.iter().filter(|client| client.has_data()).count();
    eventually("256 fill it", || refused(&clients) >= 4);
    assert!(!pause(&server.connect(), Duration::from_millis(300)));
    assert_eq!(refused(&clients), 4, "no more than that");
    for client in clients.iter_mut().filter(|client| client.has_data()) {
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    }
    clients.truncate(200);
    eventually("there is room", || {
        let mut client = Client::new(server.address);
        client.send(&request);
        !pause(&client.stream, Duration::from_millis(200))
    });
}

#[test]
fn hundreds_of_requests_the_wrapped_server_leaves_waiting_hinder_nobody() {
    let (server, listener) = Server::with_backend(&["--threads-min", "1", "--threads-max", "4"]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                while let Some(head) = wire.head() {
                    if !head.starts_with("GET /block") {
                        wire.write(&ok(b"served"));
                    }
                }
            });
        }
    });
    let mut blocked: Vec<Client> = (0..300).map(|_| Client::new(server.address)).collect();
    for client in &mut blocked {
        client.request("GET", "/block", "");
    }
    let start = Instant::now();
    assert_eq!(server.get("/_frag/status", "").status, 200);
    let status = start.elapsed();
    assert_eq!(server.get("/", "").body_text(), "served");
    let relayed = start.elapsed();
    assert!(status < Duration::from_secs(2), "status took {status:?}");
    assert!(relayed < Duration::from_secs(8), "a request took {relayed:?}");
    assert!(blocked.iter().all(|client| !client.has_data()), "they still wait");
}

#[test]
fn stubborn_restarts_do_not_take_the_control_threads() {
    let server = Server::start(
        "sh -c \"trap '' TERM; while :; do sleep 1000; done\"",
        Reserved::new().port,
        &["--stop-grace", "4s"],
    );
    eventually("the trap is set", || server.status().contains("\"pid\":"));
    let mut stops: Vec<Client> = (0..20).map(|_| Client::new(server.address)).collect();
    for client in &mut stops {
        client.request("POST", "/_frag/restart", "");
    }
    for _ in 0..20 {
        let start = Instant::now();
        server.status();
        assert!(start.elapsed() < Duration::from_secs(2), "status took {:?}", start.elapsed());
    }
}

#[test]
fn one_thread_serves_everybody() {
    let (server, listener) = Server::with_backend(&["--threads-min", "1", "--threads-max", "1"]);
    play(listener, |request| ok(request.line().as_bytes()));
    std::thread::scope(|scope| {
        for client in 0..32 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Client::new(server.address);
                for n in 0..20 {
                    let answer = connection.get(&format!("/{client}/{n}"));
                    assert_eq!(answer.body_text(), format!("GET /{client}/{n} HTTP/1.1"));
                }
            });
        }
    });
}

#[test]
fn threads_above_the_least_end_when_idle() {
    let (server, listener) = Server::with_backend(&["--threads-min", "2"]);
    let arrived = black_hole(listener);
    let named = |name: &str| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten();
        tasks
            .filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name))
            .count()
    };
    let mut clients: Vec<Client> = (0..40).map(|_| Client::new(server.address)).collect();
    for client in &mut clients {
        client.request("GET", "/", "");
    }
    let mut upstream: Vec<TcpStream> =
        (0..40).map(|_| arrived.recv_timeout(binary::PATIENCE).unwrap()).collect();
    assert!(named("worker") >= 40, "{} threads", named("worker"));
    for stream in &mut upstream {
        stream.write_all(&ok(b"")).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    eventually("they end", || named("worker") == 2);
}

#[test]
fn four_thousand_idle_connections_are_kept_and_others_served() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 10_000 {
        eprintln!("skipped: needs 10000 descriptors, ulimit -Hn is {hard}");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let server = control_only(&[]);
    let mut idle: Vec<Client> = (0..4000).map(|_| Client::new(server.address)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/_frag/health").status, 200);
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.get("/_frag/health", "").status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(idle.iter().all(|client| !client.has_data()), "none was closed");
    for client in idle.iter_mut().step_by(100) {
        assert_eq!(client.get("/_frag/health").status, 200);
    }
}
