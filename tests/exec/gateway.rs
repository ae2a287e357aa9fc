//! Programs over HTTP: what the contract's client sees of a run, in every sequence, and the further
//! routes around it.

use crate::binary::client::Client;
use crate::binary::exec::{
    ADMIN, Seen, TOKEN, admin, follow, post, reply, run, run_at, server, sh, start, summary, with,
    with_program,
};
use crate::binary::{IDLE, Server, eventually, unused_port};
use crate::{binary, common};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Every stream ends with exactly one exit code, whatever happened before.
#[track_caller]
fn check(seen: &Seen, sequence: &str, exit: i64) {
    assert!(!seen.connection_error, "{seen:?}");
    assert_eq!(seen.sequence(), sequence, "{seen:?}");
    assert_eq!((seen.exit, seen.exit_codes), (exit, 1), "{seen:?}");
    assert_eq!(seen.last["type"], "exit_code");
    assert!(seen.last["duration_ms"].is_u64(), "{seen:?}");
}

#[test]
fn a_program_that_succeeds() {
    let seen = run(&server(&[]), &sh("echo out; echo err >&2"));
    assert!(seen.sequence() == "started stdout stderr exit_code", "{seen:?}");
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str(), seen.exit), ("out\n", "err\n", 0));
    assert_eq!(seen.exit_codes, 1);
    assert_eq!(seen.last["signal"], Value::Null);
    assert_eq!((&seen.last["truncated"], &seen.last["timed_out"]), (&json!(false), &json!(false)));
}

#[test]
fn every_exit_code_arrives() {
    let server = server(&["--exec-max-concurrent", "64"]);
    for code in [1, 2, 3, 126, 127, 128, 255] {
        check(&run(&server, &sh(&format!("exit {code}"))), "started exit_code", code);
    }
}

#[test]
fn a_program_that_cannot_be_started() {
    let server = server(&[]);
    std::fs::write(server.root().join("plain"), "no program").unwrap();
    std::fs::create_dir(server.root().join("directory")).unwrap();
    for (program, text) in [
        ("no-such-program", "No such file or directory (os error 2)"),
        ("/no/such/program", "No such file or directory (os error 2)"),
        ("./plain", "Permission denied (os error 13)"),
        ("./directory", "Permission denied (os error 13)"),
        ("", "No such file or directory (os error 2)"),
    ] {
        let seen = run(&server, &json!({"args": [program, "secret"]}));
        check(&seen, "error exit_code", 1);
        assert_eq!(seen.errors, [text], "{program}");
        let answer = reply(&server, json!({"args": [program]}));
        assert_eq!((&answer["exit_code"], &answer["error"]), (&json!(1), &json!(text)), "{program}");
    }
}

#[test]
fn a_program_whose_time_is_over() {
    let seen = run(&server(&[]), &with(sh("echo first; sleep 1000"), json!({"timeout_secs": 1})));
    check(&seen, "started stdout error exit_code", -1);
    assert_eq!((seen.stdout.as_str(), seen.errors[0].as_str()), ("first\n", "Timeout after 1s"));
    assert_eq!(seen.last["timed_out"], true);
    assert_eq!(seen.last["signal"], 9);
    assert!(seen.last["duration_ms"].as_u64().unwrap() >= 1000);
}

#[test]
fn the_operator_bounds_the_time() {
    let server = server(&["--exec-max-timeout", "1s"]);
    for request in [sh("sleep 1000"), with(sh("sleep 1000"), json!({"timeout_secs": u64::MAX}))] {
        let seen = run(&server, &request);
        check(&seen, "started error exit_code", -1);
        assert_eq!(seen.errors, ["Timeout after 1s"]);
    }
}

#[test]
fn a_program_that_a_signal_kills() {
    let server = server(&[]);
    for (name, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("USR1", 10)] {
        let seen = run(&server, &sh(&format!("kill -{name} $$")));
        check(&seen, "started exit_code", -1);
        assert_eq!(seen.last["signal"], number, "{name}");
        assert_eq!(seen.last["timed_out"], false);
    }
}

