//! Tool calls that wait for a decision, and the ways in which they get one.

use crate::binary;
use crate::binary::agent::{
    TOKEN, ended, error, get, invoke, post, run, said, texts, whole, with_agent, wrote,
};
use crate::binary::sse::Listener;
use crate::binary::{Server, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn asking(more: &[&str]) -> Server {
    with_agent(&[&["--require-approval", "write"], more].concat())
}

fn pending(server: &Server) -> Vec<Value> {
    get(server, "/approvals").json()["approvals"].as_array().unwrap().clone()
}

fn wait_pending(server: &Server, count: usize) {
    eventually("approvals are pending", || pending(server).len() == count);
}

fn decide(server: &Server, id: &str, decision: &str) -> (u16, Value) {
    let answer = post(server, &format!("/approvals/{id}"), &json!({"decision": decision}).to_string());
    (answer.status, answer.json())
}

#[test]
fn an_approved_call_goes_on() {
    let server = asking(&[]);
    let mut actions = Listener::new(server.address, "/_frag/stream/actions", TOKEN);
    let id = invoke(&server, "say-ask");
    let answer = get(&server, "/approvals?wait=20").json();
    let approval = &answer["approvals"][0];
    assert_eq!((&approval["id"], &approval["executionId"]), (&json!("one"), &json!(id)));
    assert_eq!((&approval["toolName"], &approval["args"]), (&json!("write"), &json!({"n": 1})));
    assert_eq!(approval["status"], "pending");
    let expires = approval["expiresAt"].as_u64().unwrap() - approval["requestedAt"].as_u64().unwrap();
    assert_eq!(expires, 60_000);
    assert_eq!(get(&server, "/approvals/one").json(), *approval);
    let state = get(&server, "/state/hitl").json();
    assert_eq!((&state["pending"][0]["id"], &state["pending"][0]["args"]), (&json!("one"), &json!({"n": 1})));
    let body = "{\"decision\":\"approve\",\"reason\":\"fine\",\"unknown\":1}";
    let answer = post(&server, "/approvals/one", body);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"id": "one", "decision": "approve", "status": "approved"}))
    );
    let run = ended(&server, &id);
    let told = "got {\"type\":\"HITL_APPROVAL_GRANTED\",\"payload\":{\"id\":\"one\",\"reason\":\"fine\"}}";
    assert_eq!(texts(&run), [told]);
    let history = get(&server, "/approvals/history").json();
    let decided = &history["history"][0];
    assert_eq!((&decided["status"], &decided["reason"]), (&json!("approved"), &json!("fine")));
    assert!(decided["decidedAt"].as_u64() >= decided["requestedAt"].as_u64());
    assert_eq!(get(&server, "/approvals/one").json(), *decided, "it can still be asked for");
    assert_eq!(
        get(&server, "/state/hitl").json(),
        json!({"pending": [], "approved": 1, "rejected": 0, "expired": 0})
    );
    let seen = actions.until_action("HITL_APPROVAL_GRANTED");
    let kinds: Vec<&Value> =
        seen.iter().map(|e| &e.data["action"]["type"]).filter(|k| !k.is_null()).collect();
    assert_eq!(
        kinds,
        [
            "RUNTIME_EXECUTION_STARTED",
            "AGENT_TOOL_CALL_REQUESTED",
            "HITL_APPROVAL_REQUESTED",
            "HITL_APPROVAL_GRANTED"
        ]
    );
}

