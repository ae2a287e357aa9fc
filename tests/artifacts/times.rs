//! When artifacts end: what puts it off, what leaves it alone, and what becomes of those whose end has come.
//! Times are set and read in the database itself, so nothing here waits.

use crate::binary::{IDLE, PATIENCE, Response, Server, eventually, send, unused_port};
use crate::stores::ORIGINAL;
use rusqlite::Connection;

const OLD: &str = "2001-02-03T04:05:06.789Z";
const FAR: &str = "2999-01-01T00:00:00.000Z";
const BODY: &[u8] = br#"{"payload":"x"}"#;
const GONE: &str = r#"{"error":"Artifact not found or expired."}"#;

/// A server and the database it works on.
struct Kept {
    server: Server,
    database: Connection,
    _state: tempfile::TempDir,
}

impl Kept {
    /// Starts it, and waits until its first sweep is over.
    fn start(flags: &[&str]) -> Kept {
        let state = tempfile::tempdir().unwrap();
        let database = Connection::open(state.path().join("artifacts.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.execute_batch(ORIGINAL).unwrap();
        let insert = "INSERT INTO artifacts (id, payload, expires_at) VALUES ('expired', 'x', ?1)";
        database.execute(insert, [OLD]).unwrap();
        let state_flags = ["--control", "127.0.0.1:0", "--state-dir", state.path().to_str().unwrap()];
        let server = Server::start(IDLE, unused_port(), &[&state_flags, flags].concat());
        let kept = Kept { server, database, _state: state };
        eventually("swept", || kept.times("expired").is_none());
        kept
    }

    fn send(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Response {
        send(self.server.control.unwrap(), method, path, fields, body)
    }

    fn create(&self) -> String {
        let made = self.send("POST", "/api/artifacts", "", BODY);
        assert_eq!(made.status, 201, "{}", made.body_text());
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// An artifact that is old, and ends then.
    fn create_ending(&self, end: &str) -> String {
        let id = self.create();
        let set =
            "UPDATE artifacts SET created_at = ?2, updated_at = ?2, last_viewed_at = ?2, expires_at = ?3
            WHERE id = ?1";
        assert_eq!(self.database.execute(set, [&id, OLD, end]), Ok(1));
        id
    }

    /// Created, updated, last viewed, expires; none if it is not there.
    fn times(&self, id: &str) -> Option<[String; 4]> {
        let look = "SELECT created_at, updated_at, last_viewed_at, expires_at FROM artifacts WHERE id = ?1";
        let times = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
        let mut rows = self.database.prepare(look).unwrap();
        rows.query_map([id], times).unwrap().next().map(Result::unwrap)
    }

    /// A time as it is stored, so much later.
    fn later(&self, time: &str, by: &str) -> String {
        let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?1, ?2)";
        self.database.query_row(sql, [time, by], |row| row.get(0)).unwrap()
    }
}

fn of(answer: &Response, key: &str) -> String {
    answer.json()[key].as_str().unwrap().to_owned()
}

#[test]
fn an_end_is_exactly_a_day_after_what_put_it_off() {
    let kept = Kept::start(&[]);
    let now = || kept.later("now", "+0 days");
    let before = now();
    let made = kept.send("POST", "/api/artifacts", "", BODY);
    let id = of(&made, "id");
    let item = format!("/api/artifacts/{id}");
    let read = kept.send("GET", &item, "", b"");
    let put = kept.send("PUT", &item, "", BODY);
    assert_eq!(kept.send("GET", &format!("/{id}"), "", b"").status, 200);
    let after = now();
    let [created, updated, viewed, expires] = kept.times(&id).unwrap();
    assert_eq!([&created, &updated], [&of(&put, "created_at"), &of(&put, "updated_at")]);
    assert_eq!(of(&read, "created_at"), of(&read, "updated_at"), "new");
    for (what, from, end) in [
        ("POST", created, of(&made, "expires_at")),
        ("GET", of(&read, "last_viewed_at"), of(&read, "expires_at")),
        ("PUT", updated, of(&put, "expires_at")),
        ("view", viewed, expires),
    ] {
        assert!(before <= from && from <= after, "{what}: {before} {from} {after}");
        assert_eq!(end, kept.later(&from, "+1 day"), "{what}");
    }
}

/// Method, path with `ID`, further fields, body, status, which of the times are new.
type Row<'r> = (&'r str, &'r str, &'r str, &'r [u8], u16, &'r [&'r str]);

fn check_times(kept: &Kept, rows: &[Row<'_>]) {
    const NAMES: [&str; 4] = ["created", "updated", "viewed", "expires"];
    let id = kept.create_ending(FAR);
    for (method, path, fields, body, status, wanted) in rows {
        let before = kept.times(&id).unwrap();
        let answer = kept.send(method, &path.replace("ID", &id), fields, body);
        let what = format!("{method} {path} {fields:?} {:.30}", String::from_utf8_lossy(body));
        assert_eq!(answer.status, *status, "{what}: {:.200}", answer.body_text());
        let after = kept.times(&id).unwrap();
        let new: Vec<&str> = (0..4).filter(|&n| before[n] != after[n]).map(|n| NAMES[n]).collect();
        assert_eq!(new, *wanted, "{what}");
        let set = "UPDATE artifacts SET updated_at = ?2, last_viewed_at = ?2, expires_at = ?3 WHERE id = ?1";
        kept.database.execute(set, [&id, OLD, FAR]).unwrap();
    }
}

#[test]
fn looking_and_changing_put_the_end_off_and_nothing_else_does() {
    let kept = Kept::start(&["--artifact-max-bytes", "1KiB", "--artifact-ttl", "24h"]);
    let view: &[&str] = &["viewed", "expires"];
    let foreign = "Origin: https://other.example\r\n";
    let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
    let too_much = vec![b' '; 1_048_577];
    let full = format!("{{\"payload\":\"{}\"}}", "x".repeat(1025)).into_bytes();
    check_times(
        &kept,
        &[
            ("GET", "/api/artifacts/ID", "", b"", 200, view),
            ("GET", "/ID", "", b"", 200, view),
            ("PUT", "/api/artifacts/ID", "", BODY, 200, &["updated", "expires"]),
            ("HEAD", "/api/artifacts/ID", "", b"", 200, &[]),
            ("HEAD", "/ID", "", b"", 200, &[]),
            ("OPTIONS", "/api/artifacts/ID", "", b"", 204, &[]),
            ("OPTIONS", "/ID", "", b"", 404, &[]),
            ("POST", "/api/cleanup", "", b"", 200, &[]),
            ("POST", "/api/artifacts/ID", "", BODY, 405, &[]),
            ("PATCH", "/api/artifacts/ID", "", BODY, 405, &[]),
            ("PUT", "/api/artifacts/ID", "", b"{", 400, &[]),
            ("PUT", "/api/artifacts/ID", "", br#"{"payload":""}"#, 400, &[]),
            ("PUT", "/api/artifacts/ID", "", &too_much, 413, &[]),
            ("PUT", "/api/artifacts/ID", "", &full, 507, &[]),
            ("PUT", "/api/artifacts/ID", foreign, BODY, 403, &[]),
            ("GET", "/api/artifacts/ID", reader, b"", 403, &[]),
            ("GET", "/ID", reader, b"", 403, &[]),
            ("GET", "/api/artifacts/ID/more", "", b"", 404, &[]),
            ("PUT", "/ID", "", BODY, 404, &[]),
            ("GET", "/api/artifacts", "", b"", 404, &[]),
            ("GET", "/health", "", b"", 200, &[]),
            ("GET", "/_frag/health", "", b"", 200, &[]),
        ],
    );
}

/// Method, path with `ID`, body, status, the JSON of the answer, whether the artifact is there afterwards.
type Expired<'r> = (&'r str, &'r str, &'r [u8], u16, &'r str, bool);

#[test]
fn what_has_expired_goes_when_somebody_asks_for_it() {
    let kept = Kept::start(&[]);
    let rows: &[Expired<'_>] = &[
        ("GET", "/api/artifacts/ID", b"", 404, GONE, false),
        ("GET", "/ID", b"", 404, "", false),
        ("PUT", "/api/artifacts/ID", BODY, 404, GONE, false),
        ("DELETE", "/api/artifacts/ID", b"", 200, r#"{"deleted":true}"#, false),
        ("POST", "/api/cleanup", b"", 200, r#"{"deleted":1}"#, false),
        ("PUT", "/api/artifacts/ID", b"{", 400, r#"{"error":"Invalid request body."}"#, true),
        ("PATCH", "/api/artifacts/ID", b"", 405, r#"{"error":"Method not allowed."}"#, true),
        ("HEAD", "/api/artifacts/ID", b"", 404, "", true),
        ("HEAD", "/ID", b"", 404, "", true),
        ("OPTIONS", "/api/artifacts/ID", b"", 204, "", true),
    ];
    for (method, path, body, status, text, stays) in rows {
        let id = kept.create_ending(OLD);
        let answer = kept.send(method, &path.replace("ID", &id), "", body);
        assert_eq!(answer.status, *status, "{method} {path}");
        if !text.is_empty() {
            assert_eq!(answer.body_text(), *text, "{method} {path}");
            let json = "application/json; charset=utf-8";
            assert_eq!(answer.field("content-type").as_deref(), Some(json), "{method} {path}");
        }
        assert_eq!(kept.times(&id).is_some(), *stays, "{method} {path}");
        kept.database.execute("DELETE FROM artifacts", []).unwrap();
    }
}

#[test]
fn a_view_that_cannot_be_shown_is_one_all_the_same() {
    let empty = tempfile::tempdir().unwrap();
    let kept = Kept::start(&["--viewer-dir", empty.path().to_str().unwrap()]);
    check_times(&kept, &[("GET", "/ID", "", b"", 500, &["viewed", "expires"])]);
    let id = kept.create_ending(OLD);
    assert_eq!(kept.send("GET", &format!("/{id}"), "", b"").status, 404, "not 500");
    assert_eq!(kept.times(&id), None);
}
