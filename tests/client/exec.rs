//! `exec`: output, input and end of a program there, as if it ran here.

use crate::binary::exec::{ADMIN, TOKEN, server, with_program};
use crate::binary::{Server, Wire, connect, eventually};
use crate::ctl::{Running, Said, command, command_for, finish, finish_with};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};

fn ctl(server: &Server, words: &[&str]) -> Said {
    finish(&mut command_for(server, TOKEN, words))
}

fn sh(server: &Server, script: &str) -> Said {
    ctl(server, &["exec", "--", "sh", "-c", script])
}

#[test]
fn both_streams_and_every_exit_code_arrive() {
    let server = server(&["--exec-max-output", "1MiB"]);
    let said = sh(&server, "echo out; echo err >&2; printf cut; exit 7");
    // What the server adds is the end of a last line.
    assert_eq!((said.code, &*said.out, &*said.err), (Some(7), "out\ncut\n", "err\n"));
    for code in [0, 1, 2, 3, 126, 127, 255] {
        assert_eq!(sh(&server, &format!("exit {code}")).code, Some(code));
    }
    assert_eq!(sh(&server, "kill -9 $$").code, Some(137));
    let late = ctl(&server, &["exec", "--timeout", "1", "--", "sleep", "1000"]);
    late.failed(124, &["Timeout after 1s"]);
    let much = sh(&server, "yes");
    assert_eq!(much.code, Some(125), "{}", much.err);
    ctl(&server, &["exec", "--", "no-such-program"]).failed(1, &["No such file"]);
    ctl(&server, &["exec", "--cwd", "absent", "--", "true"]).failed(1, &["bad_request, 400"]);
    std::fs::create_dir(server.root().join("sub")).unwrap();
    let said = ctl(&server, &["exec", "--cwd", "sub", "--env", "A=b=c", "--", "sh", "-c", "pwd; echo $A"]);
    assert!(said.ok().ends_with("/sub\nb=c\n"), "{said:?}");
    finish(&mut command_for(&server, "", &["exec", "--", "true"])).failed(1, &["unauthorized, 401"]);
    let fixed = with_program("echo", &[]);
    assert_eq!(ctl(&fixed, &["exec", "--", "x", "--json", "-x"]).ok(), "x --json -x\n");
    let events = ctl(&server, &["exec", "--json", "--", "echo", "x"]);
    let kinds: Vec<String> = events
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["started", "stdout", "exit_code"]);
}

#[test]
fn what_is_piped_in_arrives_whole() {
    let server = server(&[]);
    let input: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let said = finish_with(&mut command_for(&server, TOKEN, &["exec", "--", "cat"]), input.as_bytes());
    assert!(said.code == Some(0) && said.out == input, "{} of {} bytes", said.out.len(), input.len());
    let counted =
        finish_with(&mut command_for(&server, TOKEN, &["exec", "--", "wc", "-c"]), input.as_bytes());
    assert_eq!(counted.ok().trim(), input.len().to_string());
    // A program that does not read all of it does not keep us.
    let said =
        finish_with(&mut command_for(&server, TOKEN, &["exec", "--", "head", "-n1"]), input.as_bytes());
    assert_eq!((said.code, &*said.out), (Some(0), "0\n"), "{}", said.err);
    // Input that is open and empty is no reason to wait when the program ends.
    let mut open = command_for(&server, TOKEN, &["exec", "--", "true"]);
    assert_eq!(Running::start(open.stdin(Stdio::piped())).wait(), Some(0));
}

#[test]
fn an_interrupted_client_ends_its_run() {
    let server = server(&["--stop-grace", "1s"]);
    let script = "echo $$ > pid; trap 'echo ended > end; exit' TERM; echo up; while :; do sleep 0.01; done";
    let mut client = Running::start(&mut command_for(&server, TOKEN, &["exec", "--", "sh", "-c", script]));
    eventually("the program runs", || client.out() == "up\n");
    // Not SIGINT, to which it does the same: what a script starts in the background ignores that.
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait(), None, "a shell says 143");
    eventually("the program was told", || server.root().join("end").exists());
    let pid: i32 = std::fs::read_to_string(server.root().join("pid")).unwrap().trim().parse().unwrap();
    let gone = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_err();
    eventually("it is gone", gone);
}

#[test]
fn a_run_that_the_server_ended_is_no_success() {
    let mut server = server(&[]);
    let polite = "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let start = || {
        let client = Running::start(&mut command_for(&server, TOKEN, &["exec", "--", "sh", "-c", polite]));
        eventually("the program runs", || client.out() == "up\n");
        client
    };
    let mut client = start();
    let runs = server.send("GET", "/_frag/exec", ADMIN, b"").json();
    let run = runs["runs"][0]["run_id"].as_str().unwrap().to_owned();
    server.send("DELETE", &format!("/_frag/exec/{run}"), ADMIN, b"");
    assert_eq!(client.wait(), Some(125), "{}", client.err());
    assert!(client.err().contains("Stopped on request"), "{}", client.err());
    let mut client = start();
    server.terminate();
    assert_eq!(client.wait(), Some(125), "{}", client.err());
    assert!(client.err().contains("shutting down"), "{}", client.err());
}

#[test]
fn input_waits_for_a_server_that_is_busy() {
    let server = server(&["--max-streams", "2", "--access-log", "control"]);
    let mut holder = connect(server.address);
    let follow = format!("GET /_frag/logs?follow=true HTTP/1.1\r\nHost: x\r\n{ADMIN}\r\n");
    holder.write_all(follow.as_bytes()).unwrap();
    // The other one is the run's own.
    let mut cat = command_for(&server, TOKEN, &["exec", "--", "cat"]);
    let mut client = Running::start(cat.stdin(Stdio::piped()));
    let mut stdin = client.child.stdin.take().unwrap();
    stdin.write_all(b"all of it").unwrap();
    eventually("refused", || server.log.lock().unwrap().contains(" 503 "));
    drop((holder, stdin));
    assert_eq!((client.wait(), client.out(), client.err()), (Some(0), "all of it\n".into(), String::new()));
}

#[test]
fn a_run_that_cannot_be_given_its_input_is_ended_and_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (end, ended) = mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (end, ended) = (end.clone(), Arc::clone(&ended));
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream.unwrap());
                while let Some(request) = wire.request() {
                    match request.line() {
                        "POST /_frag/exec HTTP/1.1" => {
                            let started = "data: {\"type\":\"started\",\"run_id\":\"r\"}\n\n";
                            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                            wire.write(format!("{head}{started}").as_bytes());
                            ended.lock().unwrap().recv().unwrap();
                            return wire.write(b"data: {\"type\":\"exit_code\",\"code\":0}\n\n");
                        }
                        "DELETE /_frag/exec/r HTTP/1.1" => {
                            end.send(()).unwrap();
                            wire.write(b"HTTP/1.1 204 No Content\r\n\r\n");
                        }
                        _ => wire.write(b"HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\n{}"),
                    }
                }
            });
        }
    });
    let said = finish_with(&mut command(&["--url", &url, "exec", "--", "cat"]), b"input");
    said.failed(1, &["no reason (500)"]);
}