#[test]
fn a_rejected_call_is_told_so_and_no_one_decides_twice() {
    let server = asking(&[]);
    let id = invoke(&server, "say-ask-two");
    wait_pending(&server, 2);
    assert_eq!(pending(&server).iter().map(|a| &a["id"]).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(decide(&server, "two", "reject").1["status"], "rejected");
    assert_eq!(decide(&server, "one", "approve").1["status"], "approved");
    for (decision, id, status) in
        [("approve", "two", "rejected"), ("reject", "two", "rejected"), ("reject", "one", "approved")]
    {
        let (code, json) = decide(&server, id, decision);
        assert_eq!((code, json), (409, json!({"error": format!("Approval already decided: {status}")})));
    }
    let run = ended(&server, &id);
    assert!(texts(&run)[0].contains("HITL_APPROVAL_REJECTED") && texts(&run)[0].contains("\"two\""));
    let history = get(&server, "/approvals/history").json();
    let ids: Vec<&Value> = history["history"].as_array().unwrap().iter().map(|a| &a["id"]).collect();
    assert_eq!(ids, ["one", "two"], "the latest first");
}

#[test]
fn bad_decisions_are_refused_and_decide_nothing() {
    let server = asking(&[]);
    let id = invoke(&server, "say-ask");
    wait_pending(&server, 1);
    let invalid = (400, "Invalid decision: expected \"approve\" or \"reject\"".to_owned());
    let no_json = (400, "Invalid JSON body".to_owned());
    for (body, wanted) in [
        ("", &no_json),
        ("{", &no_json),
        ("{}", &invalid),
        ("[]", &invalid),
        ("\"approve\"", &invalid),
        ("{\"decision\":\"approved\"}", &invalid),
        ("{\"decision\":true}", &invalid),
        ("{\"decision\":\"\"}", &invalid),
    ] {
        assert_eq!(&error(&post(&server, "/approvals/one", body)), wanted, "{body}");
    }
    for reason in [json!(7), json!(["x"]), json!("x".repeat(2001))] {
        let body = json!({"decision": "approve", "reason": reason}).to_string();
        assert_eq!(post(&server, "/approvals/one", &body).status, 400, "{body}");
    }
    for unknown in ["two", "ONE", "a%2Fb", "%00", &"x".repeat(200)] {
        assert_eq!(get(&server, &format!("/approvals/{unknown}")).status, 404, "{unknown}");
        assert_eq!(decide(&server, unknown, "approve").0, 404, "{unknown}");
    }
    assert_eq!(decide(&server, "two", "approve").1, json!({"error": "Approval not found: two"}));
    let forged = json!({"action": {"type": "HITL_APPROVAL_GRANTED", "payload": {"id": "one"}}}).to_string();
    assert_eq!(
        error(&post(&server, "/dispatch", &forged)),
        (400, "Action type not accepted: HITL_APPROVAL_GRANTED".to_owned())
    );
    let reader = server.send("POST", "/_frag/approvals/one", "", b"{\"decision\":\"approve\"}");
    assert_eq!((reader.status, reader.json()), (401, json!({"error": "Unauthorized"})));
    assert_eq!(pending(&server).len(), 1, "it still waits");
    assert_eq!(run(&server, &id)["status"], "running");
    post(&server, "/abort", "");
}

#[test]
fn nobody_deciding_is_a_decision_in_the_end() {
    let server = asking(&["--approval-timeout", "300ms"]);
    let began = Instant::now();
    let run = whole(&server, "say-ask");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let told =
        "got {\"type\":\"HITL_APPROVAL_REJECTED\",\"payload\":{\"id\":\"one\",\"reason\":\"timeout\"}}";
    assert_eq!(texts(&run), [told]);
    assert_eq!(said(&run, "HITL_APPROVAL_EXPIRED")[0]["reason"], "timeout");
    let (code, json) = decide(&server, "one", "approve");
    assert_eq!((code, json), (409, json!({"error": "Approval already decided: expired"})));
    assert_eq!(get(&server, "/state/hitl").json()["expired"], 1);
}

#[test]
fn an_approval_may_wait_for_ever() {
    let server = asking(&["--approval-timeout", "0"]);
    invoke(&server, "say-ask");
    wait_pending(&server, 1);
    assert_eq!(pending(&server)[0].get("expiresAt"), None);
    post(&server, "/abort", "");
}

#[test]
fn a_tool_outside_the_rule_is_granted_at_once() {
    let server = asking(&[]);
    let run = whole(&server, "say-ask-read");
    let told =
        "got {\"type\":\"HITL_APPROVAL_GRANTED\",\"payload\":{\"id\":\"r1\",\"reason\":\"not required\"}}";
    assert_eq!(texts(&run), [told]);
    assert_eq!(get(&server, "/approvals/history").json(), json!({"history": []}));
    assert_eq!(get(&server, "/state/hitl").json()["approved"], 0);
    // With `all` it asks, and with no rule nothing does.
    let server = with_agent(&["--require-approval", "all"]);
    let id = invoke(&server, "say-ask-read");
    wait_pending(&server, 1);
    decide(&server, "r1", "approve");
    ended(&server, &id);
    let server = with_agent(&[]);
    assert!(texts(&whole(&server, "say-ask"))[0].contains("HITL_APPROVAL_GRANTED"));
}

#[test]
fn an_id_in_use_cannot_be_used_to_pass() {
    let server = asking(&[]);
    // A call of a harmless tool with the id of a pending one.
    let id = invoke(&server, "say-ask-both");
    eventually("the second was answered", || texts(&run(&server, &id)).len() == 1);
    assert!(texts(&run(&server, &id))[0].contains("there is an approval with this id"));
    assert_eq!(pending(&server).len(), 1);
    assert_eq!(get(&server, "/state/hitl").json()["pending"].as_array().unwrap().len(), 1);
    decide(&server, "one", "reject");
    assert!(texts(&ended(&server, &id))[1].contains("HITL_APPROVAL_REJECTED"));
}

#[test]
fn each_run_may_number_its_calls_anew() {
    let server = asking(&[]);
    let mut before = "another".to_owned();
    for status in [404, 409] {
        let id = invoke(&server, "say-ask");
        wait_pending(&server, 1);
        // Somebody who saw another run's call decides that one only.
        let late = json!({"decision": "approve", "executionId": before}).to_string();
        assert_eq!(post(&server, "/approvals/one", &late).status, status);
        let body = json!({"decision": "approve", "executionId": id}).to_string();
        assert_eq!(post(&server, "/approvals/one", &body).status, 200);
        assert!(texts(&ended(&server, &id))[0].contains("HITL_APPROVAL_GRANTED"));
        before = id;
    }
    let history = get(&server, "/approvals/history").json();
    let runs = [0, 1].map(|n| history["history"][n]["executionId"].as_str().unwrap().to_owned());
    assert_ne!(runs[0], runs[1]);
}

#[test]
fn every_call_is_answered_or_the_run_ends() {
    let server = asking(&[]);
    assert_eq!(texts(&whole(&server, "say-calls-3000-")), ["got 3000"]);
    let run = whole(&server, "say-calls-9000-");
    assert_eq!(
        (&run["status"], &run["error"]),
        (&json!("aborted"), &json!("it does not read what it is told"))
    );
}

#[test]
fn a_decision_that_cannot_be_kept_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = asking(&["--journal", dir.path().to_str().unwrap()]);
    invoke(&server, "say-ask");
    wait_pending(&server, 1);
    // The log of the app's next life cannot be made.
    std::fs::remove_dir_all(dir.path().join("logs")).unwrap();
    assert_eq!(post(&server, "/restart", "").status, 200);
    eventually("the journal has failed", || server.get("/_frag/health", "").status == 503);
    let refused = (503, json!({"error": "The journal cannot be written"}));
    assert_eq!(decide(&server, "one", "approve"), refused);
    assert_eq!(pending(&server).len(), 1);
    assert_eq!(get(&server, "/approvals/history").json(), json!({"history": []}));
    assert_eq!(decide(&server, "one", "reject").0, 200, "that does no harm if it is lost");
}

