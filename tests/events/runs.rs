//! The agent's runs, and those of the wrapped server.

use crate::binary::agent::{
    TOKEN, ended, error, get, invoke, post, run, said, texts, whole, with_agent, wrote,
};
use crate::binary::sse::Listener;
use crate::binary::{IDLE, Server, eventually, unused_port};
use crate::{binary, common};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn kinds(run: &Value) -> Vec<&str> {
    run["actions"].as_array().unwrap().iter().map(|action| action["type"].as_str().unwrap()).collect()
}

fn list(server: &Server, query: &str) -> Vec<Value> {
    let answer = get(server, &format!("/runs{query}"));
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    answer.json()["runs"].as_array().unwrap().clone()
}

#[test]
fn a_run_begins_works_and_ends() {
    let server = with_agent(&[]);
    let mut events = Listener::new(server.address, "/_frag/events", TOKEN);
    let id = invoke(&server, "say-ok");
    let run = ended(&server, &id);
    assert_eq!(
        (&run["status"], &run["kind"], &run["executionId"]),
        (&json!("completed"), &json!("agent"), &json!(id))
    );
    assert!(run["endTime"].as_u64() >= run["startTime"].as_u64());
    assert_eq!(kinds(&run), ["RUNTIME_EXECUTION_STARTED", "AGENT_OUTPUT", "RUNTIME_EXECUTION_COMPLETED"]);
    let line = json!({"type": "invoke", "input": "say-ok", "executionId": id});
    assert_eq!(
        serde_json::from_str::<Value>(&texts(&run)[0]["told ".len()..]).unwrap(),
        line,
        "what it was told"
    );
    let actions = run["actions"].as_array().unwrap();
    assert!(actions.iter().enumerate().all(|(n, action)| action["seq"] == n));
    assert_eq!((&run["actionCount"], run.get("digest"), run.get("error")), (&json!(3), None, None));
    let statuses: Vec<String> = events
        .until(|event| event.data["status"] == "completed")
        .iter()
        .filter(|event| event.name == "execution.status")
        .map(|event| event.text[..event.text.find(",\"timestamp\"").unwrap()].to_owned())
        .collect();
    let status = |word: &str| {
        format!("{{\"type\":\"execution.status\",\"status\":\"{word}\",\"executionId\":\"{id}\"")
    };
    assert_eq!(statuses, [status("started"), status("completed")]);
    let state = get(&server, "/state/execution").json();
    assert_eq!((&state["status"], &state["executionId"]), (&json!("completed"), &json!(id)));
}

#[test]
fn a_run_fails_with_its_process() {
    let server = with_agent(&[]);
    let run = whole(&server, "say-fail");
    assert_eq!((&run["status"], &run["error"]), (&json!("failed"), &json!("exited with code 3")));
    assert_eq!(said(&run, "AGENT_STDERR"), [json!({"text": "why"})]);
    let run = whole(&server, "say-kill");
    assert_eq!((&run["status"], &run["error"]), (&json!("failed"), &json!("killed by SIGKILL")));
    let mut events = Listener::new(server.address, "/_frag/stream/actions", TOKEN);
    whole(&server, "say-fail");
    let seen = events.until(|event| event.data["status"] == "failed");
    assert_eq!(seen.last().unwrap().data["error"], "exited with code 3");
    assert!(!seen.iter().any(|event| event.text.contains("AGENT_STDERR")), "it is for the log alone");
}

#[test]
fn an_agent_that_cannot_start_is_a_failed_run() {
    let server = Server::start_with(IDLE, unused_port(), &["--agent", "/nowhere/agent"], |binary| {
        binary.env("FRAG_TOKEN", "secret");
    });
    let answer = post(&server, "/invoke", "{\"input\":\"x\"}");
    assert_eq!(error(&answer), (500, "The agent could not be started".to_owned()));
    let id = answer.json()["executionId"].as_str().unwrap().to_owned();
    assert_eq!(ended(&server, &id)["status"], "failed");
    assert_eq!(get(&server, "/state/execution").json()["status"], "failed");
    let again = post(&server, "/invoke", "{\"input\":\"x\"}");
    assert_eq!(again.status, 500, "and the next may be tried");
}

