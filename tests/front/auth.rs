//! Who may do what: every credential against every route, and where calls may come from.

use crate::binary::{IDLE, Reserved, Response, Server, connect, eventually, read_to_end, send, unused_port};
use crate::{binary, common};
use std::io::Write;
use std::net::SocketAddr;

const TOKEN: &str = "correct-horse";

const EXEC_CHALLENGE: &str = "Bearer resource_metadata=\"/.well-known/oauth-protected-resource\"";

/// What an identity header makes of its sender.
#[derive(Clone, Copy, PartialEq)]
enum Identity {
    Absent,
    Reader,
    Writer,
    Malformed,
}

const IDENTITIES: &[(&str, Identity)] = &[
    ("", Identity::Absent),
    ("X-Verified-User-Data: {\"readOnly\":true}\r\n", Identity::Reader),
    ("x-verified-user-data:{\"read_only\":true}\r\n", Identity::Reader),
    ("X-Verified-User-Data: {\"id\":[1],\"read\\u004fnly\":true}\r\n", Identity::Reader),
    ("X-Verified-User-Data: {\"readOnly\":false,\"read_only\":true}\r\n", Identity::Reader),
    ("X-Verified-User-Data: {\"role\":\"admin\",\"readOnly\":true}\r\n", Identity::Reader),
    ("X-Verified-User-Data: {\"readOnly\":false,\"name\":\"J\u{f6}rg\"}\r\n", Identity::Writer),
    ("X-Verified-User-Data: {}\r\n", Identity::Writer),
    ("X-Verified-User-Data: {\"role\":\"admin\"}\r\n", Identity::Writer),
    ("X-Verified-User-Data: {\"readOnly\":\r\n", Identity::Malformed),
    ("X-Verified-User-Data: \r\n", Identity::Malformed),
    ("X-Verified-User-Data: [{\"readOnly\":false}]\r\n", Identity::Malformed),
    ("X-Verified-User-Data: null\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {\"readOnly\":\"true\"}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {\"readOnly\":null}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {\"readOnly\":false,\"readOnly\":false}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {\"readOnly\":false,\"read\\u004fnly\":true}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {\"a\":1,\"a\":1}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {} {}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {}\r\nX-Verified-User-Data: {}\r\n", Identity::Malformed),
    ("X-Verified-User-Data: {}\r\nX-Verified-User-Data: {\"readOnly\":true}\r\n", Identity::Malformed),
];

const TOKENS: &[(&str, bool)] = &[
    ("", false),
    ("Authorization: Bearer incorrect-horse\r\n", false),
    ("Authorization: Bearer correct-horse\r\n", true),
];

/// What a route asks of its caller, and whose words it refuses with.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asks {
    Nothing,
    Writer,
    /// An admin; errors are the exec contract's.
    ExecAdmin,
    /// An admin; a missing token is told in the workers' contract's words, without a challenge.
    WorkersAdmin,
}
use Asks::{ExecAdmin, Nothing, WorkersAdmin, Writer};

