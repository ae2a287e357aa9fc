//! What is on the disk after runs, after an end in the middle, and after somebody changed it.

use crate::binary::agent::{TOKEN, ended, error, get, invoke, post, run, texts, whole, with_agent, wrote};
use crate::binary::client::Client;
use crate::binary::exec::{self, ADMIN, sh, with};
use crate::binary::{Server, eventually};
use serde_json::{Value, json};
use simple_artifact_server::runs::{Verified, verify};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn keeping(journal: &Path, more: &[&str]) -> Server {
    with_agent(&[&["--journal", journal.to_str().unwrap(), "--stop-grace", "200ms"], more].concat())
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kill(mut server: Server) {
    server.child.kill().unwrap();
    server.child.wait().unwrap();
}

/// Every file of a journal.
fn files(journal: &Path) -> Vec<PathBuf> {
    let top = ["runs.jsonl", "state.jsonl", "approvals.jsonl"].map(|name| journal.join(name));
    let logs = fs::read_dir(journal.join("logs")).unwrap().map(|entry| entry.unwrap().path());
    top.into_iter().chain(logs).collect()
}

fn intact(journal: &Path) -> Verified {
    let found = verify(journal).unwrap();
    assert_eq!(found.problems, [""; 0]);
    found
}

fn verify_command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simple-artifact-server")).args(arguments).output().unwrap()
}

/// Puts a pipe that nobody reads in the place of a file: a disk that hangs where that is written.
fn hang(file: &Path) -> fs::File {
    nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let options = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).clone();
    let mut pipe = options.open(file).unwrap();
    while pipe.write(&[0; 4096]).is_ok() {}
    pipe
}

/// A journal of a few runs, one with an approval, and the wrapped server's life.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut server = keeping(dir.path(), &["--require-approval", "write"]);
    whole(&server, "say-actions");
    whole(&server, "say-fail");
    let id = invoke(&server, "say-ask");
    eventually("it asks", || get(&server, "/approvals").body_text().contains("\"one\""));
    post(&server, "/approvals/one", "{\"decision\":\"approve\"}");
    ended(&server, &id);
    assert_eq!(server.terminate(), Some(0));
    dir
}

#[test]
fn a_run_is_three_files_for_us_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut server = with_agent(&["--state-dir", dir.path().to_str().unwrap()]);
    let run = whole(&server, "say-actions");
    let id = run["executionId"].as_str().unwrap();
    let record = lines(&journal.join("runs.jsonl")).pop().unwrap();
    for key in ["executionId", "kind", "startTime", "endTime", "status", "actionCount", "digest", "chain"] {
        assert_eq!(record[key], run[key], "{key}");
    }
    assert_eq!(lines(&journal.join(format!("logs/{id}.jsonl"))), *run["actions"].as_array().unwrap());
    let state = lines(&journal.join("state.jsonl")).pop().unwrap();
    assert_eq!(state["executionId"], id);
    assert_eq!(state["state"]["execution"], get(&server, "/state/execution").json());
    assert_eq!(get(&server, "/state/server").json()["journal"], json!({"head": run["chain"], "runs": 1}));
    for file in files(&journal) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(&journal).unwrap().mode() & 0o777, 0o700);
    assert_eq!(server.terminate(), Some(0));
    let found = intact(&journal);
    assert_eq!((found.runs, found.unfinished), (2, 0), "the wrapped server's life is the other");
}

#[test]
fn flipping_any_byte_of_any_file_is_found_and_named() {
    let dir = made();
    let found = intact(dir.path());
    assert_eq!((found.runs, found.unfinished), (4, 0));
    let mut flipped = 0;
    for file in files(dir.path()) {
        let name = file.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        let whole = fs::read(&file).unwrap();
        // A sample: tests/e2e/journal.py flips every single one.
        let step = if name.starts_with("runs") || name.starts_with("approvals") { 3 } else { 17 };
        for at in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= if at % 2 == 0 { 1 } else { 0x20 };
            fs::write(&file, &bytes).unwrap();
            let problems = verify(dir.path()).unwrap().problems;
            let named = problems.iter().any(|problem| problem.starts_with(&name));
            assert!(named, "{name} byte {at}: {problems:?}");
            flipped += 1;
        }
        fs::write(&file, whole).unwrap();
    }
    assert!(flipped > 1000, "{flipped}");
    intact(dir.path());
}