#[test]
fn without_an_agent_nothing_is_invoked() {
    let server = Server::start(IDLE, unused_port(), &["--trust-identity-header"]);
    let admin = "X-Verified-User-Data: {\"role\":\"admin\"}\r\n";
    let answer = server.send("POST", "/_frag/invoke", admin, b"{\"input\":\"x\"}");
    assert_eq!(error(&answer), (501, "No agent configured".to_owned()));
    let answer = server.send("POST", "/_frag/abort", admin, b"");
    assert_eq!((answer.status, answer.json()), (200, json!({"aborted": false})));
    let answer = server.send("POST", "/_frag/runs/x/cancel", admin, b"");
    assert_eq!(error(&answer), (404, "Run not found: x".to_owned()));
}

#[test]
fn one_at_a_time() {
    let server = with_agent(&[]);
    let id = invoke(&server, "say-wait");
    let busy = post(&server, "/invoke", "{\"input\":\"say-ok\"}");
    assert_eq!(busy.status, 409);
    assert_eq!(busy.json(), json!({"error": "Execution already in progress", "executionId": id}));
    assert_eq!(post(&server, &format!("/runs/{id}/continue"), "").status, 200);
    ended(&server, &id);
    whole(&server, "say-ok");
    // Whoever hears that it has ended may invoke again at once.
    let mut events = Listener::new(server.address, "/_frag/events", TOKEN);
    for _ in 0..10 {
        let id = invoke(&server, "say-ok");
        events.until(|event| event.data["executionId"] == id.as_str() && event.data["status"] == "completed");
    }
}