#[test]
fn a_program_that_writes_too_much() {
    let server = server(&["--exec-max-output", "1000"]);
    let seen = run(&server, &sh("yes"));
    check(&seen, "started stdout error exit_code", -1);
    assert_eq!(seen.errors, ["Output limit of 1000 bytes reached"]);
    assert_eq!(seen.last["truncated"], true);
    assert_eq!(seen.stdout, "y\n".repeat(500));
    // Both streams count together, and exactly as much as allowed is not too much.
    let seen = run(&server, &sh("head -c 500 /dev/zero; sleep 0.2; head -c 501 /dev/zero >&2; sleep 1000"));
    assert_eq!(seen.last["truncated"], true);
    let seen = run(&server, &sh("head -c 500 /dev/zero; head -c 500 /dev/zero >&2"));
    check(&seen, "started stdout stderr exit_code", 0);
    assert_eq!(seen.last["truncated"], false);
}

#[test]
fn the_bytes_of_a_stream_are_the_contracts() {
    let server = server(&[]);
    let body = sh("printf 'a\\r\\nb'; exit 3").to_string();
    let answer = post(&server, &body);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/event-stream"));
    assert!(answer.field("cache-control").unwrap().contains("no-cache"));
    let text = answer.body_text();
    let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(blocks.len(), 4, "{text}");
    for block in &blocks {
        let names: Vec<&str> = block.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(names, ["id", "event", "data"], "{block}");
        assert_eq!(block.lines().nth(1), Some("event: cli"));
    }
    assert!(blocks[0].contains("data: {\"type\":\"started\",\"pid\":"), "{text}");
    assert!(blocks[1].ends_with("data: {\"type\":\"stdout\",\"data\":\"a\\n\",\"offset\":0}"), "{text}");
    assert!(blocks[2].ends_with("data: {\"type\":\"stdout\",\"data\":\"b\\n\",\"offset\":3}"), "{text}");
    assert!(blocks[3].contains("data: {\"type\":\"exit_code\",\"code\":3,"), "{text}");
}

#[test]
fn lines_are_events() {
    let server = server(&[]);
    let mut live = start(&server, &sh("printf 'one\\n\\n\\rtwo\\r\\n \\tthree \"\\\\\\n'; printf last"));
    live.started();
    for line in ["one\n", "\n", "\rtwo\n", " \tthree \"\\\n", "last\n"] {
        assert_eq!(live.expect("stdout").data["data"], line);
    }
    live.expect("exit_code");
    assert!(live.next().is_none());
    // A thousand lines written at once are a thousand events while their reader keeps up.
    let mut live = start(&server, &sh("seq 1000"));
    live.started();
    for n in 1..=1000 {
        assert_eq!(live.expect("stdout").data["data"], format!("{n}\n"));
    }
}

#[test]
fn each_line_comes_when_it_is_written() {
    let server = server(&[]);
    let script = "while read line; do echo \"got $line\"; done";
    let mut live = start(&server, &with(sh(script), json!({"keep_stdin": true, "stdin": "zero\n"})));
    let (id, _) = live.started();
    assert_eq!(live.expect("stdout").data["data"], "got zero\n");
    for n in 0..5 {
        let answer = admin(&server, "POST", &format!("/{id}/stdin"), format!("line {n}\n").as_bytes());
        assert_eq!((answer.status, answer.json()), (200, json!({"bytes": 7, "closed": false})));
        assert_eq!(live.expect("stdout").data["data"], format!("got line {n}\n"));
    }
    let answer = admin(&server, "POST", &format!("/{id}/stdin?close=true"), b"");
    assert_eq!((answer.status, answer.json()), (200, json!({"bytes": 0, "closed": true})));
    assert_eq!(live.rest().exit, 0);
    let answer = admin(&server, "POST", &format!("/{id}/stdin"), b"more");
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict_error"));
}

