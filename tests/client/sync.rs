//! `sync`: what differs is sent, once or with each change.

use crate::binary::{IDLE, Server, eventually, ok, play, unused_port};
use crate::ctl::{Running, Said, command, command_for, contents, files, finish, write};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn idle() -> Server {
    Server::start(IDLE, unused_port(), &[])
}

fn sync(server: &Server, top: &Path, words: &[&str]) -> Said {
    let words = [&["sync", top.to_str().unwrap()], words].concat();
    finish(&mut command_for(server, "", &words))
}

fn watch(server: &Server, top: &Path, words: &[&str]) -> Running {
    let words = [&["sync", "--watch", top.to_str().unwrap()], words].concat();
    let running = Running::start(&mut command_for(server, "", &words));
    running.says("watching ");
    running
}

/// Waits until the server's files are these.
#[track_caller]
fn expect(server: &Server, below: &str, expected: &[(&str, &str)]) {
    let top = server.root().join(below);
    eventually(&format!("{expected:?}"), || contents(&top) == files(expected));
}

#[test]
fn only_what_differs_is_sent() {
    let server = idle();
    let here = tempfile::tempdir().unwrap();
    for name in ["a", "sub/b", "sub/deep/c", ".git/x", "skip.log"] {
        write(here.path(), name, name);
    }
    fs::create_dir(here.path().join("empty")).unwrap();
    let words = ["--to", "z", "--exclude", "*.log"];
    let first = sync(&server, here.path(), &words);
    assert_eq!(first.ok(), "sent 3 files (16 B) a, sub/b, sub/deep/c\n");
    expect(&server, "z", &[("a", "a"), ("sub/b", "sub/b"), ("sub/deep/c", "sub/deep/c")]);
    assert!(server.root().join("z/empty").is_dir());
    assert_eq!(sync(&server, here.path(), &words).ok(), "");
    // Another content of the same length, another mode, a file that is only there.
    write(here.path(), "a", "A");
    write(&server.root().join("z"), "extra/file", "there");
    write(&server.root().join("z"), "node_modules/m", "there");
    write(&server.root().join("z"), "kept.log", "there");
    assert_eq!(sync(&server, here.path(), &words).ok(), "sent a (1 B)\n");
    fs::set_permissions(here.path().join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(sync(&server, here.path(), &words).ok(), "sent a (1 B)\n");
    assert!(server.root().join("z/extra/file").exists());
    let pid =
        |server: &Server| finish(&mut command_for(server, "", &["status", "--json"])).json()["pid"].clone();
    let before = pid(&server);
    let said = sync(&server, here.path(), &[&words[..], &["--delete", "--restart"]].concat());
    assert_eq!(said.ok(), "deleted extra/file\ndeleted extra\nrestarted\n");
    assert_ne!(pid(&server), before);
    assert!(server.root().join("z/node_modules/m").exists() && server.root().join("z/kept.log").exists());
    let before = pid(&server);
    sync(&server, here.path(), &[&words[..], &["--restart"]].concat()).ok();
    assert_eq!(pid(&server), before, "nothing changed, nothing is restarted");
}

#[test]
fn a_file_in_the_place_of_a_directory_goes_only_with_delete() {
    let server = idle();
    let here = tempfile::tempdir().unwrap();
    write(here.path(), "x/inside", "1");
    write(here.path(), "y", "2");
    sync(&server, here.path(), &[]).ok();
    fs::remove_dir_all(here.path().join("x")).unwrap();
    fs::remove_file(here.path().join("y")).unwrap();
    write(here.path(), "x", "file");
    write(here.path(), "y/inside", "in");
    sync(&server, here.path(), &[]).failed(1, &["409"]);
    expect(&server, "", &[("x/inside", "1"), ("y", "2")]);
    assert_eq!(sync(&server, here.path(), &["--delete"]).code, Some(0));
    expect(&server, "", &[("x", "file"), ("y/inside", "in")]);
}

#[test]
fn a_large_directory_goes_in_several_archives() {
    let server = idle();
    let here = tempfile::tempdir().unwrap();
    for n in 0..2100 {
        write(here.path(), &format!("d{}/f{n}", n % 10), &n.to_string());
    }
    let said = sync(&server, here.path(), &[]);
    assert_eq!(said.ok().lines().count(), 2, "{said:?}");
    assert_eq!(contents(server.root()), contents(here.path()));
}

#[test]
fn a_long_file_opens_its_directory_to_nobody() {
    let server = idle();
    let here = tempfile::tempdir().unwrap();
    write(here.path(), "private/short", "1");
    let long = fs::File::create(here.path().join("private/long")).unwrap();
    long.set_len((64 << 20) + 1).unwrap();
    fs::set_permissions(here.path().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    sync(&server, here.path(), &[]).ok();
    let there = server.root().join("private");
    assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(there.join("long")).unwrap().len(), (64 << 20) + 1);
    assert_eq!(fs::read_to_string(there.join("short")).unwrap(), "1");
}

#[test]
fn a_closed_directory_comes_with_all_that_is_in_it() {
    let server = Server::start_unprivileged(IDLE, unused_port(), &[]);
    let here = tempfile::tempdir().unwrap();
    // A long file goes by itself otherwise, and so many do not go at once.
    write(here.path(), "closed/in/short", "1");
    let long = fs::File::create(here.path().join("closed/long")).unwrap();
    long.set_len((64 << 20) + 1).unwrap();
    for n in 0..2100 {
        write(here.path(), &format!("open/many/f{n}"), "2");
    }
    let closed = ["closed", "open/many"];
    let set_modes = |top: &Path, mode: u32| {
        for name in closed {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_modes(here.path(), 0o555);
    let said = sync(&server, here.path(), &[]);
    let mode = |name: &str| fs::metadata(server.root().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(closed.map(mode), [0o555, 0o555]);
    assert!(contents(server.root()) == contents(here.path()), "{said:?}");
    // For whoever removes them.
    set_modes(here.path(), 0o755);
    set_modes(server.root(), 0o755);
}

#[test]
fn every_kind_of_save_is_seen() {
    for further in [&[][..], &["--poll"]] {
        let server = idle();
        let here = tempfile::tempdir().unwrap();
        write(here.path(), "app.py", "1");
        let flags = [&["--delete", "--to", "z"], further].concat();
        let client = watch(&server, here.path(), &flags);
        expect(&server, "z", &[("app.py", "1")]);
        // In place.
        write(here.path(), "app.py", "2");
        expect(&server, "z", &[("app.py", "2")]);
        // By a temporary file that is renamed over it, beside a swap file.
        write(here.path(), ".app.py.swp", "swap");
        write(here.path(), "app.py~", "3");
        fs::rename(here.path().join("app.py~"), here.path().join("app.py")).unwrap();
        expect(&server, "z", &[("app.py", "3")]);
        // A directory that comes with what is in it, and one that grows.
        let aside = tempfile::tempdir().unwrap();
        write(aside.path(), "new/deep/f", "4");
        fs::rename(aside.path().join("new"), here.path().join("new")).unwrap();
        expect(&server, "z", &[("app.py", "3"), ("new/deep/f", "4")]);
        write(here.path(), "new/deep/er/g", "5");
        expect(&server, "z", &[("app.py", "3"), ("new/deep/er/g", "5"), ("new/deep/f", "4")]);
        fs::remove_dir_all(here.path().join("new")).unwrap();
        expect(&server, "z", &[("app.py", "3")]);
        // A second name of a file that is whole: nobody closes it.
        write(aside.path(), "whole", "6");
        fs::hard_link(aside.path().join("whole"), here.path().join("linked")).unwrap();
        expect(&server, "z", &[("app.py", "3"), ("linked", "6")]);
        fs::remove_file(here.path().join("linked")).unwrap();
        expect(&server, "z", &[("app.py", "3")]);
        // Its only name, when somebody looks.
        client.stopped(|| {
            fs::hard_link(aside.path().join("whole"), here.path().join("linked")).unwrap();
            fs::remove_file(aside.path().join("whole")).unwrap();
        });
        expect(&server, "z", &[("app.py", "3"), ("linked", "6")]);
        fs::remove_file(here.path().join("linked")).unwrap();
        expect(&server, "z", &[("app.py", "3")]);
        eventually("the directory goes", || !server.root().join("z/new").exists());
        client.signal(Signal::SIGINT);
    }
}

#[test]
fn a_burst_is_one_archive_and_one_restart() {
    let server = idle();
    let here = tempfile::tempdir().unwrap();
    for n in 0..50 {
        write(here.path(), &format!("f{n:02}"), "1");
    }
    let client = watch(&server, here.path(), &["--restart"]);
    eventually("the first round", || client.out().contains("restarted"));
    let first = client.out().len();
    for n in 0..50 {
        write(here.path(), &format!("f{n:02}"), "2");
    }
    eventually("the burst", || contents(server.root()).iter().all(|(_, text)| text == "2"));
    eventually("its restart", || client.out()[first..].contains("restarted"));
    let rounds = client.out()[first..].matches("restarted").count();
    // A loaded machine may let the burst pause for longer than 15 ms.
    assert!(rounds <= 5, "{rounds} rounds: {}", client.out());
}

#[test]
fn a_server_that_went_away_is_made_equal_when_it_is_back() {
    let mut server = idle();
    let here = tempfile::tempdir().unwrap();
    write(here.path(), "a", "1");
    write(here.path(), "b", "1");
    let client = watch(&server, here.path(), &[]);
    expect(&server, "", &[("a", "1"), ("b", "1")]);
    server.terminate();
    write(here.path(), "a", "2");
    client.says("refused");
    // Another one at its place, with nothing in its root.
    let (address, root) = (server.address, server.root().to_owned());
    fs::remove_file(root.join("b")).unwrap();
    let port = address.port().to_string();
    let root = root.to_str().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"));
    command.args(["--command", IDLE, "--host", "127.0.0.1", "--port", &port, "--root", root]);
    command.args(["--subprocess-port", &unused_port().to_string()]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut second = command.spawn().unwrap();
    eventually("made equal", || contents(server.root()) == files(&[("a", "2"), ("b", "1")]));
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn what_is_refused_is_said_and_not_repeated() {
    let server = Server::start(IDLE, unused_port(), &["--max-upload", "1KiB"]);
    let here = tempfile::tempdir().unwrap();
    let client = watch(&server, here.path(), &[]);
    write(here.path(), "large", &"x".repeat(2000));
    client.says("too_large, 413");
    // The next save heals it.
    write(here.path(), "large", "small");
    expect(&server, "", &[("large", "small")]);
    assert_eq!(client.err().matches("413").count(), 1, "{}", client.err());
}

#[test]
fn what_is_refused_keeps_no_other_file_waiting() {
    let server = Server::start(IDLE, unused_port(), &["--max-upload", "1KiB"]);
    let here = tempfile::tempdir().unwrap();
    let client = watch(&server, here.path(), &["--restart"]);
    write(here.path(), "large", &"x".repeat(2000));
    client.says("large is not sent: the body exceeds 1024 bytes (too_large, 413)");
    assert_eq!(client.out(), "");
    write(here.path(), "one", "1");
    expect(&server, "", &[("one", "1")]);
    // Together they are as much too large, and so are these two.
    let aside = tempfile::tempdir().unwrap();
    for name in ["d/two", "d/three"] {
        write(aside.path(), name, &"x".repeat(1000));
    }
    fs::rename(aside.path().join("d"), here.path().join("d")).unwrap();
    let long = "x".repeat(1000);
    expect(&server, "", &[("d/three", &long), ("d/two", &long), ("one", "1")]);
    eventually("a restart for each", || client.out().matches("restarted").count() >= 2);
    assert_eq!(client.err().matches("413").count(), 1, "{}", client.err());
    // Another file of that name is another matter.
    write(here.path(), "large", &"x".repeat(3000));
    eventually("told anew", || client.err().matches("413").count() == 2);
    // What was not sent is not taken for something that is there.
    write(here.path(), "large", "small");
    expect(&server, "", &[("d/three", &long), ("d/two", &long), ("large", "small"), ("one", "1")]);
}

#[test]
fn what_is_refused_keeps_no_file_of_a_closed_directory_waiting() {
    let server = Server::start_unprivileged(IDLE, unused_port(), &["--max-upload", "1KiB"]);
    let here = tempfile::tempdir().unwrap();
    write(here.path(), "closed/large", &"x".repeat(2000));
    write(here.path(), "closed/small", "1");
    let set_mode = |mode| {
        fs::set_permissions(here.path().join("closed"), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o555);
    let client = watch(&server, here.path(), &[]);
    expect(&server, "", &[("closed/small", "1")]);
    assert_eq!(client.err().matches("is not sent").count(), 1, "{}", client.err());
    // The next save heals it.
    write(here.path(), "closed/large", "2");
    expect(&server, "", &[("closed/large", "2"), ("closed/small", "1")]);
    set_mode(0o755);
}

#[test]
fn a_failure_after_a_failure_is_said_when_it_is_another_one_or_something_changed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tries = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&tries);
    play(listener, move |request| {
        let refusal =
            |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes();
        match request.head.starts_with("GET ") {
            // Only the first look finds somebody.
            true => match seen.fetch_add(1, Ordering::SeqCst) {
                0 => ok(br#"{"entries":[],"truncated":false}"#),
                1..3 => refusal("503 Busy"),
                _ => refusal("401 Who"),
            },
            false => refusal("503 Busy"),
        }
    });
    let here = tempfile::tempdir().unwrap();
    let words = ["--url", &url, "sync", "--watch", here.path().to_str().unwrap()];
    let client = Running::start(&mut command(&words));
    client.says("watching ");
    write(here.path(), "a", "1");
    client.says("no reason (401)");
    assert_eq!(client.err().matches("(503)").count(), 1, "{}", client.err());
    write(here.path(), "b", "1");
    eventually("said again", || client.err().matches("(401)").count() == 2);
}

#[test]
fn a_restart_that_failed_is_made_up_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let restarts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&restarts);
    play(listener, move |request| {
        if request.head.contains("/files/") {
            // The file is there, whenever somebody asks.
            return ok(br#"{"entries":[{"path":"a","type":"file","bytes":3,"modified_ms":0,"mode":"644",
                "sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}],"truncated":false}"#);
        }
        if request.head.contains("/restart") && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        }
        ok(b"{}")
    });
    let here = tempfile::tempdir().unwrap();
    let words = ["--url", &url, "sync", "--watch", "--restart", here.path().to_str().unwrap()];
    write(here.path(), "a", "abc");
    fs::set_permissions(here.path().join("a"), fs::Permissions::from_mode(0o644)).unwrap();
    let client = Running::start(&mut command(&words));
    client.says("watching ");
    assert_eq!((client.out(), restarts.load(Ordering::SeqCst)), (String::new(), 0));
    write(here.path(), "a", "abc");
    client.says("(503)");
    eventually("restarted", || client.out().contains("restarted"));
    assert_eq!(restarts.load(Ordering::SeqCst), 2);
}