#[test]
fn a_changed_line_is_named_by_its_number() {
    let dir = made();
    let runs = dir.path().join("runs.jsonl");
    let text = fs::read_to_string(&runs).unwrap();
    let third = text.lines().nth(2).unwrap();
    fs::write(&runs, text.replace(third, &third.replace("\"actionCount\":", "\"actionCount\":1"))).unwrap();
    let problems = verify(dir.path()).unwrap().problems;
    assert!(problems.iter().all(|problem| problem.starts_with("runs.jsonl:3: ")), "{problems:?}");
    // A whole run taken out breaks the chain for the next.
    let without: String =
        text.lines().filter(|line| !line.contains("\"failed\"")).map(|l| format!("{l}\n")).collect();
    fs::write(&runs, without).unwrap();
    let problems = verify(dir.path()).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("the chain breaks here")), "{problems:?}");
    fs::write(&runs, text).unwrap();
    fs::write(dir.path().join("logs/other.jsonl"), "{}\n").unwrap();
    assert_eq!(verify(dir.path()).unwrap().problems, ["logs/other.jsonl:1: it belongs to no run"]);
}

#[test]
fn verify_is_a_command() {
    let dir = made();
    let path = dir.path().to_str().unwrap();
    let output = verify_command(&["verify", path]);
    assert_eq!(output.status.code(), Some(0));
    let head = intact(dir.path()).head;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("4 runs as they were sealed, 0 unfinished; the chain ends with {head}\n")
    );
    let state = dir.path().join("state.jsonl");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replacen("completed", "Completed", 1)).unwrap();
    let output = verify_command(&["verify", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("state.jsonl:1: this is not what was written\n"), "{said}");
    for (arguments, code) in [
        (&["verify"][..], 2),
        (&["verify", path, "more"], 2),
        (&["verify", "--help"], 2),
        (&["verify", "/nowhere"], 1),
        (&["verify", "/"], 1),
        (&["--command", "true", "verify"], 2),
    ] {
        assert_eq!(verify_command(arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_torn_line_is_cut_and_reported() {
    let dir = made();
    let before = intact(dir.path()).head;
    for (name, torn) in
        [("runs.jsonl", "{\"executionId\":\"x\",\"ki"), ("state.jsonl", "{"), ("approvals.jsonl", "\0\0\0\0")]
    {
        let file = dir.path().join(name);
        fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(torn.as_bytes()).unwrap();
        assert_eq!(verify(dir.path()).unwrap().problems.len(), 1);
        let mut server = keeping(dir.path(), &[]);
        let cut = format!("cut {} bytes", torn.len());
        eventually("it says so", || server.log.lock().unwrap().contains(&cut));
        assert_eq!(get(&server, "/runs?limit=100&kind=agent").json()["runs"].as_array().unwrap().len(), 3);
        server.terminate();
    }
    assert_ne!(intact(dir.path()).head, before, "lives of the wrapped server were added");
}

#[test]
fn what_is_nested_deep_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = keeping(dir.path(), &["--require-approval", "write"]);
    let id = invoke(&server, "say-nested");
    eventually("it asks", || get(&server, "/approvals").body_text().contains("deepest"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let note = |depth| {
        post(
            &server,
            "/dispatch",
            &format!("{{\"action\":{{\"type\":\"NOTE\",\"payload\":{}}}}}", nested(depth)),
        )
    };
    assert_eq!(note(62).status, 200);
    assert_eq!(error(&note(63)), (400, "Invalid JSON body".to_owned()));
    assert_eq!(post(&server, "/approvals/deepest", "{\"decision\":\"approve\"}").status, 200);
    let before = ended(&server, &id);
    let said = texts(&before);
    assert!(said[0].starts_with("{\"type\":\"DEEP\",\"a\":[["), "one deeper is output: {said:?}");
    assert!(said[3].contains("\"deeper\"") && said[3].contains("64 deep at most"), "{said:?}");
    assert_eq!(post(&server, "/dispatch", "{\"action\":{\"type\":\"NOTE\"}}").status, 200);
    assert_eq!(server.terminate(), Some(0));
    intact(dir.path());
    let mut server = keeping(dir.path(), &[]);
    assert_eq!(run(&server, &id), before);
    server.terminate();
    assert!(!server.log.lock().unwrap().contains("cut"));
    intact(dir.path());
}

#[test]
fn runs_of_a_killed_server_are_aborted_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &[]);
    let done = whole(&server, "say-ok");
    let id = invoke(&server, "say-wait");
    wrote(&server, &id, "waiting");
    // Memory knows a line a moment before the disk does.
    let log = dir.path().join(format!("logs/{id}.jsonl"));
    eventually("it is on the disk", || fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting")));
    kill(server);
    let found = intact(dir.path());
    assert_eq!((found.runs, found.unfinished), (1, 2), "the run and the life of the app");
    let mut server = keeping(dir.path(), &[]);
    eventually("it says so", || server.log.lock().unwrap().contains("aborted 2 runs"));
    let after = run(&server, &id);
    assert_eq!(
        (&after["status"], &after["error"]),
        (&json!("aborted"), &json!("the server ended before the run"))
    );
    assert_eq!(texts(&after), ["waiting"]);
    assert_eq!(after["digest"].as_str().unwrap().len(), 64);
    assert_eq!(run(&server, done["executionId"].as_str().unwrap()), done, "byte for byte");
    whole(&server, "say-ok");
    server.terminate();
    assert_eq!(intact(dir.path()).runs, 5);
}

#[test]
fn kills_at_any_moment_leave_a_journal_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 0..8_u64 {
        let server = keeping(dir.path(), &[]);
        for n in 0..4 {
            let id = invoke(&server, "say-ok");
            answered.push(id.clone());
            if n < 3 {
                ended(&server, &id);
            }
        }
        // From right after the answer to after the end.
        std::thread::park_timeout(std::time::Duration::from_micros(round * round * 400));
        kill(server);
    }
    let mut server = keeping(dir.path(), &[]);
    for id in &answered {
        let status = run(&server, id)["status"].clone();
        assert!(status == "completed" || status == "aborted", "{id}: {status}");
    }
    server.terminate();
    intact(dir.path());
}

#[test]
fn a_run_whose_end_was_half_written_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = keeping(dir.path(), &[]);
    let run_before = whole(&server, "say-ok");
    server.terminate();
    // As if the disk had stopped right before each of the last lines.
    let runs = dir.path().join("runs.jsonl");
    let text = fs::read_to_string(&runs).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("\"endTime\"")).collect();
    fs::write(&runs, without.join("\n") + "\n").unwrap();
    let mut server = keeping(dir.path(), &[]);
    let id = run_before["executionId"].as_str().unwrap();
    let after = run(&server, id);
    for key in ["status", "endTime", "digest", "actions"] {
        assert_eq!(after[key], run_before[key], "{key}");
    }
    server.terminate();
    intact(dir.path());
    // A state without an end belongs to nobody: of this run the last action is gone, too.
    let rewrite = |name: &str, keep: &dyn Fn(&str) -> bool| {
        let file = dir.path().join(name);
        let text = fs::read_to_string(&file).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| keep(line)).collect();
        fs::write(&file, kept.join("\n") + "\n").unwrap();
    };
    let own = format!("logs/{id}.jsonl");
    rewrite("runs.jsonl", &|line| line.contains(id) && line.contains("running"));
    rewrite("state.jsonl", &|line| line.starts_with(&format!("{{\"executionId\":\"{id}\"")));
    rewrite(&own, &|line| !line.contains("COMPLETED"));
    for entry in fs::read_dir(dir.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with(&own) {
            fs::remove_file(path).unwrap();
        }
    }
    let mut server = keeping(dir.path(), &[]);
    let after = run(&server, id);
    assert_eq!((&after["status"], texts(&after).len()), (&json!("aborted"), 1));
    server.terminate();
    intact(dir.path());
}

