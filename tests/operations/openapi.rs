//! The description of the routes: whole, sound, and true on both sides.

use crate::binary::client::Client;
use crate::binary::{IDLE, Server, unused_port};
use crate::common::{fixture, free_port};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const AUTH: &str = "Authorization: Bearer correct-horse\r\n";
const METHODS: [&str; 6] = ["get", "post", "put", "delete", "patch", "options"];
/// What is served beside the tables: the control page.
const BESIDE: (&str, &str) = ("/", "get");
/// Variants of route tables that stand for what is none.
const NO_ROUTES: [&str; 3] = ["ItemMethod", "Nothing", "Other"];

fn document() -> Value {
    let server = Server::start(IDLE, unused_port(), &[]);
    let answer = server.get("/_frag/openapi.json", "");
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Every operation, by path and method.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{path} {method}");
            operations.insert((path.clone(), method.clone()), operation.clone());
        }
    }
    operations
}

#[test]
fn it_is_served_with_a_tag_to_those_who_may() {
    let server = Server::start_with(IDLE, unused_port(), &[], |binary| {
        binary.env("FRAG_TOKEN", "correct-horse");
    });
    assert_eq!(server.get("/_frag/openapi.json", "").status, 401);
    let whole = server.get("/_frag/openapi.json", AUTH);
    assert_eq!(whole.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(whole.field("cache-control").as_deref(), Some("private, no-cache"));
    let etag = whole.field("etag").unwrap();
    let again = server.get("/_frag/openapi.json", &format!("{AUTH}If-None-Match: \"x\", {etag}\r\n"));
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(server.get("/_frag/openapi.json", &format!("{AUTH}If-None-Match: \"x\"\r\n")).status, 200);
    let document = whole.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn it_is_sound() {
    let document = document();
    check_references(&document, &document);
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for ((path, method), operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "twice: {id}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path} {method}");
        assert!(operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(tag.as_str().unwrap())));
        assert!(operation["security"].is_array(), "{path} {method}: who may?");
        assert!(!operation["responses"].as_object().unwrap().is_empty(), "{path} {method}");
        let empty = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&empty);
        let declared: BTreeSet<&str> =
            parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
        let named: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, named, "{path} {method}");
    }
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref") {
                let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|value| check_references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

/// A path without the names of its parameters, however they are written.
fn anonymous(path: &str) -> String {
    let part = |part: &str| if part.starts_with(['{', ':']) { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The routes in the docs of a route table's variants: `GET /x`, `/y` with the method before.
fn routes_in(file: &Path) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once("enum Route").unwrap();
    let (_, rest) = rest.split_once("{\n").unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    let (mut routes, mut doc) = (BTreeSet::new(), String::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if !line.starts_with("#[") && !line.is_empty() {
            let mut found = Vec::new();
            let mut method = None;
            for quoted in doc.split('`').skip(1).step_by(2) {
                let (word, path) = quoted.split_once(' ').unwrap_or(("", quoted));
                method = Some(word).filter(|word| !word.is_empty()).map(str::to_lowercase).or(method);
                if let (Some(method), true) = (&method, path.starts_with('/')) {
                    found.push((anonymous(path), method.clone()));
                }
            }
            let variant = line.split(['(', ',']).next().unwrap();
            assert_eq!(found.is_empty(), NO_ROUTES.contains(&variant), "{}: {line}", file.display());
            routes.extend(found);
            doc.clear();
        }
    }
    assert!(!routes.is_empty(), "{}", file.display());
    routes
}

#[test]
fn it_has_every_route_of_every_table_and_no_other() {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut tables = vec!["route.rs", "exec/route.rs"];
    for (built, table) in [
        (cfg!(feature = "artifacts"), "artifacts/route.rs"),
        (cfg!(feature = "runs"), "runs/route.rs"),
        (cfg!(feature = "workers"), "workers/route.rs"),
    ] {
        assert!(api.join(table).exists());
        tables.extend(built.then_some(table));
    }
    let routes: BTreeSet<_> = tables.iter().flat_map(|table| routes_in(&api.join(table))).collect();
    let described: BTreeSet<_> =
        operations(&document()).into_keys().map(|(path, method)| (anonymous(&path), method)).collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    let beside = (BESIDE.0.to_owned(), BESIDE.1.to_owned());
    let surplus: Vec<_> = described.difference(&routes).filter(|route| **route != beside).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "not described: {missing:?}, no route: {surplus:?}");
    // A table that is none of these would go unnoticed.
    let mut folders = vec![api.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.ends_with("route.rs") {
                let table = entry.strip_prefix(&api).unwrap().to_str().unwrap();
                let known =
                    ["route.rs", "exec/route.rs", "artifacts/route.rs", "runs/route.rs", "workers/route.rs"];
                assert!(known.contains(&table), "{table}");
            }
        }
    }
}

/// The head of an answer, and its body if it has an end.
fn ask(server: &Server, method: &str, path: &str) -> (u16, String) {
    let mut client = Client::new(server.address);
    client.request(&method.to_uppercase(), path, &format!("{AUTH}Connection: close\r\n"));
    let head = client.take_through("\r\n\r\n");
    let status = head[9..12].parse().unwrap();
    if head.contains("text/event-stream") {
        return (status, String::new());
    }
    client.end();
    (status, String::from_utf8_lossy(&client.buffer).into_owned())
}

fn is_no_route(status: u16, body: &str) -> bool {
    let texts = ["there is no such route", "{\"error\":\"Not found\"}", "Not found", ""];
    let body = body.trim();
    status == 404
        && texts.iter().any(|text| body == *text || !text.is_empty() && body.contains(&format!("\"{text}\"")))
}

#[test]
fn the_server_takes_what_it_describes_and_refuses_the_rest() {
    let port = free_port();
    let mut flags = vec!["--exec", "/bin/echo"];
    if cfg!(feature = "workers") {
        flags.extend(["--worker", "runtime_default=/bin/cat"]);
    }
    let server = Server::start_with(&format!("{} web {port}", fixture()), port, &flags, |binary| {
        binary.env("FRAG_TOKEN", "correct-horse");
    });
    let document = server.get("/_frag/openapi.json", AUTH).json();
    let operations = operations(&document);
    for path in document["paths"].as_object().unwrap().keys() {
        let target = path.split('/').map(|part| match part {
            "{uuid}" => "0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f",
            part if part.starts_with('{') => "none",
            part => part,
        });
        let target = format!("/_frag{}", target.collect::<Vec<_>>().join("/"));
        for method in METHODS {
            // None is left behind by another's.
            let (status, body) = ask(&server, method, &target);
            let described = operations.get(&(path.clone(), method.to_owned()));
            match described {
                Some(operation) => {
                    assert!(status != 405 && !is_no_route(status, &body), "{method} {path}: {status} {body}");
                    assert!(
                        operation["responses"].get(status.to_string()).is_some(),
                        "{method} {path} answered {status}, which it does not say: {body}"
                    );
                }
                // The artifacts' contract knows no 405 but for one path.
                None if path.starts_with("/api/artifacts") || path.starts_with("/api/cleanup") => {
                    assert!(status == 405 || status == 404, "{method} {path}: {status}");
                }
                // With a token the page is not on this port at all.
                None if path == BESIDE.0 => assert_eq!(status, 404, "{method} {path}: {body}"),
                None if path == "/{uuid}" => assert!(status == 404, "{method} {path}: {status} {body}"),
                None => assert_eq!(status, 405, "{method} {path}: {body}"),
            }
        }
    }
}