/// Method, path, who may, and the answer to who may, in an order in which each works. The exec routes
/// are on wherever somebody can be an admin.
const ROUTES: &[(&str, &str, Asks, u16, &str)] = &[
    ("GET", "/status", Writer, 200, ""),
    ("HEAD", "/status", Writer, 200, ""),
    ("GET", "/await", Nothing, 200, ""),
    ("HEAD", "/health", Nothing, 200, ""),
    ("GET", "/health", Nothing, 200, ""),
    ("POST", "/upload/f", Writer, 200, ""),
    ("PUT", "/upload/f", Writer, 200, ""),
    ("GET", "/files/f", Writer, 200, ""),
    ("HEAD", "/files/f", Writer, 200, ""),
    ("GET", "/files", Writer, 200, ""),
    ("GET", "/files/", Writer, 200, ""),
    ("DELETE", "/files/f", Writer, 204, ""),
    ("DELETE", "/files/f", Writer, 404, "not_found"),
    ("POST", "/restart", Writer, 200, ""),
    ("POST", "/interrupt", Writer, 200, ""),
    ("POST", "/stop", Writer, 200, ""),
    ("POST", "/interrupt", Writer, 409, "not_running"),
    ("POST", "/start", Writer, 200, ""),
    ("GET", "/nothing", Writer, 404, "not_found"),
    ("POST", "/nothing", Writer, 404, "not_found"),
    ("DELETE", "/status", Writer, 405, "method_not_allowed"),
    ("POST", "/await", Nothing, 405, "method_not_allowed"),
    ("PUT", "/health", Nothing, 405, "method_not_allowed"),
    ("GET", "/restart", Writer, 405, "method_not_allowed"),
    ("OPTIONS", "/upload/f", Writer, 405, "method_not_allowed"),
    ("PATCH", "/files/f", Writer, 405, "method_not_allowed"),
    ("GET", "/exec", ExecAdmin, 200, ""),
    ("HEAD", "/exec", ExecAdmin, 200, ""),
    ("POST", "/exec", ExecAdmin, 415, "unsupported_media_type"),
    ("POST", "/api/v1/admin/cli", ExecAdmin, 415, "unsupported_media_type"),
    ("GET", "/exec/none", ExecAdmin, 404, "not_found"),
    ("HEAD", "/exec/none", ExecAdmin, 404, ""),
    ("DELETE", "/exec/none", ExecAdmin, 404, "not_found"),
    ("POST", "/exec/none/stdin", ExecAdmin, 404, "not_found"),
    ("GET", "/exec/none/nothing", ExecAdmin, 404, "not_found"),
    ("PUT", "/exec", ExecAdmin, 405, ""),
    ("PATCH", "/exec/none", ExecAdmin, 405, ""),
    ("GET", "/exec/none/stdin", ExecAdmin, 405, ""),
    ("GET", "/api/v1/admin/cli", ExecAdmin, 405, ""),
];