#[test]
fn input_given_at_the_start_has_an_end() {
    let server = server(&[]);
    let answer = reply(&server, json!({"args": ["cat"], "stdin": "in\u{e9}"}));
    assert_eq!((&answer["stdout"], &answer["exit_code"]), (&json!("in\u{e9}"), &json!(0)));
    // More than a pipe holds, to a program that reads it late, and to one that never does.
    let long = "0123456789abcde\n".repeat(20_000);
    let answer = reply(&server, with(sh("sleep 0.2; cat | tail -c 16 ; echo end"), json!({"stdin": long})));
    assert_eq!(answer["stdout"], "0123456789abcde\nend\n");
    let answer = reply(&server, json!({"args": ["true"], "stdin": long}));
    assert_eq!(answer["exit_code"], 0);
}

#[test]
fn input_waits_for_a_program_that_does_not_read() {
    let server = server(&[]);
    let mut live = start(&server, &with(sh("read go; wc -c"), json!({"keep_stdin": true})));
    let (id, _) = live.started();
    let many = vec![b'x'; 1 << 20];
    let mut writer = Client::new(server.address);
    let head = format!(
        "POST /_frag/exec/{id}/stdin?close=1 HTTP/1.1\r\nHost: localhost\r\n{ADMIN}Content-Length: {}\r\n\r\n",
        many.len() + 3
    );
    writer.send([head.as_bytes(), b"go\n"].concat());
    writer.send(&many);
    assert_eq!(writer.response("POST").json(), json!({"bytes": many.len() + 3, "closed": true}));
    assert_eq!(live.expect("stdout").data["data"], format!("{}\n", many.len()));
    // Nobody reads: who waits to write learns of the end.
    let mut live =
        start(&server, &with(sh("exec sleep 1000"), json!({"keep_stdin": true, "timeout_secs": 1})));
    let (id, _) = live.started();
    let answer = admin(&server, "POST", &format!("/{id}/stdin"), &many);
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict_error"));
    assert_eq!(live.rest().errors, ["Timeout after 1s"]);
}

#[test]
fn one_json_reply_for_who_wants_no_stream() {
    let server = server(&[]);
    let answer = reply(&server, sh("printf 'a\\r\\nb'; printf 'c\\377' >&2; exit 4"));
    let id = answer["run_id"].as_str().unwrap();
    assert_eq!(id.len(), 36);
    let duration = answer["duration_ms"].as_u64().unwrap();
    let wanted = json!({"exit_code": 4, "signal": null, "stdout": "a\r\nb", "stderr": "c\u{fffd}",
        "truncated": false, "timed_out": false, "duration_ms": duration, "run_id": id});
    assert_eq!(answer, wanted);
    let answer = reply(&server, with(sh("sleep 1000"), json!({"timeout_secs": 1})));
    assert_eq!((&answer["exit_code"], &answer["timed_out"]), (&json!(-1), &json!(true)));
    assert_eq!((&answer["error"], &answer["signal"]), (&json!("Timeout after 1s"), &json!(9)));
    // Of more than a megabyte the last one is kept, and it says so.
    let answer = reply(&server, sh("head -c 1500000 /dev/zero | tr '\\0' a; printf end"));
    let stdout = answer["stdout"].as_str().unwrap();
    assert_eq!((stdout.len(), stdout.ends_with("aend")), (1 << 20, true));
    assert_eq!((&answer["truncated"], &answer["exit_code"]), (&json!(true), &json!(0)));
}

