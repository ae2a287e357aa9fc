//! Links to artifacts in a browser: the page with its payload, and the files of a front end.

use crate::binary::{IDLE, Response, Server, send, unused_port};
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

const HTML: &str = "text/html; charset=utf-8";
const UNKNOWN: &str = "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";
/// What text in a script must survive.
const HOSTILE: &str = "A$$B$&C$`D$'E</script><!--<script>\u{2028}\u{2029}&amp;'\"\\\n\0\u{1f600}";
const POLICY: &str = "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'; \
    form-action 'self'; img-src 'self' data: blob:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; \
    connect-src 'self'; worker-src 'self' blob:; script-src 'self' 'wasm-unsafe-eval'";

fn start(flags: &[&str]) -> Server {
    Server::start(IDLE, unused_port(), &[&["--control", "127.0.0.1:0"], flags].concat())
}

fn with_viewer(files: &[(&str, &str)]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(dir.path(), name, content);
    }
    let server = start(&["--viewer-dir", dir.path().to_str().unwrap()]);
    (server, dir)
}

fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // As builds do it: the page is whole at every moment.
    fs::write(path.with_extension("part"), content).unwrap();
    fs::rename(path.with_extension("part"), path).unwrap();
}

fn create(server: &Server, payload: &str) -> String {
    let body = serde_json::to_vec(&serde_json::json!({ "payload": payload })).unwrap();
    let made = server.send("POST", "/_frag/api/artifacts", "", &body);
    made.json()["id"].as_str().unwrap().to_owned()
}

fn get(server: &Server, path: &str) -> Response {
    send(server.control.unwrap(), "GET", path, "", b"")
}

/// The payload a page's script sets, and the script's nonce.
fn injected(page: &str) -> (String, String) {
    let (before, rest) = page.split_once("\">window.__AGENT_RENDER_PAYLOAD__=").unwrap();
    let nonce = before.rsplit_once("<script nonce=\"").unwrap().1;
    let (literal, after) = rest.split_once(";</script></head>").unwrap();
    assert!(!after.contains("__AGENT_RENDER_PAYLOAD__="), "twice");
    assert!(!literal.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n']), "{literal}");
    (serde_json::from_str(literal).unwrap(), nonce.to_owned())
}

fn check_page(answer: &Response, status: u16) {
    assert_eq!((answer.status, answer.field("content-type").as_deref()), (status, Some(HTML)));
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(answer.field("referrer-policy").as_deref(), Some("no-referrer"));
    assert_eq!(answer.field("x-frame-options").as_deref(), Some("SAMEORIGIN"));
    assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string()));
}

#[test]
fn our_own_page_shows_an_artifact_under_a_strict_policy() {
    let server = start(&[]);
    let id = create(&server, HOSTILE);
    let places =
        [(server.control.unwrap(), ""), (server.control.unwrap(), "/_frag"), (server.address, "/_frag")];
    let mut nonces = Vec::new();
    for (address, prefix) in places {
        for path in [format!("{prefix}/{id}"), format!("{prefix}/{id}/?x=y")] {
            let page = send(address, "GET", &path, "", b"");
            check_page(&page, 200);
            let (payload, nonce) = injected(&page.body_text());
            assert_eq!(payload, HOSTILE);
            let policy = page.field("content-security-policy").unwrap();
            for part in [
                "default-src 'none'; ",
                "base-uri 'none'; ",
                "form-action 'none'; ",
                "frame-ancestors 'self'; ",
            ] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(policy.ends_with(&format!(" 'nonce-{nonce}'")), "{policy}");
            assert!(
                !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"),
                "{policy}"
            );
            nonces.push(nonce);
        }
        let head = send(address, "HEAD", &format!("{prefix}/{id}"), "", b"");
        assert_eq!((head.status, head.field("content-type").as_deref()), (200, Some(HTML)));
        assert!(head.field("content-length").is_some() && head.body.is_empty());
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 6, "a new nonce for every view");
    assert!(nonces.iter().all(|nonce| nonce.len() == 24), "16 bytes each");
}

