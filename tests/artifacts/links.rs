//! The artifact API as its clients see it: every route, text, header and key order.

use crate::binary::client::{Client, End};
use crate::binary::{IDLE, Response, Server, send, unused_port};
use std::net::SocketAddr;

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const UNKNOWN: &str = "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";

fn start(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), &[&["--control", "127.0.0.1:0"], flags].concat())
}

/// Where the routes are: at the root of the control listener, and below the prefix on both.
fn places(server: &Server) -> [(SocketAddr, &'static str); 3] {
    let control = server.control.unwrap();
    [(control, ""), (control, "/_frag"), (server.address, "/_frag")]
}

fn body(payload: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "payload": payload })).unwrap()
}

fn create(server: &Server, payload: &str) -> String {
    let made = server.send("POST", "/_frag/api/artifacts", "", &body(payload));
    assert_eq!(made.status, 201, "{}", made.body_text());
    made.json()["id"].as_str().unwrap().to_owned()
}

/// The values of these keys, which must be all there are, in this order.
fn row(answer: &Response, keys: &[&str]) -> Vec<String> {
    let text = answer.body_text();
    let json = answer.json();
    let values: Vec<String> = keys.iter().map(|key| json[key].as_str().unwrap().to_owned()).collect();
    let members: Vec<String> =
        keys.iter().zip(&values).map(|(k, v)| format!("\"{k}\":{}", serde_json::json!(v))).collect();
    assert_eq!(text, format!("{{{}}}", members.join(",")));
    values
}

const ROW: &[&str] = &["id", "payload", "created_at", "updated_at", "last_viewed_at", "expires_at"];

/// What every answer of these routes carries.
pub(crate) fn check_headers(answer: &Response, what: &str) {
    assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"), "{what}");
    assert_eq!(answer.field("referrer-policy").as_deref(), Some("no-referrer"), "{what}");
    assert_eq!(answer.field("x-frame-options").as_deref(), Some("SAMEORIGIN"), "{what}");
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"), "{what}");
    assert!(!answer.head.contains("access-control-"), "{what}: {}", answer.head);
    if answer.status != 204 {
        let length = answer.body.len().to_string();
        assert_eq!(answer.field("content-length"), Some(length), "{what}");
    }
}

