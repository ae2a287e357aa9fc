//! Whom and what the exec routes refuse, in which words.

use crate::binary::client::Client;
use crate::binary::exec::{ADMIN, TOKEN, admin, post, reply, run, server, sh, start, with_program};
use crate::binary::{IDLE, Response, Server, eventually, send, unused_port};
use crate::common;
use serde_json::{Value, json};
use std::process::Command;

const JSON: &str = "Content-Type: application/json\r\n";

/// The contract's error: flat, with a time.
#[track_caller]
fn refused(answer: &Response, status: u16, code: &str, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.body_text());
    let json = answer.json();
    assert_eq!((&json["code"], &json["message"]), (&json!(code), &json!(message)));
    let at = json["timestamp"].as_str().unwrap();
    assert!(at.len() >= 20 && at.starts_with("20") && at.ends_with('Z'), "{at}");
    assert_eq!(json.as_object().unwrap().len(), 3, "{json}");
    assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
}

#[test]
fn callers_are_refused_in_the_contracts_words() {
    let flags = ["--control", "127.0.0.1:0", "--exec", "any"];
    let server = Server::start_with(IDLE, unused_port(), &flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    });
    let reader = format!("X-Verified-User-Data: {{\"readOnly\":true}}\r\n{ADMIN}");
    let malformed = format!("X-Verified-User-Data: nonsense\r\n{ADMIN}");
    let foreign = format!("Origin: https://evil.example\r\n{ADMIN}");
    let places = [
        (server.address, "/_frag/exec"),
        (server.control.unwrap(), "/exec"),
        (server.control.unwrap(), "/api/v1/admin/cli"),
    ];
    for (address, target) in places {
        // Who may not is told so before the body is looked at.
        let ask = |fields: &str| send(address, "POST", target, fields, b"nonsense");
        refused(&ask(""), 401, "unauthorized", "Missing Authorization header");
        refused(&ask("Authorization: Bearer wrong\r\n"), 401, "unauthorized", "Invalid or expired JWT token");
        let challenge = "Bearer resource_metadata=\"/.well-known/oauth-protected-resource\"";
        assert_eq!(ask("").field("www-authenticate").as_deref(), Some(challenge));
        refused(&ask(&reader), 403, "forbidden", "Admin role required for CLI gateway");
        let text = "x-verified-user-data is not the JSON object it should be";
        refused(&ask(&malformed), 400, "bad_request", text);
        refused(&ask(&foreign), 403, "forbidden", "requests from that Origin are refused");
    }
}

#[test]
fn without_a_token_only_a_trusted_admin_may() {
    // Nobody could be an admin by a token: it needs one, or a place to make it in.
    let output = Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"))
        .args(["--command", IDLE, "--port", "0", "--exec", "any"])
        .env_remove("FRAG_TOKEN")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--exec (FRAG_EXEC)") && error.contains("--state-dir"), "{error}");
    let kept = tempfile::tempdir().unwrap();
    let state = kept.path().join("state");
    let flags = ["--exec", "any", "--state-dir", state.to_str().unwrap()];
    let server = Server::start(IDLE, unused_port(), &flags);
    let made = std::fs::read_to_string(state.join("token")).unwrap();
    let fields = format!("Authorization: Bearer {}\r\n{JSON}", made.trim());
    let body = sh("echo made").to_string();
    assert!(server.send("POST", "/_frag/exec", &fields, body.as_bytes()).body_text().contains("made\\n"));
    // On an open control listener anybody is an admin; elsewhere nobody is.
    let flags = ["--exec", "any", "--control", "127.0.0.1:0", "--open-control"];
    let server = Server::start(IDLE, unused_port(), &flags);
    let answer = send(server.control.unwrap(), "POST", "/exec", JSON, body.as_bytes());
    assert!(answer.body_text().contains("made\\n"), "{}", answer.body_text());
    let answer = server.send("POST", "/_frag/exec", JSON, body.as_bytes());
    refused(&answer, 403, "forbidden", "Admin role required for CLI gateway");
    let admin_claim = format!("X-Verified-User-Data: {{\"role\":\"admin\"}}\r\n{JSON}");
    assert_eq!(server.send("POST", "/_frag/exec", &admin_claim, body.as_bytes()).status, 403);
}