#[test]
fn a_view_puts_the_end_off_and_asking_for_its_head_does_not() {
    let server = start(&[]);
    let id = create(&server, "x");
    // Looking by HEAD changes nothing, so it can tell what a GET changed: the length of the row never
    // does, so the row is read through the API, and the last look before that is what it shows.
    let viewed = |answer: &Response| answer.json()["last_viewed_at"].as_str().unwrap().to_owned();
    let put = || {
        let item = format!("/api/artifacts/{id}");
        viewed(&send(server.control.unwrap(), "PUT", &item, "", br#"{"payload":"y"}"#))
    };
    let pause = || std::thread::sleep(std::time::Duration::from_millis(3));
    let first = put();
    pause();
    send(server.control.unwrap(), "HEAD", &format!("/{id}"), "", b"");
    send(server.control.unwrap(), "HEAD", &format!("/api/artifacts/{id}"), "", b"");
    assert_eq!(put(), first);
    pause();
    get(&server, &format!("/{id}"));
    assert!(put() > first);
}

#[test]
fn what_is_not_there_gets_a_page_that_says_so() {
    let server = start(&[]);
    let id = create(&server, "x");
    for path in [format!("/{UNKNOWN}"), format!("/{}", id.to_uppercase())] {
        let page = get(&server, &path);
        check_page(&page, 404);
        assert_eq!(page.field("content-security-policy").as_deref(), Some(POLICY));
        let text = page.body_text();
        assert!(text.contains("<title>Artifact not found — agent-render</title>"), "{text}");
        assert!(text.contains("<h1>Artifact not found</h1>"), "{text}");
        assert!(text.contains("This artifact has expired or does not exist."), "{text}");
        assert!(!text.to_lowercase().contains(&UNKNOWN[..8]), "nothing of the request");
    }
    let version_1 = get(&server, &format!("/{}", UNKNOWN.replacen("-4", "-1", 1)));
    assert_eq!(version_1.code(), "not_found");
}

const INDEX: &str = "<!doctype html><html><head><script src=\"/_next/a.js\"></script></head><body>\
    <script>self.one=1</script><p></head></p></body></html>";
const ONE: &str = "sha256-qI3bvsBAByYOyV3lxpAi89uMcwa06LY+84V7NwHuEtQ=";

#[test]
fn a_front_end_gets_the_payload_and_its_own_scripts_may_run() {
    let (server, dir) = with_viewer(&[("index.html", INDEX)]);
    let id = create(&server, HOSTILE);
    let page = get(&server, &format!("/{id}"));
    check_page(&page, 200);
    let text = page.body_text();
    let (payload, nonce) = injected(&text);
    assert_eq!(payload, HOSTILE);
    let script = &text[text.find("<script nonce").unwrap()..=text.find(";</script></head>").unwrap() + 9];
    assert_eq!(text.replacen(script, "", 1), INDEX, "nothing else is changed");
    let wanted = format!("{POLICY} 'nonce-{nonce}' '{ONE}'");
    assert_eq!(page.field("content-security-policy"), Some(wanted));
    // A new build is served without a restart; a broken one is an error that says so.
    write(dir.path(), "index.html", "<head>new</head>");
    assert!(get(&server, &format!("/{id}")).body_text().starts_with("<head>new<script nonce="));
    write(dir.path(), "index.html", "no place for a payload");
    assert_eq!(get(&server, &format!("/{id}")).body_text(), "no place for a payload");
    fs::remove_file(dir.path().join("index.html")).unwrap();
    let failed = get(&server, &format!("/{id}"));
    check_page(&failed, 500);
    assert_eq!(failed.field("content-security-policy").as_deref(), Some(POLICY));
    let text = failed.body_text();
    assert!(text.contains("<title>Server error — agent-render</title>"), "{text}");
    assert!(text.contains("<h1>Server error</h1>"), "{text}");
    assert!(text.contains("Failed to render the artifact viewer."), "{text}");
    assert!(!text.contains(dir.path().to_str().unwrap()), "{text}");
    write(dir.path(), "index.html", INDEX);
    assert_eq!(get(&server, &format!("/{id}")).status, 200);
}

#[test]
fn files_have_their_types_and_rules() {
    let (server, dir) = with_viewer(&[
        ("index.html", INDEX),
        ("docs/index.html", "docs"),
        ("404.html", "unused"),
        ("404/index.html", "a page"),
        ("a.js", "js"),
        ("a.CSS", "css"),
        ("a.json", "{}"),
        ("a.json.br", "br"),
        ("a.css.br", "br"),
        ("a.br", "br"),
        ("a.txt", "txt"),
        ("a.yaml", "y"),
        ("a.yml", "y"),
        ("a.svg", "<svg/>"),
        ("a.png", "png"),
        ("a.jpg", "jpg"),
        ("a.jpeg", "jpg"),
        ("a.woff", "w"),
        ("a.woff2", "w"),
        ("a.wasm", "w"),
        ("a.xyz", "x"),
        ("noextension", "n"),
        (".nojekyll", ""),
        (".well-known/api-catalog", "{}"),
        ("_next/static/chunks/x-1a2b.js", "js"),
        ("a%20b.txt", "escaped"),
        ("100%.txt", "percent"),
    ]);
    let long = "public, max-age=31536000, immutable";
    /// Path, type, content, further fields.
    type File<'f> = (&'f str, &'f str, &'f str, &'f [(&'f str, &'f str)]);
    let files: &[File<'_>] = &[
        ("/", HTML, INDEX, &[]),
        ("/index.html", HTML, INDEX, &[]),
        ("/index.html/", HTML, INDEX, &[]),
        ("/docs", HTML, "docs", &[]),
        ("/docs/", HTML, "docs", &[]),
        ("/x/../docs", HTML, "docs", &[]),
        ("/404", HTML, "a page", &[]),
        ("/404/", HTML, "a page", &[]),
        ("/404.html", HTML, "unused", &[]),
        ("/a.js", "text/javascript; charset=utf-8", "js", &[]),
        ("/a.js?v=1", "text/javascript; charset=utf-8", "js", &[]),
        ("/a.CSS", "text/css; charset=utf-8", "css", &[]),
        ("/a.json", "application/json; charset=utf-8", "{}", &[]),
        (
            "/a.json.br",
            "application/json; charset=utf-8",
            "br",
            &[("content-encoding", "br"), ("vary", "Accept-Encoding")],
        ),
        (
            "/a.css.br",
            "text/css; charset=utf-8",
            "br",
            &[("content-encoding", "br"), ("vary", "Accept-Encoding")],
        ),
        (
            "/a.br",
            "application/octet-stream",
            "br",
            &[("content-encoding", "br"), ("vary", "Accept-Encoding")],
        ),
        ("/a.txt", "text/plain; charset=utf-8", "txt", &[]),
        ("/a.yaml", "application/yaml; charset=utf-8", "y", &[]),
        ("/a.yml", "application/yaml; charset=utf-8", "y", &[]),
        ("/a.svg", "image/svg+xml", "<svg/>", &[]),
        ("/a.png", "image/png", "png", &[]),
        ("/a.jpg", "image/jpeg", "jpg", &[]),
        ("/a.jpeg", "image/jpeg", "jpg", &[]),
        ("/a.woff", "font/woff", "w", &[]),
        ("/a.woff2", "font/woff2", "w", &[]),
        ("/a.wasm", "application/wasm", "w", &[]),
        ("/a.xyz", "application/octet-stream", "x", &[]),
        ("/a%20b.txt", "text/plain; charset=utf-8", "escaped", &[]),
        ("/100%.txt", "text/plain; charset=utf-8", "percent", &[]),
        ("/noextension", "application/octet-stream", "n", &[]),
        ("/.nojekyll", "application/octet-stream", "", &[]),
        (
            "/.well-known/api-catalog",
            "application/linkset+json; profile=\"https://www.rfc-editor.org/info/rfc9727\"",
            "{}",
            &[("link", "</.well-known/api-catalog>; rel=\"api-catalog\"; type=\"application/linkset+json\"")],
        ),
        (
            "/_next/static/chunks/x-1a2b.js",
            "text/javascript; charset=utf-8",
            "js",
            &[("cache-control", long)],
        ),
    ];
    for (path, content_type, content, more) in files {
        let file = get(&server, path);
        assert_eq!((file.status, &*file.body_text()), (200, *content), "{path}");
        assert_eq!(file.field("content-type").as_deref(), Some(*content_type), "{path}");
        assert_eq!(file.field("content-length"), Some(content.len().to_string()), "{path}");
        for name in ["content-encoding", "vary", "link", "cache-control"] {
            let usual = if name == "cache-control" { Some("no-cache") } else { None };
            let wanted = more.iter().find(|(n, _)| *n == name).map(|(_, v)| *v).or(usual);
            assert_eq!(file.field(name).as_deref(), wanted, "{path} {name}");
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "SAMEORIGIN"),
        ] {
            assert_eq!(file.field(name).as_deref(), Some(value), "{path}");
        }
        let wanted = match *content_type {
            HTML if *content == INDEX => Some(format!("{POLICY} '{ONE}'")),
            HTML => Some(POLICY.to_owned()),
            _ => None,
        };
        assert_eq!(file.field("content-security-policy"), wanted, "{path}");
        assert!(file.field("etag").is_some() && file.field("last-modified").is_some(), "{path}");
        let head = send(server.control.unwrap(), "HEAD", path, "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {path}");
        assert_eq!(head.field("content-length"), file.field("content-length"), "HEAD {path}");
        for method in ["POST", "DELETE", "OPTIONS", "PUT", "PATCH"] {
            let refused = send(server.control.unwrap(), method, path, "", b"");
            assert_eq!(
                (refused.status, &*refused.body_text()),
                (405, "Method not allowed"),
                "{method} {path}"
            );
            assert_eq!(refused.field("allow").as_deref(), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for path in [
        "//",
        "///",
        "/nothing",
        "/nothing.js",
        "/docs/nothing",
        "/icon%2esvg",
        "/a%2ejs",
        "/a%2520b.txt",
        "/100%25.txt",
        "/100%2.txt",
        "//a.js",
        "/a.js/x",
        "/_next",
        "/api",
        "/A.JS",
    ] {
        for method in ["GET", "POST"] {
            let missing = send(server.control.unwrap(), method, path, "", b"");
            assert_eq!((missing.status, &*missing.body_text()), (404, "Not found"), "{method} {path}");
        }
    }
    // What has a name of ours, or belongs to the API, is never a file.
    write(dir.path(), "status", "never");
    write(dir.path(), "api/cleanup", "never");
    assert!(get(&server, "/status").json()["status"].is_string());
    assert_eq!(send(server.control.unwrap(), "POST", "/api/cleanup", "", b"").body_text(), "{\"deleted\":0}");
    // The same files below the prefix, for a front end built for it.
    assert_eq!(server.get("/_frag/a.js", "").body_text(), "js");
}

#[test]
fn a_directory_that_is_made_anew_is_served_without_a_restart() {
    let host = tempfile::tempdir().unwrap();
    let dir = host.path().join("out");
    write(&dir, "index.html", INDEX);
    write(&dir, "a.txt", "old");
    let server = start(&["--viewer-dir", dir.to_str().unwrap()]);
    let view = format!("/{}", create(&server, "x"));
    assert_eq!(get(&server, "/a.txt").body_text(), "old");
    // As builds do it: all is removed first.
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!((get(&server, "/a.txt").status, get(&server, &view).status), (404, 500));
    write(&dir, "index.html", "<head>new</head>");
    write(&dir, "a.txt", "new");
    assert_eq!(get(&server, "/a.txt").body_text(), "new");
    assert!(get(&server, &view).body_text().starts_with("<head>new<script nonce="));
    // Or beside it, and swapped; what was there goes on until then.
    write(&host.path().join("next"), "a.txt", "newer");
    fs::rename(&dir, host.path().join("before")).unwrap();
    assert_eq!(get(&server, "/a.txt").body_text(), "new");
    fs::rename(host.path().join("next"), &dir).unwrap();
    assert_eq!(get(&server, "/a.txt").body_text(), "newer");
    assert_eq!(get(&server, &view).status, 500, "it has no index.html");
}

#[test]
fn nothing_outside_the_directory_is_served() {
    let (server, dir) = with_viewer(&[("index.html", INDEX), ("in/a.txt", "in")]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.txt"), dir.path().join("out.txt")).unwrap();
    std::os::unix::fs::symlink("in/a.txt", dir.path().join("link.txt")).unwrap();
    let absolute = dir.path().canonicalize().unwrap().join("in/a.txt");
    std::os::unix::fs::symlink(absolute, dir.path().join("absolute.txt")).unwrap();
    for path in ["/out.txt", "/absolute.txt"] {
        let refused = get(&server, path);
        assert_eq!((refused.status, &*refused.body_text()), (403, "Forbidden"), "{path}");
    }
    // A link that leads nowhere, or around in a circle, is no file.
    for (target, name) in [("nowhere", "dangling"), ("circle", "circle"), ("other", "one"), ("one", "other")]
    {
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        for path in [format!("/{name}"), format!("/{name}/a.txt")] {
            let missing = get(&server, &path);
            assert_eq!((missing.status, &*missing.body_text()), (404, "Not found"), "{path}");
        }
    }
    assert_eq!(get(&server, "/link.txt").body_text(), "in", "links inside are followed");
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    for path in ["/../", "/%2e%2e/", "/..%2f", "/in/../../", "/in\\..\\..\\", "//../", "/./.%2e/"] {
        assert_eq!(get(&server, &format!("{path}{name}/secret.txt")).status, 404, "{path}");
    }
}

#[test]
fn files_are_revalidated_and_served_in_parts() {
    let (server, dir) = with_viewer(&[("index.html", INDEX), ("a.txt", "0123456789")]);
    let control = server.control.unwrap();
    let etag = get(&server, "/a.txt").field("etag").unwrap();
    let unchanged = send(control, "GET", "/a.txt", &format!("If-None-Match: {etag}\r\n"), b"");
    assert_eq!((unchanged.status, unchanged.field("etag").as_deref()), (304, Some(&*etag)));
    // 1994-11-06 08:49:37 and half a second.
    let modified = UNIX_EPOCH + Duration::from_millis(784_111_777_500);
    fs::File::options().write(true).open(dir.path().join("a.txt")).unwrap().set_modified(modified).unwrap();
    for (fields, status) in [
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since: 784111777", 200),
        (
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT",
            200,
        ),
        ("If-None-Match: \"x\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("Range: bytes=0-1\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT", 200),
    ] {
        for method in ["GET", "HEAD"] {
            let status = if (method, status) == ("HEAD", 206) { 200 } else { status };
            let answer = send(control, method, "/a.txt", &format!("{fields}\r\n"), b"");
            assert_eq!(answer.status, status, "{method} {fields}");
            let modified = answer.field("last-modified");
            assert_eq!(modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{method} {fields}");
        }
    }
    let part = send(control, "GET", "/a.txt", "Range: bytes=2-4\r\n", b"");
    assert_eq!((part.status, &*part.body_text()), (206, "234"));
    assert_eq!(part.field("content-range").as_deref(), Some("bytes 2-4/10"));
    let beyond = send(control, "GET", "/a.txt", "Range: bytes=10-\r\n", b"");
    assert_eq!((beyond.status, beyond.field("content-range").as_deref()), (416, Some("bytes */10")));
    assert_eq!(beyond.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    write(dir.path(), "a.txt", "changed");
    let changed = send(control, "GET", "/a.txt", &format!("If-None-Match: {etag}\r\n"), b"");
    assert_eq!((changed.status, &*changed.body_text()), (200, "changed"));
}

#[test]
fn a_token_leaves_links_open_and_what_their_pages_load() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "index.html", INDEX);
    write(dir.path(), "_next/a.js", "js");
    let flags = ["--control", "127.0.0.1:0", "--viewer-dir", dir.path().to_str().unwrap()];
    let server = Server::start_with(IDLE, unused_port(), &flags, |binary| {
        binary.env("FRAG_TOKEN", "secret");
    });
    for (path, status) in [
        ("/", 200),
        ("/_next/a.js", 200),
        ("/none.js", 401),
        (&*format!("/{UNKNOWN}"), 404),
        ("/status", 401),
        ("/api/artifacts/x", 401),
    ] {
        assert_eq!(get(&server, path).status, status, "{path}");
    }
    // Who may not use routes does not learn which there are.
    assert_eq!(get(&server, "/none.js").code(), "token_required");
    let token = "Authorization: Bearer secret\r\n";
    assert_eq!(send(server.control.unwrap(), "GET", "/none.js", token, b"").status, 404);
    let reader = "X-Verified-User-Data: {\"readOnly\":true}\r\n";
    assert_eq!(send(server.control.unwrap(), "GET", "/_next/a.js", reader, b"").code(), "read_only");
}
