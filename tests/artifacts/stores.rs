//! What becomes of artifacts when the server ends, however it ends, and of databases others wrote.

use crate::binary;
use crate::binary::client::Client;
use crate::binary::{IDLE, Response, Server, eventually, send, unused_port};
use crate::links;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

/// How the original server makes its database.
pub(crate) const ORIGINAL: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE artifacts (
        id TEXT PRIMARY KEY,
        payload TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT (datetime('now')),
        updated_at TEXT NOT NULL DEFAULT (datetime('now')),
        last_viewed_at TEXT NOT NULL DEFAULT (datetime('now')),
        expires_at TEXT NOT NULL
    );
    CREATE INDEX idx_artifacts_expires_at ON artifacts(expires_at);";

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
    let elsewhere = state.path().join("new/other.db");
    for place in ["memory:", &format!("sqlite:{}", elsewhere.display())] {
        assert_eq!(payload(&start(state.path(), &["--artifacts", place]), &id), None, "{place}");
    }
    assert!(elsewhere.exists());
}

/// Posts on a kept connection; the new id, or none if the server ended before it acknowledged one.
fn post(stream: &mut TcpStream, payload: &str) -> Option<String> {
    let body = format!("{{\"payload\":\"{payload}\"}}");
    let head = "POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
    stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"Z\"}") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(n) => answer.extend_from_slice(&piece[..n]),
        }
    }
    let answer = Response::parse(&answer, "POST");
    assert_eq!(answer.status, 201, "{}", answer.body_text());
    Some(answer.json()["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    let mut server = start(state.path(), &[]);
    let control = server.control.unwrap();
    let acknowledged = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                let mut stream = binary::connect(control);
                for n in 0.. {
                    let payload = format!("{writer} {n} {}", "x".repeat(n % 500 * 10));
                    match post(&mut stream, &payload) {
                        Some(id) => acknowledged.lock().unwrap().insert(id, payload),
                        None => return,
                    };
                }
            });
        }
        eventually("a thousand writes", || acknowledged.lock().unwrap().len() >= 1000);
        // In the middle of the next ones.
        server.child.kill().unwrap();
    });
    server.child.wait().unwrap();
    let acknowledged = acknowledged.into_inner().unwrap();
    let again = start(state.path(), &[]);
    let mut client = Client::new(again.control.unwrap());
    for (id, wanted) in &acknowledged {
        client.send(format!("GET /api/artifacts/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let read = client.response("GET");
        assert!(read.status == 200 && read.json()["payload"] == *wanted, "{id}: {}", read.status);
    }
}

#[test]
fn a_database_of_the_original_server_is_served() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("original.db");
    let original = rusqlite::Connection::open(&path).unwrap();
    original.execute_batch(ORIGINAL).unwrap();
    original
        .execute_batch(
            "INSERT INTO artifacts VALUES ('0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f', 'agent-render=v1.plain.e30',
                 '2026-11-21T00:09:46.218Z', '2026-11-21T00:09:46.218Z', '2026-11-21T00:09:46.218Z',
                 '2999-01-01T00:00:00.000Z');
             INSERT INTO artifacts (id, payload, expires_at) VALUES ('old', 'x', '2001-01-01T00:00:00.000Z');
             INSERT INTO artifacts (id, payload, expires_at) VALUES ('any-text', 'y', '2999-01-01T00:00:00.000Z');",
        )
        .unwrap();
    // It stays open over there, as that of a server that still runs.
    let server = start(state.path(), &["--artifacts", &format!("sqlite:{}", path.display())]);
    let control = server.control.unwrap();
    let read = send(control, "GET", "/api/artifacts/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", "", b"").json();
    assert_eq!(read["payload"], "agent-render=v1.plain.e30");
    assert_eq!(read["created_at"], "2026-11-21T00:09:46.218Z");
    assert!(read["expires_at"].as_str().unwrap() < "2999", "it slides from now on");
    assert_eq!(send(control, "GET", "/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", "", b"").status, 200);
    assert_eq!(payload(&server, "any-text").as_deref(), Some("y"));
    let id = create(&server, "new");
    let rows = || -> Vec<String> {
        let mut query = original.prepare("SELECT id FROM artifacts ORDER BY payload").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    // What had expired goes with the sweep at the start.
    eventually("swept", || rows().len() == 3);
    assert_eq!(rows(), ["0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", &id, "any-text"]);
    let version: i64 = original.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 0);
}