#[test]
fn what_memory_forgot_is_found_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &["--history-size", "1"]);
    let runs: Vec<Value> = (0..5).map(|_| whole(&server, "say-ok")).collect();
    let many = whole(&server, "say-many");
    let ids = |query: &str| -> Vec<String> {
        let json = get(&server, &format!("/runs{query}")).json();
        let runs = json["runs"].as_array().unwrap().iter();
        runs.map(|run| run["executionId"].as_str().unwrap().to_owned()).collect()
    };
    let listed = ids("?kind=agent&limit=100");
    assert_eq!(listed.len(), 6);
    assert_eq!(listed[0], many["executionId"].as_str().unwrap());
    assert_eq!(ids("?kind=agent&limit=3"), listed[..3]);
    assert_eq!(ids("").len(), 1, "as many as the history has");
    assert_eq!(ids("?status=failed&limit=9").len(), 0);
    for before in &runs {
        assert_eq!(run(&server, before["executionId"].as_str().unwrap()), *before);
    }
    assert_eq!(error(&get(&server, "/runs/unknown")), (404, "Run not found: unknown".to_owned()));
    for raw in ["..%2fruns", "../runs", "%2e%2e"] {
        assert_eq!(get(&server, &format!("/runs/{raw}")).status, 404, "{raw}");
    }
}