/// Those of the worker runtime.
#[cfg(feature = "workers")]
const WORKERS_ROUTES: &[(&str, &str, Asks, u16, &str)] = &[
    ("GET", "/v1/runtime", WorkersAdmin, 200, ""),
    ("HEAD", "/v1/runtime", WorkersAdmin, 200, ""),
    ("GET", "/v1/config-bundles", WorkersAdmin, 200, ""),
    ("POST", "/v1/config-bundles", WorkersAdmin, 400, "invalid_json"),
    ("GET", "/v1/config-bundles/b/availability", WorkersAdmin, 400, "invalid_query"),
    ("GET", "/v1/workers", WorkersAdmin, 200, ""),
    ("POST", "/v1/workers", WorkersAdmin, 400, "invalid_json"),
    ("GET", "/v1/workers/w", WorkersAdmin, 404, "worker_not_found"),
    ("POST", "/v1/workers/w/input", WorkersAdmin, 400, "invalid_json"),
    ("POST", "/v1/workers/w/stop", WorkersAdmin, 404, "worker_not_found"),
    ("POST", "/v1/workers/w/cancel", WorkersAdmin, 404, "worker_not_found"),
    ("GET", "/v1/workers/w/transcript", WorkersAdmin, 404, "worker_not_found"),
    ("GET", "/v1/workers/w/events/ws", WorkersAdmin, 400, ""),
    ("GET", "/v1/nothing", WorkersAdmin, 404, ""),
    ("PUT", "/v1/workers", WorkersAdmin, 405, ""),
];
#[cfg(not(feature = "workers"))]
const WORKERS_ROUTES: &[(&str, &str, Asks, u16, &str)] = &[];
/// The same for artifacts, whose errors have another shape: whether a link is enough instead of the token.
#[cfg(feature = "artifacts")]
const ARTIFACT_ROUTES: &[(&str, &str, bool, u16)] = &[
    ("POST", "/api/artifacts", false, 400),
    ("GET", "/api/artifacts", false, 404),
    ("GET", "/api/artifacts/x", false, 404),
    ("HEAD", "/api/artifacts/x", false, 404),
    ("PUT", "/api/artifacts/x", false, 400),
    ("DELETE", "/api/artifacts/x", false, 404),
    ("PATCH", "/api/artifacts/x", false, 405),
    ("OPTIONS", "/api/artifacts/x", false, 204),
    ("POST", "/api/cleanup", false, 200),
    ("GET", "/api/nothing", false, 404),
    ("GET", "/x/../api/./nothing", false, 404),
    ("GET", "/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", true, 404),
    ("HEAD", "/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", true, 404),
    ("POST", "/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", false, 404),
];
#[cfg(not(feature = "artifacts"))]
const ARTIFACT_ROUTES: &[(&str, &str, bool, u16)] = &[];
/// The same for state, events and runs, whose errors are `{"error":"text"}`: method, path, whether it asks
/// for an admin, and the answer to who may.
#[cfg(feature = "runs")]
const RUN_ROUTES: &[(&str, &str, bool, u16, &str)] = &[
    ("HEAD", "/events", false, 200, ""),
    ("HEAD", "/stream/state", false, 200, ""),
    ("HEAD", "/stream/actions", false, 200, ""),
    ("GET", "/state", false, 200, ""),
    ("GET", "/state/none", false, 404, "Slice not found: none"),
    ("GET", "/runs", false, 200, ""),
    ("GET", "/runs/none", false, 404, "Run not found: none"),
    ("GET", "/approvals", false, 200, ""),
    ("GET", "/approvals/history", false, 200, ""),
    ("GET", "/approvals/none", false, 404, "Approval not found: none"),
    ("GET", "/.well-known/manifest.json", false, 200, ""),
    ("GET", "/contracts/actions.public.json", false, 200, ""),
    ("POST", "/invoke", true, 400, "Invalid JSON body"),
    ("POST", "/abort", true, 200, ""),
    ("POST", "/dispatch", true, 400, "Invalid JSON body"),
    ("POST", "/runs/none/cancel", true, 404, "Run not found: none"),
    ("POST", "/runs/none/continue", true, 404, "Run not found: none"),
    ("POST", "/approvals/none", true, 400, "Invalid JSON body"),
    ("GET", "/stream/none", false, 404, "Not found"),
    ("DELETE", "/state", false, 405, "Method not allowed"),
    ("GET", "/invoke", true, 405, "Method not allowed"),
    ("PUT", "/runs/none/cancel", true, 405, "Method not allowed"),
];
#[cfg(not(feature = "runs"))]
const RUN_ROUTES: &[(&str, &str, bool, u16, &str)] = &[];

/// What [`refusal`] says, in those words; of a malformed identity the words vary. Without a token there
/// is no admin, save on an open listener.
fn run_refusal(
    setup: Setup,
    on_control: bool,
    identity: Identity,
    has_token: bool,
    admin: bool,
) -> Option<(u16, &'static str)> {
    let opened = setup.open_control && on_control;
    match refusal(setup, on_control, identity, has_token, Writer) {
        Some((401, "token_required")) => Some((401, "Unauthorized")),
        Some((401, _)) => Some((401, "a verified identity is required")),
        Some((403, _)) => Some((403, "readers may not do this")),
        Some((status, _)) => Some((status, "")),
        None if admin && !opened && !setup.token => Some((403, "only an admin may do this")),
        None => None,
    }
}

#[derive(Clone, Copy)]
struct Setup {
    token: bool,
    require_user: bool,
    open_control: bool,
}

/// The whole rule: why a request is refused, if it is.
fn refusal(
    setup: Setup,
    on_control: bool,
    identity: Identity,
    has_token: bool,
    asks: Asks,
) -> Option<(u16, &'static str)> {
    let opened = setup.open_control && on_control;
    let asks_token = setup.token && !opened;
    let (status, code) = match identity {
        Identity::Malformed => (400, "identity_malformed"),
        _ if asks == Nothing => return None,
        Identity::Absent if setup.require_user => (401, "identity_required"),
        Identity::Reader => (403, "read_only"),
        _ if asks_token && !has_token => (401, "token_required"),
        _ if asks != Writer && !setup.token && !opened => (403, "admin_required"),
        _ => return None,
    };
    let code = match status {
        401 if asks == WorkersAdmin && code == "token_required" => "unauthorized",
        _ if asks != ExecAdmin => code,
        400 => "bad_request",
        401 => "unauthorized",
        _ => "forbidden",
    };
    Some((status, code))
}