/// What a database consists of, in SQLite's words.
fn layout(database: &rusqlite::Connection) -> Vec<String> {
    let mut facts = Vec::new();
    for sql in [
        "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name",
        "SELECT * FROM pragma_table_xinfo('artifacts')",
        "SELECT * FROM pragma_index_list('artifacts') ORDER BY name",
        "SELECT * FROM pragma_index_xinfo('idx_artifacts_expires_at')",
        "SELECT * FROM pragma_user_version",
        "SELECT * FROM pragma_journal_mode",
    ] {
        let mut query = database.prepare(sql).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            facts.push(format!("{:?}", (0..columns).map(|n| row.get_ref(n).unwrap()).collect::<Vec<_>>()));
        }
    }
    facts
}

#[test]
fn a_database_we_make_is_laid_out_as_the_original_servers() {
    let state = tempfile::tempdir().unwrap();
    let server = start(state.path(), &[]);
    create(&server, "x");
    let open = |name: &str| rusqlite::Connection::open(state.path().join(name)).unwrap();
    let (ours, original) = (open("artifacts.db"), open("original.db"));
    original.execute_batch(ORIGINAL).unwrap();
    assert_eq!(layout(&ours), layout(&original));
    assert!(state.path().join("artifacts.db-wal").exists());
}

#[test]
fn health_reads_the_table_and_failures_are_500() {
    let state = tempfile::tempdir().unwrap();
    let server = start(state.path(), &[]);
    let control = server.control.unwrap();
    let id = create(&server, "x");
    let health = send(control, "GET", "/health", "", b"");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    let database = rusqlite::Connection::open(state.path().join("artifacts.db")).unwrap();
    database.execute_batch("ALTER TABLE artifacts RENAME TO away").unwrap();
    for path in ["/health", "/_frag/health"] {
        let health = send(control, "GET", path, "", b"");
        assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("error")));
    }
    let item = format!("/api/artifacts/{id}");
    let stored = r#"{"error":"Failed to store artifact."}"#;
    let (json, plain) = ("application/json; charset=utf-8", "text/plain; charset=utf-8");
    let body = br#"{"payload":"x"}"#;
    for (method, path, body, text) in [
        ("POST", "/api/artifacts", &body[..], stored),
        ("PUT", &*item, body, stored),
        ("GET", &item, b"", "Internal server error"),
        ("DELETE", &item, b"", "Internal server error"),
        ("POST", "/api/cleanup", b"", "Internal server error"),
    ] {
        let failed = send(control, method, path, "", body);
        assert_eq!((failed.status, &*failed.body_text()), (500, text), "{method} {path}");
        let content_type = if text == stored { json } else { plain };
        assert_eq!(failed.field("content-type").as_deref(), Some(content_type), "{method} {path}");
        links::check_headers(&failed, &format!("{method} {path}"));
    }
    let page = send(control, "GET", &format!("/{id}"), "", b"");
    assert_eq!(page.status, 500);
    assert!(page.body_text().contains("Failed to render the artifact viewer."));
    database.execute_batch("ALTER TABLE away RENAME TO artifacts").unwrap();
    assert_eq!(send(control, "GET", "/health", "", b"").status, 200);
    assert_eq!(payload(&server, &id).as_deref(), Some("x"), "and it goes on");
    create(&server, "y");
}

#[test]
fn a_full_store_has_room_once_another_process_made_some() {
    let state = tempfile::tempdir().unwrap();
    let server = start(state.path(), &["--artifact-max-rows", "2"]);
    let ids = [create(&server, "x"), create(&server, "y")];
    let post = || send(server.control.unwrap(), "POST", "/api/artifacts", "", br#"{"payload":"z"}"#).status;
    assert_eq!(post(), 507);
    let database = rusqlite::Connection::open(state.path().join("artifacts.db")).unwrap();
    database.busy_timeout(binary::PATIENCE).unwrap();
    assert_eq!(database.execute("DELETE FROM artifacts WHERE id = ?1", [&ids[0]]), Ok(1));
    assert_eq!((post(), post()), (201, 507));
}

#[test]
fn a_database_that_cannot_be_used_stops_the_start() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("artifacts.db"), "no database, but of some length".repeat(200)).unwrap();
    let port = unused_port().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"))
        .args(["--command", IDLE, "--host", "127.0.0.1", "--port", "0", "--subprocess-port", &port])
        .args(["--root", "/proc/self/fdinfo", "--state-dir"])
        .arg(state.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("opening the artifacts' database") && said.contains("artifacts.db"), "{said}");
}
