//! What becomes of artifacts when the server ends, however it ends, and of databases others wrote.
#![cfg(feature = "artifacts")]
#![allow(clippy::unwrap_used)]
mod binary;

use binary::client::Client;
use binary::{IDLE, Server, eventually, send, unused_port};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn start(state: &Path, flags: &[&str]) -> Server {
    let state = ["--control", "127.0.0.1:0", "--state-dir", state.to_str().unwrap()];
    Server::start(IDLE, unused_port(), &[&state, flags].concat())
}

fn create(server: &Server, payload: &str) -> String {
    let body = serde_json::to_vec(&serde_json::json!({ "payload": payload })).unwrap();
    let made = send(server.control.unwrap(), "POST", "/api/artifacts", "", &body);
    assert_eq!(made.status, 201, "{}", made.body_text());
    made.json()["id"].as_str().unwrap().to_owned()
}

fn payload(server: &Server, id: &str) -> Option<String> {
    let read = send(server.control.unwrap(), "GET", &format!("/api/artifacts/{id}"), "", b"");
    (read.status == 200).then(|| read.json()["payload"].as_str().unwrap().to_owned())
}

#[test]
fn artifacts_last_with_a_state_directory_and_not_without() {
    let state = tempfile::tempdir().unwrap();
    let mut server = start(state.path(), &[]);
    let id = create(&server, "kept");
    let database = state.path().join("artifacts.db");
    assert_eq!(database.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(server.terminate(), Some(0));
    assert!(!state.path().join("artifacts.db-wal").exists(), "closed in good order");
    assert_eq!(payload(&start(state.path(), &[]), &id).as_deref(), Some("kept"));
    // Told otherwise, it is not touched.
    let memory = start(state.path(), &["--artifacts", "memory:"]);
    assert_eq!(payload(&memory, &id), None);
    let elsewhere = state.path().join("new/other.db");
    let other = start(state.path(), &["--artifacts", &format!("sqlite:{}", elsewhere.display())]);
    assert_eq!(payload(&other, &id), None);
    assert!(elsewhere.exists());
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    let mut server = start(state.path(), &[]);
    let control = server.control.unwrap();
    let acknowledged = Mutex::new(HashMap::new());
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (acknowledged, count, over) = (&acknowledged, &count, &over);
            scope.spawn(move || {
                let mut client = Client::new(control);
                for n in 0.. {
                    let payload = format!("{writer} {n} {}", "x".repeat(n % 5000));
                    let body = format!("{{\"payload\":\"{payload}\"}}");
                    let head = "POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
                    let request = format!("{head} {}\r\n\r\n{body}", body.len());
                    // It is killed in the middle of this.
                    if std::io::Write::write_all(&mut client.stream, request.as_bytes()).is_err() {
                        return;
                    }
                    while !client.buffer.windows(2).any(|w| w == b"\"}") {
                        match std::io::Read::read(&mut client.stream, &mut [0; 4096][..]) {
                            Ok(0) | Err(_) => return,
                            Ok(_) if over.load(Ordering::Acquire) => return,
                            Ok(_) => break,
                        }
                    }
                    let _ = (&acknowledged, n);
                    count.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        eventually("a thousand writes", || count.load(Ordering::Acquire) >= 1000);
        over.store(true, Ordering::Release);
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    });
    let lost: HashMap<String, String> = acknowledged.into_inner().unwrap();
    assert!(lost.is_empty());
}
