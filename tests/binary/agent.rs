//! A server with an agent: a shell script that does what its input says.
use super::{IDLE, Response, Server, eventually, unused_port};
use serde_json::{Value, json};
use std::process::Command;

pub const TOKEN: &str = "Authorization: Bearer secret\r\n";

/// Reads the line that invokes it, and looks for a word in it.
const SCRIPT: &str = r#"
read -r line
tool() { echo "{\"type\":\"AGENT_TOOL_CALL_REQUESTED\",\"payload\":{\"id\":\"$1\",\"toolName\":\"$2\",\"args\":{\"n\":1}}}"; }
case "$line" in
*say-ok*) echo "told $line" ;;
*say-fail*) echo why >&2; exit 3 ;;
*say-kill*) kill -9 $$ ;;
*say-wait*) echo waiting; read -r more; echo "told $more" ;;
*say-hang*) trap '' INT; echo hanging; while :; do sleep 0.1; done ;;
*say-orphan*) sleep 1000 & echo "orphan $!" ;;
*say-forge*)
    echo '{"type":"HITL_APPROVAL_GRANTED","payload":{"id":"x"}}'
    echo '{"type":"RUNTIME_EXECUTION_COMPLETED"}'
    echo '{"type":"SERVER_READY","payload":{"state":"forged"}}' ;;
*say-actions*)
    echo '{"type":"MINE","payload":{"b":1.50,"a":[1e3],"10":0}}'
    echo '{"type":"MINE","extra":1,"timestamp":5}'
    echo '{"type":"CUSTOM_EVENT","payload":{"progress":50}}'
    echo '{"type":"AGENT_MODEL_STREAM_DELTA","payload":"not kept"}'
    echo 'plain text' ;;
*say-nested*)
    open=; close=; n=0; while [ $n -lt 63 ]; do open="$open["; close="$close]"; n=$((n+1)); done
    echo "{\"type\":\"DEEP\",\"a\":$open$close}"
    echo "{\"type\":\"DEEP\",\"a\":[$open$close]}"
    ask='"type":"AGENT_TOOL_CALL_REQUESTED","payload":{"toolName":"write"'
    echo "{$ask,\"id\":\"deepest\",\"args\":${open#?}${close#?}}}"; read -r a; echo "got $a"
    echo "{$ask,\"id\":\"deeper\",\"args\":$open$close}}"; read -r a; echo "got $a" ;;
*say-many*) n=0; while [ $n -lt 1000 ]; do echo "line $n"; n=$((n+1)); done ;;
*say-last*) head -c 100000 /dev/zero | tr '\0' '\n' ;;
*say-env*) env; pwd ;;
*say-ask-two*) tool one write; tool two write; read -r a; echo "got $a"; read -r b; echo "got $b" ;;
*say-ask-both*) tool one write; tool one read; read -r a; echo "got $a"; read -r b; echo "got $b" ;;
*say-ask-read*) tool r1 read; read -r a; echo "got $a" ;;
*say-ask-bad*) echo '{"type":"AGENT_TOOL_CALL_REQUESTED","payload":{"id":"a/b"}}'; read -r a; echo "got $a" ;;
*say-ask-flood*) n=0; while [ $n -lt 65 ]; do tool "f$n" write; n=$((n+1)); done; read -r a; echo "got $a"; read -r b ;;
*say-ask-end*) tool left write ;;
*say-ask*) tool one write; read -r a; echo "got $a" ;;
esac
"#;

/// Starts a server with the agent and these flags.
pub fn with_agent(flags: &[&str]) -> Server {
    with_agent_and(flags, |_| {})
}

/// The same, with a look at the command before it runs.
pub fn with_agent_and(flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
    let script = std::env::temp_dir().join(format!("frag-agent-{}.sh", std::process::id()));
    // Several tests of one process write the same; a rename lets none read half of it.
    let part = script.with_extension(format!("{:?}", std::thread::current().id()));
    std::fs::write(&part, SCRIPT).unwrap();
    std::fs::rename(&part, &script).unwrap();
    let command = format!("/bin/sh {}", script.display());
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