#[test]
fn the_routes_are_404_while_the_gateway_is_off() {
    let server = Server::start_with(IDLE, unused_port(), &["--control", "127.0.0.1:0"], |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    });
    for (method, target) in [
        ("POST", "/exec"),
        ("GET", "/exec"),
        ("PUT", "/exec"),
        ("GET", "/exec/x"),
        ("DELETE", "/exec/x"),
        ("POST", "/exec/x/stdin"),
        ("POST", "/api/v1/admin/cli"),
    ] {
        let answer = send(server.control.unwrap(), method, target, ADMIN, b"");
        refused(&answer, 404, "not_found", "the CLI gateway is off");
        assert_eq!(send(server.control.unwrap(), method, target, "", b"").status, 401, "{method} {target}");
    }
}

#[test]
fn other_methods_and_paths() {
    let server =
        Server::start_with(IDLE, unused_port(), &["--control", "127.0.0.1:0", "--exec", "any"], |binary| {
            binary.env("FRAG_TOKEN", TOKEN);
        });
    let control = server.control.unwrap();
    for (method, target, allow) in [
        ("GET", "/api/v1/admin/cli", "POST"),
        ("DELETE", "/api/v1/admin/cli", "POST"),
        ("PUT", "/exec", "GET, HEAD, POST"),
        ("POST", "/exec/x", "GET, HEAD, DELETE"),
        ("GET", "/exec/x/stdin", "POST"),
    ] {
        let answer = send(control, method, target, ADMIN, b"");
        assert_eq!(
            (answer.status, answer.field("allow").as_deref()),
            (405, Some(allow)),
            "{method} {target}"
        );
        assert!(answer.body.is_empty());
    }
    for target in ["/exec/", "/exec/x/", "/exec/x/y"] {
        refused(&send(control, "GET", target, ADMIN, b""), 404, "not_found", "there is no such route");
    }
    assert_eq!(send(control, "POST", "/api/v1/admin/cli/", ADMIN, b"").status, 404);
}

