//! Uploads through the running binary: whole and visible when they are answered, or not there at all.

use crate::binary::client::Client;
use crate::binary::{IDLE, Reserved, Response, Server, connect, eventually, read_to_end, unused_port};
use crate::common;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn idle(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), flags)
}

fn upload(server: &Server, path: &str, body: &[u8]) -> Response {
    server.send("POST", &format!("/_frag/upload/{path}"), "", body)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A connection with an upload's head and the first bytes of its body on it.
fn begin(server: &Server, path: &str, length: usize, first: &[u8]) -> TcpStream {
    let mut stream = connect(server.address);
    write!(stream, "POST /_frag/upload/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
        .unwrap();
    stream.write_all(first).unwrap();
    stream
}

#[test]
fn an_upload_is_there_when_it_is_answered() {
    let server = idle(&[]);
    for (method, path) in [("POST", "a.txt"), ("PUT", "deep/er/b.txt"), ("POST", "deep/sp%20ace%C3%BC.txt")] {
        let answer = server.send(method, &format!("/_frag/upload/{path}?unknown=1&x"), "", b"hello");
        let shown = path.replace("%20", " ").replace("%C3%BC", "\u{fc}");
        assert_eq!(std::fs::read(server.root().join(&shown)).unwrap(), b"hello");
        assert_eq!(answer.status, 200);
        let expected =
            format!("{{\"path\":\"{shown}\",\"bytes\":5,\"sha256\":\"{HELLO}\",\"restarted\":false}}");
        assert_eq!(answer.body_text(), expected);
        assert_eq!(answer.field("etag"), Some(format!("\"{HELLO}\"")));
        assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    }
}

#[test]
fn empty_and_chunked_bodies_are_files_too() {
    let server = idle(&[]);
    assert_eq!(upload(&server, "nothing", b"").json()["sha256"], EMPTY);
    assert_eq!(std::fs::read(server.root().join("nothing")).unwrap(), b"");
    let chunked = b"PUT /_frag/upload/pieces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n";
    assert_eq!(Response::parse(&server.raw(chunked), "PUT").json()["sha256"], HELLO);
    assert_eq!(std::fs::read(server.root().join("pieces")).unwrap(), b"hello");
}

#[test]
fn a_version_is_replaced_only_by_who_knows_it() {
    let server = idle(&[]);
    let put = |tag: &str, body: &[u8]| {
        let tags = if tag.is_empty() { String::new() } else { format!("If-Match: {tag}\r\n") };
        server.send("PUT", "/_frag/upload/f", &tags, body)
    };
    for tag in ["*", &format!("\"{HELLO}\"")] {
        assert_eq!((put(tag, b"x").status, put(tag, b"x").code()), (412, "precondition_failed".into()));
    }
    assert_eq!(names(server.root()), Vec::<String>::new());
    let first = put("", b"one").field("etag").unwrap();
    let read = server.get("/_frag/files/f", "");
    assert_eq!(read.field("etag").as_ref(), Some(&first));
    let second = put(&first, b"two").field("etag").unwrap();
    assert_eq!(put(&first, b"three").status, 412, "a version that is gone");
    assert_eq!(put(&format!("W/{second}"), b"three").status, 412, "weak tags never match");
    assert_eq!(put(&second.replace('"', ""), b"three").status, 412, "no tag at all");
    assert_eq!(std::fs::read(server.root().join("f")).unwrap(), b"two");
    assert_eq!(put(&format!("\"x\", {second}"), b"three").status, 200);
    assert_eq!(put("*", b"four").status, 200);
    let mut unsent = connect(server.address);
    let head = "PUT /_frag/upload/f HTTP/1.1\r\nHost: x\r\nIf-Match: \"x\"\r\nContent-Length: 9\r\n\r\n";
    unsent.write_all(head.as_bytes()).unwrap();
    let early = Response::parse(&read_head_and_body(&mut unsent), "PUT");
    assert_eq!(early.status, 412, "before a byte of the body");
    // Somebody else's change counts as one.
    let fourth = server.get("/_frag/files/f", "").field("etag").unwrap();
    std::fs::write(server.root().join("f"), b"by hand").unwrap();
    assert_eq!(put(&fourth, b"five").status, 412);
}

#[test]
fn nothing_is_overwritten_or_deleted_by_who_does_not_know_it() {
    let server = idle(&[]);
    let put = |fields: &str, body: &[u8]| server.send("PUT", "/_frag/upload/d/f", fields, body);
    let file = || std::fs::read_to_string(server.root().join("d/f")).unwrap();
    let first = put("If-None-Match: *\r\n", b"one");
    assert_eq!(first.status, 200, "{}", first.body_text());
    let tag = first.field("etag").unwrap();
    for field in ["*".to_owned(), tag.clone(), format!("\"x\", W/{tag}")] {
        let refused = put(&format!("If-None-Match: {field}\r\n"), b"two");
        assert_eq!((refused.status, refused.code()), (412, "precondition_failed".into()), "{field}");
    }
    assert_eq!(file(), "one");
    assert_eq!(put("If-None-Match: \"x\"\r\n", b"two").status, 200);
    // A part of a file is not the file.
    for target in ["d/f", "d?archive=tar"] {
        let fields = "Content-Range: bytes 1000-1002/1003\r\n";
        let part = server.send("PUT", &format!("/_frag/upload/{target}"), fields, b"end");
        assert_eq!((part.status, part.code()), (400, "part_refused".into()), "{target}");
    }
    assert_eq!(file(), "two");
    let delete =
        |name: &str, fields: &str| server.send("DELETE", &format!("/_frag/files/{name}"), fields, b"").status;
    assert_eq!(delete("d/f", &format!("If-Match: {tag}\r\n")), 412, "a version that is gone");
    assert_eq!(delete("d/f", "If-None-Match: *\r\n"), 412);
    assert_eq!(delete("absent", "If-Match: *\r\n"), 412);
    assert_eq!(file(), "two");
    let tag = server.get("/_frag/files/d/f", "").field("etag").unwrap();
    assert_eq!(delete("d/f", &format!("If-Match: {tag}\r\n")), 204);
    assert_eq!(delete("d", "If-Match: \"x\"\r\n"), 412, "a directory has no sum");
    assert_eq!(delete("d", "If-Match: *\r\n"), 204);
}

#[test]
fn a_file_that_changes_all_the_time_is_not_the_one_of_a_tag() {
    let server = idle(&[]);
    let path = server.root().join("f");
    let delete = |field: &str| {
        let fields = format!("{field}: \"{HELLO}\"\r\n");
        server.send("DELETE", "/_frag/files/f", &fields, b"").status
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut file = std::fs::File::create(path).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
            }
        });
        let statuses = ["If-Match", "If-None-Match"].map(delete);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        writing.join().unwrap();
        assert_eq!(statuses, [412, 204]);
    });
}

