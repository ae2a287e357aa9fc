//! Workers as processes: what they are told and say, how they end, and that nothing of them stays.

use crate::binary;
use crate::binary::workers::{ASSISTANT, JSON, Workers, fixture_worker, start, start_running};
use crate::binary::{IDLE, Server, eventually, unused_port};
use serde_json::{Value, json};

/// Whether a process is there and no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The worker starts a process that ignores SIGTERM and SIGINT; its pid.
fn with_child(server: &Server, id: &str) -> String {
    server.tell(id, "child");
    let child = server.said(id).pop().unwrap().1;
    assert!(runs(&child), "{child}");
    child
}

fn input(server: &Server, id: &str, content: &str) -> (u16, Value) {
    let body = json!({"kind": "user", "content": content}).to_string();
    let response = server.v1("POST", &format!("/workers/{id}/input"), JSON, &body);
    (response.status, response.json())
}

#[test]
fn what_is_said_stands_in_the_transcript() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    for content in ["say good morning", "plain one|two||three", "  padded  ", "say  ", "alert hush"] {
        server.tell(&id, content);
    }
    let body = r#"{"kind":"system","content":"be brief"}"#;
    server.ask("POST", &format!("/workers/{id}/input"), body);
    eventually("the answer", || server.said(&id).len() == 10);
    let wanted = [
        ("user", "say good morning"),
        ("assistant", "good morning"),
        ("user", "plain one|two||three"),
        ("assistant", "one\ntwo\n\nthree"),
        ("user", "  padded  "),
        ("assistant", "user:   padded  "),
        // A blank text is none.
        ("user", "say  "),
        ("user", "alert hush"),
        ("system", "be brief"),
        ("assistant", "system: be brief"),
    ];
    assert_eq!(server.said(&id), wanted.map(|(role, text)| (role.to_owned(), text.to_owned())));
    let items = server.ask("GET", &format!("/workers/{id}/transcript"), "");
    let items = items["transcript"]["items"].as_array().unwrap();
    let events: Vec<u64> = items.iter().map(|item| item["event_id"].as_u64().unwrap()).collect();
    assert_eq!(events, [3, 3, 4, 4, 5, 5, 6, 7, 8, 8], "an answer belongs to the input before it");
}

#[test]
fn a_worker_that_reads_no_more_is_said_to_be_deaf() {
    let server = start_running("sh -c 'exec 0<&-; exec sleep 1000'", &[]);
    let id = server.create(ASSISTANT);
    assert_eq!(input(&server, &id, "hello").0, 200, "nobody knows yet");
    let execution = || server.ask("GET", &format!("/workers/{id}"), "")["worker"]["execution"].clone();
    eventually("its state says so", || execution()["run_state"] == "errored");
    let message = "the worker's process does not read what it is told";
    assert_eq!(execution()["last_result"]["message"], message);
    let (status, refused) = input(&server, &id, "hello?");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("worker_execution_rejected")), "{refused}");
}

