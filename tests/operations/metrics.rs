//! Every number of `/_frag/metrics` is true.

use crate::binary::client::Client;
use crate::binary::{IDLE, Reserved, Response, Server, Wire, eventually, ok, play, send, unused_port};
use crate::exposition::Page;
use std::io::{Read, Write};

const TOTAL: &str = "frag_http_requests_total";
const SECONDS: &str = "frag_http_request_duration_seconds";

fn page(server: &Server) -> Page {
    let answer = server.get("/_frag/metrics", "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    Page::parse(&answer.body_text())
}

/// Waits for a value: a request is counted right after its client has the answer.
fn becomes(server: &Server, name: &str, labels: &[&str], wanted: f64) {
    let mut seen = 0.0;
    eventually(name, || {
        seen = page(server).get(name, labels);
        assert!(seen <= wanted || !name.ends_with("_total"), "{name} {labels:?}: {seen}, not {wanted}");
        seen == wanted
    });
}

#[test]
fn the_page_is_in_the_format_and_whole() {
    let server = Server::start(IDLE, unused_port(), &[]);
    let page = page(&server);
    let mut names = vec![
        "frag_build_info",
        TOTAL,
        SECONDS,
        "frag_http_requests_in_flight",
        "frag_http_requests_held",
        "frag_http_connections",
        "frag_http_threads",
        "frag_http_streams",
        "frag_server_state",
        "frag_server_restarts_total",
        "frag_server_next_retry_seconds",
        "frag_uploads_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "process_cpu_seconds_total",
    ];
    if cfg!(feature = "runs") {
        names.extend(["frag_runs_total", "frag_approvals_pending", "frag_event_subscribers"]);
    }
    if cfg!(feature = "workers") {
        names.push("frag_workers");
    }
    if cfg!(feature = "artifacts") {
        names.push("frag_artifacts");
    }
    for name in names {
        assert!(page.types.contains_key(name), "{name}");
    }
    assert!(page.samples.len() < 250, "{} series, and no client can add one", page.samples.len());
    assert_eq!(page.get("frag_build_info", &[&format!("version={}", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(page.get("frag_http_requests_in_flight", &[]), 1.0, "the one that asks");
    let rss = page.get("process_resident_memory_bytes", &[]);
    assert!((1e6..1e9).contains(&rss), "{rss}");
    let head = server.send("HEAD", "/_frag/metrics", "", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// The table of the documentation has what the page has.
#[test]
fn the_documentation_has_every_metric() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md")).unwrap();
    let flags: &[&str] = if cfg!(feature = "runs") { &["--journal", "JOURNAL"] } else { &[] };
    let journal = tempfile::tempdir().unwrap();
    let flags: Vec<&str> =
        flags.iter().map(|f| if *f == "JOURNAL" { journal.path().to_str().unwrap() } else { f }).collect();
    let server = Server::start(IDLE, unused_port(), &flags);
    eventually("the app runs", || page(&server).get("frag_server_up", &[]) == 1.0);
    let page = page(&server);
    let listed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for name in page.types.keys() {
        assert!(listed.contains(&name.as_str()), "docs/observability.md lacks {name}");
    }
    if cfg!(all(feature = "runs", feature = "workers", feature = "artifacts")) {
        let metric = |name: &&&str| name.starts_with("frag_") || name.starts_with("process_");
        for name in listed.iter().filter(metric) {
            assert!(page.types.contains_key(*name), "docs/observability.md has {name}, the page has not");
        }
    }
}

#[test]
fn relayed_requests_are_counted_by_status_with_their_bytes() {
    let (server, listener) = Server::with_backend(&[]);
    play(listener, |seen| match seen.line().split(' ').nth(1).unwrap() {
        "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/broken" => b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
        // Long enough to go from socket to socket, past our memory.
        "/long" => ok(&[b'x'; 1 << 20]),
        _ => ok(b"0123456789"),
    });
    let mut client = Client::new(server.address);
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    for (target, count) in [("/missing", 3), ("/moved", 2), ("/broken", 1), ("/long", 2)] {
        (0..count).for_each(|_| drop(client.get(target)));
    }
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n1234567");
    assert_eq!(client.response("POST").status, 200);
    for (code, count) in [("2xx", 53.0), ("4xx", 3.0), ("3xx", 2.0), ("5xx", 1.0), ("none", 0.0)] {
        becomes(&server, TOTAL, &["class=relay", &format!("code={code}")], count);
    }
    let page = page(&server);
    assert_eq!(page.get(&format!("{SECONDS}_count"), &["class=relay"]), 59.0);
    assert!(page.get(&format!("{SECONDS}_sum"), &["class=relay"]) > 0.0);
    assert_eq!(page.get("frag_http_received_bytes_total", &["class=relay"]), 7.0);
    assert_eq!(
        page.get("frag_http_sent_bytes_total", &["class=relay"]),
        510.0 + 6.0 + 3.0 + 2.0 * f64::from(1 << 20)
    );
    let [requests, counts] = [TOTAL, &format!("{SECONDS}_count")].map(|name| page.sum(name));
    assert_eq!(requests, counts, "each request is in one bucket");
}

#[test]
fn slow_requests_fall_into_their_bucket_and_are_in_flight_meanwhile() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    let mut wire = Wire::accept(&listener);
    wire.request().unwrap();
    becomes(&server, "frag_http_requests_in_flight", &[], 2.0);
    // Past the bound of a bucket, and for sure no stream's.
    let begun = std::time::Instant::now();
    eventually("101 ms", || begun.elapsed().as_millis() > 101);
    wire.write(&ok(b"x"));
    assert_eq!(client.response("GET").status, 200);
    becomes(&server, TOTAL, &["class=relay", "code=2xx"], 1.0);
    let page = page(&server);
    let bucket =
        |bound: &str| page.get(&format!("{SECONDS}_bucket"), &["class=relay", &format!("le={bound}")]);
    assert_eq!((bucket("0.1"), bucket("60"), bucket("+Inf")), (0.0, 1.0, 1.0));
    assert!(page.get(&format!("{SECONDS}_sum"), &["class=relay"]) >= 0.1);
    assert_eq!(page.get("frag_http_requests_in_flight", &[]), 1.0);
}

#[test]
fn a_client_that_leaves_before_the_answer_is_counted_without_a_code() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("POST", "/", "Content-Length: 0\r\n");
    let mut wire = Wire::accept(&listener);
    wire.request().unwrap();
    drop(client);
    becomes(&server, TOTAL, &["class=relay", "code=none"], 1.0);
}

#[test]
fn what_nobody_could_read_is_counted_apart() {
    let server = Server::start(IDLE, unused_port(), &["--head-timeout", "200ms"]);
    server.raw(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n");
    server.raw(b"GET / HTTP/1.1\r\nHost: h\r\n"); // 408
    becomes(&server, TOTAL, &["class=unread", "code=4xx"], 2.0);
}

#[test]
fn a_restart_is_counted_and_the_state_is_one() {
    let port = crate::common::free_port();
    let server = Server::start(&format!("{} web {port}", crate::common::fixture()), port, &[]);
    assert_eq!(server.get("/_frag/await", "").status, 200);
    let first = page(&server);
    assert_eq!(first.get("frag_server_restarts_total", &[]), 0.0);
    assert_eq!(first.get("frag_server_state", &["state=ready"]), 1.0);
    assert_eq!(first.sum("frag_server_state"), 1.0);
    let started = first.get("frag_server_start_time_seconds", &[]);
    assert!(started >= first.get("process_start_time_seconds", &[]).floor());
    assert_eq!(server.send("POST", "/_frag/restart", "", b"").status, 200);
    let second = page(&server);
    assert_eq!(second.get("frag_server_restarts_total", &[]), 1.0);
    assert_eq!(server.send("POST", "/_frag/stop", "", b"").status, 200);
    let third = page(&server);
    assert_eq!(third.get("frag_server_state", &["state=stopped"]), 1.0);
    assert_eq!((third.sum("frag_server_state"), third.get("frag_server_up", &[])), (1.0, 0.0));
    assert_eq!(third.find("frag_server_start_time_seconds", &[]), None);
    // 503 of ours, by the relay.
    assert_eq!(server.get("/", "").status, 503);
    becomes(&server, TOTAL, &["class=relay", "code=5xx"], 1.0);
}

#[test]
fn the_next_start_of_a_server_that_fails_is_told() {
    let server = Server::start("false", unused_port(), &[]);
    eventually("it waits for its next start", || {
        let page = page(&server);
        let next = page.get("frag_server_next_retry_seconds", &[]);
        assert!(next < 15.0, "{next}");
        next > 0.0 && page.get("frag_server_state", &["state=backoff"]) == 1.0
    });
}

#[test]
fn requests_that_wait_for_the_server_are_held() {
    let reserved = Reserved::new();
    let server = Server::start(IDLE, reserved.port, &[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "");
    becomes(&server, "frag_http_requests_held", &[], 1.0);
    let listener = server.open_listener(reserved);
    play(listener, |_| ok(b"x"));
    assert_eq!(client.response("GET").status, 200);
    becomes(&server, "frag_http_requests_held", &[], 0.0);
    becomes(&server, TOTAL, &["class=relay", "code=2xx"], 1.0);
    let sum = page(&server).get(&format!("{SECONDS}_sum"), &["class=relay"]);
    assert!(sum > 0.005, "the time in the hold counts: {sum}");
}

#[test]
fn a_tunnel_is_a_stream_and_its_bytes_count_both_ways() {
    let (server, listener) = Server::with_backend(&[]);
    let mut client = Client::new(server.address);
    client.request("GET", "/", "Connection: upgrade\r\nUpgrade: x\r\n");
    let mut wire = Wire::accept(&listener);
    wire.head().unwrap();
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    wire.write(switching);
    client.take_through("\r\n\r\n");
    becomes(&server, "frag_http_streams", &[], 1.0);
    client.send([b'u'; 1000]);
    assert_eq!(wire.take(1000).len(), 1000);
    // More than one read's worth, to a client that takes it late: nothing is counted twice.
    let large = vec![b'd'; 3 << 20];
    let mut writer = wire.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&large).unwrap());
    let mut taken = vec![0; 3 << 20];
    client.stream.read_exact(&mut taken).unwrap();
    writing.join().unwrap();
    becomes(&server, "frag_http_received_bytes_total", &["class=relay"], 1000.0);
    becomes(&server, "frag_http_sent_bytes_total", &["class=relay"], (switching.len() + (3 << 20)) as f64);
    drop(client);
    drop(wire);
    becomes(&server, "frag_http_streams", &[], 0.0);
    becomes(&server, TOTAL, &["class=relay", "code=1xx"], 1.0);
}

#[test]
fn uploads_and_their_bytes() {
    let server = Server::start(IDLE, unused_port(), &["--max-upload", "100"]);
    for (path, body, status) in [("a", "12345", 200), ("b", "", 200), ("c", &"x".repeat(101), 413)] {
        let answer = server.send("PUT", &format!("/_frag/upload/{path}"), "", body.as_bytes());
        assert_eq!(answer.status, status);
    }
    let page = page(&server);
    assert_eq!(page.get("frag_uploads_total", &[]), 2.0);
    assert_eq!(page.get("frag_upload_bytes_total", &[]), 5.0);
    assert_eq!(page.get("frag_uploads_failed_total", &[]), 1.0);
}

#[test]
fn writers_may_read_them_and_others_may_not() {
    let server = Server::start_with(IDLE, unused_port(), &["--control", "127.0.0.1:0"], |binary| {
        binary.env("FRAG_TOKEN", "correct-horse");
    });
    let ask = |fields: &str| server.get("/_frag/metrics", fields).status;
    assert_eq!(ask(""), 401);
    assert_eq!(ask("Authorization: Bearer correct-horse\r\n"), 200);
    let reader = "Authorization: Bearer correct-horse\r\nX-Verified-User-Data: {\"readOnly\":true}\r\n";
    assert_eq!(ask(reader), 403);
    let control = |target: &str| -> Response {
        send(server.control.unwrap(), "GET", target, "Authorization: Bearer correct-horse\r\n", b"")
    };
    assert_eq!((control("/metrics").status, control("/_frag/metrics").status), (200, 200));
    assert_eq!(
        server.send("POST", "/_frag/metrics", "Authorization: Bearer correct-horse\r\n", b"").status,
        405
    );
}

#[cfg(feature = "runs")]
#[test]
fn runs_listeners_and_the_journal() {
    use crate::binary::sse::Listener;
    let state = tempfile::tempdir().unwrap();
    let (server, _listener) =
        Server::with_backend(&["--state-dir", state.path().to_str().unwrap(), "--stop-grace", "100ms"]);
    assert_eq!(page(&server).get("frag_runs_running", &["kind=server"]), 1.0);
    let listener = Listener::new(server.address, "/_frag/events", "");
    let _second = Listener::new(server.address, "/_frag/stream/actions", "");
    let now = page(&server);
    assert_eq!(now.get("frag_event_subscribers", &["stream=events"]), 1.0);
    assert_eq!(now.get("frag_event_subscribers", &["stream=actions"]), 1.0);
    let before = now.get("frag_events_published_total", &[]);
    assert_eq!(server.send("POST", "/_frag/stop", "", b"").status, 200);
    becomes(&server, "frag_runs_total", &["kind=server", "status=aborted"], 1.0);
    becomes(&server, "frag_journal_sealed_runs", &[], 1.0);
    let now = page(&server);
    assert_eq!(now.get("frag_runs_running", &["kind=server"]), 0.0);
    assert!(now.get("frag_events_published_total", &[]) > before);
    assert_eq!(now.get("frag_journal_up", &[]), 1.0);
    let files = ["runs.jsonl", "state.jsonl", "approvals.jsonl"];
    let bytes =
        files.map(|file| std::fs::metadata(state.path().join("journal").join(file)).map_or(0, |f| f.len()));
    assert_eq!(now.get("frag_journal_bytes", &[]), bytes.iter().sum::<u64>() as f64);
    drop(listener);
    // It is seen to have left at the next event or look.
    becomes(&server, "frag_event_subscribers", &["stream=events"], 0.0);
    assert_eq!(page(&server).get("frag_event_subscribers_dropped_total", &[]), 0.0);
}

#[cfg(feature = "workers")]
#[test]
fn workers_by_what_they_are() {
    use crate::binary::workers::{ASSISTANT, AUTH, Workers, start};
    let server = start(&[]);
    let [first, _second] = [server.create(ASSISTANT), server.create(ASSISTANT)];
    server.ask("POST", &format!("/workers/{first}/stop"), "{}");
    let page = Page::parse(&server.get("/_frag/metrics", AUTH).body_text());
    let of = |status: &str| page.get("frag_workers", &[&format!("status={status}")]);
    assert_eq!((of("running"), of("stopped"), of("cancelled")), (1.0, 1.0, 0.0));
}

#[cfg(feature = "artifacts")]
#[test]
fn artifacts_and_their_bytes() {
    let server = Server::start(IDLE, unused_port(), &[]);
    let json = "Content-Type: application/json\r\n";
    for body in [r#"{"payload":"12345"}"#, r#"{"payload":"é"}"#] {
        assert_eq!(server.send("POST", "/_frag/api/artifacts", json, body.as_bytes()).status, 201);
    }
    let page = page(&server);
    assert_eq!((page.get("frag_artifacts", &[]), page.get("frag_artifact_bytes", &[])), (2.0, 7.0));
}

#[test]
fn programs_that_run_for_callers() {
    let server = crate::binary::exec::server(&[]);
    let running = || {
        let answer = server.get("/_frag/metrics", crate::binary::exec::ADMIN);
        Page::parse(&answer.body_text()).get("frag_exec_running", &[])
    };
    assert_eq!(running(), 0.0);
    let mut run = Client::new(server.address);
    let body = r#"{"args":["sh","-c","read x"],"keep_stdin":true}"#;
    let fields = format!(
        "{}Content-Type: application/json\r\nContent-Length: {}\r\n",
        crate::binary::exec::ADMIN,
        body.len()
    );
    run.request("POST", "/_frag/exec", &fields);
    run.send(body);
    eventually("it runs", || running() == 1.0);
    drop(run);
    eventually("it has ended with its client", || running() == 0.0);
}