#[test]
fn a_journal_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &[]);
    let root = server.root().to_str().unwrap().to_owned();
    let second = |journal: &str| {
        let flags = ["--command", "true", "--port", "0", "--host", "127.0.0.1", "--root", &root];
        Command::new(env!("CARGO_BIN_EXE_simple-artifact-server"))
            .args(flags)
            .args(["--journal", journal])
            .output()
            .unwrap()
    };
    let output = second(dir.path().to_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("opening the journal"), "{output:?}");
    let inside = format!("{root}/journal");
    let output = second(&inside);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--journal (FRAG_JOURNAL)"), "{output:?}");
    assert!(!Path::new(&inside).exists());
}

#[test]
fn a_journal_that_cannot_be_written_lets_nothing_begin() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &[]);
    assert_eq!(server.get("/_frag/health", "").status, 200);
    fs::remove_dir_all(dir.path().join("logs")).unwrap();
    let answer = post(&server, "/invoke", "{\"input\":\"say-ok\"}");
    assert_eq!(error(&answer), (503, "The journal cannot be written".to_owned()));
    let health = server.get("/_frag/health", "");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("error")));
    assert_eq!(post(&server, "/invoke", "{\"input\":\"say-ok\"}").status, 503);
    assert_eq!(get(&server, "/runs?kind=agent").json(), json!({"runs": []}));
    let note = "{\"action\":{\"type\":\"NOTE\"}}";
    assert_eq!(post(&server, "/dispatch", note).status, 200, "the rest goes on");
}

#[test]
fn what_happens_while_a_run_ends_is_in_its_log_and_its_answer_or_in_neither() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &[]);
    for _ in 0..5 {
        let id = invoke(&server, "say-ok");
        while get(&server, "/state/execution").json()["status"] == "running" {
            post(&server, "/dispatch", "{\"action\":{\"type\":\"NOTE\"}}");
        }
        let run = run(&server, &id);
        assert_eq!(lines(&dir.path().join(format!("logs/{id}.jsonl"))), *run["actions"].as_array().unwrap());
        let record = lines(&dir.path().join("runs.jsonl")).pop().unwrap();
        assert_eq!(record["actionCount"], run["actionCount"]);
    }
}

#[test]
fn a_log_that_lost_a_line_is_said_to_be_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = keeping(dir.path(), &[]);
    let before = whole(&server, "say-ok");
    let id = before["executionId"].as_str().unwrap();
    server.terminate();
    let log = dir.path().join(format!("logs/{id}.jsonl"));
    let text = fs::read_to_string(&log).unwrap();
    let server = keeping(dir.path(), &[]);
    assert_eq!(run(&server, id).get("actionsTruncated"), None);
    fs::write(&log, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    let after = run(&server, id);
    assert_eq!((&after["actionCount"], after["actions"].as_array().unwrap().len()), (&json!(3), 1));
    assert_eq!(after["actionsTruncated"], true);
}

#[test]
fn a_run_that_was_forgotten_is_listed_by_when_it_began() {
    let (dir, gate) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = exec::server(&["--journal", dir.path().to_str().unwrap(), "--history-size", "1"]);
    let open = gate.path().join("open");
    let waits = format!("until [ -e {} ]; do sleep 0.01; done", open.display());
    let first = exec::start(&server, &with(sh(&waits), json!({"detach": true}))).started().0;
    let later: Vec<String> = (0..3)
        .map(|_| {
            let mut live = exec::start(&server, &sh("exit 0"));
            let id = live.started().0;
            live.rest();
            id
        })
        .collect();
    let listed = |query: &str| -> Vec<String> {
        let json = server.get(&format!("/_frag/runs?kind=exec{query}"), ADMIN).json();
        let runs = json["runs"].as_array().unwrap().iter();
        runs.map(|run| run["executionId"].as_str().unwrap().to_owned()).collect()
    };
    fs::write(open, "").unwrap();
    // The last to end is all that memory keeps, and the first that began.
    eventually("all have ended", || {
        let runs = server.get("/_frag/runs?kind=exec&limit=9", ADMIN).json()["runs"].clone();
        runs.as_array().unwrap().iter().all(|run| run["digest"].is_string())
    });
    let all: Vec<String> = later.into_iter().rev().chain([first]).collect();
    assert_eq!(listed("&limit=9"), all);
    for limit in 1..4 {
        assert_eq!(listed(&format!("&limit={limit}")), all[..limit]);
    }
}