#[test]
fn a_busy_worker_takes_no_input_until_it_says_that_it_is_idle() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let state = || server.worker(&id)["execution"]["run_state"].clone();
    assert_eq!(input(&server, &id, "silent").0, 200);
    assert_eq!(state(), "busy");
    let (status, body) = input(&server, &id, "say a");
    assert_eq!((status, body["error"]["code"].as_str()), (409, Some("worker_execution_rejected")));
    let message = "worker worker-00000001 execution Input returned Busy: worker is already running";
    assert_eq!(body["error"]["message"], message);
    let last = server.worker(&id)["execution"]["last_result"].clone();
    let wanted = json!({"operation": "input", "outcome": "busy", "run_state": "busy",
                        "message": "worker is already running"});
    assert_eq!(last, wanted);
    assert_eq!(server.worker(&id)["last_event_id"], 3, "what is refused takes no number");
    let id = server.create(ASSISTANT);
    let state = || server.worker(&id)["execution"]["run_state"].clone();
    for (line, wanted) in [
        (r#"{"event":"status","data":{"status":"idle"}}"#, "idle"),
        (r#"{"event":"run_end","data":{"result":"limit_reached"}}"#, "idle"),
    ] {
        assert_eq!(input(&server, &id, &format!("raw {line}")).0, 200);
        eventually("it is idle", || state() == wanted);
    }
    // None of these is an end: the last by its unknown result.
    for line in ["run_end", r#"{"event":"turn_end"}"#, r#"{"event":"run_end","data":{"result":"odd"}}"#] {
        let id = server.create(ASSISTANT);
        let mut socket = server.observe(&id, "?cursor=wo_0000000000000000");
        assert_eq!(input(&server, &id, &format!("raw {line}")).0, 200);
        while !socket.text().contains(if line.contains("turn_end") { "turn_end" } else { "text_delta" }) {}
        assert_eq!(server.worker(&id)["execution"]["run_state"], "busy", "{line}");
    }
}

#[test]
fn a_process_knows_who_it_is_and_none_of_our_secrets() {
    let server = start(&[]);
    let body = r#"{"intent":{"kind":"task","objective":"a \"b\""},"profile":{"kind":"runtime_default"}}"#;
    let id = server.create(body);
    server.tell(&id, "environment");
    let root = server.root().canonicalize().unwrap();
    let wanted = format!(
        r#"worker-00000001|runtime-probe|runtime_default|{{"kind":"task","objective":"a \"b\""}}|0|{}"#,
        root.display()
    );
    assert_eq!(server.said(&id).pop().unwrap().1, wanted);
    // More than an environment holds.
    let objective = "x".repeat(130 * 1024);
    let body =
        json!({"intent": {"kind": "task", "objective": objective}, "profile": {"kind": "runtime_default"}});
    let worker = &server.ask("POST", "/workers", &body.to_string())["worker"];
    assert_eq!(
        worker["execution"]["last_result"]["message"],
        "the intent is too large for a process's environment"
    );
}

#[test]
fn large_inputs_reach_the_process_and_transcripts_have_a_bound() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let large = format!("length {}", "x".repeat(1_900_000));
    for _ in 0..4 {
        server.tell(&id, &large);
    }
    assert_eq!(server.said(&id)[1].1, large.len().to_string());
    let (status, body) = input(&server, &id, &large);
    assert_eq!(status, 409);
    let message = "worker worker-00000001 execution Input returned Rejected: the worker's transcript is full";
    assert_eq!(body["error"]["message"], message);
    // What is shorter still fits.
    server.tell(&id, "say a");
}

#[test]
fn a_process_that_reads_nothing_blocks_nobody() {
    let server = start_running("sleep 1000", &[]);
    let id = server.create(ASSISTANT);
    // More than a pipe holds.
    assert_eq!(input(&server, &id, &"x".repeat(1_000_000)).0, 200);
    assert_eq!(input(&server, &id, "a").0, 409);
    assert_eq!(server.ask("POST", &format!("/workers/{id}/stop"), "")["ack"]["status"], "stopped");
}

#[test]
fn the_commands_of_profiles() {
    let fixture = fixture_worker();
    let named = format!("builtin:coder={fixture}");
    let missing = "builtin:missing=/nonexistent/worker";
    let directory = "builtin:directory=/etc";
    let flags = ["--worker", &named, "--worker", missing, "--worker", directory];
    let server = start(&flags);
    let create = |value: &str| {
        let body = json!({"intent": {"kind": "assistant"}, "profile": {"kind": "builtin", "value": value}});
        server.ask("POST", "/workers", &body.to_string())["worker"].clone()
    };
    // The prefix is a convention.
    for value in ["builtin:coder", "coder"] {
        let worker = create(value);
        assert_eq!(worker["execution"]["run_state"], "idle", "{value}");
        server.tell(worker["worker_id"].as_str().unwrap(), "environment");
        let said = server.said(worker["worker_id"].as_str().unwrap()).pop().unwrap().1;
        assert!(said.contains("|builtin:coder|"), "{said}");
    }
    assert_eq!(create("other")["execution"]["backend"], "unconnected");
    for (value, message) in [
        ("builtin:missing", "the worker's command was not found"),
        ("builtin:directory", "the worker's command cannot be executed"),
    ] {
        let worker = create(value);
        assert_eq!(worker["status"], "running");
        let wanted = json!({"backend": "connected", "run_state": "errored",
            "last_result": {"operation": "spawn", "outcome": "errored", "run_state": "errored", "message": message}});
        assert_eq!(worker["execution"], wanted);
        let id = worker["worker_id"].as_str().unwrap();
        assert_eq!(input(&server, id, "a").1["error"]["code"], "worker_execution_unavailable");
        assert_eq!(server.ask("POST", &format!("/workers/{id}/stop"), "")["ack"]["status"], "stopped");
    }
}