#[test]
fn bodies_that_ask_for_nothing() {
    let server = server(&[]);
    let data = "Failed to deserialize the JSON body into the target type: ";
    for (body, text) in [
        ("{}", "missing field `args` at line 1 column 2"),
        (r#"{"args":"ls"}"#, "args: invalid type: string \"ls\", expected a sequence at line 1 column 12"),
        (r#"{"args":["ls",7]}"#, "args: invalid type: integer `7`, expected a string at line 1 column 15"),
        (
            r#"{"args":["ls"],"timeout_secs":-1}"#,
            "timeout_secs: invalid value: integer `-1`, expected u64 at line 1 column 32",
        ),
        (
            r#"{"args":["ls"],"timeout_secs":"9"}"#,
            "timeout_secs: invalid type: string \"9\", expected u64 at line 1 column 33",
        ),
        (
            r#"{"args":["ls"],"context_id":7}"#,
            "context_id: invalid type: integer `7`, expected a string at line 1 column 29",
        ),
        (r#"{"args":["ls"],"env":[]}"#, "env: invalid type: sequence, expected a map at line 1 column 21"),
    ] {
        refused(&post(&server, body), 422, "validation_error", &format!("{data}{text}"));
    }
    for body in ["", "{", "args=ls", "{\"args\":[\"ls\"]}}", "\u{feff}{}"] {
        let answer = post(&server, body);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{body}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Failed to parse the request body as JSON: "), "{message}");
    }
    let deep = format!("{{\"args\":[\"ls\"],\"x\":{}", "[".repeat(100_000));
    assert_eq!((post(&server, &deep).status, post(&server, "{").status), (400, 400));
    for field in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let answer =
            server.send("POST", "/_frag/exec", &format!("{ADMIN}{field}"), sh("true").to_string().as_bytes());
        let text = "Expected request with `Content-Type: application/json`";
        refused(&answer, 415, "unsupported_media_type", text);
    }
    let long = "x".repeat(2 << 20);
    let answer = post(&server, &json!({"args": [long]}).to_string());
    refused(&answer, 413, "payload_too_large", "the request body is too large");
    // Fields nobody knows do not matter.
    let answer = reply(&server, json!({"args": ["true"], "more": {"args": 7}}));
    assert_eq!(answer["exit_code"], 0);
}

#[test]
fn arguments_that_are_not_let_through() {
    let fixed = with_program(&common::fixture(), &[]);
    let many: Vec<&str> = vec!["a"; 33];
    for (args, text) in [
        (json!([]), "cli args must not be empty"),
        (json!(many), "too many cli args (max 32)"),
        (json!(["args", "x".repeat(257)]), "cli arg #1 exceeds 256 bytes"),
        (json!(["args", "x".repeat(1 << 20)]), "cli arg #1 exceeds 256 bytes"),
        (json!(["args", "a\0b"]), "cli arg #1 contains forbidden character"),
        (json!(["args", "ok", "a;b"]), "cli arg #2 contains forbidden character"),
        (json!(["args", "$(x)"]), "cli arg #1 contains forbidden character"),
        (json!(["args", "a\nb"]), "cli arg #1 contains forbidden character"),
        (json!(["--help"]), "first cli arg must be a lowercase subcommand"),
        (json!(["/bin/sh"]), "first cli arg must be a lowercase subcommand"),
    ] {
        let body = json!({"args": args, "timeout_secs": 0}).to_string();
        refused(&post(&fixed, &body), 400, "bad_request", text);
    }
    for name in ["PATH", "LD_PRELOAD", "SYSTEMPROMPT_USER_ID"] {
        let body = json!({"args": ["args"], "env": {name: "x"}}).to_string();
        refused(&post(&fixed, &body), 400, "bad_request", &format!("env variable \"{name}\" is reserved"));
    }
    let any = server(&[]);
    for (request, text) in [
        (json!({"args": []}), "cli args must not be empty"),
        (json!({"args": ["echo", "a\0b"]}), "cli arg #1 contains forbidden character"),
        (json!({"args": ["echo", "x".repeat(1 << 20)]}), "cli arg #1 exceeds 131071 bytes"),
        (json!({"args": vec!["a"; 4097]}), "too many cli args (max 4096)"),
        (json!({"args": ["true"], "env": {"": "x"}}), "env variable \"\" has no usable name"),
        (json!({"args": ["true"], "env": {"A=B": "x"}}), "env variable \"A=B\" has no usable name"),
        (json!({"args": ["true"], "env": {"FRAG_TOKEN": "x"}}), "env variable \"FRAG_TOKEN\" is reserved"),
        (
            json!({"args": ["true"], "env": {"A": "\0"}}),
            "env variable \"A\" contains a NUL or exceeds 131071 bytes",
        ),
    ] {
        refused(&post(&any, &request.to_string()), 400, "bad_request", text);
    }
    assert_eq!(admin(&any, "GET", "", b"").json(), json!({"runs": []}), "none of them was a run");
    // As much as is allowed in each, which is more than the kernel takes together, is the kernel's to say.
    let seen = run(&any, &json!({"args": ["true", "x".repeat(131_071)]}));
    assert_eq!((seen.exit, seen.exit_codes), (0, 1), "{seen:?}");
    let much = [&["true".to_owned()], &vec!["x".repeat(131_071); 15][..]].concat();
    let seen = run(&any, &json!({"args": much, "env": {"A": "y".repeat(50_000)}}));
    assert_eq!(seen.exit_codes, 1, "{seen:?}");
}

#[test]
fn directories_that_are_not_below_the_root() {
    let server = server(&[]);
    std::fs::write(server.root().join("file"), "").unwrap();
    std::os::unix::fs::symlink("/etc", server.root().join("out")).unwrap();
    std::os::unix::fs::symlink("..", server.root().join("up")).unwrap();
    for (cwd, text) in [
        ("/etc", "cwd: the path is refused: the path is absolute"),
        ("/", "cwd: the path is refused: the path is absolute"),
        ("..", "cwd: the path is refused: a name is . or .."),
        ("a/../..", "cwd: the path is refused: a name is . or .."),
        ("a\0", "cwd: the path is refused: a name holds NUL"),
        ("out", "cwd: out: a symbolic link leads out of the root"),
        ("up/x", "cwd: up/x: a symbolic link leads out of the root"),
        ("missing", "cwd: missing: not found"),
        ("file", "cwd: file: not a directory, or below a file"),
    ] {
        let body = json!({"args": ["pwd"], "cwd": cwd}).to_string();
        refused(&post(&server, &body), 400, "bad_request", text);
    }
    let outside = server.root().canonicalize().unwrap().join("../x");
    let body = json!({"args": ["pwd"], "cwd": outside}).to_string();
    assert_eq!(post(&server, &body).status, 400);
}

#[test]
fn context_ids_that_a_program_could_not_be_told() {
    let server = server(&[]);
    let long = "x".repeat(257);
    let body = sh("true").to_string();
    let repeated = "X-Context-Id: a\r\nX-Context-Id: b\r\n";
    for fields in
        [format!("X-Context-Id: {long}\r\n"), "X-Context-Id: \u{7f}\r\n".to_owned(), repeated.to_owned()]
    {
        let answer = server.send("POST", "/_frag/exec", &format!("{ADMIN}{JSON}{fields}"), body.as_bytes());
        assert_eq!(answer.status, 400, "{fields}");
    }
    for id in [long.as_str(), "a\nb", "a\0"] {
        let answer = post(&server, &json!({"args": ["true"], "context_id": id}).to_string());
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{id:?}");
    }
}

#[test]
fn streams_have_their_bound_and_it_is_told_before_anything_runs() {
    let server = server(&["--max-streams", "1"]);
    let mut live = start(&server, &sh("exec sleep 1000"));
    live.started();
    let answer = post(&server, &sh("touch ran").to_string());
    assert_eq!((answer.status, answer.code().as_str()), (503, "service_unavailable"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    drop(live);
    eventually("there is room again", || run(&server, &sh("true")).exit_codes == 1);
    assert!(!server.root().join("ran").exists());
    assert_eq!(admin(&server, "GET", "", b"").json()["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn a_connection_is_kept_after_a_refusal_and_after_a_stream() {
    let server = server(&[]);
    let mut client = Client::new(server.address);
    let bodies = ["nonsense".to_owned(), sh("exit 3").to_string(), json!({"args": []}).to_string()];
    for (body, status) in bodies.iter().zip([400, 200, 400]) {
        let length = body.len();
        client.send(format!(
            "POST /_frag/exec HTTP/1.1\r\nHost: h\r\n{ADMIN}{JSON}Content-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(client.response("POST").status, status);
    }
}

#[test]
fn nothing_of_the_host_is_told() {
    let server = server(&[]);
    let root = server.root().to_str().unwrap().to_owned();
    std::fs::create_dir(server.root().join("locked")).unwrap();
    for request in [
        json!({"args": ["no-such"]}),
        json!({"args": ["./no-such"], "cwd": "locked"}),
        json!({"args": ["x"], "cwd": "no-such"}),
    ] {
        let text = post(&server, &request.to_string()).body_text();
        assert!(!text.contains(&root) && !text.contains("/proc"), "{text}");
    }
    let list = admin(&server, "GET", "", b"").body_text();
    assert!(!list.contains(&root) && !list.contains("/proc"), "{list}");
    assert_eq!(
        serde_json::from_str::<Value>(&list).unwrap()["runs"][0]["error"],
        "No such file or directory (os error 2)"
    );
}