#[test]
fn reading_a_long_file_for_a_condition_keeps_nobody_waiting() {
    let server = idle(&[]);
    let long = std::fs::File::create(server.root().join("long")).unwrap();
    long.set_len(2 << 30).unwrap();
    // More than there are threads for control requests.
    let mut waiting = [(); 10].map(|()| {
        let mut client = Client::new(server.address);
        client.request("DELETE", "/_frag/files/long", &format!("If-Match: \"{HELLO}\"\r\n"));
        client
    });
    for _ in 0..20 {
        assert_eq!(server.get("/_frag/health", "").status, 200);
    }
    assert!(!waiting.iter().any(Client::has_data), "they wait still");
    long.set_len(5).unwrap();
    for client in &mut waiting {
        assert_eq!(client.response("DELETE").status, 412);
    }
}

#[test]
fn a_mode_is_kept_or_given() {
    let server = idle(&[]);
    let mode = |name: &str| server.root().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(upload(&server, "script?mode=750", b"x").status, 200);
    assert_eq!(mode("script"), 0o750);
    assert_eq!(upload(&server, "script", b"y").status, 200);
    assert_eq!(mode("script"), 0o750, "inherited from the file replaced");
    for bad in ["mode=", "mode=8", "mode=4755", "mode=rwx", "mode=600&mode=600"] {
        let answer = upload(&server, &format!("script?{bad}"), b"z");
        assert_eq!((answer.status, answer.code()), (400, "bad_parameter".into()), "{bad}");
    }
    assert_eq!(std::fs::read(server.root().join("script")).unwrap(), b"y");
}

#[test]
fn a_symbolic_link_is_replaced_and_not_followed() {
    let (server, outside) = (idle(&[]), tempfile::tempdir().unwrap());
    let target = outside.path().join("target");
    std::fs::write(&target, "theirs").unwrap();
    std::os::unix::fs::symlink(&target, server.root().join("link")).unwrap();
    assert_eq!(upload(&server, "link", b"ours").status, 200);
    assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    assert!(server.root().join("link").symlink_metadata().unwrap().is_file());
}

