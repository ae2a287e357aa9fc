//! Workers in the state, and what happens to them as actions.
#![cfg(all(feature = "workers", feature = "runs"))]

use crate::binary::client::Client;
use crate::binary::sse::Listener;
use crate::binary::workers::{ASSISTANT, AUTH, UNCONNECTED, Workers, start, start_running};
use crate::binary::{Server, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn slice(server: &Server) -> Value {
    server.get("/_frag/state/workers", AUTH).json()
}

#[test]
fn what_happens_to_workers_is_told_in_order() {
    let server = start(&[]);
    let mut listener = Client::new(server.address);
    listener.request("GET", "/_frag/stream/actions", AUTH);
    listener.take_through("\r\n\r\n");
    let id = server.create(ASSISTANT);
    let mut next = |action: &str| -> Value {
        let name = format!("\"type\":\"{action}\"");
        loop {
            listener.take_through("\ndata: ");
            let data = listener.take_through("\n");
            if data.contains(&name) {
                let event: Value = serde_json::from_str(&data).unwrap();
                return event["action"].clone();
            }
        }
    };
    let created = next("WORKER_CREATED");
    let brief = |run_state: &str, status: &str, length: u64| {
        json!({"worker_id": id, "status": status, "run_state": run_state, "profile": "runtime_default",
               "transcript_len": length})
    };
    assert_eq!(created["payload"]["worker"], brief("idle", "running", 0));
    let counts = json!({"active": 1, "stopped": 0, "cancelled": 0, "workers": [brief("idle", "running", 0)]});
    assert_eq!(created["payload"]["counts"], counts);
    server.tell(&id, "say a");
    next("WORKER_INPUT_ACCEPTED");
    let idle = next("WORKER_STATE_CHANGED");
    assert_eq!(idle["payload"]["worker"], brief("idle", "running", 2));
    let other = server.create(UNCONNECTED);
    next("WORKER_CREATED");
    server.ask("POST", &format!("/workers/{other}/cancel"), "");
    next("WORKER_CANCELLED");
    server.ask("POST", &format!("/workers/{id}/stop"), "");
    assert_eq!(next("WORKER_STOPPED")["payload"]["worker"], brief("stopped", "stopped", 2));
    eventually("the state", || {
        slice(&server) == json!({"active": 0, "stopped": 1, "cancelled": 1, "workers": []})
    });
}

#[test]
fn that_one_was_made_is_told_before_all_else() {
    // Busy at once, and then gone.
    let server = start_running(r#"echo '{"event":"status","data":{"status":"running"}}'"#, &[]);
    let mut listener = Client::new(server.address);
    listener.request("GET", "/_frag/stream/actions", AUTH);
    listener.take_through("\r\n\r\n");
    const WORKERS: usize = 200;
    let (mut made, mut busy, mut ended) = (BTreeSet::new(), 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..WORKERS / 4).for_each(|_| drop(server.create(ASSISTANT))));
        }
        // Beside that: a stream keeps only so much for who does not read.
        while ended < WORKERS {
            listener.take_through("\ndata: ");
            let event: Value = serde_json::from_str(&listener.take_through("\n")).unwrap();
            let id = event["action"]["payload"]["worker"]["worker_id"].to_string();
            let kind = event["action"]["type"].as_str().unwrap_or_default();
            match kind {
                "WORKER_CREATED" => assert!(made.insert(id)),
                "WORKER_STATE_CHANGED" | "WORKER_STOPPED" => {
                    assert!(made.contains(&id), "{kind} of {id} before it was made");
                    let count = if kind == "WORKER_STOPPED" { &mut ended } else { &mut busy };
                    *count += 1;
                }
                _ => {}
            }
        }
    });
    assert_eq!(busy, WORKERS);
}

#[test]
fn that_one_cannot_start_is_told_after_it_was_made() {
    let server = start_running("/nonexistent/worker", &[]);
    let mut listener = Listener::new(server.address, "/_frag/stream/actions", AUTH);
    server.create(ASSISTANT);
    let events = listener.until_action("WORKER_STATE_CHANGED");
    let actions = events.iter().map(|event| &event.data["action"]);
    let told: Vec<[&str; 2]> = actions
        .map(|action| [&action["type"], &action["payload"]["worker"]["run_state"]])
        .map(|both| both.map(|text| text.as_str().unwrap_or_default()))
        .filter(|[kind, _]| kind.starts_with("WORKER_"))
        .collect();
    assert_eq!(told, [["WORKER_CREATED", "idle"], ["WORKER_STATE_CHANGED", "errored"]]);
}

#[test]
fn the_state_agrees_after_many_changes_at_once() {
    let server = start(&["--max-workers", "32"]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..12 {
                    let id = server.create(UNCONNECTED);
                    let act = if n % 3 == 0 { "cancel" } else { "stop" };
                    server.ask("POST", &format!("/workers/{id}/{act}"), "");
                }
            });
        }
    });
    eventually("the state", || {
        slice(&server) == json!({"active": 0, "stopped": 64, "cancelled": 32, "workers": []})
    });
}
