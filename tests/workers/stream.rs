//! Observing workers through WebSockets: order, cursors, refusals, clients that are slow or speak.

use crate::binary::client::{Client, End};
use crate::binary::websocket::{Frame, HANDSHAKE, Socket, masked};
use crate::binary::workers::{ASSISTANT, AUTH, UNCONNECTED, Workers, start};
use crate::binary::{Server, eventually};
use serde_json::{Value, json};

const ALL: &str = "?cursor=wo_0000000000000000";

fn cursor(number: u64) -> String {
    format!("wo_{number:016x}")
}

fn snapshot(id: &str, number: u64) -> String {
    let cursor = cursor(number);
    format!(
        r#"{{"kind":"event","envelope":{{"cursor":"{cursor}","event_id":"snapshot:{cursor}","worker_id":"{id}","payload":{{"event":"snapshot","data":{{"entries":[],"greeting":{{"worker_name":"{id}","cwd":"","provider":"worker-runtime","model":"worker-runtime","scope_summary":"runtime worker observation","tools":[],"context_window":0,"context_tokens":0}},"status":"idle"}}}}}}}}"#
    )
}

fn event(id: &str, number: u64, payload: &str) -> String {
    let cursor = cursor(number);
    format!(
        r#"{{"kind":"event","envelope":{{"cursor":"{cursor}","event_id":"{cursor}","worker_id":"{id}","payload":{payload}}}}}"#
    )
}

