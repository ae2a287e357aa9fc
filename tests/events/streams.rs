//! The state and its three streams, as clients see them.

use crate::binary::sse::{Known, Listener};
use crate::binary::{IDLE, Reserved, Response, Server, connect, eventually, unused_port};
use crate::{binary, common};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Whoever carries this is an admin where the header is trusted.
const ADMIN: &str = "X-Verified-User-Data: {\"role\":\"admin\"}\r\n";

fn server(flags: &[&str]) -> Server {
    let server = Server::start(IDLE, unused_port(), &[&["--trust-identity-header"], flags].concat());
    // What the app's start is told with has been told.
    eventually("the app runs", || state(&server)["server"]["pid"].is_u64());
    server
}

fn listen(server: &Server, path: &str) -> Listener {
    Listener::new(server.address, &format!("/_frag{path}"), "")
}

fn resume(server: &Server, path: &str, after: impl std::fmt::Display) -> Listener {
    Listener::new(server.address, &format!("/_frag{path}"), &format!("Last-Event-ID: {after}\r\n"))
}

fn dispatch(server: &Server, action: Value) -> Response {
    server.send("POST", "/_frag/dispatch", ADMIN, json!({"action": action}).to_string().as_bytes())
}

fn note(server: &Server, text: &str) {
    let answer = dispatch(server, json!({"type": "NOTE", "payload": {"text": text}}));
    assert_eq!((answer.status, answer.body_text()), (200, "{\"dispatched\":true}".to_owned()));
}

fn state(server: &Server) -> Value {
    server.get("/_frag/state", "").json()
}

/// Follows until what the client knows is the state.
fn catch_up(server: &Server, listener: &mut Listener, known: &mut Known) {
    let wanted = state(server);
    while Value::Object(known.0.clone()) != wanted {
        known.take(&listener.next());
    }
}