#[test]
fn fifty_uploads_at_once_leave_one_whole_version() {
    let server = idle(&[]);
    let bodies: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
    std::thread::scope(|scope| {
        for body in &bodies {
            let server = &server;
            scope.spawn(move || assert_eq!(upload(server, "one/name", body).status, 200));
        }
    });
    let left = std::fs::read(server.root().join("one/name")).unwrap();
    assert!(bodies.contains(&left), "{} bytes of {:?}", left.len(), left.first());
    assert_eq!(names(&server.root().join("one")), ["name"]);
}

#[test]
fn an_upload_that_ends_early_leaves_nothing() {
    let server = idle(&[]);
    assert_eq!(upload(&server, "old", b"before").status, 200);
    for name in ["new/deep", "old"] {
        let mut stream = begin(&server, name, 1_000_000, &[b'x'; 300_000]);
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = Response::parse(&read_to_end(&mut stream), "POST");
        assert_eq!((answer.status, answer.code()), (400, "body_incomplete".into()), "{name}");
    }
    let cut =
        b"POST /_frag/upload/new HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz";
    let answer = Response::parse(&server.raw(cut), "POST");
    assert_eq!((answer.status, answer.code()), (400, "body_malformed".into()));
    assert_eq!(names(server.root()), ["old"]);
    assert_eq!(std::fs::read(server.root().join("old")).unwrap(), b"before");
}

#[test]
fn nothing_is_seen_of_an_upload_under_way_nor_after_a_kill() {
    let mut server = idle(&[]);
    assert_eq!(upload(&server, "old", b"before").status, 200);
    let uploads: Vec<TcpStream> =
        (0..8).map(|n| begin(&server, ["old", "new"][n % 2], 1 << 20, &[b'x'; 500_000])).collect();
    let descriptors = format!("/proc/{}/fd", server.pid());
    eventually("eight unnamed files with bytes in them", || {
        let open = std::fs::read_dir(&descriptors).unwrap().flatten().filter(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            target.starts_with(server.root()) && entry.path().metadata().is_ok_and(|m| m.len() >= 400_000)
        });
        open.count() == uploads.len()
    });
    assert_eq!(names(server.root()), ["old"], "while it runs");
    server.child.kill().unwrap();
    server.wait();
    assert_eq!(names(server.root()), ["old"], "after kill -9");
    assert_eq!(std::fs::read(server.root().join("old")).unwrap(), b"before");
}

#[test]
fn what_an_earlier_life_left_is_swept_and_never_served() {
    let stale = ".frag-upload-1-1-0123456789abcdef";
    let server = Server::start_with(IDLE, unused_port(), &[], |binary| {
        let arguments: Vec<_> = binary.get_args().map(ToOwned::to_owned).collect();
        let root = arguments.windows(2).find(|pair| pair[0] == "--root").unwrap()[1].clone();
        std::fs::write(Path::new(&root).join(stale), "half").unwrap();
    });
    eventually("swept", || names(server.root()).is_empty());
    std::fs::write(server.root().join(stale), "half").unwrap();
    for spelling in [stale, ".frag%2dupload-1-1-0123456789abcdef"] {
        assert_eq!(server.get(&format!("/_frag/files/{spelling}"), "").code(), "path_invalid");
        assert_eq!(upload(&server, spelling, b"x").code(), "path_invalid");
    }
    assert_eq!(server.get("/_frag/files", "").json()["entries"], serde_json::json!([]));
}

#[test]
fn a_body_over_the_limit_is_refused_declared_or_not() {
    let server = idle(&["--max-upload", "4KiB"]);
    assert_eq!(upload(&server, "fits", &[b'x'; 4096]).status, 200);
    let mut stream = begin(&server, "big", 4097, b"");
    let answer = Response::parse(&read_head_and_body(&mut stream), "POST");
    assert_eq!((answer.status, answer.code()), (413, "too_large".into()), "before a byte of the body");
    let mut chunked =
        b"POST /_frag/upload/big HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunked.extend(b"1000\r\n".iter().chain(&[b'x'; 4096]).chain(b"\r\n1\r\ny\r\n0\r\n\r\n"));
    let mut stream = connect(server.address);
    stream.write_all(&chunked).unwrap();
    let answer = Response::parse(&read_head_and_body(&mut stream), "POST");
    assert_eq!((answer.status, answer.code()), (413, "too_large".into()), "chunked");
    assert_eq!(names(server.root()), ["fits"]);
}

/// One response with a declared length, on a connection that may stay open.
fn read_head_and_body(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"}}") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    bytes
}