fn diagnostic(code: &str, message: &str) -> String {
    json!({"kind": "diagnostic"})
        .to_string()
        .replace('}', &format!(r#","diagnostic":{{"code":"{code}","message":"{message}"}}}}"#))
}

/// The next frames are this diagnostic, a close after it, and the end.
fn ends_diagnosed(mut socket: Socket, code: &str, message: &str) {
    assert_eq!(socket.text(), diagnostic(code, message));
    assert_eq!(socket.frame(), Frame::Close(1008));
    socket.send(8, &1008_u16.to_be_bytes());
    assert_eq!(socket.client.end(), End::Closed);
}

fn number(frame: &Value) -> u64 {
    let cursor = frame["envelope"]["cursor"].as_str().unwrap();
    u64::from_str_radix(cursor.strip_prefix("wo_").unwrap(), 16).unwrap()
}

#[test]
fn a_snapshot_then_what_was_kept_then_what_comes() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let mut now = server.observe(&id, "");
    assert_eq!(now.text(), snapshot(&id, 1));
    server.tell(&id, "say first");
    let user = r#"{"event":"user_message","data":{"segments":[{"kind":"text","content":"say first"}]}}"#;
    let done = r#"{"event":"text_done","data":{"text":"first"}}"#;
    let end = r#"{"event":"run_end","data":{"result":"finished"}}"#;
    let live = [event(&id, 2, user), event(&id, 3, done), event(&id, 4, end)];
    assert_eq!([now.text(), now.text(), now.text()], live);
    let idle = r#"{"event":"status","data":{"status":"idle"}}"#;
    let mut all = server.observe(&id, ALL);
    assert_eq!([all.text(), all.text()], [snapshot(&id, 0), event(&id, 1, idle)]);
    assert_eq!([all.text(), all.text(), all.text()], live);
    // Upper case is taken, and the snapshot says it as we do.
    let mut from = server.observe(&id, "?cursor=wo_0000000000000003");
    assert_eq!([from.text(), from.text()], [snapshot(&id, 3), event(&id, 4, end)]);
    let mut latest = server.observe(&id, "?cursor=wo_%2B000000000000004");
    assert_eq!(latest.text(), snapshot(&id, 4));
    let body = r#"{"kind":"system","content":"say x"}"#;
    server.ask("POST", &format!("/workers/{id}/input"), body);
    let system = r#"{"event":"system_item","data":{"item":{"content":"say x","kind":"embedded_worker_system_input"}}}"#;
    for socket in [&mut now, &mut all, &mut from, &mut latest] {
        assert_eq!(socket.text(), event(&id, 5, system));
    }
    // Whatever it said, as it said it; and what it did not say as events.
    let odd = r#"{"data":{"z":1.50,"a":[ ]},  "event":"memory_worker"}"#;
    eventually("it is idle", || server.worker(&id)["execution"]["run_state"] == "idle");
    let body = json!({"kind": "user", "content": format!("raw {odd}")});
    server.ask("POST", &format!("/workers/{id}/input"), &body.to_string());
    let mut socket = server.observe(&id, "?cursor=wo_0000000000000007");
    assert_eq!(socket.text(), snapshot(&id, 7));
    socket.text();
    assert_eq!(socket.text(), event(&id, 9, odd));
    server.ask("POST", &format!("/workers/{id}/cancel"), "");
    assert_eq!(socket.text(), event(&id, 10, r#"{"event":"shutdown"}"#));
    // After its end it can still be observed, and its numbers are the runtime's.
    let other = server.create(UNCONNECTED);
    assert_eq!(server.observe(&other, "").text(), snapshot(&other, 11));
    assert_eq!(server.observe(&id, "").text(), snapshot(&id, 10));
}

#[test]
fn plain_lines_and_alerts_are_events() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    server.tell(&id, "plain a \"b\"|c");
    server.tell(&id, "alert d");
    let mut socket = server.observe(&id, "?cursor=wo_0000000000000002");
    socket.text();
    let texts = [
        r#"{"event":"text_delta","data":{"text":"a \"b\""}}"#,
        r#"{"event":"text_delta","data":{"text":"c"}}"#,
        r#"{"event":"text_done","data":{"text":"a \"b\"\nc"}}"#,
        r#"{"event":"run_end","data":{"result":"finished"}}"#,
        r#"{"event":"user_message","data":{"segments":[{"kind":"text","content":"alert d"}]}}"#,
    ];
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(socket.text(), event(&id, number as u64 + 3, text));
    }
    // Two pipes: which is read first is chance.
    let two = [socket.json(), socket.json()].map(|frame| frame["envelope"]["payload"].clone());
    let alert = two.iter().find(|payload| payload["event"] == "alert").unwrap();
    let data = &alert["data"];
    assert_eq!(
        (&data["level"], &data["source"], &data["message"]),
        (&json!("warn"), &json!("worker"), &json!("d"))
    );
    assert!(data["timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000, "{data}");
    assert!(two.iter().any(|payload| payload["event"] == "run_end"), "{two:?}");
}

#[test]
fn bad_cursors_are_told_after_the_handshake() {
    let server = start(&[]);
    let id = server.create(UNCONNECTED);
    for bad in ["", "7", "wo_7", "wo_000000000000000g", "wo_00000000000000000", "wo_-000000000000001"] {
        let socket = server.observe(&id, &format!("?cursor={bad}"));
        let message = format!("invalid request: worker observation cursor {bad} is malformed");
        ends_diagnosed(socket, "runtime.cursor_malformed", &message);
    }
    let mut socket = server.observe(&id, "?cursor=wo_00000000000000FF");
    assert_eq!(socket.text(), snapshot(&id, 255));
    let message = "invalid request: worker observation cursor wo_00000000000000ff is unknown for worker worker-00000001";
    ends_diagnosed(socket, "runtime.cursor_unknown_or_expired", message);
    let path = format!("/workers/{id}/events/ws?cursor=a&cursor=b");
    assert_eq!(server.v1("GET", &path, &format!("{AUTH}{HANDSHAKE}"), "").code(), "invalid_query");
}

#[test]
fn no_upgrade_no_stream() {
    let server = start(&[]);
    let id = server.create(UNCONNECTED);
    let path = format!("/workers/{id}/events/ws");
    let version = HANDSHAKE.replace("Version: 13", "Version: 12");
    for (fields, text) in [
        (String::new(), "Connection header did not include 'upgrade'"),
        (
            "Connection: Upgrade\r\nUpgrade: echo\r\n".to_owned(),
            "`Upgrade` header did not include 'websocket'",
        ),
        (version, "`Sec-WebSocket-Version` header did not include '13'"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned(),
            "`Sec-WebSocket-Key` header missing",
        ),
    ] {
        // A field that says the connection ends would stand beside the one that asks for the upgrade.
        let mut client = Client::new(server.address);
        client.request("GET", &format!("/_frag/v1{path}"), &format!("{AUTH}{fields}"));
        let response = client.response("GET");
        assert_eq!((response.status, response.body_text().as_str()), (400, text));
        assert_eq!(response.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        let wanted = text.contains("Version").then(|| "13".to_owned());
        assert_eq!(response.field("sec-websocket-version"), wanted);
    }
    // A HEAD is a GET elsewhere; here there is nothing it could be told.
    let head = server.v1("HEAD", &path, &format!("{HANDSHAKE}{AUTH}"), "");
    assert_eq!((head.status, head.field("allow").as_deref()), (405, Some("GET")));
    let upgraded = |path: &str, fields: &str| server.v1("GET", path, &format!("{HANDSHAKE}{fields}"), "");
    assert_eq!(upgraded("/workers/x/events/ws", AUTH).code(), "worker_not_found");
    assert_eq!(upgraded("/workers/%20/events/ws", AUTH).code(), "invalid_worker_id");
    assert_eq!(upgraded(&path, "").code(), "unauthorized");
}

#[test]
fn who_speaks_is_told_to_listen() {
    let server = start(&[]);
    let id = server.create(UNCONNECTED);
    let message = "runtime worker event WebSocket is observation-only";
    for (kind, payload) in [(1, b"hello".to_vec()), (2, vec![]), (1, vec![b'x'; 100_000])] {
        let mut socket = server.observe(&id, "");
        socket.text();
        socket.send(kind, &payload);
        ends_diagnosed(socket, "runtime.observation_only", message);
    }
    // Already in the first packet, behind the handshake.
    let path = format!("/_frag/v1/workers/{id}/events/ws");
    let mut socket = Socket::open_sending(server.address, &path, AUTH, &masked(1, b"early"));
    socket.text();
    ends_diagnosed(socket, "runtime.observation_only", message);
    // What is no frame of a client.
    for bytes in [&b"\x81\x05hello"[..], &[0xff; 20], b"GET / HTTP/1.1\r\n\r\n", &[0x83, 0x80, 0, 0, 0, 0]] {
        let mut socket = server.observe(&id, "");
        socket.text();
        socket.client.send(bytes);
        let text = socket.text();
        assert!(text.contains("runtime.websocket_error") || text.contains("observation_only"), "{text}");
        assert_eq!(socket.frame(), Frame::Close(1008));
    }
    // Pings are answered, pongs are no news, and a close is answered with its own code.
    let mut socket = server.observe(&id, "");
    socket.text();
    socket.send(10, b"unasked");
    socket.send(9, b"are you there");
    assert_eq!(socket.frame(), Frame::Pong(b"are you there".to_vec()));
    socket.send(8, &1000_u16.to_be_bytes());
    assert_eq!(socket.frame(), Frame::Close(1000));
    assert_eq!(socket.client.end(), End::Closed);
}

#[test]
fn a_noisy_worker_expires_nobody_elses_cursor() {
    let server = start(&[]);
    let (noisy, quiet) = (server.create(ASSISTANT), server.create(ASSISTANT));
    server.tell(&quiet, "say a");
    let before = number(&server.observe(&quiet, "").json());
    server.tell(&noisy, "flood 100000");
    let mut socket = server.observe(&quiet, &format!("?cursor={}", cursor(before)));
    assert_eq!(number(&socket.json()), before);
    server.tell(&quiet, "say b");
    let payload = socket.json()["envelope"]["payload"].clone();
    assert_eq!(payload["data"]["segments"][0]["content"], "say b");
    // Its own older ones are expired, and cursor 0 is all there is.
    let mut socket = server.observe(&noisy, "?cursor=wo_0000000000000007");
    assert_eq!(socket.text(), snapshot(&noisy, 7));
    let message = "invalid request: worker observation cursor wo_0000000000000007 is expired for worker worker-00000001";
    ends_diagnosed(socket, "runtime.cursor_unknown_or_expired", message);
    let mut socket = server.observe(&noisy, ALL);
    socket.text();
    let first = number(&socket.json());
    let last = (0..1023).map(|_| number(&socket.json())).last().unwrap();
    assert_eq!(last - first, 1023);
    let mut socket = server.observe(&noisy, &format!("?cursor={}", cursor(first - 1)));
    socket.text();
    assert_eq!(number(&socket.json()), first);
}

#[test]
fn reconnecting_with_the_last_cursor_loses_and_doubles_nothing() {
    let server = start(&["--max-event-batch", "7"]);
    let id = server.create(ASSISTANT);
    let mut last = number(&server.observe(&id, "").json());
    let mut texts: Vec<u64> = Vec::new();
    // Several hundred events a flood, each read over several connections.
    for _ in 0..10 {
        server.ask("POST", &format!("/workers/{id}/input"), r#"{"kind":"user","content":"flood 300"}"#);
        let mut over = false;
        while !over {
            let mut socket = server.observe(&id, &format!("?cursor={}", cursor(last)));
            assert_eq!(number(&socket.json()), last, "the snapshot");
            for _ in 0..37 {
                let frame = socket.json();
                assert_eq!(number(&frame), last + 1);
                last += 1;
                let payload = &frame["envelope"]["payload"];
                over = payload["event"] == "run_end";
                texts.extend(payload["data"]["text"].as_str().map(|text| text.parse::<u64>().unwrap()));
                if over {
                    break;
                }
            }
        }
    }
    let wanted: Vec<u64> = (0..10).flat_map(|_| 1..=300).collect();
    assert_eq!(texts, wanted);
}

#[test]
fn an_observer_that_takes_nothing_delays_nobody_and_is_dropped() {
    let server = start(&[]);
    let id = server.create(ASSISTANT);
    let mut stalled = server.observe(&id, "");
    let mut quick = server.observe(&id, "");
    quick.text();
    stalled.text();
    // Until it is dropped: far more than the kernel keeps for one that does not read, in pieces that
    // are kept for one that does.
    assert_eq!(streams(&server), 2);
    let mut floods = 0;
    while streams(&server) == 2 {
        server.ask("POST", &format!("/workers/{id}/input"), r#"{"kind":"user","content":"flood 900"}"#);
        while !quick.text().contains(r#"{"event":"run_end""#) {}
        floods += 1;
        assert!(floods < 1000, "it is never dropped");
    }
    // The quick one is still there, and the stalled one finds what was sent, and an end.
    server.create(UNCONNECTED);
    server.ask("POST", &format!("/workers/{id}/stop"), "");
    assert_eq!(quick.json()["envelope"]["payload"]["event"], "shutdown");
    let end = stalled.client.end();
    // Of what is sent ahead, the kernel and we keep little for it: else who is merely slow would answer
    // no ping in time.
    let sent = stalled.client.buffer.len();
    assert!(sent < 1_000_000 && matches!(end, End::Reset | End::Closed), "{sent} {end:?}");
}

/// Threads that observe.
fn streams(server: &Server) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("eventfd")).count() - own_eventfds()
}

/// The listener thread has one of its own.
fn own_eventfds() -> usize {
    1
}

#[test]
fn streams_are_counted_and_their_places_come_back() {
    let server = start(&["--max-streams", "2"]);
    let id = server.create(UNCONNECTED);
    let first = server.observe(&id, "");
    let _second = server.observe(&id, "");
    let response = server.v1("GET", &format!("/workers/{id}/events/ws"), &format!("{AUTH}{HANDSHAKE}"), "");
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    drop(first);
    eventually("a place is free", || {
        let mut client = Client::new(server.address);
        client.request("GET", &format!("/_frag/v1/workers/{id}/events/ws"), &format!("{AUTH}{HANDSHAKE}"));
        client.take_through("\r\n").starts_with("HTTP/1.1 101")
    });
}

#[test]
fn a_forgotten_worker_is_told_to_its_observers() {
    let server = start(&[]);
    let id = server.create(UNCONNECTED);
    let mut socket = server.observe(&id, "");
    socket.text();
    server.ask("POST", &format!("/workers/{id}/stop"), "");
    socket.text();
    for _ in 0..256 {
        let other = server.create(UNCONNECTED);
        server.ask("POST", &format!("/workers/{other}/stop"), "");
    }
    ends_diagnosed(socket, "runtime.worker_not_found", "worker worker-00000001 was forgotten");
}
