//! Rows of the contract's tables that are about where paths lead and what answers carry: with a front end
//! beside the API, and where something is refused or fails.

use crate::binary::client::Client;
use crate::binary::{IDLE, Response, Server, send, unused_port};
use std::fs;
use std::path::Path;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const UNKNOWN: &str = "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";
const BODY: &[u8] = br#"{"payload":"x"}"#;

fn start(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), &[&["--control", "127.0.0.1:0"], flags].concat())
}

/// A server with a front end of these files, whose API every page may use.
fn with_viewer(files: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for name in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "a file").unwrap();
    }
    let server = start(&["--artifact-cors", "*", "--viewer-dir", dir.path().to_str().unwrap()]);
    (server, dir)
}

fn ask(server: &Server, method: &str, path: &str, fields: &str, body: &[u8]) -> Response {
    send(server.control.unwrap(), method, path, fields, body)
}

/// The fields of what is shared with other pages, or none of them.
fn check_sharing(answer: &Response, is_shared: bool, what: &str) {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS"),
        ("access-control-allow-headers", "Content-Type"),
    ] {
        assert_eq!(answer.field(name).as_deref(), is_shared.then_some(value), "{what}");
    }
    assert_eq!(answer.head.contains("access-control-"), is_shared, "{what}");
}

fn check_safety(answer: &Response, what: &str) {
    assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"), "{what}");
    assert_eq!(answer.field("referrer-policy").as_deref(), Some("no-referrer"), "{what}");
    assert_eq!(answer.field("x-frame-options").as_deref(), Some("SAMEORIGIN"), "{what}");
}

/// Method, path, status, content type, text; of a page, none.
type Row<'r> = (&'r str, &'r str, u16, &'r str, &'r str);