fn check_every_cell(setup: Setup) {
    let port = Reserved::new();
    let mut flags = vec!["--control", "127.0.0.1:0", "--interrupt-signal", "WINCH"];
    flags.extend(setup.require_user.then_some("--require-user"));
    flags.extend(setup.open_control.then_some("--open-control"));
    flags.extend(setup.token.then_some("--exec=any"));
    let command = format!("{} listen {}", common::fixture(), port.port);
    let server = Server::start_with(&command, port.port, &flags, |binary| {
        if setup.token {
            binary.env("FRAG_TOKEN", TOKEN);
        }
    });
    assert_eq!(server.get("/_frag/await", "").status, 200);
    let places = [
        (server.address, "/_frag", false),
        (server.control.unwrap(), "", true),
        (server.control.unwrap(), "/_frag", true),
    ];
    for (address, prefix, on_control) in places {
        for (identity_field, identity) in IDENTITIES {
            for (token_field, has_token) in TOKENS {
                let fields = format!("{identity_field}{token_field}");
                for (method, path, asks, status, code) in ROUTES.iter().chain(WORKERS_ROUTES) {
                    let answer = send(address, method, &format!("{prefix}{path}"), &fields, b"");
                    let cell = format!("{method} {prefix}{path} with {fields:?}, control: {on_control}");
                    let expected = refusal(setup, on_control, *identity, *has_token, *asks);
                    let (status, code) = expected.unwrap_or((*status, *code));
                    assert_eq!(answer.status, status, "{cell}");
                    if *method != "HEAD" && status >= 400 && !code.is_empty() {
                        assert_eq!(answer.code(), code, "{cell}");
                    }
                    let challenge = match asks {
                        _ if status != 401 => None,
                        WorkersAdmin if code == "unauthorized" => None,
                        ExecAdmin => Some(EXEC_CHALLENGE.to_owned()),
                        _ => Some("Bearer".to_owned()),
                    };
                    assert_eq!(answer.field("www-authenticate"), challenge, "{cell}");
                }
                for (method, path, link, status) in ARTIFACT_ROUTES {
                    let answer = send(address, method, &format!("{prefix}{path}"), &fields, b"");
                    let cell = format!("{method} {prefix}{path} with {fields:?}, control: {on_control}");
                    let expected = refusal(setup, on_control, *identity, *has_token || *link, Writer);
                    let status = expected.map_or(*status, |(status, _)| status);
                    assert_eq!(answer.status, status, "{cell}");
                    let challenge = (status == 401).then(|| "Bearer".to_owned());
                    assert_eq!(answer.field("www-authenticate"), challenge, "{cell}");
                }
                for (method, path, admin, status, text) in RUN_ROUTES {
                    let answer = send(address, method, &format!("{prefix}{path}"), &fields, b"");
                    let cell = format!("{method} {prefix}{path} with {fields:?}, control: {on_control}");
                    let expected = run_refusal(setup, on_control, *identity, *has_token, *admin);
                    let (status, text) = expected.unwrap_or((*status, *text));
                    assert_eq!(answer.status, status, "{cell}");
                    if *method != "HEAD" && !text.is_empty() {
                        assert_eq!(answer.json()["error"], text, "{cell}");
                    }
                    let challenge = (status == 401).then(|| "Bearer".to_owned());
                    assert_eq!(answer.field("www-authenticate"), challenge, "{cell}");
                }
                let relayed = server.get("/app", &fields);
                assert_eq!(relayed.status, 200, "the app with {fields:?}");
            }
        }
    }
}

#[test]
fn every_cell_of_the_table_without_a_token() {
    check_every_cell(Setup { token: false, require_user: false, open_control: false });
}

#[test]
fn every_cell_of_the_table_with_a_token() {
    check_every_cell(Setup { token: true, require_user: false, open_control: false });
}

