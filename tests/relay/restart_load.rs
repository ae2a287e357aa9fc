//! A real child that is restarted, killed or crashes, while requests are under way.

use crate::binary::{Response, Server, eventually};
use crate::common;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn web(flags: &[&str]) -> Server {
    web_after(0, flags)
}

/// The binary around a real server that listens `delay` milliseconds after its start.
fn web_after(delay: u64, flags: &[&str]) -> Server {
    let port = common::free_port();
    let server = Server::start(&format!("{} web {port} {delay}", common::fixture()), port, flags);
    eventually("ready", || server.status().contains("\"ready\":true"));
    server
}

/// The wrapped server's pid, as the binary knows it.
fn pid(server: &Server) -> i32 {
    let status: serde_json::Value = serde_json::from_str(&server.status()).unwrap();
    status["pid"].as_i64().unwrap_or(0) as i32
}

/// The pid that answered.
fn answerer(answer: &Response) -> i32 {
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    answer.body_text().split(' ').next().unwrap().parse().unwrap()
}

fn kill_server(server: &Server) {
    let _ = kill(Pid::from_raw(pid(server)), Signal::SIGKILL);
}

#[test]
fn a_restart_takes_effect_and_holds_requests_meanwhile() {
    let server = web_after(200, &[]);
    let before = answerer(&server.get("/", ""));
    assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    // It does not listen yet: both wait for it.
    let after = answerer(&server.get("/", ""));
    assert_ne!(before, after);
    assert_eq!(answerer(&server.send("POST", "/", "", b"body")), after);
    assert_eq!(pid(&server), after);
}

#[test]
fn a_request_in_flight_is_finished_before_a_restart() {
    let server = web(&["--drain", "10s"]);
    let before = pid(&server);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.send("POST", "/sleep/500", "", b"body"));
        eventually("it is under way", || server.get("/", "").status == 200);
        assert_eq!(server.send("POST", "/_frag/restart?wait=ready", "", b"").status, 200);
        let (slow, next) = (answerer(&slow.join().unwrap()), answerer(&server.get("/", "")));
        assert_ne!(next, before);
        assert!(slow == before || slow == next);
    });
}

/// Clients on kept connections, alternating GET and POST with a body, until told to stop; returns
/// who answered. Every answer must be a 200. `meanwhile` is handed a wait until each client has got on.
fn load(server: &Server, clients: usize, post: bool, meanwhile: impl FnOnce(&dyn Fn())) -> BTreeSet<i32> {
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = (0..clients).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        let one = |n: usize| {
            let (stop, done) = (&stop, &counts[n]);
            move || {
                let mut answered = BTreeSet::new();
                let mut stream = server.connect();
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let request = if post && count % 2 == 1 {
                        format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
                    } else {
                        format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n")
                    };
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut bytes = Vec::new();
                    // Its body has a space and a digit at the end.
                    while !(bytes.ends_with(b" 0") || bytes.ends_with(b" 4")) {
                        let mut piece = [0; 4096];
                        let n = stream.read(&mut piece).unwrap();
                        assert!(n > 0, "closed after {count} answers: {}", String::from_utf8_lossy(&bytes));
                        bytes.extend_from_slice(&piece[..n]);
                        assert!(
                            bytes.starts_with(&b"HTTP/1.1 200"[..bytes.len().min(12)]),
                            "{}",
                            String::from_utf8_lossy(&bytes)
                        );
                    }
                    answered.insert(answerer(&Response::parse(&bytes, "GET")));
                    count += 1;
                    done.store(count, Ordering::Relaxed);
                }
                assert!(count > 0);
                answered
            }
        };
        let threads: Vec<_> = (0..clients).map(|n| scope.spawn(one(n))).collect();
        // A panic of `meanwhile` must not leave them running for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        {
            let _stop = Stop(&stop);
            let all = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
            meanwhile(&|| {
                let before = all();
                let ahead = || all().iter().zip(&before).all(|(now, before)| *now >= before + 2);
                eventually("every client has gone on", || ahead() || threads.iter().any(|t| t.is_finished()));
            });
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn planned_restarts_under_load_lose_nothing() {
    let server = web_after(20, &[]);
    let answered = load(&server, 8, true, |all_go_on| {
        all_go_on();
        for _ in 0..5 {
            assert_eq!(server.send("POST", "/_frag/restart?wait=ready", "", b"").status, 200);
            all_go_on();
        }
    });
    assert!(answered.len() >= 6, "{answered:?}");
}

#[test]
fn kills_under_load_lose_no_request_that_may_be_repeated() {
    let server = web_after(20, &[]);
    let answered = load(&server, 8, false, |all_go_on| {
        for _ in 0..5 {
            let before = pid(&server);
            kill_server(&server);
            eventually("the next life", || ![0, before].contains(&pid(&server)));
            all_go_on();
        }
    });
    assert!(answered.len() >= 5, "{answered:?}");
}

#[test]
fn a_request_that_waits_for_its_head_survives_a_kill() {
    let server = web(&[]);
    let before = pid(&server);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get("/hang-once", ""));
        eventually("it is there", || server.root().join("hung").exists());
        kill_server(&server);
        assert_ne!(answerer(&waiting.join().unwrap()), before);
    });
}

#[test]
fn a_request_with_a_body_does_not_survive_a_kill() {
    let server = web(&[]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.send("POST", "/hang-once", "", b"body"));
        eventually("it is there", || server.root().join("hung").exists());
        let start = Instant::now();
        kill_server(&server);
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
        assert!(start.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn a_request_that_crashes_the_server_is_tried_three_times_and_others_are_served() {
    let server = web(&[]);
    let lives = |server: &Server| {
        let status: serde_json::Value = serde_json::from_str(&server.status()).unwrap();
        status["restarts"].as_u64().unwrap()
    };
    std::thread::scope(|scope| {
        let crash = scope.spawn(|| server.get("/crash", ""));
        while !crash.is_finished() {
            assert_eq!(server.get("/", "").status, 200);
        }
        let answer = crash.join().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
    });
    assert_eq!(server.get("/", "").status, 200);
    assert_eq!(lives(&server), 3);
}
