//! Bodies pass as they come, in both directions, and whoever leaves takes the connections along.

use crate::binary;
use crate::binary::{PATIENCE, Response, Server, Wire, eventually, ok, play, read_to_end};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Reads until the bytes end with `end`; fails when they do not in time.
fn read_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, end: &[u8]) {
    let mut piece = [0; 4096];
    while !bytes.windows(end.len()).any(|w| w == end) {
        let n = stream
            .read(&mut piece)
            .unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(bytes)));
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(bytes));
        bytes.extend_from_slice(&piece[..n]);
    }
}

/// How long until the other side of `stream` is closed.
fn time_to_close(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut piece = [0; 64 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return start.elapsed(),
            Err(e) => panic!("still open after {PATIENCE:?}: {e}"),
        }
    }
}

fn begin(server: &Server, request: &str) -> TcpStream {
    let mut client = server.connect();
    client.write_all(request.as_bytes()).unwrap();
    client
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Its highest resident memory in KiB, from now on.
fn reset_peak(server: &Server) {
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
}

fn peak_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn events_arrive_one_by_one_and_the_head_before_the_first() {
    for (head, frame) in [
        ("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", true),
        ("Content-Type: text/event-stream\r\n", false),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let mut client = begin(&server, GET);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes());
        let mut got = Vec::new();
        read_until(&mut client, &mut got, b"\r\n\r\n");
        for n in 0..20 {
            let event = format!("data: event-{n}\n\n");
            wire.write(
                if frame { format!("{:x}\r\n{event}\r\n", event.len()) } else { event.clone() }.as_bytes(),
            );
            // The next is written only when this one has arrived.
            read_until(&mut client, &mut got, event.as_bytes());
        }
        wire.write(if frame { b"0\r\n\r\n" } else { b"" });
        wire.close();
        read_until(&mut client, &mut got, b"\r\n0\r\n\r\n");
        assert_eq!(Response::parse(&got, "GET").body_text().matches("data: ").count(), 20);
    }
}

#[test]
fn a_chunk_split_anywhere_arrives_whole() {
    let (server, listener) = Server::with_backend(&[]);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nbroken\r\n0b;x\r\nin many way\r\n0\r\n\r\n";
    let mut client = server.connect();
    for at in 10..answer.len() {
        client.write_all(GET.as_bytes()).unwrap();
        // Closed after the answer: each round has its own connection.
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(&answer[..at]);
        wire.write(&answer[at..]);
        wire.close();
        let mut got = Vec::new();
        read_until(&mut client, &mut got, b"\r\n0\r\n\r\n");
        assert_eq!(Response::parse(&got, "GET").body_text(), "brokenin many way", "{at}");
    }
}

#[test]
fn a_request_body_streams_up_before_the_answer_begins() {
    for chunked in [false, true] {
        let (server, listener) = Server::with_backend(&[]);
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 80" };
        let mut client = begin(&server, &format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        let mut got = Vec::new();
        for n in 0..10 {
            let piece = format!("piece-{n}!");
            let sent = if chunked { format!("8\r\n{piece}\r\n") } else { piece.clone() };
            client.write_all(sent.as_bytes()).unwrap();
            read_until(&mut wire.stream, &mut got, piece.as_bytes());
        }
        if chunked {
            client.write_all(b"0\r\n\r\n").unwrap();
            read_until(&mut wire.stream, &mut got, b"0\r\n\r\n");
        }
        wire.write(&binary::ok(b"thanks"));
        let mut answer = Vec::new();
        read_until(&mut client, &mut answer, b"thanks");
    }
}

#[test]
fn a_client_that_leaves_frees_the_connection_to_the_wrapped_server() {
    let upload = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome";
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n";
    let head = &b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome"[..];
    for (request, answered, what) in [
        (GET, false, "while it waits for the head"),
        (GET, true, "in the middle of the response"),
        (upload, false, "in the middle of its upload"),
        (chunked, false, "in the middle of its chunked upload"),
    ] {
        let (server, listener) = Server::with_backend(&[]);
        let mut client = begin(&server, request);
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        if answered {
            wire.write(head);
            read_until(&mut client, &mut Vec::new(), b"some");
        }
        drop(client);
        let time = time_to_close(&mut wire.stream);
        assert!(time < Duration::from_secs(1), "{what}: {time:?}");
    }
}

/// Sends up to 10 MiB until the server stops taking them, then reads its answer.
fn upload_against(server: &Server, framing: &str) -> Response {
    let mut client = begin(server, &format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
    let block = if framing.contains("chunked") {
        [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat()
    } else {
        vec![b'x'; 65536]
    };
    for _ in 0..160 {
        if client.write_all(&block).is_err() {
            break;
        }
    }
    Response::parse(&read_to_end(&mut client), "POST")
}

/// Plays a wrapped server that answers as soon as it has the head, reads no further and closes: with
/// an orderly end before the reset that the unread bytes cause, or without.
fn refuse_all(listener: TcpListener, answer: &'static str, orderly: bool) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut wire = Wire::new(stream);
            if wire.head().is_some() {
                // Bytes of the body are there and stay unread.
                let _ = wire.stream.peek(&mut [0]);
                wire.write(answer.as_bytes());
                if orderly {
                    let _ = wire.stream.shutdown(Shutdown::Write);
                }
            }
        }
    });
}