fn check_rows(server: &Server, rows: &[Row<'_>]) {
    for prefix in ["", "/_frag"] {
        for (method, path, status, content_type, text) in rows {
            let answer = ask(server, method, &format!("{prefix}{path}"), "", b"");
            let what = format!("{method} {prefix}{path}");
            assert_eq!(answer.status, *status, "{what}: {}", answer.body_text());
            assert_eq!(answer.field("content-type").unwrap_or_default(), *content_type, "{what}");
            if *content_type != HTML || *status == 200 {
                assert_eq!(answer.body_text(), *text, "{what}");
            }
            let is_file = *content_type == TEXT && *status == 405;
            assert_eq!(answer.field("allow"), is_file.then(|| "GET, HEAD".to_owned()), "{what}");
            let caching = if *status == 200 && *text == "a file" { "no-cache" } else { "no-store" };
            let caching = if *method == "HEAD" && *status == 200 { "no-cache" } else { caching };
            assert_eq!(answer.field("cache-control").as_deref(), Some(caching), "{what}");
            check_safety(&answer, &what);
            check_sharing(&answer, path.starts_with("/api/") && *path != "/api/", &what);
        }
    }
}

#[test]
fn a_front_end_leaves_the_api_as_it_is() {
    let (server, _dir) = with_viewer(&["index.html", "a.txt", "status", "files", "openapi.json"]);
    for path in ["/status", "/files", "/openapi.json"] {
        assert_ne!(ask(&server, "GET", path, "", b"").body_text(), "a file", "{path}");
    }
    let below = format!("/api/artifacts/{UNKNOWN}/more");
    let view = format!("/{UNKNOWN}");
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (path, methods) in [
        ("/api/artifacts", &["GET", "PUT", "DELETE", "PATCH"][..]),
        ("/api/cleanup", &["GET", "PUT", "DELETE", "PATCH"]),
        ("/api/nope", &["GET", "POST", "PUT", "DELETE", "PATCH"]),
        (&below, &["GET", "POST", "PUT", "DELETE", "PATCH"]),
        (&view, &["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ("/api", &["GET", "POST", "OPTIONS"]),
        ("/api/", &["GET", "POST", "OPTIONS"]),
        ("/none", &["GET", "POST", "OPTIONS"]),
    ] {
        rows.extend(methods.iter().map(|method| (*method, path, 404, TEXT, "Not found")));
        if !methods.contains(&"OPTIONS") {
            rows.push(("OPTIONS", path, 204, "", ""));
        }
        // A view that is not there has a page, of which the length is asked.
        rows.push(("HEAD", path, 404, if path == view { HTML } else { TEXT }, ""));
    }
    rows.push(("GET", &view, 404, HTML, ""));
    rows.push(("POST", "/a.txt", 405, TEXT, "Method not allowed"));
    rows.push(("PATCH", "/a.txt", 405, TEXT, "Method not allowed"));
    check_rows(&server, &rows);
}

#[test]
fn files_may_have_names_of_the_api_and_do_not_take_its_methods() {
    let view = format!("/{UNKNOWN}");
    let more = "/api/artifacts/x/more";
    let (server, _dir) =
        with_viewer(&["api/artifacts/index.html", "api/cleanup", "api/nope", &view[1..], &more[1..]]);
    let file = "application/octet-stream";
    let refused = |method, path| (method, path, 405, TEXT, "Method not allowed");
    check_rows(
        &server,
        &[
            ("GET", "/api/artifacts", 200, HTML, "a file"),
            ("HEAD", "/api/artifacts", 200, HTML, ""),
            refused("PUT", "/api/artifacts"),
            ("POST", "/api/artifacts", 400, JSON, r#"{"error":"Invalid request body."}"#),
            ("GET", "/api/artifacts/x", 404, JSON, r#"{"error":"Artifact not found or expired."}"#),
            ("GET", more, 200, file, "a file"),
            refused("DELETE", more),
            ("OPTIONS", more, 204, "", ""),
            ("GET", "/api/cleanup", 200, file, "a file"),
            refused("PUT", "/api/cleanup"),
            ("POST", "/api/cleanup", 200, JSON, r#"{"deleted":0}"#),
            ("GET", "/api/nope", 200, file, "a file"),
            refused("POST", "/api/nope"),
            ("OPTIONS", "/api/nope", 204, "", ""),
            ("GET", &view, 404, HTML, ""),
            refused("POST", &view),
            refused("OPTIONS", &view),
        ],
    );
}

#[test]
fn answers_without_a_file_carry_what_files_do() {
    let (server, dir) = with_viewer(&["index.html", "a.txt"]);
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("out.txt")).unwrap();
    let tag = |path: &str| ask(&server, "GET", path, "", b"").field("etag").unwrap();
    for (path, is_page) in [("/a.txt", false), ("/", true)] {
        let etag = tag(path);
        for method in ["GET", "HEAD"] {
            let same = ask(&server, method, path, &format!("If-None-Match: {etag}\r\n"), b"");
            assert_eq!((same.status, same.body.len()), (304, 0), "{method} {path}");
            assert_eq!(same.field("etag").as_ref(), Some(&etag), "{method} {path}");
            assert!(same.field("last-modified").is_some(), "{method} {path}");
            assert_eq!(same.field("cache-control").as_deref(), Some("no-cache"), "{method} {path}");
            assert_eq!(same.field("content-security-policy").is_some(), is_page, "{method} {path}");
            check_safety(&same, path);
            check_sharing(&same, false, path);
        }
    }
    let beyond = ask(&server, "GET", "/a.txt", "Range: bytes=6-\r\n", b"");
    assert_eq!((beyond.status, &*beyond.body_text()), (416, "Range not satisfiable"));
    assert_eq!(beyond.field("content-range").as_deref(), Some("bytes */6"));
    let part = ask(&server, "GET", "/a.txt", "Range: bytes=2-\r\n", b"");
    assert_eq!((part.status, &*part.body_text()), (206, "file"));
    let outside = ask(&server, "GET", "/out.txt", "", b"");
    assert_eq!((outside.status, &*outside.body_text()), (403, "Forbidden"));
    for answer in [beyond, part, outside] {
        let what = answer.status.to_string();
        assert_eq!(answer.field("content-type").as_deref(), Some(TEXT), "{what}");
        check_safety(&answer, &what);
        check_sharing(&answer, false, &what);
    }
}

/// Takes the table away, or gives it back.
fn rename_table(state: &Path, from: &str, to: &str) {
    let database = rusqlite::Connection::open(state.join("artifacts.db")).unwrap();
    database.busy_timeout(crate::binary::PATIENCE).unwrap();
    database.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
}

#[test]
fn pages_of_others_can_read_every_failure_of_the_api() {
    let state = tempfile::tempdir().unwrap();
    let flags =
        ["--artifact-cors", "*", "--artifact-max-rows", "1", "--state-dir", state.path().to_str().unwrap()];
    let server = start(&flags);
    assert_eq!(ask(&server, "POST", "/api/artifacts", "", BODY).status, 201);
    let item = format!("/api/artifacts/{UNKNOWN}");
    let failure = |method: &str, path: &str, body: &[u8], status: u16, content_type: &str, text: &str| {
        let answer = ask(&server, method, path, "", body);
        let what = format!("{method} {path} {status}");
        assert_eq!((answer.status, &*answer.body_text()), (status, text), "{what}");
        assert_eq!(answer.field("content-type").as_deref(), Some(content_type), "{what}");
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"), "{what}");
        check_safety(&answer, &what);
        check_sharing(&answer, true, &what);
    };
    let long = vec![b' '; 1_048_577];
    failure("POST", "/api/artifacts", &long, 413, JSON, r#"{"error":"Request body too large."}"#);
    failure("PUT", &item, &long, 413, JSON, r#"{"error":"Request body too large."}"#);
    failure("POST", "/api/artifacts", BODY, 507, JSON, r#"{"error":"Artifact store is full."}"#);
    rename_table(state.path(), "artifacts", "away");
    failure("POST", "/api/artifacts", BODY, 500, JSON, r#"{"error":"Failed to store artifact."}"#);
    failure("PUT", &item, BODY, 500, JSON, r#"{"error":"Failed to store artifact."}"#);
    failure("GET", &item, b"", 500, TEXT, "Internal server error");
    failure("DELETE", &item, b"", 500, TEXT, "Internal server error");
    failure("POST", "/api/cleanup", b"", 500, TEXT, "Internal server error");
    rename_table(state.path(), "away", "artifacts");
    failure("GET", &item, b"", 404, JSON, r#"{"error":"Artifact not found or expired."}"#);
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_json() {
    let server = start(&[]);
    // What follows the request line and Host, and the text; all of them end there.
    for (rest, text) in [
        ("Content-Length: 10\r\n\r\n{", "The request body ended early."),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", "A chunk size is missing."),
        (
            "Content-Length: 0\r\nX-Verified-User-Data: {\r\n\r\n",
            "X-verified-user-data is not the JSON object it should be.",
        ),
    ] {
        let mut client = Client::new(server.control.unwrap());
        client.send(format!("POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\n{rest}"));
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let refused = client.response("POST");
        assert_eq!((refused.status, refused.body_text()), (400, format!("{{\"error\":\"{text}\"}}")));
        assert_eq!(refused.field("content-type").as_deref(), Some(JSON), "{text}");
        check_safety(&refused, text);
    }
}

#[test]
fn health_has_its_keys_and_methods() {
    let state = tempfile::tempdir().unwrap();
    let server = start(&["--artifact-cors", "*", "--state-dir", state.path().to_str().unwrap()]);
    let check = |status: u16, word: &str| {
        for path in ["/health", "/_frag/health"] {
            let health = ask(&server, "GET", path, "", b"");
            let wanted = format!(
                "{{\"status\":\"{word}\",\"timestamp\":{}}}",
                health.json()["timestamp"].as_u64().unwrap()
            );
            assert_eq!((health.status, health.body_text()), (status, wanted));
            let head = ask(&server, "HEAD", path, "", b"");
            assert_eq!((head.status, head.body.len()), (status, 0));
            for answer in [&health, &head] {
                assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
                assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
                assert_eq!(answer.field("content-length"), Some(health.body.len().to_string()));
                check_sharing(answer, false, path);
            }
        }
    };
    check(200, "ok");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let refused = ask(&server, method, "/health", "", b"");
        assert_eq!((refused.status, &*refused.code()), (405, "method_not_allowed"), "{method}");
        assert_eq!(refused.field("allow").as_deref(), Some("GET, HEAD"), "{method}");
    }
    assert_eq!(ask(&server, "GET", "/health/", "", b"").status, 404);
    rename_table(state.path(), "artifacts", "away");
    check(503, "error");
}

#[test]
fn hosts_and_paths_of_others_are_not_ours() {
    let server = start(&[]);
    let item = format!("/api/artifacts/{UNKNOWN}");
    let asked = |address, host: &str| {
        let mut client = Client::new(address);
        client.send(format!("GET /_frag{item} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"));
        client.response("GET")
    };
    let (control, public) = (server.control.unwrap(), server.address);
    for (address, host, status) in [
        (control, "Host: other.example\r\n", 421),
        (control, "Host: localhost:1\r\n", 404),
        (control, "Host: 127.0.0.1\r\n", 404),
        (control, "Host: [::1]:8081\r\n", 404),
        (public, "Host: other.example\r\n", 404),
        (control, "Host: a b\r\n", 400),
        (control, "Host: a/b\r\n", 400),
        (public, "Host: a@b\r\n", 400),
        (public, "Host: a\r\nHost: a\r\n", 400),
        (public, "", 400),
    ] {
        let answer = asked(address, host);
        assert_eq!(answer.status, status, "{host:?}: {}", answer.body_text());
        let code = match status {
            421 => "host_not_allowed",
            400 => "malformed_request",
            _ => "",
        };
        assert_eq!(answer.code(), code, "{host:?}");
        // Our own errors are not the contract's.
        assert_eq!(answer.field("x-content-type-options").is_some(), status == 404, "{host:?}");
    }
    // What has a route of its own goes there as it stands, before dot segments are resolved.
    for (path, status) in [
        ("/files/../api/artifacts/x", 400),
        ("/upload/../api/artifacts/x", 405),
        ("/exec/../api/artifacts/x", 403),
        #[cfg(feature = "workers")]
        ("/v1/../api/artifacts/x", 403),
        #[cfg(feature = "runs")]
        ("/runs/../api/artifacts/x", 404),
    ] {
        let answer = ask(&server, "GET", path, "", b"");
        assert_eq!(answer.status, status, "{path}: {}", answer.body_text());
        assert!(!answer.body_text().contains("Artifact not found"), "{path}");
    }
    let gateway = ask(&server, "OPTIONS", "/api/v1/admin/cli", "", b"");
    assert_eq!((gateway.status, &*gateway.code()), (403, "forbidden"));
    assert_eq!(ask(&server, "OPTIONS", "/api/v1/admin/cli/", "", b"").status, 204);
}
