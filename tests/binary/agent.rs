//! A server with an agent: a shell script that does what its input says.
use super::{IDLE, Response, Server, eventually, unused_port};
use serde_json::{Value, json};
use std::process::Command;

pub const TOKEN: &str = "Authorization: Bearer secret\r\n";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/binary/agent.sh");

/// Starts a server with the agent and these flags.
pub fn with_agent(flags: &[&str]) -> Server {
    with_agent_and(flags, |_| {})
}

/// The same, with a look at the command before it runs.
pub fn with_agent_and(flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
    let command = format!("/bin/sh '{SCRIPT}'");
    let flags = [&["--agent", command.as_str()], flags].concat();
    let server = Server::start_with(IDLE, unused_port(), &flags, |binary| {
        binary.env("FRAG_TOKEN", "secret").env("OTHER", "kept");
        prepare(binary);
    });
    eventually("the app runs", || get(&server, "/state/server").json()["pid"].is_u64());
    server
}

pub fn get(server: &Server, path: &str) -> Response {
    server.get(&format!("/_frag{path}"), TOKEN)
}

pub fn post(server: &Server, path: &str, body: &str) -> Response {
    server.send("POST", &format!("/_frag{path}"), TOKEN, body.as_bytes())
}

/// Begins a run; its id.
pub fn invoke(server: &Server, input: &str) -> String {
    let answer = post(server, "/invoke", &json!({"input": input}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    let json = answer.json();
    assert_eq!(json["status"], "started");
    json["executionId"].as_str().unwrap().to_owned()
}

/// A run with its actions.
pub fn run(server: &Server, id: &str) -> Value {
    let answer = get(server, &format!("/runs/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    answer.json()
}

/// The run once it has ended.
pub fn ended(server: &Server, id: &str) -> Value {
    eventually("the run ends", || run(server, id)["status"] != "running");
    run(server, id)
}

/// Begins a run and waits for its end.
pub fn whole(server: &Server, input: &str) -> Value {
    ended(server, &invoke(server, input))
}

/// What an action of this type says in a run, each time.
pub fn said(run: &Value, kind: &str) -> Vec<Value> {
    let actions = run["actions"].as_array().unwrap().iter();
    actions.filter(|action| action["type"] == kind).map(|action| action["payload"].clone()).collect()
}

/// The texts an agent wrote.
pub fn texts(run: &Value) -> Vec<String> {
    said(run, "AGENT_OUTPUT").iter().map(|payload| payload["text"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the agent has written this.
pub fn wrote(server: &Server, id: &str, text: &str) {
    eventually(text, || texts(&run(server, id)).iter().any(|line| line == text));
}

/// An answer's status and error.
pub fn error(answer: &Response) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}