#[test]
fn an_early_answer_reaches_the_client_that_still_sends() {
    for answer in [
        "HTTP/1.1 413 Too Large\r\nX-Early: yes\r\nContent-Length: 7\r\n\r\ntoo big",
        "HTTP/1.1 401 Unauthorized\r\nX-Early: yes\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntoo\r\n4\r\n big\r\n0\r\n\r\n",
        "HTTP/1.1 413 Too Large\r\nX-Early: yes\r\nConnection: close\r\n\r\ntoo big",
        "HTTP/1.0 413 Too Large\r\nX-Early: yes\r\n\r\ntoo big",
        // No refusals, but of servers that say that they close.
        "HTTP/1.1 200 Fine\r\nX-Early: yes\r\nConnection: close\r\nContent-Length: 7\r\n\r\ntoo big",
        "HTTP/1.0 200 Fine\r\nX-Early: yes\r\n\r\ntoo big",
    ] {
        for (framing, orderly) in [
            ("Content-Length: 10485760", true),
            ("Content-Length: 10485760", false),
            ("Transfer-Encoding: chunked", true),
            ("Transfer-Encoding: chunked", false),
        ] {
            let (server, listener) = Server::with_backend(&[]);
            refuse_all(listener, answer, orderly);
            let response = upload_against(&server, framing);
            assert!([200, 401, 413].contains(&response.status), "{answer} {response:?}");
            assert_eq!(response.body_text(), "too big", "{answer}");
            assert_eq!(response.fields("x-early"), ["yes"]);
        }
    }
}