#[test]
fn a_call_without_an_id_is_refused() {
    let server = asking(&[]);
    let run = whole(&server, "say-ask-bad");
    assert!(texts(&run)[1].contains("HITL_APPROVAL_REJECTED") && texts(&run)[1].contains("a/b"), "{run}");
    assert_eq!(pending(&server).len(), 0);
}

#[test]
fn no_more_can_be_pending_than_people_may_read() {
    let server = asking(&[]);
    let id = invoke(&server, "say-ask-flood");
    eventually("one was refused", || texts(&run(&server, &id)).len() == 1);
    let refused = texts(&run(&server, &id))[0].clone();
    assert!(refused.contains("\"f64\"") && refused.contains("too many approvals are pending"), "{refused}");
    assert_eq!(pending(&server).len(), 64);
    post(&server, "/abort", "");
    wait_pending(&server, 0);
    let history = get(&server, "/approvals/history").json();
    assert_eq!(history["history"].as_array().unwrap().len(), 64);
    assert_eq!(history["history"][0]["reason"], "the run ended");
    assert_eq!(get(&server, "/state/hitl").json()["expired"], 64);
}

#[test]
fn an_approval_ends_with_its_run() {
    let server = asking(&[]);
    whole(&server, "say-ask-end");
    assert_eq!(pending(&server).len(), 0);
    assert_eq!(decide(&server, "left", "approve").1, json!({"error": "Approval already decided: expired"}));
}