#[test]
fn every_route_and_method_has_its_answer() {
    let server = start(&[]);
    const GONE: &str = r#"{"error":"Artifact not found or expired."}"#;
    const MISSING: &str = r#"{"error":"Artifact not found."}"#;
    const METHOD: &str = r#"{"error":"Method not allowed."}"#;
    let item = format!("/api/artifacts/{UNKNOWN}");
    let upper = format!("/api/artifacts/{}", UNKNOWN.to_uppercase());
    let below = format!("{item}/more");
    let view = format!("/{UNKNOWN}");
    let rows: &[(&str, &str, u16, &str, &str)] = &[
        ("GET", "/api/artifacts", 404, TEXT, "Not found"),
        ("PUT", "/api/artifacts", 404, TEXT, "Not found"),
        ("DELETE", "/api/artifacts", 404, TEXT, "Not found"),
        ("PATCH", "/api/artifacts", 404, TEXT, "Not found"),
        ("POST", "/api/cleanup", 200, JSON, r#"{"deleted":0}"#),
        ("POST", "/api/cleanup/", 200, JSON, r#"{"deleted":0}"#),
        ("GET", "/api/cleanup", 404, TEXT, "Not found"),
        ("DELETE", "/api/cleanup", 404, TEXT, "Not found"),
        ("PUT", "/api/cleanup", 404, TEXT, "Not found"),
        ("PATCH", "/api/cleanup", 404, TEXT, "Not found"),
        ("GET", &item, 404, JSON, GONE),
        ("GET", &upper, 404, JSON, GONE),
        ("GET", "/api/artifacts/x", 404, JSON, GONE),
        ("GET", "/api/artifacts/..%2f", 404, JSON, GONE),
        ("GET", "/api/artifacts/%41", 404, JSON, GONE),
        ("DELETE", &item, 404, JSON, MISSING),
        ("POST", &item, 405, JSON, METHOD),
        ("PATCH", &item, 405, JSON, METHOD),
        ("BREW", &item, 405, JSON, METHOD),
        ("GET", &below, 404, TEXT, "Not found"),
        ("PUT", &below, 404, TEXT, "Not found"),
        ("POST", &below, 404, TEXT, "Not found"),
        ("DELETE", &below, 404, TEXT, "Not found"),
        ("PATCH", &below, 404, TEXT, "Not found"),
        ("OPTIONS", "/api/artifacts", 204, "", ""),
        ("OPTIONS", &item, 204, "", ""),
        ("OPTIONS", &below, 204, "", ""),
        ("OPTIONS", "/api/cleanup", 204, "", ""),
        ("OPTIONS", "/api/nope", 204, "", ""),
        ("GET", "/api/nope", 404, TEXT, "Not found"),
        ("GET", "/api/Artifacts", 404, TEXT, "Not found"),
        ("POST", &view, 404, TEXT, "Not found"),
        ("OPTIONS", &view, 404, TEXT, "Not found"),
        ("DELETE", &view, 404, TEXT, "Not found"),
        ("PUT", &view, 404, TEXT, "Not found"),
        ("PATCH", &view, 404, TEXT, "Not found"),
        // As browsers would write it:
        ("GET", "/x/../api/./artifacts/%2e%2e/artifacts/x", 404, JSON, GONE),
        ("GET", "/api\\artifacts\\x", 404, JSON, GONE),
        ("GET", "/api/artifacts/x?y=/../z", 404, JSON, GONE),
        ("GET", "/api/artifacts/x///", 404, JSON, GONE),
        ("GET", "http://other.example/api/artifacts/x", 404, JSON, GONE),
    ];
    for (address, prefix) in places(&server) {
        for (method, path, status, content_type, text) in rows {
            let target = match path.strip_prefix("http://other.example") {
                Some(path) => format!("http://localhost{prefix}{path}"),
                None => format!("{prefix}{path}"),
            };
            let answer = send(address, method, &target, "", b"");
            let what = format!("{method} {target}");
            assert_eq!((answer.status, &*answer.body_text()), (*status, *text), "{what}");
            assert_eq!(answer.field("content-type").unwrap_or_default(), *content_type, "{what}");
            let allow = (*status == 405).then(|| "GET, HEAD, PUT, DELETE, OPTIONS".to_owned());
            assert_eq!(answer.field("allow"), allow, "{what}");
            check_headers(&answer, &what);
        }
        for path in ["/api/artifacts", "/api/cleanup", "/api/nope", &item, &below, &view] {
            let answer = send(address, "HEAD", &format!("{prefix}{path}"), "", b"");
            assert_eq!((answer.status, answer.body.len()), (404, 0), "HEAD {path}");
            assert_ne!(answer.field("content-length").unwrap(), "0", "HEAD {path}");
        }
        // Not ours by their path, so errors have the shape of everything else.
        for path in ["/api", "/api/", "//api//artifacts", "/API/artifacts", "//"] {
            for method in ["GET", "OPTIONS"] {
                let answer = send(address, method, &format!("{prefix}{path}"), "", b"");
                assert_eq!((answer.status, &*answer.code()), (404, "not_found"), "{method} {path}");
            }
        }
    }
}

#[test]
fn an_artifact_goes_through_its_life() {
    let server = start(&[]);
    for (address, prefix) in places(&server) {
        let api = format!("{prefix}/api/artifacts");
        let made = send(address, "POST", &api, "", &body("one"));
        assert_eq!((made.status, made.field("content-type").as_deref()), (201, Some(JSON)));
        check_headers(&made, "POST");
        let [id, expires] = row(&made, &["id", "expires_at"]).try_into().unwrap();
        assert!(is_uuid_v4(&id), "{id}");
        let item = format!("{api}/{id}");
        let read = send(address, "GET", &item, "", b"");
        assert_eq!((read.status, read.field("content-type").as_deref()), (200, Some(JSON)));
        check_headers(&read, "GET");
        let [_, payload, created, updated, viewed, new_expires] = row(&read, ROW).try_into().unwrap();
        assert_eq!((&*payload, &created), ("one", &updated));
        assert!(is_timestamp(&created) && is_timestamp(&viewed) && is_timestamp(&expires), "{viewed}");
        assert!(viewed >= created && new_expires >= expires && expires[..10] > created[..10]);
        let put = send(address, "PUT", &item, "", &body("t\u{2028}w\"o</\u{7f}\u{1}"));
        assert_eq!((put.status, put.field("content-type").as_deref()), (200, Some(JSON)));
        check_headers(&put, "PUT");
        let [_, payload, still_created, updated, still_viewed, last_expires] =
            row(&put, ROW).try_into().unwrap();
        assert_eq!(payload, "t\u{2028}w\"o</\u{7f}\u{1}");
        assert_eq!((&still_created, &still_viewed), (&created, &viewed));
        assert!(updated >= viewed && last_expires >= new_expires);
        let head = send(address, "HEAD", &item, "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        let read = send(address, "GET", &item, "", b"");
        assert_eq!(head.field("content-length"), read.field("content-length"));
        // The path is compared byte for byte, whatever it looks like.
        for other in [id.to_uppercase(), id.replace('-', "%2d"), format!("{id}.")] {
            assert_eq!(send(address, "GET", &format!("{api}/{other}"), "", b"").status, 404, "{other}");
        }
        let deleted = send(address, "DELETE", &item, "", b"");
        assert_eq!((deleted.status, &*deleted.body_text()), (200, r#"{"deleted":true}"#));
        assert_eq!(deleted.field("content-type").as_deref(), Some(JSON));
        check_headers(&deleted, "DELETE");
        for (method, error) in [
            ("GET", "Artifact not found or expired."),
            ("PUT", "Artifact not found or expired."),
            ("DELETE", "Artifact not found."),
        ] {
            let gone = send(address, method, &item, "", &body("x"));
            assert_eq!((gone.status, gone.body_text()), (404, format!("{{\"error\":\"{error}\"}}")));
            assert_eq!(gone.field("content-type").as_deref(), Some(JSON), "{method}");
            check_headers(&gone, method);
        }
    }
}

fn is_uuid_v4(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && text[14..].starts_with('4')
        && text[19..].starts_with(['8', '9', 'a', 'b'])
}

fn is_timestamp(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn bodies_are_read_as_the_contract_says() {
    let server = start(&[]);
    let control = server.control.unwrap();
    let id = create(&server, "old");
    let item = format!("/api/artifacts/{id}");
    let invalid = "Invalid request body.";
    let not_a_string = "Payload must be a string.";
    let too_long = "Payload exceeds the maximum allowed length of 500,000 characters.";
    let text = |bytes: &[u8]| bytes.to_vec();
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (text(b""), invalid),
        (text(b"{"), invalid),
        (text(b"payload=x"), invalid),
        (text(b"\xef\xbb\xbf{\"payload\":\"x\"}"), invalid),
        (text(br#"{"payload":"\ud800"}"#), invalid),
        (text(br#"{"\ud800":1,"payload":"x"}"#), invalid),
        (text(br#"{"a":"\ud800","payload":"x"}"#), invalid),
        (text(br#"["\ud800"]"#), invalid),
        (text(b"null"), not_a_string),
        (text(b"[]"), not_a_string),
        (text(b"7"), not_a_string),
        (text(b"\"x\""), not_a_string),
        (text(b"{}"), not_a_string),
        (text(br#"{"payload":null}"#), not_a_string),
        (text(br#"{"payload":7}"#), not_a_string),
        (text(br#"{"payload":{}}"#), not_a_string),
        (text(br#"{"payload":"x","payload":1}"#), not_a_string),
        (text(br#"{"payload":""}"#), "Payload must not be empty."),
        (body(&"a".repeat(500_001)), too_long),
        (body(&"\u{e9}".repeat(500_001)), too_long),
        (body(&"\u{1f600}".repeat(250_001)), too_long),
    ];
    for (body, error) in &rows {
        for (method, path) in [("POST", "/api/artifacts"), ("PUT", &*item), ("PUT", "/api/artifacts/none")] {
            let answer = send(control, method, path, "", body);
            let wanted = format!("{{\"error\":\"{error}\"}}");
            let what = format!("{method} {:.60}", String::from_utf8_lossy(body));
            assert_eq!((answer.status, answer.body_text()), (400, wanted), "{what}");
            assert_eq!(answer.field("content-type").as_deref(), Some(JSON), "{what}");
            check_headers(&answer, &what);
        }
    }
    let refused = send(control, "PUT", "/api/artifacts/none", "", &body("x"));
    assert_eq!(refused.status, 404, "the body is judged before the id");
    assert_eq!(send(control, "GET", &item, "", b"").json()["payload"], "old");
    for (body, payload) in [
        (text(b" {\"a\":[{}],\"payload\":1,\"payload\":\"x\"} "), "x".to_owned()),
        (text(b"{\"payload\":\"a\xffb\xf0\x9f\x98\"}"), "a\u{fffd}b\u{fffd}".to_owned()),
        (text(br#"{"payload":"\u0000\ud83d\ude00"}"#), "\0\u{1f600}".to_owned()),
        (body(&"a".repeat(500_000)), "a".repeat(500_000)),
        (body(&"\u{e9}".repeat(500_000)), "\u{e9}".repeat(500_000)),
        (body(&"\u{1f600}".repeat(250_000)), "\u{1f600}".repeat(250_000)),
    ] {
        let made = send(control, "POST", "/api/artifacts", "Content-Type: text/plain\r\n", &body);
        assert_eq!(made.status, 201, "{:.60}", payload);
        let item = format!("/api/artifacts/{}", made.json()["id"].as_str().unwrap());
        assert!(send(control, "GET", &item, "", b"").json()["payload"] == payload, "{:.60}", payload);
    }
}

#[test]
fn a_body_may_have_a_mebibyte_and_not_a_byte_more() {
    let server = start(&[]);
    let control = server.control.unwrap();
    let padded = |bytes: usize| {
        let mut body = body("x");
        body.resize(bytes, b' ');
        body
    };
    assert_eq!(send(control, "POST", "/api/artifacts", "", &padded(1_048_576)).status, 201);
    let chunked =
        |bytes: usize| [format!("{bytes:x}\r\n").as_bytes(), &padded(bytes), b"\r\n0\r\n\r\n"].concat();
    let head = "POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::new(control);
    client.send([head.as_bytes(), &chunked(1_048_576)].concat());
    assert_eq!(client.response("POST").status, 201);
    let refused = |answer: Response| {
        check_headers(&answer, "413");
        assert_eq!(answer.field("content-type").as_deref(), Some(JSON));
        assert_eq!((answer.status, &*answer.body_text()), (413, r#"{"error":"Request body too large."}"#));
        assert_eq!(answer.field("connection").as_deref(), Some("close"));
    };
    refused(send(control, "POST", "/api/artifacts", "", &padded(1_048_577)));
    // Who says beforehand how much it is need not send it.
    let mut client = Client::new(control);
    client.send("PUT /api/artifacts/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n");
    refused(client.response("PUT"));
    assert_eq!(client.end(), End::Closed);
    // Who does not is stopped.
    let mut client = Client::new(control);
    client.send([head.as_bytes(), &chunked(1_048_577)].concat());
    refused(client.response("POST"));
}

#[test]
fn chunked_bodies_and_expectations_work_and_connections_last() {
    let server = start(&[]);
    let mut client = Client::new(server.control.unwrap());
    client.send("POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\n{\"pay\r\n10;x=y\r\nload\":\"chunked\"}\r\n0\r\n\r\n");
    let made = client.response("POST");
    assert_eq!(made.status, 201, "{}", made.body_text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    client.send(format!("PUT /api/artifacts/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.take_through("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(r#"{"payload":"p"}"#);
    assert_eq!(client.response("PUT").json()["payload"], "p");
    client.send("POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(client.response("POST").status, 400);
    // A body nobody asked for does not spoil the connection.
    client.send("POST /api/cleanup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{{{{{");
    assert_eq!(client.response("POST").body_text(), r#"{"deleted":0}"#);
    client.send(format!("GET /api/artifacts/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(client.response("GET").json()["payload"], "p");
}

#[test]
fn what_nobody_looks_at_expires() {
    let server = start(&["--artifact-ttl", "1ms"]);
    let control = server.control.unwrap();
    let expired = || {
        let id = create(&server, "x");
        // A millisecond later it has expired; a look before that would put it off.
        std::thread::sleep(std::time::Duration::from_millis(3));
        format!("/api/artifacts/{id}")
    };
    let gone = r#"{"error":"Artifact not found or expired."}"#;
    let item = expired();
    assert_eq!(send(control, "HEAD", &item, "", b"").status, 404);
    assert_eq!(send(control, "GET", &item, "", b"").body_text(), gone);
    assert_eq!(send(control, "DELETE", &item, "", b"").status, 404, "the look removed it");
    assert_eq!(send(control, "PUT", &expired(), "", &body("y")).body_text(), gone);
    assert_eq!(send(control, "DELETE", &expired(), "", b"").status, 200, "expired, but still there");
    let view = expired().replace("/api/artifacts", "");
    let page = send(control, "GET", &view, "", b"");
    assert_eq!(page.status, 404);
    assert!(page.body_text().contains("This artifact has expired or does not exist."));
    for _ in 0..3 {
        expired();
    }
    assert_eq!(send(control, "POST", "/api/cleanup", "", b"").body_text(), r#"{"deleted":3}"#);
    assert_eq!(send(control, "POST", "/api/cleanup", "", b"").body_text(), r#"{"deleted":0}"#);
}

#[test]
fn a_full_store_says_so() {
    let full = r#"{"error":"Artifact store is full."}"#;
    let server = start(&["--artifact-max-rows", "2"]);
    let control = server.control.unwrap();
    let id = create(&server, "x");
    create(&server, "x");
    let refused = send(control, "POST", "/api/artifacts", "", &body("x"));
    assert_eq!((refused.status, &*refused.body_text()), (507, full));
    check_headers(&refused, "507");
    assert_eq!(send(control, "DELETE", &format!("/api/artifacts/{id}"), "", b"").status, 200);
    create(&server, "x");
    let server = start(&["--artifact-max-bytes", "1KiB"]);
    let control = server.control.unwrap();
    let id = create(&server, &"x".repeat(1000));
    assert_eq!(send(control, "POST", "/api/artifacts", "", &body(&"x".repeat(25))).body_text(), full);
    let item = format!("/api/artifacts/{id}");
    assert_eq!(send(control, "PUT", &item, "", &body(&"x".repeat(1025))).status, 507);
    assert_eq!(send(control, "PUT", &item, "", &body(&"x".repeat(1024))).status, 200);
}

const CORS: &[(&str, &str)] = &[
    ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS"),
    ("access-control-allow-headers", "Content-Type"),
];

#[test]
fn pages_of_others_may_use_the_api_only_where_they_are_let() {
    let foreign = "Origin: https://other.example\r\n";
    let paths = [
        ("POST", "/api/artifacts", 201, body("x")),
        ("POST", "/api/artifacts", 400, vec![]),
        ("GET", "/api/artifacts", 404, vec![]),
        ("GET", "/api/artifacts/x", 404, vec![]),
        ("PATCH", "/api/artifacts/x", 405, vec![]),
        ("OPTIONS", "/api/artifacts", 204, vec![]),
        ("OPTIONS", "/api/nope", 204, vec![]),
        ("POST", "/api/cleanup", 200, vec![]),
    ];
    for (cors, own, others) in [
        (None, 201, 403),
        (Some("*"), 201, 201),
        (Some("https://other.example"), 201, 201),
        (Some("https://third.example"), 201, 403),
    ] {
        let flags = cors.map_or(vec![], |origin| vec!["--artifact-cors", origin]);
        let server = start(&flags);
        let control = server.control.unwrap();
        for (origin, made) in [("", own), ("Origin: http://localhost\r\n", own), (foreign, others)] {
            for (method, path, status, body) in &paths {
                let answer = send(control, method, path, origin, body);
                let what = format!("{method} {path} {origin:?} {cors:?}");
                let status = if made == 403 && *method != "GET" { 403 } else { *status };
                assert_eq!(answer.status, status, "{what}");
                if status == 403 {
                    assert_eq!(answer.body_text(), r#"{"error":"Requests from that Origin are refused."}"#);
                }
                assert_eq!(answer.field("access-control-allow-origin").as_deref(), cors, "{what}");
                for (name, value) in CORS {
                    assert_eq!(answer.field(name).as_deref(), cors.map(|_| *value), "{what}");
                }
                assert!(!answer.head.contains("access-control-max-age"), "{what}");
                assert!(!answer.head.contains("credentials"), "{what}");
            }
        }
        // Only the API: pages, health and everything else stay as they are.
        for path in [&format!("/{UNKNOWN}"), "/health", "/status", "/api"] {
            let answer = send(control, "GET", path, foreign, b"");
            assert!(!answer.head.contains("access-control-"), "{path}: {}", answer.head);
        }
        assert_eq!(send(control, "POST", "/restart", foreign, b"").status, 403, "{cors:?}");
    }
}

#[test]
fn a_token_is_asked_for_by_everything_but_views_and_preflights() {
    let token = "Authorization: Bearer secret\r\n";
    let guarded = |flags: &[&str]| {
        Server::start_with(IDLE, unused_port(), &[&["--control", "127.0.0.1:0"], flags].concat(), |binary| {
            binary.env("FRAG_TOKEN", "secret");
        })
    };
    let server = guarded(&["--artifact-cors", "*"]);
    let control = server.control.unwrap();
    let made = send(control, "POST", "/api/artifacts", token, &body("payload"));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let item = format!("/api/artifacts/{id}");
    for (method, path) in [
        ("POST", "/api/artifacts"),
        ("GET", &*item),
        ("PUT", &item),
        ("DELETE", &item),
        ("PATCH", &item),
        ("POST", "/api/cleanup"),
        ("GET", "/api/nope"),
    ] {
        let refused = send(control, method, path, "", &body("x"));
        assert_eq!(
            (refused.status, &*refused.body_text()),
            (401, r#"{"error":"A valid bearer token is required."}"#)
        );
        assert_eq!(refused.field("www-authenticate").as_deref(), Some("Bearer"), "{method} {path}");
        assert_eq!(refused.field("access-control-allow-origin").as_deref(), Some("*"), "{method} {path}");
        assert_eq!(
            refused.field("access-control-allow-headers").as_deref(),
            Some("Content-Type, Authorization")
        );
    }
    assert_eq!(send(control, "GET", &item, token, b"").json()["payload"], "payload");
    let page = send(control, "GET", &format!("/{id}"), "", b"");
    assert_eq!(page.status, 200);
    assert!(page.body_text().contains("\"payload\""));
    assert_eq!(send(control, "OPTIONS", &item, "Origin: https://a.example\r\n", b"").status, 204);
    let unshared = guarded(&[]);
    assert_eq!(send(unshared.control.unwrap(), "OPTIONS", &item, "", b"").status, 401);
}

#[test]
fn readers_see_no_artifact() {
    let server = start(&[]);
    let id = create(&server, "x");
    let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
    for (address, prefix) in places(&server) {
        let refused = send(address, "GET", &format!("{prefix}/api/artifacts/{id}"), reader, b"");
        assert_eq!((refused.status, &*refused.body_text()), (403, r#"{"error":"Readers may not do this."}"#));
        let page = send(address, "GET", &format!("{prefix}/{id}"), reader, b"");
        assert_eq!(
            (page.status, page.field("content-type").as_deref()),
            (403, Some("text/html; charset=utf-8"))
        );
        assert!(page.body_text().contains("Readers may not do this."));
    }
}
