//! What each short command prints, with and without `--json`, and the exit codes of everything that fails.

use crate::binary::{IDLE, Reserved, Server, eventually, unused_port};
use crate::common;
use crate::ctl::{Said, command, command_for, finish, finish_with};
use serde_json::{Value, json};

const TOKEN: &str = "correct-horse";

fn server(flags: &[&str]) -> Server {
    let server = Server::start_with(IDLE, unused_port(), flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    });
    let running = || ctl(&server, &["status"]).code == Some(0);
    eventually("the command runs", running);
    server
}

fn ctl(server: &Server, words: &[&str]) -> Said {
    finish(&mut command_for(server, TOKEN, words))
}

#[test]
fn status_and_what_acts_say_how_the_server_is() {
    let server = server(&[]);
    let said = ctl(&server, &["status"]);
    assert!(said.ok().starts_with("starting, pid ") && said.out.contains(": sleep 1000\n"), "{said:?}");
    let first = ctl(&server, &["status", "--json"]).json();
    assert_eq!((&first["status"], &first["restarts"]), (&json!("starting"), &json!(0)));
    let restarted = ctl(&server, &["--json", "restart"]).json();
    assert_ne!(restarted["pid"], first["pid"]);
    ctl(&server, &["interrupt"]).ok();
    assert!(ctl(&server, &["stop"]).ok().starts_with("stopped, restarts "));
    let stopped = ctl(&server, &["status"]);
    assert_eq!(stopped.code, Some(1), "it does not run: {stopped:?}");
    assert!(stopped.out.contains("last exit: signal ") && stopped.err.is_empty(), "{stopped:?}");
    assert_eq!(ctl(&server, &["status", "--json"]).json()["status"], "stopped");
    ctl(&server, &["interrupt"]).failed(1, &["not_running, 409"]);
    assert!(ctl(&server, &["start"]).ok().starts_with("starting, pid "));
}

#[test]
fn restart_waits_until_the_server_serves_or_does_not() {
    let port = Reserved::new();
    let command = format!("{} listen {} 100", common::fixture(), port.port);
    let server = Server::start(&command, port.port, &[]);
    let said = finish(&mut command_for(&server, "", &["restart", "--wait"]));
    assert!(said.ok().starts_with("ready, pid "), "{said:?}");
    let hopeless = Server::start("false", unused_port(), &["--max-restarts", "0"]);
    let said = finish(&mut command_for(&hopeless, "", &["restart", "--wait"]));
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.out.starts_with("failed, "), "{said:?}");
}