#[test]
fn a_fixed_program_gets_its_arguments_and_who_calls() {
    let server = with_program(&common::fixture(), &["--control", "127.0.0.1:0"]);
    let seen = run(&server, &json!({"args": ["args", "one", "t w o", "--three=*", "\u{e9}"]}));
    assert_eq!((seen.stdout.as_str(), seen.exit), ("one\nt w o\n--three=*\n\u{e9}\n", 0));
    check(&run(&server, &json!({"args": ["exit", "7"]})), "started exit_code", 7);
    let fields = format!(
        "{ADMIN}X-Verified-User-Data: {{\"a\":[{{}}],\"b\":{{\"c\":null}},\"d\":-1.5,\"user_id\":\"u-1\",\"session_id\":\"s-1\",\"sub\":true}}\r\nX-Context-Id: c-1\r\n\
         X-User-Id: evil\r\nX-Session-Id: evil\r\n"
    );
    // The contract's own path, on the control listener, with the context in the header and in the body.
    let control = server.control.unwrap();
    let request = json!({"args": ["env"], "timeout_secs": 60, "context_id": "c-2"});
    let seen = run_at(control, "/api/v1/admin/cli", &fields, &request);
    let mut ours: Vec<&str> = seen.stdout.lines().filter(|line| line.starts_with("SYSTEMPROMPT_")).collect();
    ours.sort_unstable();
    assert_eq!(
        ours,
        [
            "SYSTEMPROMPT_CLI_REMOTE=1",
            "SYSTEMPROMPT_CONTEXT_ID=c-1",
            "SYSTEMPROMPT_SESSION_ID=s-1",
            "SYSTEMPROMPT_USER_ID=u-1"
        ]
    );
    assert!(!seen.stdout.contains(TOKEN) && !seen.stdout.contains("evil"), "{}", seen.stdout);
    let seen = run_at(control, "/exec", ADMIN, &request);
    assert!(seen.stdout.contains("SYSTEMPROMPT_CONTEXT_ID=c-2\n"), "{}", seen.stdout);
    assert!(seen.stdout.contains("SYSTEMPROMPT_USER_ID=\n"), "{}", seen.stdout);
    let seen = run_at(control, "/_frag/exec", ADMIN, &json!({"args": ["env"], "context_id": null}));
    assert!(seen.stdout.contains("SYSTEMPROMPT_CONTEXT_ID=\n"), "{}", seen.stdout);
}

#[test]
fn a_fixed_program_is_found_in_the_path_or_beside_us_wherever_the_run_works() {
    let server = Server::start_with(IDLE, unused_port(), &["--exec", "fixture"], |binary| {
        let directory = std::path::PathBuf::from(common::fixture()).parent().unwrap().to_owned();
        binary.env("FRAG_TOKEN", TOKEN).env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
    });
    std::fs::create_dir(server.root().join("sub")).unwrap();
    check(&run(&server, &json!({"args": ["exit", "5"], "cwd": "sub"})), "started exit_code", 5);
}

#[test]
fn a_run_works_in_the_root_or_in_a_directory_below_it() {
    let server = server(&[]);
    let root = server.root().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("a/b c")).unwrap();
    std::os::unix::fs::symlink("a", root.join("link")).unwrap();
    let pwd = |request: Value| {
        let answer = reply(&server, with(json!({"args": ["/bin/pwd", "-P"]}), request));
        answer["stdout"].as_str().unwrap().trim_end().to_owned()
    };
    assert_eq!(pwd(json!({})), root.to_str().unwrap());
    assert_eq!(pwd(json!({"cwd": null})), root.to_str().unwrap());
    assert_eq!(pwd(json!({"cwd": ""})), root.to_str().unwrap());
    let deep = root.join("a/b c");
    for cwd in ["a/b c", "./a//b c/", "link/b c", deep.to_str().unwrap()] {
        assert_eq!(pwd(json!({"cwd": cwd})), deep.to_str().unwrap(), "{cwd}");
    }
}

#[test]
fn runs_are_listed_and_stopped() {
    let server = server(&[]);
    assert_eq!(admin(&server, "GET", "", b"").json(), json!({"runs": []}));
    let mut live = start(&server, &sh("echo here; exec sleep 1000"));
    let (id, pid) = live.started();
    live.expect("stdout");
    let listed = summary(&server, &id);
    for (field, value) in [
        ("state", json!("running")),
        ("program", json!("sh")),
        ("args", json!(2)),
        ("pid", json!(pid)),
        ("stdout_bytes", json!(5)),
        ("exit_code", Value::Null),
        ("detached", json!(false)),
    ] {
        assert_eq!(listed[field], value, "{field} of {listed}");
    }
    let answer = admin(&server, "DELETE", &format!("/{id}"), b"");
    assert_eq!(answer.status, 200);
    let stopped = answer.json();
    assert_eq!((&stopped["state"], &stopped["exit_code"]), (&json!("exited"), &json!(-1)));
    assert_eq!(stopped["signal"], 15);
    assert!(common::stat(pid).is_none_or(|(state, _)| state == 'Z'), "it still runs");
    let seen = live.rest();
    check(&seen, "error exit_code", -1);
    assert_eq!(seen.errors, ["Stopped on request"]);
    // Once more is no error, and changes nothing.
    assert_eq!(admin(&server, "DELETE", &format!("/{id}"), b"").json(), stopped);
    let late = follow(&server, &id, "", "").rest();
    check(&late, "started stdout error exit_code", -1);
}