#[test]
fn what_no_journal_holds_is_not_looked_for_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = keeping(dir.path(), &[]);
    fs::remove_file(dir.path().join("runs.jsonl")).unwrap();
    for (status, wanted) in
        [("running", 200), ("interrupted", 200), ("completed", 500), ("failed", 500), ("aborted", 500)]
    {
        assert_eq!(get(&server, &format!("/runs?status={status}")).status, wanted, "{status}");
    }
}

#[test]
fn a_run_whose_end_cannot_be_written_is_not_said_to_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = hang(&dir.path().join("state.jsonl"));
    let mut server = keeping(dir.path(), &[]);
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    let unfinished = (503, "The run is ending and has not ended in time".to_owned());
    std::thread::scope(|scope| {
        let asked = ["/abort".to_owned(), format!("/runs/{id}/cancel")].map(|path| {
            let server = &server;
            scope.spawn(move || error(&post(server, &path, "")))
        });
        for answer in asked {
            assert_eq!(answer.join().unwrap(), unfinished);
        }
    });
    assert_eq!(run(&server, &id)["status"], "running");
    let mut piece = [0; 4096];
    eventually("the disk takes it", || {
        let _ = disk.read(&mut piece);
        run(&server, &id)["status"] == "aborted"
    });
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn readers_of_a_disk_that_hangs_keep_no_other_request_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = keeping(dir.path(), &[]);
    let run = whole(&server, "say-actions");
    let id = run["executionId"].as_str().unwrap();
    assert_eq!(server.terminate(), Some(0));
    let log = dir.path().join(format!("logs/{id}.jsonl"));
    fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let server = keeping(dir.path(), &[]);
    // More than there are threads for such requests.
    let _readers: Vec<_> = (0..10)
        .map(|_| {
            let mut reader = Client::new(server.address);
            reader.request("GET", &format!("/_frag/runs/{id}"), TOKEN);
            reader
        })
        .collect();
    eventually("all wait, and others do not", || {
        get(&server, "/metrics").body_text().contains("\nfrag_http_streams 10\n")
    });
}

#[test]
fn a_disk_that_hangs_does_not_keep_us_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = hang(&dir.path().join("state.jsonl"));
    let mut server = keeping(dir.path(), &[]);
    // The end of the wrapped server's life is what cannot be written.
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_disk_that_hangs_keeps_no_dispatch_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = hang(&dir.path().join("state.jsonl"));
    let server = keeping(dir.path(), &[]);
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    assert_eq!(post(&server, "/restart", "").status, 200);
    let note = json!({"action": {"type": "NOTE", "payload": {"text": "x".repeat(1_000_000)}}}).to_string();
    let mut answers = (0..8).map(|_| error(&post(&server, "/dispatch", &note)));
    let refused = answers.find(|(status, _)| *status != 200);
    assert_eq!(refused, Some((503, "The journal has no room".to_owned())));
}

#[test]
fn a_disk_that_hangs_keeps_runs_from_beginning_and_closes_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = hang(&dir.path().join("state.jsonl"));
    let server = keeping(dir.path(), &["--exec", "any"]);
    let id = invoke(&server, "say-hang");
    wrote(&server, &id, "hanging");
    assert_eq!(post(&server, "/restart", "").status, 200);
    let note = json!({"action": {"type": "NOTE", "payload": {"text": "x".repeat(1_000_000)}}}).to_string();
    for _ in 0..5 {
        assert_eq!(post(&server, "/dispatch", &note).status, 200);
    }
    let fields = format!("{TOKEN}Content-Type: application/json\r\n");
    let exec = server.send("POST", "/_frag/exec", &fields, b"{\"args\":[\"true\"],\"stream\":false}");
    assert_eq!((exec.status, exec.json()["code"].clone()), (503, json!("service_unavailable")));
    // Whoever cannot wait is in nobody's way, and is no part of the run.
    for _ in 0..5000 {
        post(&server, "/interrupt", "");
    }
    assert_eq!(server.get("/_frag/health", "").status, 200);
}
