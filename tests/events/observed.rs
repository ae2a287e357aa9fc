//! What exec, workers and artifacts do is seen in the state, the events and the runs.
#![cfg(all(feature = "runs", feature = "workers", feature = "artifacts"))]

use crate::binary;
use crate::binary::eventually;
use crate::binary::exec::{ADMIN, run, sh, with};
use crate::binary::sse::Listener;
use crate::binary::workers::{ASSISTANT, Workers, fixture_worker, start};
use serde_json::{Value, json};

/// A server that does everything; one token is for all.
fn server() -> binary::Server {
    start(&["--exec", "any", "--worker", &format!("builtin:x={}", fixture_worker())])
}

fn get(server: &binary::Server, path: &str) -> Value {
    let answer = server.get(&format!("/_frag{path}"), ADMIN);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body_text());
    answer.json()
}

#[test]
fn exec_sessions_are_runs() {
    let server = server();
    let mut actions = Listener::new(server.address, "/_frag/stream/actions", ADMIN);
    for (script, more, status) in [
        ("exit 0", json!({}), "completed"),
        ("exit 3", json!({}), "failed"),
        ("exec sleep 1000", json!({"timeout_secs": 1}), "failed"),
    ] {
        let seen = run(&server, &with(sh(script), more));
        let exited = actions.until_action("EXEC_EXITED").pop().unwrap();
        let id = exited.data["action"]["payload"]["executionId"].as_str().unwrap().to_owned();
        eventually("the run has ended", || get(&server, &format!("/runs/{id}"))["status"] != "running");
        let record = get(&server, &format!("/runs/{id}"));
        assert_eq!((&record["status"], &record["kind"]), (&json!(status), &json!("exec")), "{script}");
        let first = &record["actions"][0];
        assert_eq!((&first["type"], &first["payload"]["program"]), (&json!("EXEC_STARTED"), &json!("sh")));
        assert!(!record.to_string().contains(script), "its arguments are nobody's business");
        let last = &record["actions"][1]["payload"];
        assert_eq!((&last["code"], &last["status"]), (&json!(seen.exit), &json!(status)));
        let cancel = server.send("POST", &format!("/_frag/runs/{id}/cancel"), ADMIN, b"");
        assert_eq!(cancel.status, 409, "{}", cancel.body_text());
    }
    assert_eq!(get(&server, "/runs?kind=exec")["runs"].as_array().unwrap().len(), 3);
}

#[test]
fn workers_and_artifacts_are_in_the_state() {
    let server = server();
    let mut actions = Listener::new(server.address, "/_frag/stream/actions", ADMIN);
    let answer = server.v1("POST", "/workers", binary::workers::JSON, ASSISTANT);
    let id = answer.json()["worker"]["worker_id"].as_str().unwrap().to_owned();
    actions.until_action("WORKER_CREATED");
    let state = get(&server, "/state/workers");
    assert_eq!((&state["active"], &state["workers"][0]["worker_id"]), (&json!(1), &json!(id)));
    server.v1("POST", &format!("/workers/{id}/stop"), binary::workers::AUTH, "");
    actions.until_action("WORKER_STOPPED");
    eventually("it is counted", || get(&server, "/state/workers")["stopped"] == 1);
    assert_eq!(get(&server, "/state/workers")["active"], 0);

    let made = server.send("POST", "/_frag/api/artifacts", ADMIN, br#"{"payload":"four"}"#);
    assert_eq!(made.status, 201, "{}", made.body_text());
    actions.until_action("ARTIFACT_COUNTED");
    eventually("it is counted", || get(&server, "/state/artifacts") == json!({"rows": 1, "bytes": 4}));
}