#[test]
fn the_long_poll_is_bounded() {
    let server = asking(&[]);
    let began = Instant::now();
    assert_eq!(get(&server, "/approvals?wait=0.3").json(), json!({"approvals": []}));
    assert!(began.elapsed() >= Duration::from_millis(300));
    for wait in ["61", "-1", "x", "", "inf"] {
        let answer = get(&server, &format!("/approvals?wait={wait}"));
        assert_eq!(error(&answer), (400, "Invalid query parameter: wait".to_owned()), "{wait}");
    }
    let address = server.address;
    let waiting =
        std::thread::spawn(move || binary::send(address, "GET", "/_frag/approvals?wait=20", TOKEN, b""));
    let id = invoke(&server, "say-ask");
    assert_eq!(waiting.join().unwrap().json()["approvals"][0]["executionId"], json!(id));
    post(&server, "/abort", "");
}

#[test]
fn pending_approvals_survive_us() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().to_str().unwrap();
    for killed in [false, true] {
        let mut server = asking(&["--journal", journal, "--stop-grace", "100ms"]);
        let id = invoke(&server, "say-ask");
        wait_pending(&server, 1);
        let before = pending(&server);
        if killed {
            server.child.kill().unwrap();
            server.child.wait().unwrap();
        } else {
            assert_eq!(server.terminate(), Some(0));
        }
        drop(server);
        let server = asking(&["--journal", journal]);
        assert_eq!(pending(&server), before);
        assert_eq!(get(&server, "/state/hitl").json()["pending"][0]["id"], "one");
        assert_eq!(run(&server, &id)["status"], "aborted");
        assert_eq!(decide(&server, "one", "approve").1["status"], "approved");
        drop(server);
        let server = asking(&["--journal", journal]);
        assert_eq!(pending(&server).len(), 0);
        assert_eq!(get(&server, "/approvals/history").json()["history"][0]["status"], "approved");
        drop(server);
        std::fs::remove_dir_all(dir.path()).unwrap();
    }
}

#[test]
fn an_approval_that_expired_while_we_were_away_is_expired() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().to_str().unwrap();
    let flags = ["--journal", journal, "--approval-timeout", "2s"];
    let mut server = asking(&flags);
    let id = invoke(&server, "say-ask");
    wait_pending(&server, 1);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    drop(server);
    let server = asking(&flags);
    eventually("it expires", || pending(&server).is_empty());
    assert_eq!(get(&server, "/approvals/one").json()["reason"], "timeout");
    assert_eq!(run(&server, &id)["status"], "aborted");
    let wrote_nothing = texts(&run(&server, &id));
    assert!(wrote_nothing.is_empty());
    let id = invoke(&server, "say-wait");
    wrote(&server, &id, "waiting");
    post(&server, "/abort", "");
}
