//! Archives and trees through the running binary.

use crate::binary::{IDLE, Response, Server, connect, eventually, read_to_end, unused_port};
use crate::files::Mounted;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

fn idle(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), flags)
}

/// A file as it stands in a tar archive (POSIX ustar).
fn member(name: &str, data: &[u8]) -> Vec<u8> {
    entry(name, b'0', 0o755, data)
}

fn entry(name: &str, kind: u8, mode: u32, data: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(data);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let members: Vec<Vec<u8>> = members.iter().map(|(name, data)| member(name, data)).collect();
    [members.concat(), vec![0; 1024]].concat()
}

fn unpack(server: &Server, target: &str, body: &[u8]) -> Response {
    server.send("POST", &format!("/_frag/upload/{target}"), "", body)
}

#[test]
fn an_archive_is_there_when_it_is_answered() {
    let server = idle(&["--control", "127.0.0.1:0"]);
    let body = archive(&[("./a.py", b"one"), ("sub/b", b"")]);
    let answer = unpack(&server, "x/y?archive=tar", &body);
    assert_eq!(answer.body_text(), r#"{"path":"x/y","files":2,"bytes":3,"restarted":false}"#);
    assert_eq!(std::fs::read(server.root().join("x/y/a.py")).unwrap(), b"one");
    let mode = std::fs::metadata(server.root().join("x/y/sub/b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    // The root itself, in every spelling, by either method, in chunks, at the control listener's root.
    for (method, target) in [("POST", "upload/?archive=tar"), ("PUT", "upload/?archive=tar&x=1")] {
        let answer = server.send(method, &format!("/_frag/{target}"), "", &body);
        assert_eq!(answer.json()["path"], ".", "{target}");
    }
    let chunked = format!(
        "PUT /upload/z/?archive=tar HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    let mut stream = connect(server.control.unwrap());
    stream.write_all(&[chunked.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()).unwrap();
    assert_eq!(Response::parse(&read_to_end(&mut stream), "PUT").json()["files"], 2);
    assert_eq!(std::fs::read(server.root().join("z/a.py")).unwrap(), b"one");
}

#[test]
fn a_restart_follows_only_an_archive_that_was_taken() {
    let server = idle(&[]);
    let state = || server.get("/_frag/status", "").json();
    eventually("the command runs", || state()["pid"].is_u64());
    let before = state()["pid"].clone();
    let bad = archive(&[("a", b"1"), ("../b", b"2")]);
    let answer = unpack(&server, "?archive=tar&restart=true", &bad);
    assert_eq!((answer.status, answer.code()), (400, "member_refused".to_owned()));
    assert_eq!(answer.json()["error"]["message"], "the member ../b: the path is refused: a name is . or ..");
    assert_eq!(state()["pid"], before);
    assert_eq!(
        unpack(&server, "?archive=tar&restart=true", &archive(&[("a", b"1")])).json()["restarted"],
        true
    );
    assert_ne!(state()["pid"], before);
    #[cfg(feature = "runs")]
    {
        let last = server.get("/_frag/state/server", "").json()["lastUpload"].clone();
        assert_eq!((&last["path"], &last["files"], &last["bytes"]), (&json!("."), &json!(1), &json!(1)));
    }
}

#[test]
fn what_makes_no_sense_of_an_archive_is_refused() {
    let server = idle(&[]);
    let body = archive(&[("a", b"1")]);
    for (target, fields) in [
        ("x?archive=zip", ""),
        ("x?archive", ""),
        ("x?archive=tar&archive=tar", ""),
        ("x?archive=tar&mode=644", ""),
        ("x?archive=tar&restart=perhaps", ""),
        ("x?archive=tar", "If-Match: *\r\n"),
        ("x?archive=tar", "If-None-Match: *\r\n"),
    ] {
        let answer = server.send("POST", &format!("/_frag/upload/{target}"), fields, &body);
        assert_eq!((answer.status, answer.code()), (400, "bad_parameter".to_owned()), "{target}");
    }
    for target in ["../x?archive=tar", "a//b?archive=tar", "%2e%2e?archive=tar"] {
        assert_eq!(unpack(&server, target, &body).code(), "path_invalid", "{target}");
    }
    assert_eq!(unpack(&server, "", &body).code(), "path_invalid", "a file needs a name");
    assert_eq!(unpack(&server, "x?archive=tar", b"").code(), "archive_invalid");
    assert_eq!(unpack(&server, "x?archive=tar", &body[..512]).code(), "archive_invalid");
    assert_eq!(std::fs::read_dir(server.root()).unwrap().count(), 0);
}

/// An upload of an archive that is being taken, has sent its first bytes and waits.
fn begin(server: &Server, body: &[u8], sent: usize) -> TcpStream {
    let mut stream = connect(server.address);
    let length = body.len();
    write!(
        stream,
        "POST /_frag/upload/x?archive=tar HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    // The server asks for the body once it reads it.
    let mut asked = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body[..sent]).unwrap();
    stream
}

#[test]
fn limits_are_flags_and_say_so() {
    let server = idle(&["--max-archive-members", "2", "--max-upload", "4"]);
    let small = [("a", b"12"), ("b", b"34")].map(|(name, data)| (name, &data[..]));
    assert_eq!(unpack(&server, "x?archive=tar", &archive(&small)).status, 200);
    let answer = unpack(&server, "x?archive=tar", &archive(&[small[0], small[1], ("c", b"")]));
    assert_eq!((answer.status, answer.code()), (413, "too_many_members".to_owned()));
    let answer = unpack(&server, "x?archive=tar", &archive(&[small[0], ("c", b"345")]));
    assert_eq!((answer.status, answer.code()), (413, "too_large".to_owned()));
    assert!(!server.root().join("x/c").exists());
}

#[test]
fn archives_at_a_time_are_few_and_a_broken_one_makes_room() {
    let server = idle(&[]);
    let body = archive(&[("a", &[b'x'; 5000]), ("b", b"2")]);
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| begin(&server, &body, 3000)).collect();
    let busy = || unpack(&server, "y?archive=tar", &body);
    let refused = busy();
    assert_eq!((refused.code(), refused.field("retry-after")), ("busy".to_owned(), Some("1".to_owned())));
    // One that breaks off leaves nothing and its place.
    drop(waiting.pop());
    eventually("there is room", || busy().status == 200);
    for mut stream in waiting {
        stream.write_all(&body[3000..]).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream), "POST").json()["files"], 2);
    }
    let found = |below: &str| names(&server, below);
    assert_eq!(
        (found(""), found("x")),
        (vec!["x".to_owned(), "y".to_owned()], vec!["a".to_owned(), "b".to_owned()])
    );
}

fn names(server: &Server, below: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.root().join(below)).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_giant_claim_costs_nothing() {
    let server = idle(&[]);
    let mut long = member("././@LongLink", b"");
    long[124..136].copy_from_slice(b"37777777777\0");
    long[156] = b'L';
    long[148..156].fill(b' ');
    let sum: u32 = long[..512].iter().map(|&byte| u32::from(byte)).sum();
    long[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let before = resident_kib(server.pid());
    // The claim, and 64 MiB towards it.
    let body = [long, vec![b'n'; 64 << 20]].concat();
    let mut stream = begin(&server, &body, 600);
    // It answers and stops reading.
    let _ = stream.write_all(&body[600..]);
    let answer = Response::parse(&read_to_end(&mut stream), "POST");
    assert_eq!((answer.status, answer.code()), (400, "archive_invalid".to_owned()));
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_tree_is_listed_in_one_request() {
    let server = idle(&[]);
    unpack(&server, "top?archive=tar", &archive(&[("a", b"hello"), ("sub/b", b""), ("skip/c", b"")]));
    std::os::unix::fs::symlink("a", server.root().join("top/link")).unwrap();
    let listing = |query: &str| server.get(&format!("/_frag/files/top?{query}"), "").json();
    let tree = listing("recursive=true&sha256=true&except=skip,other");
    assert_eq!((&tree["path"], &tree["truncated"]), (&json!("top"), &json!(false)));
    let entries: Vec<(&str, &str)> = tree["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap(), entry["type"].as_str().unwrap()))
        .collect();
    assert_eq!(entries, [("a", "file"), ("link", "symlink"), ("sub", "directory"), ("sub/b", "file")]);
    assert_eq!(
        tree["entries"][0]["sha256"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!((&tree["entries"][0]["mode"], &tree["entries"][0]["bytes"]), (&json!("755"), &json!(5)));
    assert_eq!(listing("recursive")["entries"].as_array().unwrap().len(), 6);
    assert_eq!(listing("recursive")["entries"][0]["sha256"], Value::Null);
    assert!(listing("recursive=0")["entries"][0]["name"].is_string(), "the plain list");
    for (target, code) in [
        ("top?recursive=maybe", "bad_parameter"),
        ("top/a?recursive=1", "not_a_directory"),
        ("absent?recursive=1", "not_found"),
        ("../x?recursive=1", "path_invalid"),
    ] {
        assert_eq!(server.get(&format!("/_frag/files/{target}"), "").code(), code, "{target}");
    }
}

#[test]
fn directories_are_closed_from_the_deepest_up() {
    let server = Server::start_unprivileged(IDLE, unused_port(), &[]);
    let members = [entry("a/", b'5', 0o644, b""), entry("a/b/", b'5', 0o500, b""), member("a/b/c", b"1")];
    let answer = unpack(&server, "?archive=tar", &[members.concat(), vec![0; 1024]].concat());
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    let mode = |name: &str| server.root().join(name).metadata().unwrap().permissions().mode() & 0o777;
    let closed = mode("a");
    std::fs::set_permissions(server.root().join("a"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((closed, mode("a/b")), (0o644, 0o500));
    std::fs::set_permissions(server.root().join("a/b"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_archive_goes_wherever_something_is_mounted() {
    let server = idle(&[]);
    let beside = tempfile::tempdir().unwrap();
    let at = |name: &str| server.root().join(name);
    for name in ["data", "bound"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    // Another file system, and the same one once more.
    let Some(_data) = Mounted::at(&at("data"), &["-t", "tmpfs", "-o", "size=4m", "none"]) else { return };
    let Some(_bound) = Mounted::at(&at("bound"), &["--bind", beside.path().to_str().unwrap()]) else {
        return;
    };
    // One by one with open files, and so many that they are put aside.
    for count in [2, 60] {
        let places = ["", "data/", "data/new/", "bound/", "bound/new/deep/"];
        let names: Vec<String> =
            places.iter().flat_map(|place| (0..count).map(move |n| format!("{place}f{n}"))).collect();
        for text in ["first", "second"] {
            let members: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, text.as_bytes())).collect();
            let answer = unpack(&server, "?archive=tar", &archive(&members));
            assert_eq!(answer.status, 200, "{}", answer.body_text());
            for name in &names {
                assert_eq!(std::fs::read_to_string(at(name)).unwrap(), text, "{name}");
            }
        }
    }
    // Taken back on all of them.
    let count = || ["", "data", "bound"].map(|place| std::fs::read_dir(at(place)).unwrap().count());
    let before = count();
    std::fs::create_dir(at("bound/taken")).unwrap();
    let bad = archive(&[("one", b"1"), ("data/one", b"1"), ("bound/taken", b"1")]);
    assert_eq!(unpack(&server, "?archive=tar", &bad).code(), "is_directory");
    std::fs::remove_dir(at("bound/taken")).unwrap();
    assert_eq!(count(), before, "nothing hidden stays either");
}