#[test]
fn ends_by_itself() {
    let server = start(&[]);
    for (command, run_state, texts) in [
        ("exit 0", "stopped", &["{\"event\":\"shutdown\"}"][..]),
        ("exit 3", "errored", &["the worker's process exited with code 3", "{\"event\":\"shutdown\"}"]),
        ("leave well", "stopped", &["text_delta", "text_done", "{\"event\":\"shutdown\"}"]),
    ] {
        let id = server.create(ASSISTANT);
        let mut socket = server.observe(&id, "");
        assert_eq!(input(&server, &id, command).0, 200);
        eventually("it has ended", || server.worker(&id)["status"] == "stopped");
        assert_eq!(server.worker(&id)["execution"]["run_state"], run_state, "{command}");
        socket.text();
        socket.text();
        for text in texts {
            let frame = socket.text();
            assert!(frame.contains(text), "{command}: {frame} instead of {text}");
        }
        let last = server.worker(&id)["last_event_id"].clone();
        let ack = server.ask("POST", &format!("/workers/{id}/cancel"), "")["ack"].clone();
        assert_eq!((&ack["status"], &ack["event_id"]), (&json!("stopped"), &last), "it stays as it was");
    }
    assert_eq!(server.said("worker-00000003").pop().unwrap().1, "well");
}

#[test]
fn stop_and_cancel_reach_grandchildren_and_are_final() {
    let server = start(&["--stop-grace", "100ms"]);
    for (act, status) in [("stop", "stopped"), ("cancel", "cancelled")] {
        let id = server.create(ASSISTANT);
        let child = with_child(&server, &id);
        let path = |act: &str| format!("/workers/{id}/{act}");
        let ack = server.ask("POST", &path(act), "{}")["ack"].clone();
        assert_eq!(ack["status"], status);
        assert!(!runs(&child), "{act}: {child} still runs");
        // Whatever comes later changes nothing.
        for again in ["stop", "cancel", "stop"] {
            assert_eq!(
                server.ask("POST", &path(again), r#"{"reason":"another"}"#)["ack"],
                ack,
                "{act}, {again}"
            );
        }
        let execution = server.worker(&id)["execution"].clone();
        assert_eq!(execution["run_state"], "stopped");
        assert_eq!(execution["last_result"]["operation"], act);
        let refused = input(&server, &id, "say a");
        assert_eq!((refused.0, &refused.1["error"]["code"]), (400, &json!("invalid_request")));
    }
}

#[test]
fn stopping_comes_in_steps() {
    // Says which signals it gets; only SIGKILL ends it. The plain lines become its last words.
    let script = r#"trap "echo INT" INT; trap "echo TERM" TERM; echo up; while :; do sleep 0.05; done"#;
    let server = start_running(&format!("sh -c '{script}'"), &["--stop-grace", "300ms"]);
    for (act, signals) in [("stop", "up\nTERM"), ("cancel", "up\nINT\nTERM")] {
        let id = server.create(ASSISTANT);
        let mut socket = server.observe(&id, "?cursor=wo_0000000000000000");
        while !socket.text().contains(r#""text":"up""#) {}
        server.ask("POST", &format!("/workers/{id}/{act}"), "");
        assert_eq!(server.said(&id), [("assistant".to_owned(), signals.to_owned())], "{act}");
    }
}

#[test]
fn many_stops_at_once_are_one() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let path = format!("/workers/{id}/stop");
    let acks: Vec<Value> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| server.ask("POST", &path, "")["ack"].clone())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(acks.iter().all(|ack| *ack == acks[0]), "{acks:?}");
    assert_eq!(acks[0]["event_id"], 3);
}