#[test]
fn every_cell_of_the_table_with_a_token_and_required_users() {
    check_every_cell(Setup { token: true, require_user: true, open_control: false });
}

#[test]
fn every_cell_of_the_table_with_required_users_and_open_control() {
    check_every_cell(Setup { token: true, require_user: true, open_control: true });
}

fn with_token(flags: &[&str]) -> Server {
    Server::start_with(IDLE, unused_port(), flags, |binary| {
        binary.env("FRAG_TOKEN", TOKEN);
    })
}

fn status_with(server: &Server, fields: &str) -> u16 {
    server.get("/_frag/files", fields).status
}

#[test]
fn only_one_exact_bearer_token_counts() {
    let server = with_token(&[]);
    for (fields, status) in [
        ("Authorization: Bearer correct-horse\r\n", 200),
        ("authorization: bearer correct-horse\r\n", 200),
        ("Authorization: BEARER  correct-horse \r\n", 200),
        ("Authorization: Bearer correct-hors\r\n", 401),
        ("Authorization: Bearer correct-horsee\r\n", 401),
        ("Authorization: Bearer Correct-horse\r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: correct-horse\r\n", 401),
        ("Authorization: Basic correct-horse\r\n", 401),
        ("Authorization: Bearer correct-horse, Bearer correct-horse\r\n", 401),
        ("Authorization: Bearer correct-horse\r\nAuthorization: Bearer correct-horse\r\n", 401),
        ("Authorization: Bearer correct-horse\r\nAuthorization: Bearer x\r\n", 401),
        ("Proxy-Authorization: Bearer correct-horse\r\n", 401),
        ("X-Authorization: Bearer correct-horse\r\n", 401),
        ("Cookie: token=correct-horse\r\n", 401),
    ] {
        assert_eq!(status_with(&server, fields), status, "{fields:?}");
    }
    assert_eq!(server.get("/_frag/files?token=correct-horse", "").status, 401);
}

#[test]
fn an_identity_does_not_stand_in_for_the_token() {
    let admin = "X-Verified-User-Data: {\"role\":\"admin\",\"readOnly\":false}\r\n";
    assert_eq!(status_with(&with_token(&[]), admin), 401);
    let restricted = "X-Verified-User-Data: {\"role\":\"admin\",\"readOnly\":true}\r\n";
    let trusting = with_token(&["--trust-identity-header"]);
    assert_eq!(trusting.get("/_frag/files", restricted).code(), "read_only");
    let both = format!("{restricted}Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(trusting.get("/_frag/files", &both).code(), "read_only");
    // The token is asked for all the same: the start says that trust changes nothing.
    assert_eq!(trusting.get("/_frag/files", admin).code(), "token_required");
    assert_eq!(status_with(&trusting, &format!("Authorization: Bearer {TOKEN}\r\n")), 200);
    eventually("a warning", || trusting.log.lock().unwrap().contains("--trust-identity-header"));
    let open = Server::start(
        IDLE,
        unused_port(),
        &["--trust-identity-header", "--open-control", "--control=[::1]:0"],
    );
    eventually("a warning", || open.log.lock().unwrap().contains("--open-control"));
    assert!(!open.log.lock().unwrap().contains("--trust-identity-header"));
}

#[test]
fn the_token_may_stand_in_a_file_or_in_the_state_directory() {
    let kept = tempfile::tempdir().unwrap();
    let (file, state) = (kept.path().join("file"), kept.path().join("state"));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("token"), format!(" {TOKEN}\r\n")).unwrap();
    for flags in [["--token-file", file.to_str().unwrap()], ["--state-dir", state.to_str().unwrap()]] {
        let server = Server::start(IDLE, unused_port(), &flags);
        assert_eq!(server.get("/_frag/status", "").code(), "token_required", "{flags:?}");
        assert_eq!(status_with(&server, &format!("Authorization: Bearer {TOKEN}\r\n")), 200, "{flags:?}");
    }
}