#[test]
fn streams_begin_as_clients_expect() {
    let server = server(&["--control", "127.0.0.1:0"]);
    for path in ["/events", "/stream/state"] {
        let mut listener = listen(&server, path);
        for field in
            ["content-type: text/event-stream", "cache-control: no-cache", "transfer-encoding: chunked"]
        {
            assert!(listener.head.to_lowercase().contains(field), "{field}: {}", listener.head);
        }
        let initial = listener.next();
        assert!(initial.text.starts_with("{\"type\":\"state.initial\",\"slices\":{\"server\":{"));
        let slices: Vec<String> = initial.data["slices"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(slices, ["agent", "artifacts", "execution", "hitl", "server", "workers"]);
        let mut known = Known::default();
        known.take(&initial);
        note(&server, "x");
        catch_up(&server, &mut listener, &mut known);
    }
    let mut actions = listen(&server, "/stream/actions");
    note(&server, "first");
    assert_eq!(actions.next().data["action"]["payload"], json!({"text": "first"}), "nothing before it");
    // The same at the root of the control listener.
    let mut listener = Listener::new(server.control.unwrap(), "/stream/state", "");
    assert_eq!(listener.next().name, "state.initial");
}

#[test]
fn the_head_alone_opens_no_stream() {
    let answer = server(&[]).send("HEAD", "/_frag/events", "", b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/event-stream"));
}

#[test]
fn every_change_reaches_every_follower_of_the_state() {
    let server = server(&[]);
    let mut followers: Vec<_> =
        ["/events", "/stream/state"].iter().map(|path| (listen(&server, path), Known::default())).collect();
    for n in 0..60 {
        note(&server, &"x".repeat(n % 7));
        if n % 5 == 0 {
            let path = format!("/_frag/upload/f{n}");
            assert_eq!(server.send("PUT", &path, "", b"x").status, 200);
        }
        if n % 20 == 0 {
            followers.iter_mut().for_each(|(listener, known)| catch_up(&server, listener, known));
        }
    }
    followers.iter_mut().for_each(|(listener, known)| catch_up(&server, listener, known));
    assert_eq!(state(&server)["server"]["uploads"], 12);
}

#[test]
fn the_life_of_the_app_is_told_as_actions() {
    let port = Reserved::new().port;
    let command = format!("{} listen {port}", common::fixture());
    let flags = ["--trust-identity-header", "--interrupt-signal", "WINCH"];
    let server = Server::start(&command, port, &flags);
    let mut events = listen(&server, "/events");
    let mut known = Known::default();
    assert_eq!(server.get("/_frag/await", "").status, 200);
    let mut actions = listen(&server, "/stream/actions");
    let kinds = |events: Vec<binary::sse::Event>| -> Vec<String> {
        events.iter().map(|e| e.data["action"]["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(server.send("POST", "/_frag/restart?wait=ready", "", b"").status, 200);
    actions.until_action("SERVER_RESTART");
    let seen = kinds(actions.until_action("SERVER_READY"));
    let in_order = ["SERVER_DRAINING", "SERVER_STOPPING", "SERVER_EXITED", "SERVER_STARTED"];
    assert_eq!(seen[..4], in_order);
    assert_eq!(server.send("PUT", "/_frag/upload/a%20b", "", b"abc").status, 200);
    let upload = actions.next();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(upload.data["action"]["type"], "FILE_UPLOADED");
    assert_eq!(upload.data["action"]["payload"], json!({"path": "a b", "bytes": 3, "sha256": sha256}));
    assert_eq!(server.send("POST", "/_frag/interrupt", "", b"").status, 200);
    assert_eq!(actions.next().data["action"]["type"], "SERVER_INTERRUPT");
    let answer = dispatch(&server, json!({"type": "SERVER_RESTART"}));
    assert_eq!(answer.status, 200);
    let seen = kinds(actions.until_action("SERVER_STARTED"));
    assert_eq!(seen[0], "SERVER_RESTART");
    assert_eq!(dispatch(&server, json!({"type": "SERVER_INTERRUPT"})).status, 200);
    actions.until_action("SERVER_INTERRUPT");
    // A crash.
    let pid = state(&server)["server"]["pid"].as_i64().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let seen = actions.until_action("SERVER_STARTED");
    let exited = seen.iter().find(|e| e.data["action"]["type"] == "SERVER_EXITED").unwrap();
    let payload = &exited.data["action"]["payload"];
    assert_eq!(payload["exit"], json!({"code": null, "signal": 9}));
    assert_eq!((&payload["status"], &payload["error"]), (&json!("failed"), &json!("killed by SIGKILL")));
    assert_eq!(exited.data["executionId"], payload["executionId"]);
    assert!(kinds(seen).contains(&"SERVER_BACKOFF".to_owned()));
    assert_eq!(server.get("/_frag/await", "").status, 200);
    catch_up(&server, &mut events, &mut known);
    let now = &state(&server)["server"];
    assert_eq!((&now["state"], &now["restarts"], &now["ready"]), (&json!("ready"), &json!(3), &json!(true)));
}

#[test]
fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let server = server(&[]);
    let mut actions = listen(&server, "/stream/actions");
    let mut last = 0;
    for round in 0..10 {
        for n in 0..10 {
            note(&server, &format!("{round}.{n}"));
        }
        for n in 0..5 + round % 5 {
            let event = actions.next();
            let wanted = if round == 0 { format!("0.{n}") } else { event.text.clone() };
            assert!(event.text.contains(&wanted) && event.id > last);
            last = event.id;
        }
        drop(actions);
        actions = resume(&server, "/stream/actions", last);
    }
    note(&server, "end");
    let rest = actions.until(|event| event.text.contains("\"end\""));
    let texts: Vec<&str> =
        rest.iter().map(|e| e.data["action"]["payload"]["text"].as_str().unwrap()).collect();
    // 70 of 100 were taken in the ten rounds.
    let all: Vec<String> = (0..100).map(|n| format!("{}.{}", n / 10, n % 10)).collect();
    assert_eq!(texts[..texts.len() - 1], all[70..]);
}

#[test]
fn a_gap_is_answered_with_the_state() {
    let server = server(&["--event-ring", "8"]);
    let mut first = listen(&server, "/stream/actions");
    note(&server, "0");
    let id = first.next().id;
    drop(first);
    for n in 0..8 {
        note(&server, &n.to_string());
    }
    let mut back = resume(&server, "/stream/actions", id);
    assert_eq!(back.next().data["action"]["payload"]["text"], "0", "the ring just covers it");
    note(&server, "8");
    for after in [id.to_string(), "0".to_owned(), "x".to_owned(), "-1".to_owned(), (id + 1000).to_string()] {
        for path in ["/stream/actions", "/events", "/stream/state"] {
            let mut back = resume(&server, path, &after);
            let mut known = Known::default();
            let initial = back.next();
            assert_eq!(initial.name, "state.initial", "{path} after {after}");
            known.take(&initial);
            assert_eq!(known.0["agent"], state(&server)["agent"]);
        }
    }
}

#[test]
fn ids_of_an_earlier_life_are_none_of_this_one() {
    let first = server(&[]);
    let mut listener = listen(&first, "/events");
    note(&first, "x");
    let id = listener.until(|event| event.name == "state.update")[1].id;
    drop(first);
    let second = server(&[]);
    let mut keeps_recording = listen(&second, "/events");
    keeps_recording.next();
    for _ in 0..5 {
        note(&second, "x");
    }
    assert_eq!(resume(&second, "/events", id).next().name, "state.initial");
}

#[test]
fn heartbeats_keep_the_place_of_the_last_event() {
    let server = server(&["--heartbeat", "50ms"]);
    for path in ["/events", "/stream/state", "/stream/actions"] {
        let mut listener = listen(&server, path);
        let last = if path == "/stream/actions" { None } else { Some(listener.next().id) };
        let beat = listener.next_within(binary::PATIENCE).unwrap();
        assert_eq!(beat.name, "heartbeat");
        assert!(beat.text.starts_with("{\"type\":\"heartbeat\",\"timestamp\":"));
        assert!(last.is_none_or(|last| beat.id >= last));
        drop(listener);
        let mut back = resume(&server, path, beat.id);
        note(&server, path);
        assert!(back.next().text.contains(path), "no state before it: {path} resumes");
    }
}

#[test]
fn only_the_chosen_slices_are_streamed() {
    let server = server(&["--stream-slices", "server", "--stream-slices", "hitl"]);
    let mut events = listen(&server, "/stream/state");
    let initial = events.next();
    assert_eq!(initial.data["slices"].as_object().unwrap().len(), 2);
    note(&server, "x");
    assert_eq!(server.send("PUT", "/_frag/upload/f", "", b"x").status, 200);
    assert_eq!(events.next().data["slice"], "server");
    let keys = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(state(&server)).len(), 6, "the state is whole");
    assert_eq!(keys(server.get("/_frag/state?strict=true", "").json()), ["hitl", "server"]);
    let manifest = server.get("/_frag/.well-known/manifest.json", "").json();
    assert_eq!(manifest["state"]["slices"], json!(["server", "hitl"]));
}

#[test]
fn slices_have_their_own_addresses() {
    let server = server(&[]);
    for slice in ["server", "execution", "agent", "hitl", "workers", "artifacts"] {
        let answer = server.get(&format!("/_frag/state/{slice}"), "");
        assert_eq!((answer.status, answer.field("content-type").as_deref()), (200, Some("application/json")));
        assert_eq!(answer.json(), state(&server)[slice], "{slice}");
    }
    for (name, shown) in [("nothing", "nothing"), ("Server", "Server"), ("a%2F%22b", "a/\"b"), ("..", "..")] {
        let answer = server.get(&format!("/_frag/state/{name}"), "");
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json(), json!({"error": format!("Slice not found: {shown}")}));
    }
    let answer = server.get("/_frag/state?strict=perhaps", "");
    assert_eq!((answer.status, answer.json()), (400, json!({"error": "Invalid query parameter: strict"})));
}

#[test]
fn dispatch_takes_what_a_contract_accepts() {
    let server = server(&[]);
    let post = |body: &str| {
        let answer = server.send("POST", "/_frag/dispatch", ADMIN, body.as_bytes());
        (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let missing = "Missing required field: action.type";
    let bad = "Action type not accepted: ";
    for (body, status, error) in [
        ("", 400, "Invalid JSON body".to_owned()),
        ("{", 400, "Invalid JSON body".to_owned()),
        ("[]", 400, missing.to_owned()),
        ("null", 400, missing.to_owned()),
        ("{}", 400, missing.to_owned()),
        (r#"{"action":"NOTE"}"#, 400, missing.to_owned()),
        (r#"{"action":{}}"#, 400, missing.to_owned()),
        (r#"{"action":{"type":7}}"#, 400, missing.to_owned()),
        (r#"{"action":{"type":""}}"#, 400, missing.to_owned()),
        (r#"{"action":{"type":"MINE"}}"#, 400, format!("{bad}MINE")),
        (
            r#"{"action":{"type":"HITL_APPROVAL_GRANTED","payload":{"id":"x"}}}"#,
            400,
            format!("{bad}HITL_APPROVAL_GRANTED"),
        ),
        (
            r#"{"action":{"type":"RUNTIME_EXECUTION_COMPLETED"}}"#,
            400,
            format!("{bad}RUNTIME_EXECUTION_COMPLETED"),
        ),
        (r#"{"action":{"type":"SERVER_READY"}}"#, 400, format!("{bad}SERVER_READY")),
        (r#"{"action":{"type":"note"}}"#, 400, format!("{bad}note")),
        (r#"{"action":{"type":"NOTE","more":1},"unknown":[]}"#, 200, String::new()),
    ] {
        assert_eq!(post(body), (status, error), "{body}");
    }
    let messages = state(&server)["agent"]["messages"].as_array().unwrap().len();
    assert_eq!(messages, 1, "the refused ones changed nothing");
    let deep = format!(r#"{{"action":{{"type":"NOTE","payload":{}}}}}"#, "[".repeat(5000));
    assert_eq!(post(&deep).0, 400);
    let large = format!(r#"{{"action":{{"type":"NOTE","payload":"{}"}}}}"#, "x".repeat(1 << 20));
    assert_eq!(post(&large), (413, "the request body is too large".to_owned()));
}

#[test]
fn an_operators_contracts_widen_what_dispatch_takes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("contracts.json");
    let contracts = json!({"contracts": [{"pluginKey": "mine", "stateKey": "agent", "accepts": ["MINE"],
        "emits": [{"type": "SHOWN", "description": "d"}, {"type": "HIDDEN", "visibility": "private"}]}]});
    std::fs::write(&file, contracts.to_string()).unwrap();
    let server = server(&["--contracts", file.to_str().unwrap()]);
    assert_eq!(dispatch(&server, json!({"type": "MINE", "payload": {"n": 1}})).status, 200);
    assert_eq!(state(&server)["agent"]["messages"][0]["payload"], json!({"n": 1}));
    assert_eq!(dispatch(&server, json!({"type": "SHOWN"})).status, 400, "it comes from there, not to there");
    let answer = server.get("/_frag/contracts/actions.public.json", "").json();
    assert_eq!(answer["schemaVersion"], "1.0.0");
    let all = answer["contracts"].as_array().unwrap();
    let mine = all.iter().find(|contract| contract["pluginKey"] == "mine").unwrap();
    let emitted = json!([{"type": "SHOWN", "description": "d", "visibility": "public", "pattern": "event"}]);
    assert_eq!((&mine["emits"], &mine["accepts"]), (&emitted, &json!(["MINE"])));
    let accepted: Vec<&Value> = all.iter().flat_map(|c| c["accepts"].as_array().unwrap()).collect();
    assert_eq!(accepted, ["SERVER_RESTART", "SERVER_INTERRUPT", "NOTE", "MINE"]);
}

#[test]
fn the_manifest_says_what_is_where() {
    let tools = ["--capability-tool", "read", "--capability-tool", "write"];
    let named = ["--agent-id", "a-1", "--agent-name", "Ada", "--agent-version", "2.0"];
    let server = server(&[&tools[..], &named, &["--control", "127.0.0.1:0"]].concat());
    let answer = server.get("/_frag/.well-known/manifest.json", "");
    assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.field("cache-control").as_deref(), Some("public, max-age=300"));
    let text = answer.body_text();
    let at = |key: &str| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}"));
    let keys = ["manifestVersion", "identity", "endpoints", "state", "actions", "capabilities"];
    assert!(keys.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{text}");
    let manifest = answer.json();
    assert_eq!(manifest["identity"], json!({"agentId": "a-1", "name": "Ada", "version": "2.0"}));
    assert_eq!(manifest["capabilities"]["tools"], json!(["read", "write"]));
    assert_eq!(manifest["capabilities"]["features"], json!(["streaming", "history"]));
    assert_eq!(manifest["endpoints"]["control"]["continue"], "/_frag/runs/:id/continue");
    for (path, address) in [
        (manifest["endpoints"]["streams"]["events"].as_str().unwrap(), server.address),
        (manifest["endpoints"]["state"].as_str().unwrap(), server.address),
    ] {
        assert_eq!(binary::send(address, "HEAD", path, "", b"").status, 200, "{path}");
    }
    let control = server.control.unwrap();
    let at_root = binary::send(control, "GET", "/.well-known/manifest.json", "", b"").json();
    assert_eq!(at_root["endpoints"]["invoke"], "/invoke");
    assert_eq!(at_root["actions"]["publicContractsRef"], "/contracts/actions.public.json");
    assert_eq!(binary::send(control, "GET", "/contracts/actions.public.json", "", b"").status, 200);
    let state = manifest["state"]["schema"]["server"]["properties"]["ready"].clone();
    assert_eq!(state, json!({"type": "boolean"}));
}

#[test]
fn a_manifest_that_asks_for_a_credential_is_for_no_shared_cache() {
    let cached = |flags: &[&str], token: Option<&str>, fields: &str| {
        let server = Server::start_with(IDLE, unused_port(), flags, |binary| {
            binary.envs(token.map(|token| ("FRAG_TOKEN", token)));
        });
        let answer = server.get("/_frag/.well-known/manifest.json", fields);
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        answer.field("cache-control").unwrap()
    };
    assert_eq!(cached(&[], Some("t"), "Authorization: Bearer t\r\n"), "private, max-age=300");
    assert_eq!(cached(&["--require-user"], None, "X-Verified-User-Data: {}\r\n"), "private, max-age=300");
    assert_eq!(cached(&[], None, ""), "public, max-age=300");
}

#[test]
fn one_who_does_not_read_delays_nobody_and_is_dropped() {
    // Large events, so that what the kernel buffers is soon full.
    let server = server(&["--min-rate", "1048576"]);
    let mut stalled = connect(server.address);
    write!(stalled, "GET /_frag/stream/actions HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reader = listen(&server, "/stream/actions");
    let payload = "x".repeat(60_000);
    for n in 0..200 {
        let action = json!({"type": "NOTE", "payload": {"n": n, "more": payload}});
        let began = Instant::now();
        assert_eq!(dispatch(&server, action).status, 200);
        assert_eq!(reader.next().data["action"]["payload"]["n"], n);
        assert!(began.elapsed() < Duration::from_secs(5), "delayed");
    }
    // It is cut although it never read a byte: more than the kernel holds is not to come.
    let (mut got, mut piece) = (0, vec![0; 1 << 16]);
    eventually("it is dropped", || binary::peer_closed(&stalled));
    while let Ok(n) = stalled.read(&mut piece) {
        if n == 0 {
            break;
        }
        got += n;
    }
    assert!(got < 200 * 60_000, "{got} bytes came");
}

#[test]
fn a_stream_over_the_bound_is_refused_in_this_contracts_words() {
    let server = server(&["--max-streams", "2"]);
    let _held = [listen(&server, "/events"), listen(&server, "/stream/state")];
    let answer = server.get("/_frag/stream/actions", "");
    assert_eq!((answer.status, answer.json()), (503, json!({"error": "too many streams are open"})));
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn streams_end_properly_with_the_server() {
    let mut server = server(&[]);
    let mut listeners: Vec<Listener> =
        ["/events", "/stream/state", "/stream/actions"].iter().map(|path| listen(&server, path)).collect();
    note(&server, "x");
    assert_eq!(server.terminate(), Some(0));
    for listener in &mut listeners {
        assert!(listener.end(), "the end of the body came");
    }
}

#[test]
fn a_listener_that_leaves_is_noticed() {
    let server = server(&[]);
    // Of these threads some may wait for requests, and become the listeners' own.
    let listeners: Vec<Listener> = (0..40).map(|_| listen(&server, "/events")).collect();
    let many = binary::tunnel::threads(&server);
    assert!(many >= 40, "{many}");
    drop(listeners);
    eventually("all are gone", || binary::tunnel::threads(&server) <= many - 20);
}

#[test]
fn what_is_no_route_is_said_in_this_contracts_words() {
    let server = server(&[]);
    for path in
        ["/events/", "/events/ag-ui", "/stream", "/state/", "/runs/a/b", "/approvals/a/b", "/contracts/x"]
    {
        let answer = server.get(&format!("/_frag{path}"), "");
        assert_eq!((answer.status, answer.json()), (404, json!({"error": "Not found"})), "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/events", "GET, HEAD"),
        ("DELETE", "/state", "GET, HEAD"),
        ("GET", "/invoke", "POST"),
        ("PUT", "/approvals/x", "GET, HEAD, POST"),
    ] {
        let answer = server.send(method, &format!("/_frag{path}"), ADMIN, b"");
        assert_eq!((answer.status, answer.json()), (405, json!({"error": "Method not allowed"})), "{path}");
        assert_eq!(answer.field("allow").as_deref(), Some(allow));
    }
    let big = Duration::from_secs(1);
    assert!(listen(&server, "/stream/actions").next_within(big / 10).is_none());
}