fn pid(server: &Server) -> i64 {
    server.get("/_frag/status", "").json()["pid"].as_i64().unwrap()
}

#[test]
fn an_upload_restarts_or_interrupts_when_told_to() {
    let port = Reserved::new();
    let fixture = format!("{} listen {}", common::fixture(), port.port);
    let server = Server::start(&fixture, port.port, &["--interrupt-signal=KILL"]);
    assert_eq!(server.get("/_frag/await", "").status, 200);
    let first = pid(&server);
    for no in ["", "?restart=false", "?restart=0&interrupt=no"] {
        assert_eq!(upload(&server, &format!("f{no}"), b"x").json()["restarted"], false);
        assert_eq!(pid(&server), first, "{no}");
    }
    for yes in ["restart=true", "restart", "restart=1&interrupt=1"] {
        let before = pid(&server);
        assert_eq!(upload(&server, &format!("f?{yes}"), b"x").json()["restarted"], true, "{yes}");
        assert_ne!(pid(&server), before, "{yes}");
        assert!(!Path::new(&format!("/proc/{before}")).exists(), "{yes}: the old one is gone");
    }
    let before = pid(&server);
    assert_eq!(upload(&server, "f?interrupt=true", b"x").json()["restarted"], false);
    eventually("it was killed and started again", || {
        let now = &server.get("/_frag/status", "").json()["pid"];
        now.is_i64() && *now != before
    });
    for bad in ["restart=maybe", "restart=TRUE", "restart=1&restart=1", "interrupt=x", "%72estart=%00"] {
        let answer = upload(&server, &format!("not-there?{bad}"), b"x");
        assert_eq!((answer.status, answer.code()), (400, "bad_parameter".into()), "{bad}");
    }
    assert_eq!(names(server.root()), ["f"]);
}

#[test]
fn a_stored_file_whose_restart_fails_says_both() {
    let server = idle(&[]);
    assert_eq!(server.send("POST", "/_frag/stop", "", b"").status, 200);
    let answer = upload(&server, "f?interrupt=true", b"x");
    assert_eq!((answer.status, answer.code()), (409, "not_running".into()));
    assert!(answer.body_text().contains("the file is stored, but"), "{}", answer.body_text());
    assert_eq!(upload(&server, "g", b"x").status, 200);
    assert_eq!(server.get("/_frag/status", "").json()["status"], "stopped", "an upload does not wake it");

    let missing = Server::start("/nonexistent/program", unused_port(), &[]);
    let answer = upload(&missing, "f?restart=true", b"x");
    assert_eq!((answer.status, answer.code()), (503, "spawn_failed".into()));
    assert!(answer.body_text().contains("the file is stored, but"), "{}", answer.body_text());
    assert_eq!(names(missing.root()), ["f"]);
}

#[test]
fn an_upload_wakes_a_server_that_has_failed() {
    let command = "/bin/sh -c 'test -e fixed && exec sleep 1000'";
    let server = Server::start(command, unused_port(), &["--max-restarts=0"]);
    eventually("failed", || server.get("/_frag/status", "").json()["status"] == "failed");
    assert_eq!(upload(&server, "fixed", b"").status, 200);
    eventually("it runs", || server.get("/_frag/status", "").status == 200);
}

#[test]
fn a_long_file_is_known_by_its_weak_tag() {
    let server = idle(&[]);
    let file = std::fs::File::create(server.root().join("long")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    drop(file);
    let tag = server.send("HEAD", "/_frag/files/long", "", b"").field("etag").unwrap();
    assert!(tag.starts_with("W/"), "{tag}");
    let opaque = tag.trim_start_matches("W/");
    for field in [tag.clone(), format!("\"x\", {tag}"), opaque.to_owned()] {
        let fields = format!("If-None-Match: {field}\r\n");
        assert_eq!(server.send("PUT", "/_frag/upload/long", &fields, b"two").status, 412, "{field}");
        assert_eq!(server.send("DELETE", "/_frag/files/long", &fields, b"").status, 412, "{field}");
    }
    // Not strong enough to say which version is meant.
    let fields = format!("If-Match: {tag}, {opaque}\r\n");
    assert_eq!(server.send("PUT", "/_frag/upload/long", &fields, b"two").status, 412);
    // What is there now is another version.
    std::fs::write(server.root().join("long"), "short").unwrap();
    let fields = format!("If-None-Match: {tag}\r\n");
    assert_eq!(server.send("PUT", "/_frag/upload/long", &fields, b"two").status, 200);
}