#[test]
fn the_child_and_the_process_table_see_nothing_of_the_token() {
    let command = "/bin/sh -c 'env > env.part; mv env.part env; exec sleep 1000'";
    let server = Server::start_with(command, unused_port(), &["--max-restarts=3"], |binary| {
        binary.env("FRAG_TOKEN", TOKEN).env("FRAG_LOG_LINES", "10").env("OTHER", "kept");
    });
    let file = server.root().join("env");
    eventually("the child wrote its environment", || file.exists());
    let environment = std::fs::read_to_string(file).unwrap();
    assert!(environment.contains("OTHER=kept\n"), "{environment}");
    assert!(!environment.contains("FRAG_") && !environment.contains(TOKEN), "{environment}");
    let command_line = std::fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&command_line).contains(TOKEN));
    let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
    assert!(!server.get("/_frag/status", &authorized).body_text().contains(TOKEN));
    assert!(!server.log.lock().unwrap().contains(TOKEN));
}

#[test]
fn what_changes_things_is_refused_from_other_origins() {
    let (server, listener) =
        Server::with_backend(&["--allow-origin", "https://friend.example", "--interrupt-signal=WINCH"]);
    let seen = binary::play(listener, |_| binary::ok(b""));
    for (origin, allowed) in [
        ("", true),
        ("Origin: http://localhost\r\n", true),
        ("Origin: https://LOCALHOST\r\n", true),
        ("Origin: https://friend.example\r\n", true),
        ("Origin: https://edge.example\r\nX-Forwarded-Host: edge.example\r\n", true),
        ("Origin: http://localhost:81\r\n", false),
        ("Origin: http://localhost.evil.example\r\n", false),
        ("Origin: http://friend.example\r\n", false),
        ("Origin: null\r\n", false),
        ("Origin: \r\n", false),
        ("Origin: https://friend.example\r\nOrigin: http://evil.example\r\n", false),
    ] {
        let expect = |answer: Response, status: u16, what: &str| {
            let status = if allowed { status } else { 403 };
            assert_eq!(answer.status, status, "{what} {origin:?}");
            if !allowed {
                assert_eq!(answer.code(), "origin_not_allowed", "{what} {origin:?}");
            }
        };
        expect(server.send("POST", "/_frag/interrupt", origin, b""), 200, "interrupt");
        expect(server.send("PUT", "/_frag/upload/f", origin, b"x"), 200, "upload");
        expect(server.send("DELETE", "/_frag/files/f", origin, b""), 204, "delete");
        assert_eq!(server.get("/_frag/status", origin).status, 200, "reading {origin:?}");
        assert_eq!(server.send("POST", "/app", origin, b"x").status, 200, "the app {origin:?}");
    }
    assert!(!server.root().join("f").exists());
    assert_eq!(seen.lock().unwrap().len(), 11);
}

fn with_host(address: SocketAddr, host: &str) -> Response {
    let mut stream = connect(address);
    write!(stream, "GET /_frag/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    Response::parse(&read_to_end(&mut stream), "GET")
}

#[test]
fn a_loopback_control_listener_answers_to_names_of_this_machine() {
    let flags = ["--control", "127.0.0.1:0", "--allow-host", "box.example", "--allow-host=other:81"];
    let server = Server::start(IDLE, unused_port(), &flags);
    let control = server.control.unwrap();
    for (host, status) in [
        ("localhost", 200),
        ("LocalHost:8081", 200),
        ("127.0.0.1", 200),
        (&control.to_string(), 200),
        ("[::1]:81", 200),
        ("box.example", 200),
        ("box.example:9", 200),
        ("other:81", 200),
        ("other:82", 421),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:81", 421),
        ("127.0.0.2", 421),
        ("", 421),
    ] {
        let answer = with_host(control, host);
        assert_eq!(answer.status, status, "{host}");
        if status == 421 {
            assert_eq!(answer.code(), "host_not_allowed", "{host}");
        }
        assert_eq!(with_host(server.address, host).status, 200, "{host} on the open port");
    }
}

#[test]
fn an_unguarded_control_listener_says_so_at_the_start() {
    let flags = ["--control", "127.0.0.1:0", "--open-control"];
    let server = Server::start(IDLE, unused_port(), &flags);
    eventually("a warning", || server.log.lock().unwrap().contains("--open-control"));
}