#[test]
fn sigterm_to_us_leaves_no_process_of_a_worker() {
    let mut server = start(&["--stop-grace", "100ms"]);
    let mut children = Vec::new();
    for _ in 0..4 {
        let id = server.create(ASSISTANT);
        children.push(with_child(&server, &id));
    }
    let mut socket = server.observe("worker-00000002", "");
    socket.text();
    assert_eq!(server.terminate(), Some(0));
    for child in children {
        assert!(!runs(&child), "{child} still runs");
    }
    // Its observer saw the end of it, and then an orderly one.
    assert!(socket.text().contains(r#""payload":{"event":"shutdown"}"#));
    assert_eq!(socket.frame(), binary::websocket::Frame::Close(1000));
}

#[test]
fn a_second_sigterm_ends_workers_at_once() {
    let script = r#"trap "" INT TERM; sleep 1000 & echo $$ $!; while :; do sleep 1; done"#;
    let mut server = start_running(&format!("sh -c '{script}'"), &["--stop-grace", "1000s"]);
    let id = server.create(ASSISTANT);
    let mut socket = server.observe(&id, "?cursor=wo_0000000000000000");
    let pids = loop {
        let payload = socket.json()["envelope"]["payload"].clone();
        if payload["event"] == "text_delta" {
            break payload["data"]["text"].as_str().unwrap().to_owned();
        }
    };
    let us = nix::unistd::Pid::from_raw(server.pid());
    nix::sys::signal::kill(us, nix::sys::signal::Signal::SIGTERM).unwrap();
    eventually("it has heard", || server.log.lock().unwrap().contains("ending: told to"));
    assert!(pids.split(' ').all(runs), "they ignore the first");
    nix::sys::signal::kill(us, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(server.wait(), Some(1));
    eventually("they are gone", || !pids.split(' ').any(runs));
}

#[test]
fn what_a_worker_leaves_behind_ends_with_it() {
    let script =
        r#"trap "exit 0" TERM; (trap "" TERM INT HUP; while :; do sleep 1; done) & echo $!; read -r line"#;
    let server = start_running(&format!("sh -c '{script}'"), &[]);
    let id = server.create(ASSISTANT);
    let mut socket = server.observe(&id, "?cursor=wo_0000000000000000");
    let child = loop {
        let payload = socket.json()["envelope"]["payload"].clone();
        if payload["event"] == "text_delta" {
            break payload["data"]["text"].as_str().unwrap().to_owned();
        }
    };
    assert!(runs(&child));
    // It ends by itself as soon as it is told something; what it started would hold its pipes for ever.
    assert_eq!(input(&server, &id, "go").0, 200);
    eventually("it has ended", || server.worker(&id)["status"] == "stopped");
    eventually("its child, too", || !runs(&child));
}

#[test]
fn two_inputs_at_once_are_one_and_a_refusal() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    for round in 0..20 {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let say = || input(&server, &id, "silent").0;
            let all: Vec<_> = (0..4).map(|_| scope.spawn(say)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let accepted = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(accepted, usize::from(round == 0), "{statuses:?}");
    }
    assert_eq!(server.said(&id).len(), 1);
}

#[test]
fn the_admin_role_alone_lets_somebody_in() {
    let worker = format!("runtime_default={}", fixture_worker());
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let flags = ["--worker", &worker, "--state-dir", state, "--trust-identity-header"];
    let server = Server::start(IDLE, unused_port(), &flags);
    // A token was made, as callers can run programs.
    let token = std::fs::read_to_string(format!("{state}/token")).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(server.v1("GET", "/runtime", &bearer, "").json()["runtime"]["backend"], "fs_store");
    assert_eq!(server.v1("GET", "/runtime", "", "").status, 401);
    let writer = format!("{bearer}x-verified-user-data: {{\"readOnly\":true}}\r\n");
    assert_eq!(server.v1("GET", "/runtime", &writer, "").status, 403);
}
