//! The control page: where it is served, to whom, and under which policy.

use crate::binary::{IDLE, Response, Server, send, unused_port};
use std::net::SocketAddr;

const READER: &str = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
const TOKEN: &str = "Authorization: Bearer secret\r\n";

fn start(token: Option<&str>, flags: &[&str]) -> Server {
    let flags = [&["--control", "127.0.0.1:0"], flags].concat();
    Server::start_with(IDLE, unused_port(), &flags, |binary| {
        if let Some(token) = token {
            binary.env("FRAG_TOKEN", token);
        }
    })
}

fn get(address: SocketAddr, target: &str, fields: &str) -> Response {
    send(address, "GET", target, fields, b"")
}

fn is_page(answer: &Response) -> bool {
    answer.status == 200 && answer.body_text().starts_with("<!doctype html>")
}

/// The nonce of a page, which its policy and both of its elements have.
fn nonce(answer: &Response) -> String {
    let policy = answer.field("content-security-policy").unwrap();
    let (_, rest) = policy.split_once("script-src 'nonce-").unwrap();
    let nonce = rest.split_once('\'').unwrap().0.to_owned();
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    assert_eq!(answer.body_text().matches(&format!("nonce=\"{nonce}\">")).count(), 2);
    nonce
}

#[test]
fn without_a_token_it_is_on_both_listeners() {
    let server = start(None, &[]);
    let control = server.control.unwrap();
    for (address, target) in
        [(server.address, "/_frag/"), (control, "/_frag/"), (control, "/"), (control, "/?x")]
    {
        let answer = get(address, target, "");
        assert!(is_page(&answer), "{target}: {}", answer.status);
        for (field, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.field(field).as_deref(), Some(value), "{target}");
        }
        assert_ne!(nonce(&answer), nonce(&get(address, target, "")), "a nonce is used once");
        let head = send(address, "HEAD", target, "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.field("content-length"), answer.field("content-length"));
        let reader = get(address, target, READER);
        assert_eq!((reader.status, &*reader.code()), (403, "read_only"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = send(address, method, target, "", b"");
            assert_eq!((answer.status, &*answer.code()), (405, "method_not_allowed"), "{method}");
            assert_eq!(answer.field("allow").as_deref(), Some("GET, HEAD"));
        }
    }
}

#[test]
fn with_a_token_it_is_on_the_control_listener_only_and_asks_for_none() {
    let server = start(Some("secret"), &[]);
    let control = server.control.unwrap();
    for target in ["/", "/_frag/"] {
        assert!(is_page(&get(control, target, "")), "{target}");
        assert!(is_page(&get(control, target, TOKEN)), "{target}");
        assert_eq!(get(control, target, READER).status, 403, "{target}");
    }
    // The app's pages share that origin, and could imitate it.
    for (fields, status, code) in
        [("", 404, "not_found"), (TOKEN, 404, "not_found"), (READER, 403, "read_only")]
    {
        let answer = get(server.address, "/_frag/", fields);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{fields}");
    }
    assert_eq!(send(server.address, "HEAD", "/_frag/", "", b"").status, 404);
    assert_eq!(get(control, "/status", "").status, 401, "what it shows needs the token all the same");
}

#[test]
fn an_identity_is_asked_for_where_one_is_required() {
    let server = start(None, &["--require-user"]);
    for (address, target) in [(server.address, "/_frag/"), (server.control.unwrap(), "/")] {
        let answer = get(address, target, "");
        assert_eq!((answer.status, &*answer.code()), (401, "identity_required"));
        assert!(is_page(&get(address, target, "X-Verified-User-Data: {}\r\n")));
        let malformed = get(address, target, "X-Verified-User-Data: x\r\n");
        assert_eq!((malformed.status, &*malformed.code()), (400, "identity_malformed"));
    }
}

#[test]
fn other_names_of_the_loopback_listener_do_not_get_it() {
    let server = start(None, &[]);
    let mut stream = crate::binary::connect(server.control.unwrap());
    let request = b"GET / HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    assert_eq!(Response::parse(&crate::binary::read_to_end(&mut stream), "GET").status, 421);
}

#[test]
#[cfg(feature = "artifacts")]
fn a_front_end_keeps_the_root_and_leaves_the_prefix() {
    let front = tempfile::tempdir().unwrap();
    std::fs::write(front.path().join("index.html"), "<title>front end</title></head>").unwrap();
    let server = start(None, &["--viewer-dir", front.path().to_str().unwrap()]);
    let control = server.control.unwrap();
    assert_eq!(get(control, "/", "").body_text(), "<title>front end</title></head>");
    assert!(is_page(&get(control, "/_frag/", "")));
    assert!(is_page(&get(server.address, "/_frag/", "")));
}

/// It loads nothing, from nowhere, and every address in it is relative: so it works below any prefix.
#[test]
fn it_names_no_address_but_relative_ones() {
    let server = start(None, &[]);
    let page = get(server.address, "/_frag/", "").body_text();
    for never in
        ["://", "@import", "url(", "src=", "srcset", "<link", "<iframe", "innerHTML", "eval(", "Storage"]
    {
        assert!(!page.contains(never), "{never}");
    }
    for begin in ["fetch(\"/", "send(\"/", "ask(\"/", "askJson(\"/", "listen(\"/", "href=\"/"] {
        assert!(!page.contains(begin), "{begin}");
    }
    assert!(!page.contains("onclick=\"") && !page.contains("style=\""), "the policy would not let them");
}