#[test]
fn bad_invocations_are_refused() {
    let server = with_agent(&[]);
    let missing = (400, "Missing required field: input".to_owned());
    let invalid = (400, "Invalid JSON body".to_owned());
    for (body, wanted) in [
        ("", &invalid),
        ("{", &invalid),
        ("{\"input\":\"x\"} x", &invalid),
        ("\u{fffd}", &invalid),
        ("{\"input\":\"\\ud800\"}", &invalid),
        ("{}", &missing),
        ("[]", &missing),
        ("7", &missing),
        ("{\"input\":\"\"}", &missing),
        ("{\"input\":null}", &missing),
        ("{\"input\":[\"x\"]}", &missing),
        ("{\"Input\":\"x\"}", &missing),
    ] {
        assert_eq!(&error(&post(&server, "/invoke", body)), wanted, "{body}");
    }
    let large = format!("{{\"input\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(error(&post(&server, "/invoke", &large)), (413, "the request body is too large".to_owned()));
    let chunked = format!("{TOKEN}Transfer-Encoding: chunked\r\n");
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", large.len(), large);
    let head = format!("POST /_frag/invoke HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{chunked}\r\n");
    let answer = binary::Response::parse(&server.raw(&[head.as_bytes(), body.as_bytes()].concat()), "POST");
    assert_eq!(answer.status, 413, "also without a length");
    assert!(list(&server, "?kind=agent").is_empty(), "none of them was a run");
    let unknown = "{\"input\":\"say-ok\",\"model\":\"x\"}";
    assert_eq!(post(&server, "/invoke", unknown).status, 200, "what we do not know is ignored");
}

#[test]
fn aborting_ends_the_process_and_everything_it_started() {
    let server = with_agent(&["--stop-grace", "200ms"]);
    assert_eq!(post(&server, "/abort", "").json(), json!({"aborted": false}));
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    let began = Instant::now();
    let answer = post(&server, "/abort", "");
    assert_eq!(answer.json(), json!({"aborted": true, "executionId": id}));
    assert!(began.elapsed() >= Duration::from_millis(200), "SIGINT came first");
    let after = run(&server, &id);
    assert_eq!((&after["status"], after.get("error")), (&json!("aborted"), None), "it has ended");
    assert_eq!(kinds(&after).last(), Some(&"RUNTIME_EXECUTION_ABORTED"));
    assert_eq!(post(&server, "/abort", "").json(), json!({"aborted": false}));
    let orphan = texts(&whole(&server, "say-orphan"))[0].strip_prefix("orphan ").unwrap().parse().unwrap();
    eventually("its child is gone", || common::stat(orphan).is_none_or(|(state, _)| state == 'Z'));
}

#[test]
fn a_run_is_cancelled_by_its_id() {
    let server = with_agent(&["--stop-grace", "200ms"]);
    let done = whole(&server, "say-ok")["executionId"].as_str().unwrap().to_owned();
    let id = invoke(&server, "say-wait");
    wrote(&server, &id, "waiting");
    let cancel = |id: &str| post(&server, &format!("/runs/{id}/cancel"), "");
    assert_eq!(error(&cancel("unknown")), (404, "Run not found: unknown".to_owned()));
    assert_eq!(error(&cancel(&done)), (409, "Run is not running: completed".to_owned()));
    let life = list(&server, "?kind=server&status=running")[0]["executionId"].as_str().unwrap().to_owned();
    assert_eq!(error(&cancel(&life)), (409, "Run is not the agent's: server".to_owned()));
    assert_eq!(run(&server, &id)["status"], "running", "none of these touched it");
    let answer = cancel(&id);
    assert_eq!((answer.status, answer.json()), (200, json!({"executionId": id, "status": "aborted"})));
    assert_eq!(error(&cancel(&id)), (409, "Run is not running: aborted".to_owned()));
}

#[test]
fn a_waiting_agent_is_told_to_go_on() {
    let server = with_agent(&[]);
    let go_on = |id: &str, body: &str| post(&server, &format!("/runs/{id}/continue"), body);
    for (body, told) in [
        ("", "told {\"type\":\"continue\"}"),
        (" \n", "told {\"type\":\"continue\"}"),
        ("{\"b\":1.0,\"a\":[]}", "told {\"type\":\"continue\",\"payload\":{\"b\":1,\"a\":[]}}"),
        ("null", "told {\"type\":\"continue\",\"payload\":null}"),
    ] {
        let id = invoke(&server, "say-wait");
        wrote(&server, &id, "waiting");
        assert_eq!(error(&go_on(&id, "{")), (400, "Invalid JSON body".to_owned()));
        let answer = go_on(&id, body);
        assert_eq!((answer.status, answer.json()), (200, json!({"executionId": id, "status": "running"})));
        assert_eq!(texts(&ended(&server, &id)), ["waiting", told]);
        assert_eq!(error(&go_on(&id, body)), (409, "Run is not running: completed".to_owned()));
    }
    assert_eq!(error(&go_on("unknown", "")), (404, "Run not found: unknown".to_owned()));
}

#[test]
fn an_agent_that_does_not_read_is_not_waited_for() {
    let server = with_agent(&["--stop-grace", "100ms"]);
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    let big = json!("x".repeat(100_000)).to_string();
    let mut refused = None;
    for _ in 0..200 {
        let answer = post(&server, &format!("/runs/{id}/continue"), &big);
        if answer.status != 200 {
            refused = Some(error(&answer));
            break;
        }
    }
    assert_eq!(refused, Some((503, "The agent does not read what it is told".to_owned())));
    assert_eq!(post(&server, "/abort", "").json()["aborted"], true);
}

#[test]
fn what_an_agent_prints_becomes_actions_but_not_ours() {
    let server = with_agent(&[]);
    let mut events = Listener::new(server.address, "/_frag/events", TOKEN);
    let mut actions = Listener::new(server.address, "/_frag/stream/actions", TOKEN);
    let run = whole(&server, "say-actions");
    assert_eq!(
        kinds(&run),
        [
            "RUNTIME_EXECUTION_STARTED",
            "MINE",
            "MINE",
            "CUSTOM_EVENT",
            "AGENT_OUTPUT",
            "RUNTIME_EXECUTION_COMPLETED"
        ],
        "without the model's stream"
    );
    assert_eq!(said(&run, "MINE"), [json!({"10": 0, "b": 1.5, "a": [1000]}), json!({"extra": 1})]);
    assert_ne!(run["actions"][2]["timestamp"], 5);
    let seen = events.until(|event| event.data["status"] == "completed");
    let custom = seen.iter().find(|event| event.name == "custom-event").unwrap();
    assert!(custom.text.starts_with("{\"type\":\"custom-event\",\"data\":{\"progress\":50},\"timestamp\":"));
    let seen = actions.until(|event| event.data["status"] == "completed");
    assert!(seen.iter().any(|event| event.data["action"]["type"] == "AGENT_MODEL_STREAM_DELTA"));
    assert!(seen.iter().any(|event| event.name == "custom-event"));
    assert!(
        seen[0].text.starts_with("{\"type\":\"action\",\"action\":{\"type\":\"RUNTIME_EXECUTION_STARTED\",")
    );
    let run = whole(&server, "say-forge");
    assert_eq!(kinds(&run)[1..4], ["AGENT_OUTPUT"; 3]);
    let state = get(&server, "/state").json();
    assert_ne!(state["server"]["state"], "forged");
}

#[test]
fn what_happens_meanwhile_is_noted_in_the_agents_run() {
    let server = with_agent(&[]);
    let id = invoke(&server, "say-wait");
    wrote(&server, &id, "waiting");
    let note = json!({"action": {"type": "NOTE", "payload": {"text": "look"}}}).to_string();
    assert_eq!(post(&server, "/dispatch", &note).status, 200);
    assert_eq!(server.send("PUT", "/_frag/upload/f", TOKEN, b"x").status, 200);
    post(&server, &format!("/runs/{id}/continue"), "");
    let run = ended(&server, &id);
    assert_eq!(said(&run, "NOTE"), [json!({"text": "look"})]);
    assert_eq!(said(&run, "FILE_UPLOADED")[0]["path"], "f");
}

#[test]
fn runs_are_listed_and_filtered() {
    let server = with_agent(&["--history-size", "3"]);
    let ids: Vec<String> = ["say-ok", "say-fail", "say-ok", "say-ok"]
        .iter()
        .map(|input| whole(&server, input)["executionId"].as_str().unwrap().to_owned())
        .collect();
    let agents = list(&server, "?kind=agent");
    let listed: Vec<&str> = agents.iter().map(|run| run["executionId"].as_str().unwrap()).collect();
    assert_eq!(listed, [&ids[3], &ids[2], &ids[1]], "the oldest is forgotten");
    assert!(agents.iter().all(|run| run.get("actions").is_none()));
    assert_eq!(
        error(&get(&server, &format!("/runs/{}", ids[0]))),
        (404, format!("Run not found: {}", ids[0]))
    );
    assert_eq!(list(&server, "?status=failed").len(), 1);
    assert_eq!(list(&server, "?status=running")[0]["kind"], "server");
    assert_eq!(list(&server, "?status=interrupted").len(), 0);
    assert_eq!(list(&server, "").len(), 3, "as many as the history has");
    assert_eq!(list(&server, "?limit=4").len(), 4);
    assert_eq!(list(&server, "?limit=100000&unknown=x").len(), 4);
    for (query, name) in [
        ("?limit=0", "limit"),
        ("?limit=", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=1.5", "limit"),
        ("?limit=x", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?limit=99999999999999999999", "limit"),
        ("?status=done", "status"),
        ("?status=", "status"),
        ("?kind=x", "kind"),
    ] {
        assert_eq!(
            error(&get(&server, &format!("/runs{query}"))),
            (400, format!("Invalid query parameter: {name}")),
            "{query}"
        );
    }
}

#[test]
fn ids_that_are_none_are_no_runs() {
    let server = with_agent(&[]);
    for (raw, shown) in [
        ("..", ".."),
        ("..%2f..%2fetc%2fpasswd", "../../etc/passwd"),
        ("%00", "\0"),
        ("a.jsonl", "a.jsonl"),
        ("%ff", "\u{fffd}"),
        (&"x".repeat(129), &"x".repeat(128)),
    ] {
        let wanted = (404, format!("Run not found: {shown}"));
        assert_eq!(error(&get(&server, &format!("/runs/{raw}"))), wanted, "{raw}");
        assert_eq!(error(&post(&server, &format!("/runs/{raw}/cancel"), "")), wanted, "{raw}");
        assert_eq!(error(&post(&server, &format!("/runs/{raw}/continue"), "")), wanted, "{raw}");
    }
}

#[test]
fn a_talkative_run_is_counted_whole_and_remembered_in_part() {
    let server = with_agent(&[]);
    let run = whole(&server, "say-many");
    assert_eq!((&run["actionCount"], &run["status"]), (&json!(1002), &json!("completed")));
    assert_eq!(texts(&run).len(), 1000);
    let kept = get(&server, "/state/agent").json()["messages"].as_array().unwrap().len();
    assert!((50..=100).contains(&kept), "{kept}");
}

#[test]
fn all_of_an_agents_last_words_are_noted() {
    let server = with_agent(&[]);
    // As many as a pipe holds, and then it is gone.
    let run = whole(&server, "say-last");
    assert_eq!((&run["actionCount"], &run["status"]), (&json!(100_002), &json!("completed")));
}

#[test]
fn the_agent_gets_no_secret_of_ours() {
    let server = with_agent(&["--log-lines", "7"]);
    let run = whole(&server, "say-env");
    let lines = texts(&run);
    assert!(lines.contains(&"OTHER=kept".to_owned()));
    assert!(lines.iter().any(|line| line.starts_with("PORT=")));
    assert!(!lines.iter().any(|line| line.contains("FRAG_") || line.contains("secret")), "{lines:?}");
    let root = server.root().canonicalize().unwrap();
    assert_eq!(lines.last().map(String::as_str), root.to_str());
}

#[test]
fn the_lives_of_the_app_are_runs() {
    let server = with_agent(&["--stop-grace", "1s"]);
    let first = list(&server, "?kind=server")[0].clone();
    assert_eq!((&first["status"], first.get("endTime")), (&json!("running"), None));
    assert_eq!(server.send("POST", "/_frag/restart", TOKEN, b"").status, 200);
    let id = first["executionId"].as_str().unwrap();
    let old = ended(&server, id);
    assert_eq!(old["status"], "aborted", "it was told to end");
    assert_eq!(kinds(&old)[0], "SERVER_STARTED");
    assert_eq!(kinds(&old).last(), Some(&"SERVER_EXITED"));
    assert_eq!(list(&server, "?kind=server").len(), 2);
    let crashing = Server::start("sh -c 'exit 3'", unused_port(), &["--max-restarts", "1"]);
    let runs = || crashing.get("/_frag/runs?kind=server", "").json()["runs"].as_array().unwrap().clone();
    eventually("two lives", || runs().len() == 2 && runs().iter().all(|run| run["status"] == "failed"));
    assert_eq!(runs()[0]["error"], "exited with code 3");
    eventually("given up", || crashing.get("/_frag/state/server", "").json()["state"] == "failed");
}

#[test]
fn our_end_is_the_agents_end() {
    let mut server = with_agent(&["--stop-grace", "100ms"]);
    let mut events = Listener::new(server.address, "/_frag/events", TOKEN);
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    assert_eq!(server.terminate(), Some(0));
    let seen = events.until(|event| event.data["status"] == "aborted");
    assert_eq!(seen.last().unwrap().data["error"], "the server ended");
    assert!(events.end());
}
