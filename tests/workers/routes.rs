//! The worker runtime over HTTP: shapes, ids, refusals and their order, bundles, bounds.

use crate::binary;
use crate::binary::client::Client;
use crate::binary::workers::{ASSISTANT, AUTH, JSON, UNCONNECTED, Workers, start};
use crate::binary::{IDLE, Server, unused_port};
use serde_json::{Value, json};

/// A known digest, of [`bundle`] without profiles and declarations.
const DIGEST: &str = "8de1c381f85bcdc23caecc4109d030cd20032b0631885914a869c6c795946ee7";

fn bundle() -> Value {
    json!({"metadata": {"id": "b", "digest": DIGEST, "revision": "1", "workspace_id": "w", "created_at": "t",
                        "provenance": {"source": "s"}}})
}

fn sync(server: &Server, bundle: &Value) -> Value {
    server.ask("POST", "/config-bundles", &json!({"bundle": bundle}).to_string())
}

/// The same bundle with the digest that it has.
fn with_digest(server: &Server, mut bundle: Value) -> Value {
    let wrong = "0".repeat(64);
    bundle["metadata"]["digest"] = wrong.into();
    let (status, code, message) =
        server.refused("POST", "/config-bundles", &json!({"bundle": bundle}).to_string());
    assert_eq!((status, code.as_str()), (400, "config_bundle_digest_mismatch"), "{message}");
    bundle["metadata"]["digest"] = message.rsplit(' ').next().unwrap().into();
    bundle
}

fn text(server: &Server, method: &str, path: &str, body: &str) -> String {
    let response = server.v1(method, path, JSON, body);
    assert_eq!(response.status, 200, "{}", response.body_text());
    assert_eq!(response.field("content-type").as_deref(), Some("application/json"));
    response.body_text()
}