#[test]
fn a_body_goes_on_behind_an_answer_that_is_no_refusal() {
    const LONG: usize = 4 * MIB;
    for length in [10, LONG] {
        let (server, listener) = Server::with_backend(&[]);
        let mut client =
            begin(&server, &format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\nx"));
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
        client.write_all(&vec![b'x'; length - 1]).unwrap();
        assert_eq!(wire.take(length), vec![b'x'; length]);
        let mut got = Vec::new();
        read_until(&mut client, &mut got, b"\r\n\r\nok");
        assert_eq!(Response::parse(&got, "POST").status, 202);
    }
}

#[test]
fn an_answer_reaches_a_client_whose_body_does_not_go_on() {
    // It pauses; or the wrapped server takes no more than its kernel, and has little time for that.
    for (sent, timeout) in
        [("some".to_owned(), "0"), ("x".repeat(16 * MIB), "0"), ("x".repeat(16 * MIB), "300ms")]
    {
        let (server, listener) = Server::with_backend(&["--upstream-timeout", timeout]);
        let mut client = server.connect();
        client.set_nonblocking(true).unwrap();
        client.write_all(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
        let _ = client.write_all(sent.as_bytes());
        client.set_nonblocking(false).unwrap();
        let mut wire = Wire::accept(&listener);
        wire.head().unwrap();
        wire.write(b"HTTP/1.1 200 Well\r\nContent-Length: 2\r\n\r\nno");
        let mut got = Vec::new();
        read_until(&mut client, &mut got, b"\r\n\r\nno");
        assert_eq!(Response::parse(&got, "PUT").status, 200);
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_pauses() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = begin(&server, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome");
    let mut wire = Wire::accept(&listener);
    // Only when all that was sent has passed: now nothing but the answer can go on.
    read_until(&mut wire.stream, &mut Vec::new(), b"\r\n\r\nsome");
    wire.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    let mut got = Vec::new();
    read_until(&mut client, &mut got, b"\r\n\r\nno");
    assert_eq!(Response::parse(&got, "PUT").status, 403);
}

#[test]
fn a_wrapped_server_that_closes_in_the_middle_of_an_upload_is_a_502() {
    for reset in [false, true] {
        for framing in ["Content-Length: 10485760", "Transfer-Encoding: chunked"] {
            let (server, listener) = Server::with_backend(&[]);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut wire = Wire::new(stream);
                    wire.head();
                    if !reset {
                        // What was sent is read: the end is orderly.
                        let _ = wire.stream.read(&mut [0; 4096]);
                    }
                    wire.close();
                }
            });
            let response = upload_against(&server, framing);
            assert_eq!((response.status, response.code().as_str()), (502, "upstream_failed"), "{framing}");
        }
    }
}

#[test]
fn a_client_is_asked_to_continue_once() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |request| binary::ok(&request.body));
    let mut client =
        begin(&server, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut got = Vec::new();
    read_until(&mut client, &mut got, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").unwrap();
    read_until(&mut client, &mut got, b"\r\n\r\nbody");
    assert_eq!(String::from_utf8_lossy(&got).matches("HTTP/1.1 ").count(), 2);
    assert_eq!(seen.lock().unwrap()[0].fields("expect"), [""; 0]);
}

const MIB: usize = 1024 * 1024;
const MOST_KIB: usize = 20 * 1024;

#[test]
fn a_long_download_and_upload_take_little_memory() {
    let (server, listener) = Server::with_backend(&[]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                let block = vec![b'd'; MIB];
                while let Some(head) = wire.head() {
                    if head.starts_with("GET") {
                        wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
                        (0..100).for_each(|_| wire.write(&block));
                    } else {
                        let mut left = 100 * MIB;
                        let mut room = vec![0; MIB];
                        left -= wire.take_buffered();
                        while left > 0 {
                            left -= wire.stream.read(&mut room).unwrap();
                        }
                        wire.write(&binary::ok(b"all"));
                    }
                }
            });
        }
    });
    reset_peak(&server);
    let mut client = begin(&server, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let (mut total, mut room) = (0, vec![0; MIB]);
    loop {
        match client.read(&mut room).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert!(total > 100 * MIB && total < 100 * MIB + 1000, "{total}");
    assert!(peak_kib(&server) < MOST_KIB, "download: {} KiB", peak_kib(&server));
    let mut client =
        begin(&server, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 104857600\r\nConnection: close\r\n\r\n");
    let block = vec![b'u'; MIB];
    (0..100).for_each(|_| client.write_all(&block).unwrap());
    assert_eq!(Response::parse(&read_to_end(&mut client), "PUT").body_text(), "all");
    assert!(peak_kib(&server) < MOST_KIB, "upload: {} KiB", peak_kib(&server));
}

#[test]
fn a_slow_reader_slows_the_wrapped_server_down() {
    let (server, listener) = Server::with_backend(&[]);
    reset_peak(&server);
    let client = begin(&server, GET);
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    wire.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
    let (block, mut sent) = (vec![b'x'; 64 * 1024], 0);
    // Until nothing is taken any more: all that was, stands in the sockets' buffers.
    while let Ok(n) = wire.stream.write(&block) {
        sent += n;
        assert!(sent < 200 * MIB, "somebody keeps it all");
    }
    assert!(peak_kib(&server) < MOST_KIB, "{} KiB for {sent} bytes", peak_kib(&server));
    drop(client);
    eventually("the wrapped server is told", || {
        wire.stream.write(&block).is_err_and(|e| e.kind() != ErrorKind::WouldBlock)
    });
}

/// Bytes for this client that are in the kernel of the server's side, `/proc/net/tcp`.
fn kept(server: &Server, client: &TcpStream) -> usize {
    let ports = [server.address, client.local_addr().unwrap()].map(|a| format!(":{:04X}", a.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]));
    row.map_or(0, |row| usize::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap())
}

#[test]
fn the_kernel_keeps_less_for_a_client_with_a_small_window() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |_| ok(&vec![b'x'; 16 * MIB]));
    let [small, usual] = [1, 64 * 1024].map(|receive_buffer| {
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&client, sockopt::RcvBuf, &receive_buffer).unwrap();
        connect(client.as_raw_fd(), &SockaddrStorage::from(server.address)).unwrap();
        let mut client = TcpStream::from(client);
        client.write_all(GET.as_bytes()).unwrap();
        client
    });
    eventually("64 KiB wait for the one", || kept(&server, &small) >= 64 * 1024);
    eventually("a megabyte waits for the other", || kept(&server, &usual) >= MIB);
    assert!(kept(&server, &small) < 256 * 1024, "{}", kept(&server, &small));
    assert!(kept(&server, &usual) < 2 * MIB, "{}", kept(&server, &usual));
}
