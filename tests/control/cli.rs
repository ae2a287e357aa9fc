//! The command line and the process: help, refusals, exit codes, the end.

use crate::binary::{IDLE, Reserved, Server, eventually, unused_port};
use crate::{binary, common};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_simple-artifact-server");

fn binary(flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(flags).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FRAG_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(flags: &[&str]) -> Output {
    binary(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Refused at the start with this code, nothing on stdout, and one line that says it all.
#[track_caller]
fn refused(command: &mut Command, code: i32, parts: &[&str]) {
    let output = command.output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

#[test]
fn help_lists_every_flag_of_the_readme() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let help = text(&output.stdout);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let flags: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| `-"))
        .map(|line| &line[line.find("--").unwrap()..])
        .map(|line| &line[..line.find('`').unwrap()])
        .collect();
    assert!(flags.len() > 30, "{flags:?}");
    for flag in flags {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn the_version_is_one_line() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("simple-artifact-server {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nobody_has_to_read_what_is_printed() {
    for flag in ["--help", "--version"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(binary(&[flag]).stdout(full).status().unwrap().code(), Some(0), "{flag}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    refused(&mut binary(&["--no-such-flag"]), 2, &["--no-such-flag"]);
    refused(&mut binary(&["-c", IDLE, "--port"]), 2, &["port"]);
    refused(&mut binary(&["-c", IDLE, "stray"]), 2, &["stray"]);
    refused(&mut binary(&["-c", IDLE, "--require-user=yes"]), 2, &["yes"]);
    refused(&mut binary(&["-c", IDLE, "--port", "1", "--port", "2"]), 2, &["port"]);
    refused(&mut binary(&[]), 2, &["--command (FRAG_COMMAND)", "required"]);
    use std::os::unix::ffi::OsStrExt;
    refused(binary(&["-c"]).arg(std::ffi::OsStr::from_bytes(b"\xff")), 2, &["UTF-8"]);
}

#[test]
fn bad_values_are_refused_naming_flag_and_variable() {
    for (name, value) in [
        ("port", "65536"),
        ("port", "-1"),
        ("port", ""),
        ("subprocess-port", "0"),
        ("host", "example.org"),
        ("root", "/nonexistent"),
        ("control", ":8081"),
        ("token-file", "/nonexistent"),
        ("hold-timeout", "soon"),
        ("stop-grace", "1e400"),
        ("head-timeout", "0"),
        ("interrupt-signal", "KILLER"),
        ("max-restarts", "few"),
        ("child-user", "root"),
        ("log-level", "all"),
        ("max-connections", "0"),
        ("max-upload", "1.5GiB"),
        ("ready-path", "no-slash"),
        ("command", "'open"),
        ("command", " "),
    ] {
        let variable = format!("FRAG_{}", name.replace('-', "_").to_uppercase());
        let names = format!("--{name} ({variable}): ");
        let command: &[&str] = if name == "command" { &[] } else { &["-c", IDLE] };
        refused(binary(command).arg(format!("--{name}={value}")), 2, &[&names]);
        refused(binary(command).args([&format!("--{name}"), value]), 2, &[&names]);
        if !value.is_empty() {
            refused(binary(command).env(&variable, value), 2, &[&names]);
        }
    }
    for switch in ["FRAG_REQUIRE_USER", "FRAG_EXIT_ON_FAILURE"] {
        refused(binary(&["-c", IDLE]).env(switch, "perhaps"), 2, &[switch, "neither true nor false"]);
    }
}

#[test]
fn a_token_that_is_set_and_unusable_is_refused() {
    for token in ["", "  ", "two words", "\u{fc}"] {
        refused(binary(&["-c", IDLE]).env("FRAG_TOKEN", token), 2, &["FRAG_TOKEN"]);
    }
}

#[test]
fn settings_come_from_the_environment_too() {
    let server = Server::start_with(IDLE, unused_port(), &[], |binary| {
        binary
            .env("FRAG_REQUIRE_USER", "yes")
            .env("FRAG_CONTROL", "127.0.0.1:0")
            .env("FRAG_MAX_UPLOAD", "1K");
        // A flag goes before its variable.
        binary.env("FRAG_PORT", "not a port");
    });
    assert!(server.control.is_some());
    assert_eq!(server.get("/_frag/status", "").code(), "identity_required");
    let user = "X-Verified-User-Data: {}\r\n";
    assert_eq!(server.send("POST", "/_frag/upload/f", user, &[0; 1025]).status, 413);
}

#[test]
fn the_real_addresses_stand_in_one_line() {
    let server = Server::start(IDLE, unused_port(), &["--control=127.0.0.1:0"]);
    let (public, control) = (server.address, server.control.unwrap());
    assert!(public.port() != 0 && control.port() != 0 && public != control);
    let line = format!("listening on http://{public}, control on http://{control}, relaying to port ");
    eventually("the line", || server.log.lock().unwrap().contains(&line));
    assert_eq!(server.get("/_frag/health", "").status, 200);
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    let public = ["-c", IDLE, "--host=127.0.0.1", "--port", &port];
    refused(&mut binary(&public), 1, &[&address, "in use"]);
    let control = ["-c", IDLE, "--host=127.0.0.1", "--port=0", "--control", &address];
    refused(&mut binary(&control), 1, &[&address, "in use"]);
}

#[test]
fn a_state_directory_inside_the_root_is_refused_and_not_made() {
    let root = tempfile::tempdir().unwrap();
    for inside in ["state", "a/b/state", "./state", "."] {
        let flags = ["-c", IDLE, "--state-dir", inside];
        refused(
            binary(&flags).current_dir(root.path()),
            2,
            &["--state-dir (FRAG_STATE_DIR)", "inside --root"],
        );
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "{inside}");
    }
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root.path(), outside.path().join("link")).unwrap();
    let through = outside.path().join("link/state");
    let mut command = binary(&["-c", IDLE, "--state-dir", through.to_str().unwrap()]);
    refused(command.current_dir(root.path()), 2, &["inside --root"]);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn open_control_and_child_user_need_their_conditions() {
    refused(&mut binary(&["-c", IDLE, "--open-control"]), 2, &["--open-control (FRAG_OPEN_CONTROL)"]);
    let everywhere = ["-c", IDLE, "--open-control", "--control=0.0.0.0:0"];
    refused(&mut binary(&everywhere), 2, &["loopback"]);
    // The test's own directories are not for others: the binary runs from a copy.
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("binary");
    // By another process: a child that another test forks while we write would keep the file busy.
    assert!(Command::new("cp").arg(BINARY).arg(&copy).status().unwrap().success());
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args(["-c", IDLE, "--port=0", "--child-user=1000"]).current_dir(place.path());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
    }
    refused(&mut command, 1, &["--child-user (FRAG_CHILD_USER)", "only root"]);
}

#[test]
fn a_command_that_cannot_run_is_a_state_and_not_the_end() {
    let place = tempfile::tempdir().unwrap();
    let plain = place.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    for (command, code) in [("/nonexistent/program -x", 127), (plain.to_str().unwrap(), 126)] {
        let mut server = Server::start(command, unused_port(), &["--max-restarts=1"]);
        eventually("failed", || server.get("/_frag/status", "").json()["status"] == "failed");
        let json = server.get("/_frag/status", "").json();
        assert_eq!(json["exit"]["code"], code);
        let message = json["message"].as_str().unwrap();
        assert!(message.contains(command.split(' ').next().unwrap()), "{message}");
        assert_eq!(server.get("/", "").json()["server"]["exit_code"], code);
        assert_eq!(server.terminate(), Some(0));
    }
}

#[test]
fn the_exit_code_is_the_childs() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let command = format!("/bin/sh -c '{script}'");
        let port = unused_port().to_string();
        let flags = ["-c", &command, "--port=0", "--host=127.0.0.1", "--subprocess-port", &port];
        let output = run(&[&flags[..], &["--exit-on-failure", "--max-restarts", "0"]].concat());
        assert_eq!(output.status.code(), Some(code), "{script}: {}", text(&output.stderr));
    }
    let missing = ["-c", "/nonexistent", "--port=0", "--exit-on-failure", "--max-restarts=0"];
    assert_eq!(run(&missing).status.code(), Some(127));
}

/// Whether a process is there and not a zombie.
fn alive(pid: i32) -> bool {
    common::stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// A tree of three processes, one of them deaf to SIGTERM and in a session of its own.
const TREE: &str = "/bin/sh -c 'setsid sh -c \"trap : TERM; echo \\$\\$ > deaf.part; mv deaf.part deaf; \
    while :; do sleep 1; done\" & sleep 1000 & echo $! > child.part; mv child.part child; wait'";

fn number_in(server: &Server, name: &str) -> i32 {
    let file = server.root().join(name);
    eventually(name, || file.exists());
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn sigterm_ends_everything_and_exits_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(TREE, unused_port(), &["--stop-grace", "100ms"]);
        let pids = [number_in(&server, "deaf"), number_in(&server, "child")];
        assert!(pids.iter().all(|pid| alive(*pid)));
        kill(Pid::from_raw(server.pid()), signal).unwrap();
        assert_eq!(server.wait(), Some(0), "{signal}");
        assert!(!pids.iter().any(|pid| alive(*pid)), "{signal} left a process");
    }
}

#[test]
fn a_second_sigterm_does_not_wait_for_anybody() {
    let port = Reserved::new();
    let flags = ["--shutdown-grace", "1h", "--stop-grace", "1h"];
    let mut server = Server::start(TREE, port.port, &flags);
    let pids = [number_in(&server, "deaf"), number_in(&server, "child")];
    let listener = server.give_listener(port);
    let mut client = server.connect();
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut app = binary::Wire::accept(&listener);
    assert!(app.head().is_some(), "a request is in flight");
    let us = Pid::from_raw(server.pid());
    kill(us, Signal::SIGTERM).unwrap();
    eventually("it drains", || server.log.lock().unwrap().contains("ending: told to"));
    assert!(server.child.try_wait().unwrap().is_none(), "a request is still in flight");
    kill(us, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait(), Some(1));
    eventually("nothing is left of its group", || !alive(pids[1]));
    // What had left the group may outlive a second signal, but not this test.
    let _ = kill(Pid::from_raw(pids[0]), Signal::SIGKILL);
}

#[test]
fn curl_posts_a_readme_into_the_directory_the_server_was_started_in() {
    let place = tempfile::tempdir().unwrap();
    let scratch = place.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let server = Server::start_with(IDLE, unused_port(), &[], |binary| {
        let flags: Vec<_> = binary.get_args().map(ToOwned::to_owned).collect();
        let at = flags.iter().position(|flag| flag == "--root").unwrap();
        let mut other = Command::new(binary.get_program());
        other.args(&flags[..at]).args(&flags[at + 2..]).current_dir(&scratch);
        other.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *binary = other;
    });
    let readme = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fields = "User-Agent: curl/7.88.1\r\nAccept: */*\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = server.send("POST", "/_frag/upload/README.md", fields, &readme);
    assert_eq!((answer.status, &answer.json()["bytes"]), (200, &readme.len().into()));
    assert_eq!(std::fs::read(scratch.join("README.md")).unwrap(), readme);
    assert_eq!(server.get("/_frag/files/README.md", "").body, readme);
}