#[test]
fn answers_have_their_keys_in_order() {
    let server = start(&["--display-name", "probe"]);
    let limits = r#""limits":{"max_transcript_projection_items":256,"max_event_batch_items":256}"#;
    assert_eq!(
        text(&server, "GET", "/runtime", ""),
        format!(
            r#"{{"runtime":{{"runtime_id":"runtime-probe","display_name":"probe","backend":"memory","status":"running","worker_count":0,"active_worker_count":0,"stopped_worker_count":0,"cancelled_worker_count":0,"diagnostic_count":0,{limits}}}}}"#
        )
    );
    let reference = r#""worker_ref":{"runtime_id":"runtime-probe","worker_id":"worker-00000001"}"#;
    let ids = format!(r#"{reference},"runtime_id":"runtime-probe","worker_id":"worker-00000001""#);
    let idle = r#""execution":{"backend":"connected","run_state":"idle","last_result":{"operation":"spawn","outcome":"accepted","run_state":"idle"}}"#;
    let minimal = format!(
        r#"{{"worker":{{{ids},"status":"running",{idle},"intent":{{"kind":"assistant"}},"profile":{{"kind":"runtime_default"}},"transcript_len":0,"last_event_id":2}}}}"#
    );
    assert_eq!(text(&server, "POST", "/workers", ASSISTANT), minimal);
    assert_eq!(text(&server, "GET", "/workers/worker-00000001", ""), minimal);
    assert_eq!(text(&server, "GET", "/workers/worker-%300000001", ""), minimal);
    assert_eq!(
        text(&server, "GET", "/workers", ""),
        format!(
            r#"{{"workers":[{{{ids},"status":"running",{idle},"intent":{{"kind":"assistant"}},"profile":{{"kind":"runtime_default"}},"requested_capability_count":0,"has_config_bundle":false,"transcript_len":0,"last_event_id":2}}]}}"#
        )
    );
    assert_eq!(
        text(&server, "POST", "/workers/worker-00000001/input", r#"{"kind":"user","content":"silent"}"#),
        format!(r#"{{"ack":{{{reference},"status":"running","transcript_sequence":1,"event_id":3}}}}"#)
    );
    assert_eq!(
        text(&server, "GET", "/workers/worker-00000001/transcript", ""),
        format!(
            r#"{{"transcript":{{{reference},"start":0,"limit":256,"total_items":1,"items":[{{"sequence":1,{reference},"role":"user","content":"silent","event_id":3}}],"next_start":null}}}}"#
        )
    );
    assert_eq!(
        text(&server, "POST", "/workers/worker-00000001/stop", r#"{"reason":"finished"}"#),
        format!(r#"{{"ack":{{{reference},"status":"stopped","event_id":4}}}}"#)
    );
    let execution = server.worker("worker-00000001")["execution"].to_string();
    assert_eq!(
        execution,
        json!({"backend": "connected", "run_state": "stopped",
               "last_result": {"operation": "stop", "outcome": "accepted", "run_state": "stopped"}})
        .to_string()
    );
    let runtime = text(&server, "GET", "/runtime", "");
    assert!(runtime.contains(r#""worker_count":1,"active_worker_count":0,"stopped_worker_count":1,"cancelled_worker_count":0,"diagnostic_count":2,"#), "{runtime}");
}

#[test]
fn everything_that_is_said_of_a_worker_is_told_again() {
    let server = start(&[]);
    let mut given = bundle();
    given["metadata"]["id"] = "team.alpha:core-1".into();
    given["profiles"] = json!([{"selector": {"kind": "named", "value": "night-shift"}, "label": "n"}]);
    given["declarations"] = json!([{"kind": "git_policy", "name": "g", "reference": "git:main"}]);
    let given = with_digest(&server, given);
    let digest = given["metadata"]["digest"].as_str().unwrap();
    let summary = format!(
        r#"{{"id":"team.alpha:core-1","digest":"{digest}","digest_algorithm":"sha256","revision":"1","workspace_id":"w","created_at":"t","provenance":{{"source":"s"}},"profile_count":1,"declaration_count":1}}"#
    );
    let availability = format!(
        r#"{{"availability":{{"reference":{{"id":"team.alpha:core-1","digest":"{digest}"}},"summary":{summary}}}}}"#
    );
    let body = json!({"bundle": given, "ignored": 1}).to_string();
    assert_eq!(text(&server, "POST", "/config-bundles", &body), availability);
    let path = format!("/config-bundles/team.alpha:core-1/availability?digest={digest}");
    assert_eq!(text(&server, "GET", &path, ""), availability);
    assert_eq!(text(&server, "GET", "/config-bundles", ""), format!(r#"{{"bundles":[{summary}]}}"#));
    let request = format!(
        r#""intent":{{"kind":"task","objective":"index the docs"}},"profile":{{"kind":"named","value":"night-shift"}},"config_bundle":{{"id":"team.alpha:core-1","digest":"{digest}"}},"requested_capabilities":[{{"name":"read"}},{{"name":"write","reason":"patching"}}],"workspace_refs":[{{"name":"main","reference":"ws:main"}}],"mount_refs":[{{"name":"cache","reference":"mount:cache"}}]"#
    );
    let unconnected =
        r#""status":"running","execution":{"backend":"unconnected","run_state":"unconnected"},"#;
    let told = text(&server, "POST", "/workers", &format!("{{{request}}}"));
    assert!(
        told.contains(&format!(r#"{unconnected}{request},"transcript_len":0,"last_event_id":2"#)),
        "{told}"
    );
    let listed = text(&server, "GET", "/workers", "");
    assert!(listed.contains(r#""requested_capability_count":2,"has_config_bundle":true,"#), "{listed}");
    // Neither was missing, so there is nothing to note.
    assert_eq!(server.ask("GET", "/runtime", "")["runtime"]["diagnostic_count"], 0);
    // Nulls stand for what is absent; roles may be blank, and unknown fields are nobody's business.
    let odd = r#"{"intent":{"kind":"role","role":" ","purpose":null,"x":1},"profile":{"kind":"runtime_default"},"config_bundle":null,"y":[]}"#;
    assert_eq!(server.ask("POST", "/workers", odd)["worker"]["intent"], json!({"kind": "role", "role": " "}));
    // Another state of the bundle takes its place; who refers to the old one keeps doing so.
    let mut other = given.clone();
    other["metadata"]["revision"] = "2".into();
    sync(&server, &with_digest(&server, other));
    let (status, code, message) = server.refused("POST", "/workers", &format!("{{{request}}}"));
    assert_eq!((status, code.as_str()), (400, "config_bundle_digest_mismatch"));
    let begin = format!("config bundle `team.alpha:core-1` digest mismatch: expected {digest}, got ");
    assert!(message.starts_with(&begin), "{message}");
    assert_eq!(server.worker("worker-00000001")["config_bundle"]["digest"], digest);
}

#[test]
fn every_refusal_has_its_status_code_and_text() {
    let server = start(&[]);
    sync(&server, &bundle());
    let id = server.create(UNCONNECTED);
    assert_eq!(id, "worker-00000001");
    let other = "1".repeat(64);
    let task = |objective: &str| {
        format!(
            r#"{{"intent":{{"kind":"task","objective":"{objective}"}},"profile":{{"kind":"runtime_default"}}}}"#
        )
    };
    let profile = |profile: &str, more: &str| {
        format!(r#"{{"intent":{{"kind":"assistant"}},"profile":{profile}{more}}}"#)
    };
    let with = |id: &str, digest: &str| format!(r#","config_bundle":{{"id":"{id}","digest":"{digest}"}}"#);
    let default = r#"{"kind":"runtime_default"}"#;
    let data = "invalid JSON request body: Failed to deserialize the JSON body into the target type: ";
    let query = "invalid query parameters: Failed to deserialize query string: ";
    let availability = |id: &str, digest: &str| format!("/config-bundles/{id}/availability?digest={digest}");
    for (method, path, body, status, code, message) in [
        ("GET", "/workers/%20", "", 400, "invalid_worker_id", "worker_id must not be empty".to_owned()),
        ("GET", "/workers/%FF", "", 400, "invalid_worker_id", "worker_id is not UTF-8".to_owned()),
        ("POST", "/workers/%09/stop", "[", 400, "invalid_worker_id", "worker_id must not be empty".to_owned()),
        ("GET", "/workers/worker-9", "", 404, "worker_not_found", "worker worker-9 was not found in runtime runtime-probe".to_owned()),
        ("GET", "/workers/a%2Fb", "", 404, "worker_not_found", "worker a/b was not found in runtime runtime-probe".to_owned()),
        ("POST", "/workers/x/input", r#"{"kind":"user","content":"a"}"#, 404, "worker_not_found", "worker x was not found in runtime runtime-probe".to_owned()),
        ("POST", "/workers/x/cancel", "", 404, "worker_not_found", "worker x was not found in runtime runtime-probe".to_owned()),
        // Blank content is refused before anybody looks for the worker.
        ("POST", "/workers/x/input", r#"{"kind":"system","content":" \n"}"#, 400, "invalid_request", "invalid request: worker input content must not be empty".to_owned()),
        ("POST", "/workers/worker-00000001/input", r#"{"kind":"user","content":"a"}"#, 409, "worker_execution_unavailable", "worker worker-00000001 has no execution backend: worker has no execution backend".to_owned()),
        ("POST", "/workers", &task(" "), 400, "invalid_request", "invalid request: task objective must not be empty".to_owned()),
        ("POST", "/workers", &profile(default, r#","requested_capabilities":[{"name":"a"},{"name":" "}]"#), 400, "invalid_request", "invalid request: capability name must not be empty".to_owned()),
        ("POST", "/workers", &profile(r#"{"kind":"named","value":"x"}"#, ""), 400, "invalid_profile_selector", "invalid profile selector `named:x` for config bundle None: named profiles require a synced config bundle reference".to_owned()),
        ("POST", "/workers", &profile(default, &with("b", DIGEST)), 400, "invalid_profile_selector", "invalid profile selector `runtime_default` for config bundle Some(\"b\"): profile selector is not declared by synced config bundle".to_owned()),
        ("POST", "/workers", &profile(r#"{"kind":"builtin","value":" "}"#, ""), 400, "invalid_profile_selector", "invalid profile selector `builtin: ` for config bundle None: profile selector must not be empty".to_owned()),
        ("POST", "/workers", &profile(default, &with("c", DIGEST)), 404, "config_bundle_missing", "config bundle `c` was not found".to_owned()),
        ("POST", "/workers", &profile(default, &with("b", &other)), 400, "config_bundle_digest_mismatch", format!("config bundle `b` digest mismatch: expected {other}, got {DIGEST}")),
        ("GET", &availability("c", DIGEST), "", 404, "config_bundle_missing", "config bundle `c` was not found".to_owned()),
        ("GET", &availability("b", &other), "", 400, "config_bundle_digest_mismatch", format!("config bundle `b` digest mismatch: expected {other}, got {DIGEST}")),
        ("GET", &availability("c", "abc"), "", 400, "invalid_request", "invalid request: config bundle digest must be 64 lower-case hexadecimal digits".to_owned()),
        ("GET", &availability("%20", DIGEST), "", 400, "invalid_request", "invalid request: config bundle id must begin with a letter or digit and go on with these, `-`, `_`, `.` and `:`".to_owned()),
        ("GET", &availability("%FF", DIGEST), "", 400, "invalid_request", "invalid request: config bundle id is not UTF-8".to_owned()),
        ("GET", "/config-bundles/b/availability", "", 400, "invalid_query", format!("{query}missing field `digest`")),
        ("GET", "/config-bundles/b/availability?digest=1&digest=2", "", 400, "invalid_query", format!("{query}duplicate field `digest`")),
        ("GET", "/workers/x/transcript?limit=257", "", 400, "limit_too_large", "limit 257 exceeds maximum 256".to_owned()),
        ("GET", "/workers/x/transcript?limit=a", "", 400, "invalid_query", format!("{query}limit: invalid digit found in string")),
        ("GET", "/workers/x/transcript?limit=-1", "", 400, "invalid_query", format!("{query}limit: invalid digit found in string")),
        ("GET", "/workers/x/transcript?start=", "", 400, "invalid_query", format!("{query}start: cannot parse integer from empty string")),
        ("GET", "/workers/x/transcript?start=99999999999999999999", "", 400, "invalid_query", format!("{query}start: number too large to fit in target type")),
        ("GET", "/workers/x/transcript?limit=1&limit=1", "", 400, "invalid_query", format!("{query}duplicate field `limit`")),
        ("POST", "/workers", "{}", 400, "invalid_json", format!("{data}missing field `intent` at line 1 column 2")),
        ("POST", "/workers", "null", 400, "invalid_json", format!("{data}invalid type: null, expected struct CreateWorkerRequest at line 1 column 4")),
        ("POST", "/workers/x/input", r#"{"kind":"odd","content":"a"}"#, 400, "invalid_json", format!("{data}kind: unknown variant `odd`, expected `user` or `system` at line 1 column 13")),
        ("POST", "/workers/x/input", r#"{"kind":"user"}"#, 400, "invalid_json", format!("{data}missing field `content` at line 1 column 15")),
        ("POST", "/config-bundles", r#"{"bundle":1}"#, 400, "invalid_json", format!("{data}bundle: invalid type: integer `1`, expected struct ConfigBundle at line 1 column 11")),
        ("POST", "/workers", "{", 400, "invalid_json", "invalid JSON request body: Failed to parse the request body as JSON: EOF while parsing an object at line 1 column 1".to_owned()),
        ("POST", "/workers/worker-00000001/stop", "null", 400, "invalid_json", "invalid lifecycle request JSON: invalid type: null, expected struct LifecycleRequest at line 1 column 4".to_owned()),
        ("POST", "/workers/x/cancel", "{", 400, "invalid_json", "invalid lifecycle request JSON: EOF while parsing an object at line 1 column 1".to_owned()),
    ] {
        let refused = server.refused(method, path, body);
        assert_eq!(refused, (status, code.to_owned(), message), "{method} {path} {body}");
    }
    let last = &server.worker(&id)["execution"];
    let wanted = json!({"backend": "unconnected", "run_state": "rejected",
        "last_result": {"operation": "input", "outcome": "rejected", "run_state": "rejected",
                        "message": "worker has no execution backend"}});
    assert_eq!(*last, wanted);
    assert_eq!(server.worker(&id)["last_event_id"], 2, "what is refused takes no number");
    // Ended: 400, and not 409.
    server.ask("POST", "/workers/worker-00000001/stop", "");
    let refused =
        server.refused("POST", "/workers/worker-00000001/input", r#"{"kind":"user","content":"a"}"#);
    let message = "invalid request: worker worker-00000001 is not running".to_owned();
    assert_eq!(refused, (400, "invalid_request".to_owned(), message));
    assert_eq!(server.worker(&id)["execution"], wanted, "nothing was asked to end it");
}

#[test]
fn refused_bundles_are_not_kept() {
    let server = start(&[]);
    let refuse = |change: &dyn Fn(&mut Value)| {
        let mut given = bundle();
        change(&mut given);
        server.refused("POST", "/config-bundles", &json!({"bundle": given}).to_string())
    };
    let invalid = (400, "invalid_request".to_owned());
    for (key, value) in [
        ("id", "/b"),
        ("digest", &DIGEST.to_uppercase()),
        ("digest", &format!("sha256:{DIGEST}")),
        ("revision", " "),
        ("workspace_id", "/home/somebody"),
        ("created_at", "a\nb"),
        ("created_at", "a\0b"),
    ] {
        let (status, code, message) = refuse(&|given| given["metadata"][key] = value.into());
        assert_eq!((status, code), invalid, "{key} {value:?}: {message}");
        assert!(message.contains(key), "{message}");
    }
    let declare = |kind: &str, reference: &str| {
        let declaration = json!([{"kind": kind, "name": "n", "reference": reference}]);
        refuse(&|given| given["declarations"] = declaration.clone())
    };
    let (status, code, message) = declare("secret_ref", "git:x");
    assert_eq!((status, code.as_str()), (400, "unsupported_config_declaration"));
    assert_eq!(message, "config bundle `b` contains unsupported declaration `secret_ref` named `n`");
    assert_eq!(declare("unsupported", "secret:x").1, "unsupported_config_declaration");
    assert_eq!(declare("secret_ref", "secret:a b").1, "invalid_request");
    assert_eq!(declare("odd", "secret:x").1, "invalid_json");
    let blank = json!([{"selector": {"kind": "named", "value": " "}}]);
    let (status, code, message) = refuse(&|given| given["profiles"] = blank.clone());
    assert_eq!((status, code.as_str()), (400, "invalid_profile_selector"));
    assert!(
        message.ends_with("for config bundle Some(\"b\"): profile selector must not be empty"),
        "{message}"
    );
    assert_eq!(refuse(&|given| given["profiles"] = Value::Null).1, "invalid_json", "a list is not null");
    assert_eq!(text(&server, "GET", "/config-bundles", ""), r#"{"bundles":[]}"#);
}

#[test]
fn bundles_are_bounded() {
    let server = start(&[]);
    // With 256 of them one that is known may still be replaced.
    for n in 0..256 {
        let mut given = bundle();
        given["metadata"]["id"] = format!("b{n}").into();
        sync(&server, &with_digest(&server, given));
    }
    let (status, code, message) =
        server.refused("POST", "/config-bundles", &json!({"bundle": bundle()}).to_string());
    assert_eq!((status, code.as_str()), (400, "invalid_request"));
    assert!(message.contains("at most 256 config bundles"), "{message}");
    let mut again = bundle();
    (again["metadata"]["id"], again["metadata"]["revision"]) = ("b7".into(), "2".into());
    sync(&server, &with_digest(&server, again));
    let listed = server.ask("GET", "/config-bundles", "");
    let listed = listed["bundles"].as_array().unwrap();
    let ids: Vec<&str> = listed.iter().map(|bundle| bundle["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted() && ids.len() == 256, "{ids:?}");
}

#[test]
fn the_edge_is_as_it_was() {
    let server = start(&["--control", "127.0.0.1:0"]);
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/workers/", 404, None),
        ("GET", "/workers//input", 404, None),
        ("POST", "/nothing", 404, None),
        ("DELETE", "/workers/x", 405, Some("GET,HEAD")),
        ("OPTIONS", "/workers", 405, Some("GET,HEAD,POST")),
        ("GET", "/workers/x/input", 405, Some("POST")),
        ("PUT", "/workers/x/events/ws", 405, Some("GET,HEAD")),
    ] {
        let response = server.v1(method, path, AUTH, "");
        assert_eq!((response.status, response.field("allow").as_deref()), (status, allow), "{method} {path}");
        assert_eq!(response.body, b"", "{method} {path}");
        let stranger = server.v1(method, path, "", "");
        assert_eq!(stranger.status, 401, "{method} {path}: a stranger learns nothing");
    }
    let head = server.v1("HEAD", "/runtime", AUTH, "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let unauthorized = server.v1("GET", "/runtime", "Authorization: Bearer wrong\r\n", "");
    assert_eq!(
        unauthorized.body_text(),
        r#"{"error":{"code":"unauthorized","message":"missing or invalid local Runtime bearer token"}}"#
    );
    assert_eq!(unauthorized.field("www-authenticate"), None);
    // At the root of the control listener, for clients that know no prefix.
    let control = server.control.unwrap();
    let response = binary::send(control, "GET", "/v1/runtime", AUTH, b"");
    assert_eq!(response.json()["runtime"]["runtime_id"], "runtime-probe");
    assert_eq!(server.get("/v1/runtime", AUTH).status, 503, "without the prefix it is the app's");
}

#[test]
fn the_order_of_checks() {
    let server = start(&[]);
    let order = [
        // Token before route, route before id, id before body, body before worker.
        ("POST", "/workers/%20/input/x", "", "", 401),
        ("POST", "/workers/%20/input/x", AUTH, "", 404),
        ("GET", "/workers/%20/input", AUTH, "", 405),
        ("POST", "/workers/%20/input", AUTH, "no JSON", 400),
        ("POST", "/workers/x/input", AUTH, "no JSON", 400),
        ("POST", "/workers/x/input", JSON, r#"{"kind":"user","content":"a"}"#, 404),
    ];
    let codes = order.map(|(method, path, fields, body, status)| {
        let response = server.v1(method, path, fields, body);
        assert_eq!(response.status, status, "{method} {path} {fields}");
        if response.body.is_empty() { String::new() } else { response.code() }
    });
    assert_eq!(codes, ["unauthorized", "", "", "invalid_worker_id", "invalid_json", "worker_not_found"]);
    // The limit comes before the worker, which comes before nothing.
    assert_eq!(server.refused("GET", "/workers/x/transcript?limit=300", "").1, "limit_too_large");
    assert_eq!(server.refused("GET", "/workers/x/transcript?limit=3", "").1, "worker_not_found");
}

#[test]
fn what_a_body_must_be() {
    let server = start(&[]);
    for (fields, message) in [
        (AUTH.to_owned(), "Expected request with `Content-Type: application/json`"),
        (
            format!("{AUTH}Content-Type: text/plain\r\n"),
            "Expected request with `Content-Type: application/json`",
        ),
    ] {
        let response = server.v1("POST", "/workers", &fields, ASSISTANT);
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_json"));
        assert_eq!(response.json()["error"]["message"], format!("invalid JSON request body: {message}"));
    }
    let fields = format!("{AUTH}Content-Type: application/vnd.yoi+json; charset=utf-8\r\n");
    assert_eq!(server.v1("POST", "/workers", &fields, ASSISTANT).status, 200);
    // 2 MiB are taken, one byte more is not, whether it was announced or not.
    let frame = UNCONNECTED.len() + r#","x":"""#.len();
    let large =
        |bytes: usize| UNCONNECTED.replacen('{', &format!(r#"{{"x":"{}","#, "x".repeat(bytes - frame)), 1);
    let two_mib = 2 * 1024 * 1024;
    assert_eq!(large(two_mib).len(), two_mib);
    assert_eq!(server.v1("POST", "/workers", JSON, &large(two_mib)).status, 200);
    let too_large = "invalid JSON request body: Failed to buffer the request body: length limit exceeded";
    let (status, code, message) = server.refused("POST", "/workers", &large(two_mib + 1));
    assert_eq!((status, code.as_str(), message.as_str()), (400, "invalid_json", too_large));
    let mut client = Client::new(server.address);
    client.send(format!(
        "POST /_frag/v1/workers HTTP/1.1\r\nHost: h\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
    ));
    let body = large(two_mib + 1);
    client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let response = client.response("POST");
    assert_eq!(response.json()["error"]["message"], too_large);
    // Stop and cancel need no type, and say it plainly.
    let stop = "/workers/worker-00000001/stop";
    let response = server.v1("POST", stop, AUTH, &format!("{{\"reason\":\"{}\"}}", "x".repeat(two_mib)));
    assert_eq!(
        (response.status, response.body_text().as_str()),
        (413, "Failed to buffer the request body: length limit exceeded")
    );
    assert_eq!(server.v1("POST", stop, AUTH, r#"{"reason":null}"#).status, 200);
}

#[test]
fn a_body_that_finds_no_room_is_told_to_come_again() {
    let server = start(&["--exec", "any"]);
    // Runs keep their bodies: these take almost all the memory there is for bodies.
    let filled = |start: &str, bytes: usize| format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2));
    let runs: Vec<Client> = (0..16)
        .map(|_| {
            let body = filled(r#"{"args":["sleep","1000"],"x":""#, 2 * 1024 * 1024 - 1000);
            let mut client = Client::new(server.address);
            client.request("POST", "/_frag/exec", &format!("{JSON}Content-Length: {}\r\n", body.len()));
            client.send(body);
            client.take_through("started");
            client
        })
        .collect();
    for (path, start) in [("/workers", "{\"intent\":\""), ("/workers/worker-00000001/stop", "{\"reason\":\"")]
    {
        let answer = server.v1("POST", path, JSON, &filled(start, 1024 * 1024));
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{path}");
        assert!(answer.field("retry-after").is_some(), "{}", answer.head);
    }
    drop(runs);
}

#[test]
fn a_body_that_comes_too_slowly_is_told_so() {
    let server = start(&[]);
    let clients = ["/workers", "/workers/worker-00000001/stop"].map(|path| {
        let mut client = Client::new(server.address);
        client.request("POST", &format!("/_frag/v1{path}"), &format!("{JSON}Content-Length: 10\r\n"));
        client
    });
    for mut client in clients {
        let answer = client.response("POST");
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_too_slow"));
    }
}

#[test]
fn ten_thousand_workers_are_not_made() {
    let server = start(&[]);
    let mut client = Client::new(server.address);
    let mut ask = |body: &str| {
        let length = format!("Content-Length: {}\r\n", body.len());
        client.send(format!("POST /_frag/v1/workers HTTP/1.1\r\nHost: h\r\n{JSON}{length}\r\n{body}"));
        client.response("POST")
    };
    for n in 0..10_000 {
        let response = ask(UNCONNECTED);
        if n < 64 {
            assert_eq!(response.status, 200);
            assert_eq!(response.json()["worker"]["worker_id"], format!("worker-{:08x}", n + 1));
        } else {
            assert_eq!((response.status, response.code().as_str()), (409, "worker_execution_rejected"));
        }
    }
    let message =
        "worker worker-00000041 execution Spawn returned Rejected: the runtime has 64 active workers already";
    assert_eq!(ask(UNCONNECTED).json()["error"]["message"], message);
    // The place of one that ends is free, its number is not.
    server.ask("POST", "/workers/worker-00000007/cancel", "");
    assert_eq!(ask(UNCONNECTED).json()["worker"]["worker_id"], "worker-00000041");
    let runtime = &server.ask("GET", "/runtime", "")["runtime"];
    let counts = ["worker_count", "active_worker_count", "stopped_worker_count", "cancelled_worker_count"];
    assert_eq!(counts.map(|count| runtime[count].as_u64().unwrap()), [65, 64, 0, 1]);
}

#[test]
fn only_so_many_that_ended_are_remembered() {
    let server = start(&[]);
    for _ in 0..300 {
        let id = server.create(UNCONNECTED);
        server.ask("POST", &format!("/workers/{id}/stop"), "");
    }
    assert_eq!(server.refused("GET", "/workers/worker-0000002c", "").1, "worker_not_found");
    assert_eq!(server.worker("worker-0000002d")["status"], "stopped");
    assert_eq!(server.ask("GET", "/runtime", "")["runtime"]["worker_count"], 256);
}

#[test]
fn operators_bound_transcripts() {
    let server = start(&["--max-transcript-items", "2", "--max-event-batch", "9", "--max-workers", "1"]);
    let id = server.create(ASSISTANT);
    (0..2).for_each(|n| server.tell(&id, &format!("say {n}")));
    let path = |query: &str| format!("/workers/{id}/transcript{query}");
    let limits = server.ask("GET", "/runtime", "")["runtime"]["limits"].clone();
    assert_eq!(limits, json!({"max_transcript_projection_items": 2, "max_event_batch_items": 9}));
    // What is asked without a limit is asked with 256: it always was like that.
    let (_, code, message) = server.refused("GET", &path(""), "");
    assert_eq!((code.as_str(), message.as_str()), ("limit_too_large", "limit 256 exceeds maximum 2"));
    let part = |query: &str| {
        let part = server.ask("GET", &path(query), "")["transcript"].clone();
        let items = part["items"].as_array().unwrap();
        let sequences: Vec<u64> = items.iter().map(|item| item["sequence"].as_u64().unwrap()).collect();
        (sequences, part["next_start"].clone(), part["total_items"].as_u64().unwrap())
    };
    assert_eq!(part("?limit=2"), (vec![1, 2], json!(2), 4));
    assert_eq!(part("?start=2&limit=2"), (vec![3, 4], Value::Null, 4));
    assert_eq!(part("?start=%33&limit=1"), (vec![4], Value::Null, 4));
    assert_eq!(part("?limit=0&start=1"), (vec![], json!(1), 4));
    assert_eq!(part("?limit=0&start=4"), (vec![], Value::Null, 4));
    assert_eq!(part("?start=18446744073709551615&limit=2"), (vec![], Value::Null, 4));
    assert_eq!(server.refused("POST", "/workers", UNCONNECTED).1, "worker_execution_rejected");
}

#[test]
fn without_a_command_there_is_a_runtime_all_the_same() {
    let server = Server::start_with(IDLE, unused_port(), &[], |binary| {
        binary.env("FRAG_TOKEN", "correct-horse");
    });
    let id = server.create(ASSISTANT);
    let worker = server.worker(&id);
    assert_eq!(worker["runtime_id"], "runtime-mem-0000000000000001");
    assert_eq!(worker["execution"], json!({"backend": "unconnected", "run_state": "unconnected"}));
    // Nothing runs it, so there is nothing that could refuse to end.
    assert_eq!(server.ask("POST", &format!("/workers/{id}/cancel"), "{}")["ack"]["status"], "cancelled");
    let execution = server.worker(&id)["execution"].clone();
    assert_eq!(execution, json!({"backend": "unconnected", "run_state": "unconnected"}));
}

#[test]
fn without_a_token_nobody_is_an_admin() {
    let server = Server::start(IDLE, unused_port(), &[]);
    for (method, path) in
        [("GET", "/runtime"), ("POST", "/workers"), ("GET", "/nothing"), ("PUT", "/runtime")]
    {
        let response = server.v1(method, path, JSON, "");
        assert_eq!((response.status, response.code().as_str()), (403, "admin_required"), "{method} {path}");
    }
    let reader = "x-verified-user-data: {\"readOnly\":true}\r\n";
    assert_eq!(server.v1("GET", "/runtime", reader, "").code(), "read_only");
    // From another site a browser may not change anything, nor observe.
    let server = start(&[]);
    let foreign = format!("{JSON}Origin: https://evil.example\r\n");
    assert_eq!(server.v1("POST", "/workers", &foreign, ASSISTANT).code(), "origin_not_allowed");
    let observe = format!("{foreign}{}", binary::websocket::HANDSHAKE);
    assert_eq!(server.v1("GET", "/workers/x/events/ws", &observe, "").code(), "origin_not_allowed");
}
