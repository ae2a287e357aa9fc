//! `upload`: files and directories, and what follows them.

use crate::binary::{IDLE, Server, unused_port};
use crate::ctl::{Said, command_for, contents, files, finish, write};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

fn ctl(server: &Server, words: &[&str]) -> Said {
    finish(&mut command_for(server, "", words))
}

fn idle(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), flags)
}

#[test]
fn files_go_where_they_are_told_with_their_modes() {
    let server = idle(&[]);
    let here = tempfile::tempdir().unwrap();
    write(here.path(), "a b ü", "one");
    write(here.path(), "run.sh", "#!/bin/sh");
    let at = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
    std::fs::set_permissions(at("run.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let said = ctl(&server, &["upload", &at("a b ü"), &at("run.sh"), "--to", "./x/y/"]);
    assert!(said.ok().starts_with("x/y/a b ü: 3 B, sha256 7692c3"), "{said:?}");
    assert_eq!(contents(server.root()), files(&[("x/y/a b ü", "one"), ("x/y/run.sh", "#!/bin/sh")]));
    let mode = std::fs::metadata(server.root().join("x/y/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
    let said = ctl(&server, &["upload", &at("run.sh"), "--json"]);
    assert_eq!((&said.json()["bytes"], &said.json()["restarted"]), (&json!(9), &json!(false)));
    let before = ctl(&server, &["status", "--json"]).json();
    let said = ctl(&server, &["upload", &at("a b ü"), &at("run.sh"), "--restart", "--json"]);
    let restarted: Vec<bool> = said.ok().lines().map(|line| line.contains("\"restarted\":true")).collect();
    assert_eq!(restarted, [false, true], "once, after the last");
    assert_ne!(ctl(&server, &["status", "--json"]).json()["pid"], before["pid"]);
    ctl(&server, &["upload", &at("run.sh"), "--interrupt"]).ok();
}

#[test]
fn a_refused_file_says_why_however_long_it_is() {
    let server = idle(&["--max-upload", "100KiB"]);
    let here = tempfile::tempdir().unwrap();
    for (name, bytes) in [("small", 101 << 10), ("large", 40 << 20)] {
        write(here.path(), name, &"x".repeat(bytes));
        let file = here.path().join(name);
        ctl(&server, &["upload", file.to_str().unwrap()]).failed(1, &["too_large, 413"]);
    }
    std::fs::create_dir(server.root().join("small")).unwrap();
    std::fs::write(here.path().join("small"), "x").unwrap();
    let file = here.path().join("small");
    ctl(&server, &["upload", file.to_str().unwrap()]).failed(1, &["is_directory, 409"]);
    // Of several, those before it are there.
    write(here.path(), "fine", "x");
    let fine = here.path().join("fine");
    let said = ctl(&server, &["upload", fine.to_str().unwrap(), file.to_str().unwrap()]);
    assert_eq!(said.code, Some(1));
    assert_eq!(contents(server.root()), files(&[("fine", "x")]));
}

#[cfg(feature = "archive")]
#[test]
fn a_directory_goes_as_a_whole_or_not_at_all() {
    let server = idle(&["--max-archive-members", "6", "--max-upload", "1MiB"]);
    let here = tempfile::tempdir().unwrap();
    let top = here.path().join("app");
    for name in ["a.py", "sub/b.py", ".git/config", "node_modules/x/y", "sub/c.log"] {
        write(&top, name, name);
    }
    std::os::unix::fs::symlink("/etc/passwd", top.join("link")).unwrap();
    let app = top.to_str().unwrap();
    let said = ctl(&server, &["upload", app, "--to", "to", "--exclude", "*.log"]);
    assert_eq!((said.code, &*said.out), (Some(0), "to/app: 2 files, 12 B\n"), "{said:?}");
    assert!(said.err.contains("1 names are left out"), "{said:?}");
    assert_eq!(contents(server.root()), files(&[("to/app/a.py", "a.py"), ("to/app/sub/b.py", "sub/b.py")]));
    // The directory itself, when it has no name.
    let said = finish(command_for(&server, "", &["upload", ".", "--json", "--restart"]).current_dir(&top));
    assert_eq!(said.json(), json!({"path": ".", "files": 3, "bytes": 21, "restarted": true}));
    // Too many, or too much: the reason is told although the server stops reading.
    let all = contents(server.root());
    for n in 0..7 {
        write(&top, &format!("many/{n}"), &"x".repeat(600_000));
    }
    ctl(&server, &["upload", app, "--to", "z"]).failed(1, &["too_large, 413", "left out"]);
    for n in 0..7 {
        write(&top, &format!("many/{n}"), "x");
    }
    ctl(&server, &["upload", app, "--to", "z"]).failed(1, &["too_many_members, 413"]);
    assert_eq!(contents(server.root()), all);
}
