//! What the tests of the worker runtime share: a server with it, and its requests.
use super::websocket::Socket;
use super::{IDLE, Response, Server, unused_port};
use serde_json::Value;

pub const TOKEN: &str = "correct-horse";
/// Complete lines: who may, and what is sent.
pub const AUTH: &str = "Authorization: Bearer correct-horse\r\n";
pub const JSON: &str = "Authorization: Bearer correct-horse\r\nContent-Type: application/json\r\n";
pub const ASSISTANT: &str = r#"{"intent":{"kind":"assistant"},"profile":{"kind":"runtime_default"}}"#;
/// The same for a profile without a command.
pub const UNCONNECTED: &str =
    r#"{"intent":{"kind":"assistant"},"profile":{"kind":"builtin","value":"builtin:none"}}"#;

/// `target/debug/examples/fixture_worker`, which cargo builds for `cargo test`.
pub fn fixture_worker() -> String {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    profile.join("examples/fixture_worker").to_str().unwrap().to_owned()
}

/// A server whose default profile runs the fixture.
pub fn start(flags: &[&str]) -> Server {
    start_running(&fixture_worker(), flags)
}

/// A server whose default profile runs this command.
pub fn start_running(command: &str, flags: &[&str]) -> Server {
    let worker = format!("runtime_default={command}");
    let flags = [&["--worker", &worker, "--runtime-id", "runtime-probe"], flags].concat();
    Server::start_with(IDLE, unused_port(), &flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    })
}

/// What tests ask of the runtime.
pub trait Workers {
    fn v1(&self, method: &str, path: &str, fields: &str, body: &str) -> Response;

    /// A request that succeeds.
    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let response = self.v1(method, path, JSON, body);
        assert_eq!(response.status, 200, "{method} {path} {body}: {}", response.body_text());
        response.json()
    }

    /// A request that is refused: its status, code and message.
    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let response = self.v1(method, path, JSON, body);
        let error = &response.json()["error"];
        let text = |key: &str| error[key].as_str().unwrap().to_owned();
        (response.status, text("code"), text("message"))
    }

    /// A new worker's id.
    fn create(&self, body: &str) -> String {
        let worker = self.ask("POST", "/workers", body);
        worker["worker"]["worker_id"].as_str().unwrap().to_owned()
    }

    fn worker(&self, id: &str) -> Value {
        self.ask("GET", &format!("/workers/{id}"), "")["worker"].clone()
    }

    /// Says something to a worker and waits until it is idle again, or has ended.
    fn tell(&self, id: &str, content: &str) {
        let body = serde_json::json!({"kind": "user", "content": content}).to_string();
        self.ask("POST", &format!("/workers/{id}/input"), &body);
        super::eventually("it is no longer busy", || self.worker(id)["execution"]["run_state"] != "busy");
    }

    /// What stands in its transcript: roles and contents.
    fn said(&self, id: &str) -> Vec<(String, String)> {
        let transcript = self.ask("GET", &format!("/workers/{id}/transcript"), "");
        let items = transcript["transcript"]["items"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        items.iter().map(|item| (text(&item["role"]), text(&item["content"]))).collect()
    }

    /// Observes a worker; `query` with its question mark.
    fn observe(&self, id: &str, query: &str) -> Socket;
}

impl Workers for Server {
    fn v1(&self, method: &str, path: &str, fields: &str, body: &str) -> Response {
        self.send(method, &format!("/_frag/v1{path}"), fields, body.as_bytes())
    }

    fn observe(&self, id: &str, query: &str) -> Socket {
        Socket::open(self.address, &format!("/_frag/v1/workers/{id}/events/ws{query}"), AUTH)
    }
}
