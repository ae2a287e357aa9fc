//! What lasts of workers: across an orderly end, a kill, and files that somebody broke.

use crate::binary::Server;
use crate::binary::websocket::Frame;
use crate::binary::workers::{ASSISTANT, JSON, UNCONNECTED, Workers, start, start_running};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A directory for the store, and how to say so.
struct Place {
    dir: tempfile::TempDir,
    flag: String,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let flag = format!("fs:{}", dir.path().to_str().unwrap());
        Place { dir, flag }
    }

    fn start(&self) -> Server {
        start(&["--workers-store", &self.flag])
    }

    /// The files of the runtime `runtime-probe`.
    fn runtime(&self) -> PathBuf {
        self.dir.path().join("runtimes/id-72756e74696d652d70726f6265")
    }

    /// The files of a worker.
    fn worker(&self, id: &str) -> PathBuf {
        let hex: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.runtime().join("workers").join(format!("id-{hex}"))
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn diagnostics(server: &Server) -> u64 {
    server.ask("GET", "/runtime", "")["runtime"]["diagnostic_count"].as_u64().unwrap()
}

#[test]
fn both_stores_answer_alike() {
    let place = Place::new();
    let conversation = |server: &Server| {
        let id = server.create(ASSISTANT);
        server.tell(&id, "say a");
        server.tell(&id, "plain b|c");
        let refused =
            server.refused("POST", &format!("/workers/{id}/input"), r#"{"kind":"user","content":" "}"#);
        let other = server.create(UNCONNECTED);
        let ends = [
            server.ask("POST", &format!("/workers/{id}/stop"), ""),
            server.ask("POST", &format!("/workers/{other}/cancel"), ""),
        ];
        let transcript = server.ask("GET", &format!("/workers/{id}/transcript"), "");
        let workers = server.ask("GET", "/workers", "");
        let mut runtime = server.ask("GET", "/runtime", "");
        let backend = runtime["runtime"]["backend"].take();
        (json!([transcript, workers, runtime, ends]).to_string(), refused, backend)
    };
    let memory = conversation(&start(&[]));
    let files = conversation(&place.start());
    assert_eq!((&memory.0, &memory.1), (&files.0, &files.1));
    assert_eq!((memory.2, files.2), (json!("memory"), json!("fs_store")));
}

#[test]
fn files_have_their_layout() {
    let place = Place::new();
    let server = place.start();
    let id = server.create(ASSISTANT);
    server.tell(&id, "say hello");
    let reference = json!({"runtime_id": "runtime-probe", "worker_id": "worker-00000001"});
    let record = fs::read_to_string(place.worker(&id).join("worker.json")).unwrap();
    assert!(record.starts_with("{\n  \"schema_version\": 1,\n  \"worker_ref\": {\n"), "{record}");
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["worker_ref"], reference);
    assert_eq!(record["status"], "running");
    assert_eq!(record["request"], serde_json::from_str::<Value>(ASSISTANT).unwrap());
    let runtime = read(&place.runtime().join("runtime.json"));
    for (key, value) in [
        ("schema_version", json!(1)),
        ("runtime_id", json!("runtime-probe")),
        ("display_name", Value::Null),
        ("backend", json!("fs_store")),
        ("status", json!("running")),
        ("next_worker_sequence", json!(2)),
        ("config_bundles", json!({})),
    ] {
        assert_eq!(runtime[key], value, "{key}");
    }
    assert_eq!(runtime["diagnostics"].as_array().unwrap().len(), 2);
    let events = fs::read_to_string(place.runtime().join("events.jsonl")).unwrap();
    let wanted = concat!(
        r#"{"id":1,"kind":{"kind":"runtime_started"},"message":"runtime started"}"#,
        "\n",
        r#"{"id":2,"worker_ref":{"runtime_id":"runtime-probe","worker_id":"worker-00000001"},"kind":{"kind":"worker_created"},"message":"worker worker-00000001 created"}"#,
        "\n",
        r#"{"id":3,"worker_ref":{"runtime_id":"runtime-probe","worker_id":"worker-00000001"},"kind":{"kind":"worker_input_accepted"},"message":"worker worker-00000001 accepted input"}"#,
        "\n"
    );
    assert_eq!(events, wanted);
    let transcript = lines(&place.worker(&id).join("transcript.jsonl"));
    let item = |sequence: u64, role: &str, content: &str| json!({"sequence": sequence, "worker_ref": reference, "role": role, "content": content, "event_id": 3});
    assert_eq!(transcript, [item(1, "user", "say hello"), item(2, "assistant", "hello")]);
    let mode = |path: PathBuf| std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777;
    assert_eq!(mode(place.worker(&id).join("transcript.jsonl")), 0o600);
    assert_eq!(mode(place.runtime()), 0o700);
}

#[test]
fn everything_is_there_again_but_what_ran_has_stopped() {
    let place = Place::new();
    let mut server = place.start();
    let bundle = json!({"bundle": {"metadata": {"id": "b", "revision": "1", "workspace_id": "w", "created_at": "t",
        "digest": "8de1c381f85bcdc23caecc4109d030cd20032b0631885914a869c6c795946ee7", "provenance": {"source": "s"}}}});
    server.ask("POST", "/config-bundles", &bundle.to_string());
    let ids = [server.create(ASSISTANT), server.create(UNCONNECTED), server.create(ASSISTANT)];
    server.tell(&ids[0], "say a");
    server.ask("POST", &format!("/workers/{}/cancel", ids[2]), r#"{"reason":"enough"}"#);
    let ended = server.worker(&ids[2]);
    let bundles = server.ask("GET", "/config-bundles", "");
    let observed = server.observe(&ids[0], "").text();
    let last = observed.split("\"cursor\":\"").nth(1).unwrap()[..19].to_owned();
    server.child.kill().unwrap();
    server.wait();
    for life in 1..3 {
        let mut server = place.start();
        assert_eq!(server.ask("GET", "/config-bundles", ""), bundles);
        let said = [("user".to_owned(), "say a".to_owned()), ("assistant".to_owned(), "a".to_owned())];
        assert_eq!(server.said(&ids[0]), said);
        let execution = json!({"backend": "unconnected", "run_state": "stopped"});
        for id in &ids[..2] {
            let worker = server.worker(id);
            assert_eq!((&worker["status"], &worker["execution"]), (&json!("stopped"), &execution));
        }
        let worker = server.worker(&ids[2]);
        assert_eq!(
            (&worker["status"], &worker["last_event_id"]),
            (&json!("cancelled"), &ended["last_event_id"])
        );
        // Six at their making, two that ran: none when it ended in order.
        assert_eq!(diagnostics(&server), 6 + 2, "life {life}");
        // A cursor of another life is expired, and never taken for one of this.
        let mut socket = server.observe(&ids[0], &format!("?cursor={last}"));
        socket.text();
        assert!(socket.text().contains("is expired for worker worker-00000001"));
        assert_eq!(server.terminate(), Some(0));
        assert_eq!(read(&place.runtime().join("runtime.json"))["status"], "stopped");
    }
    // No id is given twice.
    let server = place.start();
    assert_eq!(server.create(UNCONNECTED), "worker-00000004");
    let events = lines(&place.runtime().join("events.jsonl"));
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    let cancelled = events.iter().find(|event| event["kind"]["kind"] == "worker_cancelled").unwrap();
    assert_eq!(cancelled["message"], "enough");
}

#[test]
fn flags_win_over_what_was_stored() {
    let place = Place::new();
    let flags = ["--workers-store", &place.flag, "--display-name", "one", "--max-transcript-items", "3"];
    start(&flags).terminate();
    let mut server = place.start();
    let runtime = &server.ask("GET", "/runtime", "")["runtime"];
    assert_eq!(
        (&runtime["display_name"], &runtime["limits"]["max_transcript_projection_items"]),
        (&json!("one"), &json!(3))
    );
    server.terminate();
    let server = start(&["--workers-store", &place.flag, "--display-name", "two"]);
    assert_eq!(server.ask("GET", "/runtime", "")["runtime"]["display_name"], "two");
}

#[test]
fn torn_lines_are_cut_and_broken_workers_left_out() {
    let place = Place::new();
    let mut server = place.start();
    let ids: Vec<String> = (0..7).map(|_| server.create(ASSISTANT)).collect();
    for id in &ids {
        server.tell(id, "say a");
        server.tell(id, "say b");
    }
    server.child.kill().unwrap();
    server.wait();
    let path = |n: usize, file: &str| place.worker(&ids[n]).join(file);
    // Torn ends: the rest is good.
    append(&path(0, "transcript.jsonl"), r#"{"sequence":5,"worker_ref":{"#);
    append(&place.runtime().join("events.jsonl"), "\0\0\0");
    // Broken: a bad line in the middle, a gap, no record, another's record, another layout.
    append(&path(1, "transcript.jsonl"), "{}\n{}\n");
    let first = fs::read_to_string(path(2, "transcript.jsonl")).unwrap();
    fs::write(path(2, "transcript.jsonl"), first.split_once('\n').unwrap().1).unwrap();
    fs::remove_file(path(3, "worker.json")).unwrap();
    fs::copy(path(0, "worker.json"), path(4, "worker.json")).unwrap();
    let record = fs::read_to_string(path(5, "worker.json")).unwrap();
    fs::write(path(5, "worker.json"), record.replace("\"schema_version\": 1", "\"schema_version\": 9"))
        .unwrap();
    // Left behind by a life that ended in the middle of a write, and things of somebody else.
    fs::write(path(6, ".worker.json.tmp-1-1"), "half").unwrap();
    fs::create_dir(place.worker("worker-00000010")).unwrap();
    fs::write(place.runtime().join("workers/notes.txt"), "x").unwrap();
    let server = place.start();
    let workers = server.ask("GET", "/workers", "");
    let workers = workers["workers"].as_array().unwrap();
    let found: Vec<&str> = workers.iter().map(|worker| worker["worker_id"].as_str().unwrap()).collect();
    assert_eq!(found, [ids[0].as_str(), ids[6].as_str()]);
    assert_eq!(server.said(&ids[0]).len(), 4);
    assert_eq!(lines(&path(0, "transcript.jsonl")).len(), 4, "the torn end is cut");
    assert!(!path(6, ".worker.json.tmp-1-1").exists());
    // 14 at their making; two torn ends, five broken workers, one strange entry, two that ran.
    assert_eq!(diagnostics(&server), 14 + 2 + 5 + 1 + 2);
    let told = read(&place.runtime().join("runtime.json"))["diagnostics"].to_string();
    for code in
        ["store.torn_line_cut", "store.worker_skipped", "store.strange_entry", "worker.stopped_by_restart"]
    {
        assert!(told.contains(code), "{code}");
    }
    // What was left out keeps its number, an empty folder too, and its files.
    assert_eq!(server.create(UNCONNECTED), "worker-00000011");
    assert!(path(1, "worker.json").exists());
}

#[test]
fn a_broken_runtime_record_is_set_aside() {
    let place = Place::new();
    let mut server = place.start();
    let id = server.create(ASSISTANT);
    server.tell(&id, "say a");
    server.terminate();
    let record = place.runtime().join("runtime.json");
    fs::write(&record, "{\"schema_version\":1").unwrap();
    let server = place.start();
    assert_eq!(server.said(&id).len(), 2);
    assert_eq!(server.create(UNCONNECTED), "worker-00000002");
    let names = fs::read_dir(place.runtime()).unwrap().flatten();
    let aside: Vec<_> =
        names.filter(|entry| entry.file_name().to_string_lossy().contains("set-aside")).collect();
    assert_eq!(fs::read_to_string(aside[0].path()).unwrap(), "{\"schema_version\":1");
}

#[test]
fn what_is_no_file_keeps_nobody_from_starting() {
    let place = Place::new();
    let mut server = place.start();
    let ids = [(); 3].map(|()| server.create(ASSISTANT));
    ids.iter().for_each(|id| server.tell(id, "say a"));
    server.terminate();
    // A pipe nobody writes to, a device without end, a directory.
    let [first, second] =
        [(0, "worker.json"), (1, "transcript.jsonl")].map(|(n, file)| place.worker(&ids[n]).join(file));
    let events = place.runtime().join("events.jsonl");
    for path in [&first, &second, &events] {
        fs::remove_file(path).unwrap();
    }
    nix::unistd::mkfifo(&first, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &second).unwrap();
    fs::create_dir(&events).unwrap();
    let server = place.start();
    assert_eq!(server.refused("GET", &format!("/workers/{}", ids[0]), "").1, "worker_not_found");
    assert_eq!(server.refused("GET", &format!("/workers/{}", ids[1]), "").1, "worker_not_found");
    assert_eq!(server.said(&ids[2]).len(), 2);
    // Two at the making of each, and one for each thing that is no file.
    assert_eq!(diagnostics(&server), 6 + 3);
    assert_eq!(server.create(UNCONNECTED), "worker-00000004");
    assert!(events.is_file());
}

#[test]
fn what_cannot_be_stored_has_not_happened() {
    let place = Place::new();
    let server = place.start();
    let id = server.create(ASSISTANT);
    server.tell(&id, "say a");
    let mut socket = server.observe(&id, "");
    socket.text();
    let before = server.worker(&id);
    let dir = place.runtime();
    let away = place.dir.path().join("away");
    fs::rename(&dir, &away).unwrap();
    let input = format!("/workers/{id}/input");
    for (path, body) in
        [("/workers", UNCONNECTED), (&input, r#"{"kind":"user","content":"say b"}"#), ("/workers", ASSISTANT)]
    {
        let response = server.v1("POST", path, JSON, body);
        assert_eq!((response.status, response.code().as_str()), (500, "store_io"), "{path}");
        let message = response.json()["error"]["message"].to_string();
        assert!(!message.contains(place.dir.path().to_str().unwrap()), "{message}");
    }
    let after = server.worker(&id);
    assert_eq!(after["transcript_len"], before["transcript_len"]);
    assert_eq!(after["last_event_id"], before["last_event_id"]);
    assert_eq!(after["execution"]["run_state"], "idle", "it was not told");
    fs::rename(&away, &dir).unwrap();
    server.tell(&id, "say c");
    assert!(socket.text().contains("say c"), "nobody saw the other input");
    assert_eq!(server.said(&id).len(), 4);
}

#[test]
fn the_log_of_events_begins_anew_when_it_is_long() {
    let place = Place::new();
    let mut server = place.start();
    let reason = json!({"reason": "x".repeat(1_900_000)}).to_string();
    for _ in 0..6 {
        let id = server.create(UNCONNECTED);
        server.ask("POST", &format!("/workers/{id}/stop"), &reason);
    }
    let last = server.worker("worker-00000006")["last_event_id"].as_u64().unwrap();
    assert_eq!(last, 1 + 2 * 6);
    server.child.kill().unwrap();
    server.wait();
    let earlier = lines(&place.runtime().join("events.1.jsonl"));
    let later = lines(&place.runtime().join("events.jsonl"));
    let ids: Vec<u64> = earlier.iter().chain(&later).map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=last).collect::<Vec<_>>());
    assert!(!earlier.is_empty() && !later.is_empty());
    // Even if the rest is lost no number is given twice.
    fs::remove_file(place.runtime().join("events.jsonl")).unwrap();
    let server = place.start();
    let id = server.create(UNCONNECTED);
    assert!(server.worker(&id)["last_event_id"].as_u64().unwrap() > last);
}

#[test]
fn the_last_words_of_a_worker_are_stored_before_its_end_is_told() {
    let place = Place::new();
    // As much as a pipe holds, and then it is gone; each line waits for the disk.
    let line = r#"{"event":"text_done","data":{"text":"a line of the last words, number"#;
    let script = format!(r#"read -r go; for n in $(seq 600); do echo '{line} '$n'"}}}}'; done"#);
    let file = place.dir.path().join("script");
    fs::write(&file, script).unwrap();
    let server = start_running(&format!("sh {}", file.display()), &["--workers-store", &place.flag]);
    let id = server.create(ASSISTANT);
    let mut socket = server.observe(&id, "");
    server.ask("POST", &format!("/workers/{id}/input"), r#"{"kind":"user","content":"go"}"#);
    let mut said = 0;
    loop {
        let payload = socket.json()["envelope"]["payload"].clone();
        match payload["event"].as_str() {
            Some("text_done") => said += 1,
            Some("shutdown") => break,
            _ => {}
        }
    }
    assert_eq!(said, 600, "none after the end");
    let worker = server.worker(&id);
    assert_eq!((&worker["transcript_len"], &worker["status"]), (&json!(601), &json!("stopped")));
}

#[test]
fn a_worker_that_was_stopped_says_nothing_after_its_end() {
    let place = Place::new();
    // Many take turns at the store: the last words of one last longer than they are waited for.
    let line = r#"{"event":"text_done","data":{"text":"a"}}"#;
    let (noisy, last) = (place.dir.path().join("noisy"), place.dir.path().join("last"));
    fs::write(&noisy, format!("exec yes '{line}'")).unwrap();
    let script =
        format!("trap \"yes '{}' | head -n 1500; exit\" TERM\necho '{line}'\n", line.replace('"', "\\\""));
    fs::write(&last, script + "while :; do sleep 0.05; done").unwrap();
    let program = format!("builtin:last=sh {}", last.display());
    let flags = ["--workers-store", &place.flag, "--worker", &program];
    let mut server = start_running(&format!("sh {}", noisy.display()), &flags);
    let profile = json!({"kind": "builtin", "value": "builtin:last"});
    let id = server.create(&json!({"intent": {"kind": "assistant"}, "profile": profile}).to_string());
    let mut socket = server.observe(&id, "?cursor=wo_0000000000000000");
    while !socket.text().contains("text_done") {}
    (0..24).for_each(|_| drop(server.create(ASSISTANT)));
    let ack = server.ask("POST", &format!("/workers/{id}/stop"), "")["ack"].clone();
    assert_eq!(ack["status"], "stopped");
    let said = server.worker(&id)["transcript_len"].clone();
    // Whoever still wants to store something has had his turn after this.
    server.create(UNCONNECTED);
    assert_eq!(server.worker(&id)["transcript_len"], said);
    while !socket.text().contains(r#""payload":{"event":"shutdown"}"#) {}
    server.terminate();
    assert_eq!(socket.frame(), Frame::Close(1000), "nothing after its end");
}

#[test]
fn two_processes_do_not_share_a_store() {
    let place = Place::new();
    let _server = place.start();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"));
    second.args([
        "--command",
        "sleep 1000",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--root",
        "/proc/self/fdinfo",
    ]);
    second.args(["--runtime-id", "runtime-probe", "--workers-store", &place.flag]);
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process has this runtime open"), "{said}");
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let place = Place::new();
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..5 {
        let mut server = place.start();
        for (id, content) in &acknowledged {
            assert!(server.said(id).contains(&("user".to_owned(), content.clone())), "{id}: {content}");
        }
        let id = server.create(ASSISTANT);
        let pid = nix::unistd::Pid::from_raw(server.pid());
        let killer = std::thread::spawn(move || {
            // At another moment each time.
            std::thread::sleep(std::time::Duration::from_millis(3 + 11 * round));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let mut client = std::net::TcpStream::connect(server.address).unwrap();
        for n in 0.. {
            let body = json!({"kind": "user", "content": format!("say {round}.{n}")}).to_string();
            let head = format!(
                "POST /_frag/v1/workers/{id}/input HTTP/1.1\r\nHost: h\r\n{JSON}Content-Length: {}\r\n\r\n",
                body.len()
            );
            let mut answer = [0; 4096];
            let told = client.write_all(format!("{head}{body}").as_bytes());
            match told.and_then(|()| std::io::Read::read(&mut client, &mut answer)) {
                Ok(length) if length > 0 => {
                    if answer.starts_with(b"HTTP/1.1 200") {
                        acknowledged.push((id.clone(), format!("say {round}.{n}")));
                    }
                }
                _ => break,
            }
        }
        killer.join().unwrap();
        server.wait();
    }
    let server = place.start();
    for (id, content) in &acknowledged {
        assert!(server.said(id).contains(&("user".to_owned(), content.clone())), "{id}: {content}");
    }
}