#[test]
fn stopping_asks_first_and_kills_in_the_end() {
    let server = server(&["--stop-grace", "300ms"]);
    let polite = "exec 2>/dev/null; trap 'echo bye; exit 8' TERM; echo ready; while :; do sleep 0.01; done";
    let mut live = start(&server, &sh(polite));
    let (id, _) = live.started();
    live.expect("stdout");
    let stopped = admin(&server, "DELETE", &format!("/{id}"), b"").json();
    assert_eq!((&stopped["exit_code"], &stopped["signal"]), (&json!(8), &Value::Null));
    let seen = live.rest();
    assert_eq!(seen.stdout, "bye\n");
    check(&seen, "stdout error exit_code", 8);
    let mut live = start(&server, &sh("trap '' TERM; echo ready; while :; do sleep 0.01; done"));
    let (id, _) = live.started();
    live.expect("stdout");
    let stopped = admin(&server, "DELETE", &format!("/{id}"), b"").json();
    assert_eq!((&stopped["exit_code"], &stopped["signal"]), (&json!(-1), &json!(9)));
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let server = server(&[]);
    let began = Instant::now();
    let mut live = start(&server, &sh("sleep 17; echo end"));
    live.started();
    assert_eq!(live.expect("stdout").data["data"], "end\n");
    assert!(began.elapsed() >= Duration::from_secs(15));
    assert_eq!(live.comments, 1);
}

#[test]
fn the_end_of_the_server_is_told_in_the_stream() {
    let mut server = server(&[]);
    let mut silent = start(&server, &sh("sleep 1000 & sleep 1000; wait"));
    let (_, silent_pid) = silent.started();
    let mut polite = start(
        &server,
        &sh("exec 2>/dev/null; trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.01; done"),
    );
    polite.started();
    polite.expect("stdout");
    let mut detached = start(&server, &with(sh("sleep 1000"), json!({"detach": true})));
    let (id, _) = detached.started();
    let mut follower = follow(&server, &id, "", "");
    follower.started();
    drop(detached);
    let waiting = std::thread::spawn({
        let address = server.address;
        let fields = format!("{ADMIN}Content-Type: application/json\r\n");
        let body = with(sh("sleep 1000"), json!({"stream": false})).to_string();
        move || binary::send(address, "POST", "/_frag/exec", &fields, body.as_bytes())
    });
    eventually("all four run", || {
        admin(&server, "GET", "", b"").json()["runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["state"] == "running")
            .count()
            == 4
    });
    assert_eq!(server.terminate(), Some(0));
    let shutdown = "Stopped: the server is shutting down";
    for live in [silent, follower] {
        let seen = live.rest();
        check(&seen, "error exit_code", -1);
        assert_eq!((seen.errors[0].as_str(), &seen.last["signal"]), (shutdown, &json!(15)));
    }
    let seen = polite.rest();
    check(&seen, "stdout error exit_code", 6);
    let answer = waiting.join().unwrap().json();
    assert_eq!((&answer["exit_code"], &answer["error"]), (&json!(-1), &json!(shutdown)));
    assert!(common::stat(silent_pid).is_none_or(|(state, _)| state == 'Z'));
}

#[test]
fn many_runs_at_once_do_not_mix() {
    let server = server(&["--exec-max-concurrent", "8"]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..5 {
                    let seen = run(
                        server,
                        &sh(&format!("for i in 1 2 3; do echo {n}-{round}; echo {n} >&2; done; exit {n}")),
                    );
                    assert_eq!(seen.stdout, format!("{n}-{round}\n").repeat(3));
                    assert_eq!(seen.stderr, format!("{n}\n").repeat(3));
                    assert_eq!((seen.exit, seen.exit_codes), (n, 1));
                }
            });
        }
    });
}