#[test]
fn every_failure_has_its_exit_code() {
    let server = server(&[]);
    let url = format!("http://{}", server.address);
    // 1: the server's word, and its JSON with --json.
    finish(command(&["status"]).env("FRAG_URL", &url)).failed(1, &["token_required, 401"]);
    finish(&mut command_for(&server, "wrong", &["restart"])).failed(1, &["401"]);
    let said = finish(&mut command_for(&server, "wrong", &["--json", "restart"]));
    assert_eq!(said.code, Some(1));
    assert!(said.json()["error"]["code"].is_string() && said.err.contains("401"), "{said:?}");
    // 2: usage.
    for words in [
        &[][..],
        &["nonsense"],
        &["status", "--nonsense"],
        &["logs", "--tail", "many"],
        &["logs", "--stream", "stdin"],
        &["upload"],
        &["upload", "x", "--restart", "--interrupt"],
        &["upload", "x", "--to", "../y"],
        &["sync", ".", "--poll"],
        &["exec"],
        &["exec", "--env", "A", "--", "true"],
        &["approvals", "x", "perhaps"],
        &["--url", "ftp://h", "status"],
        &["--url", "http://h/?x", "status"],
        &["--token-file", "/nonexistent", "status"],
    ] {
        let said = ctl(&server, words);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{words:?}: {said:?}");
    }
    finish(command(&["status"]).env("FRAG_TOKEN", "a b")).failed(2, &["token"]);
    // 3: nobody there, or somebody who hangs up.
    let nobody = format!("http://127.0.0.1:{}", unused_port());
    finish(command(&["--url", &nobody, "status"]).env("FRAG_URL", &url)).failed(3, &[&nobody]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rude = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    finish(&mut command(&["--url", &rude, "status"])).failed(3, &[&rude]);
    // 4: this side.
    ctl(&server, &["upload", "/nonexistent"]).failed(4, &["/nonexistent"]);
    ctl(&server, &["upload", "/dev/null"]).failed(4, &["neither a file nor a directory"]);
    let fifo = server.root().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    ctl(&server, &["upload", fifo.to_str().unwrap()]).failed(4, &["neither a file nor a directory"]);
    ctl(&server, &["sync", "/nonexistent"]).failed(4, &["/nonexistent"]);
    // Help is no failure.
    for words in [&["--help"][..], &["sync", "--help"]] {
        assert!(finish(&mut command(words)).ok().contains("Usage: simple-artifact-server ctl"));
    }
}

#[test]
fn https_needs_its_feature() {
    let said = finish(&mut command(&["--url", "https://127.0.0.1:1", "status"]));
    match cfg!(feature = "tls") {
        true => said.failed(3, &["https://127.0.0.1:1"]),
        false => said.failed(2, &["cargo feature `tls`"]),
    }
}

#[test]
fn a_token_file_a_control_listener_and_somebody_else_in_front() {
    let server = server(&["--control", "127.0.0.1:0"]);
    let file = server.root().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    for address in [server.address, server.control.unwrap()] {
        let url = format!("http://{address}/");
        finish(&mut command(&["--url", &url, "status", "--token-file", file])).ok();
        // The server's own variable serves the client beside it, as in a container's check of health.
        finish(command(&["--url", &url, "status"]).env("FRAG_TOKEN_FILE", file)).ok();
    }
    let missing = &["FRAG_TOKEN_FILE: /nonexistent"];
    finish(command(&["status"]).env("FRAG_TOKEN_FILE", "/nonexistent")).failed(2, missing);
    // Not a server of ours, and not JSON.
    let (front, listener) = Server::with_backend(&[]);
    crate::binary::play(listener, |_| crate::binary::ok(b"<html>"));
    let url = format!("http://{}/not-ours", front.address);
    finish(&mut command(&["--url", &url, "status"])).failed(1, &["none of a simple-artifact-server", "200"]);
}

#[test]
#[cfg(feature = "artifacts")]
fn artifacts_are_put_read_and_deleted() {
    let server = server(&[]);
    let said = finish_with(&mut command_for(&server, TOKEN, &["artifact", "put"]), "päyload".as_bytes());
    assert!(said.code == Some(0) && said.err.contains("kept until 20"), "{said:?}");
    let prefix = format!("http://{}/_frag/", server.address);
    let id = said.out.trim_end().strip_prefix(&prefix).unwrap().to_owned();
    assert_eq!(ctl(&server, &["artifact", "get", &id]).ok(), "päyload");
    std::fs::write(server.root().join("p"), "second").unwrap();
    let file = server.root().join("p").to_str().unwrap().to_owned();
    let replaced = ctl(&server, &["artifact", "put", &file, "--id", &id, "--json"]).json();
    assert_eq!((&replaced["id"], &replaced["payload"]), (&json!(id), &json!("second")));
    assert_eq!(ctl(&server, &["artifact", "get", "--json", &id]).json()["payload"], "second");
    assert_eq!(ctl(&server, &["artifact", "delete", &id]).ok(), format!("deleted {id}\n"));
    ctl(&server, &["artifact", "get", &id]).failed(1, &["404"]);
    ctl(&server, &["artifact", "put", "/nonexistent"]).failed(4, &["/nonexistent"]);
}

#[test]
#[cfg(feature = "runs")]
fn runs_are_listed_and_approvals_decided() {
    use crate::binary::agent::{ended, get, invoke, with_agent};
    let server = with_agent(&["--require-approval", "all"]);
    let ctl = |words: &[&str]| finish(&mut command_for(&server, "secret", words));
    assert_eq!(ctl(&["approvals"]).ok(), "ID  TOOL  STATUS  ASKED  ARGUMENTS\n");
    for (input, id, tool, word, status) in [
        ("say-ask", "one", "write", "approve", "approved"),
        ("say-ask-read", "r1", "read", "reject", "rejected"),
    ] {
        let run = invoke(&server, input);
        eventually("it asks", || get(&server, "/approvals").body_text().contains(&format!("\"{id}\"")));
        let waiting = ctl(&["approvals"]);
        assert!(waiting.ok().lines().nth(1).unwrap().starts_with(id), "{waiting:?}");
        assert!(waiting.out.contains(&format!("  {tool}")) && waiting.out.contains("pending"), "{waiting:?}");
        let said = ctl(&["approvals", id, word, "--reason", "so be it"]);
        assert_eq!(said.ok(), format!("{id}: {status}\n"));
        ended(&server, &run);
        assert_eq!(ctl(&["approvals", id, "--json"]).json()["reason"], "so be it");
        assert!(ctl(&["approvals", id]).ok().contains(status));
        ctl(&["approvals", id, word]).failed(1, &["409"]);
        let listed = ctl(&["runs"]);
        assert!(listed.ok().contains(&format!("{run}  agent   completed")), "{listed:?}");
        let one = ctl(&["runs", &run]);
        assert!(one.ok().contains("HITL_APPROVAL_"), "{one:?}");
        assert_eq!(ctl(&["runs", &run, "--json"]).json()["executionId"], Value::String(run));
    }
    ctl(&["runs", "no/such"]).failed(1, &["404"]);
    ctl(&["approvals", "none", "approve"]).failed(1, &["404"]);
}
