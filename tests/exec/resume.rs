//! A run's output can be read from anywhere in what is kept, by anybody, during the run and after it.

use crate::binary;
use crate::binary::exec::{Event, Live, admin, follow, post, reply, run, server, sh, start, summary, with};
use crate::binary::{Server, eventually};
use serde_json::{Value, json};

/// Starts a detached run and leaves; its id.
fn detached(server: &Server, request: Value) -> String {
    let mut live = start(server, &with(request, json!({"detach": true})));
    live.started().0
}

fn wait_over(server: &Server, id: &str) -> Value {
    let mut over = Value::Null;
    eventually("it is over", || {
        over = summary(server, id);
        over["state"] == "exited"
    });
    over
}

/// Everything of a stream's kind, by its offsets: nothing twice, nothing missing.
fn collect(events: &[Event], kind: &str, from: u64) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.kind() == kind) {
        assert_eq!(event.data["offset"], from + text.len() as u64, "{event:?}");
        text.push_str(event.data["data"].as_str().unwrap());
    }
    text
}

fn all(mut live: Live) -> Vec<Event> {
    let events: Vec<Event> = std::iter::from_fn(|| live.next()).collect();
    assert!(!live.cut);
    events
}

/// Writes on both streams, lines of many lengths, a moment between them.
const TALKER: &str = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo \"out $i $(head -c $((i%50)) /dev/zero | tr '\\0' x)\"; echo \"err $i\" >&2; done; exit 9";

#[test]
fn leaving_and_coming_back_many_times_loses_and_repeats_nothing() {
    let server = server(&[]);
    let whole = reply(&server, sh(TALKER));
    let mut live = start(&server, &with(sh(TALKER), json!({"detach": true})));
    let (id, _) = live.started();
    let (mut events, mut back) = (Vec::new(), 0);
    loop {
        // A few events, then the connection is dropped in the middle of whatever comes.
        let mut ended = false;
        for _ in 0..7 {
            let Some(event) = live.next() else {
                ended = true;
                break;
            };
            events.push(event);
        }
        if ended {
            break;
        }
        let last: String = events.last().map_or("0-0".to_owned(), |event: &Event| event.id.clone());
        live = follow(&server, &id, "?stdout=0&stderr=0", &format!("Last-Event-ID: {last}\r\n"));
        back += 1;
    }
    assert!(back >= 20, "only {back} times");
    assert_eq!(collect(&events, "stdout", 0), whole["stdout"].as_str().unwrap());
    assert_eq!(collect(&events, "stderr", 0), whole["stderr"].as_str().unwrap());
    let ends: Vec<&Event> = events.iter().filter(|event| event.kind() == "exit_code").collect();
    assert!(!ends.is_empty() && ends.iter().all(|event| event.data["code"] == 9));
    assert!(events.iter().all(|event| event.name == "cli" && event.kind() != "started"));
}

#[test]
fn a_run_that_is_over_can_be_read_from_any_offset() {
    let server = server(&[]);
    let answer = reply(&server, sh("printf 'abc\\ndef\\n'; printf '\\303\\251x\\n' >&2; exit 2"));
    let id = answer["run_id"].as_str().unwrap();
    for from in 0..=8_u64 {
        let events = all(follow(&server, id, &format!("?stdout={from}&stderr=4"), ""));
        assert_eq!(events[0].kind(), "started");
        // Who leaves after that event alone comes back to where it began.
        let events_after = all(follow(&server, id, "", &format!("Last-Event-ID: {}\r\n", events[0].id)));
        assert_eq!(collect(&events_after, "stdout", from), "abc\ndef\n"[from as usize..]);
        assert_eq!(collect(&events, "stdout", from), "abc\ndef\n"[from as usize..]);
        assert_eq!(collect(&events, "stderr", 4), "");
        assert_eq!(events.last().unwrap().data["code"], 2);
    }
    // In the middle of a character there is half a one.
    let events = all(follow(&server, id, "?stderr=1", ""));
    let stderr: Vec<&Event> = events.iter().filter(|event| event.kind() == "stderr").collect();
    assert_eq!(stderr[0].data["data"], "\u{fffd}x\n");
    assert_eq!(collect(&events, "stdout", 0), "abc\ndef\n");
    // Ids of the last events lead to the end, which is always told.
    let last = events.last().unwrap().id.clone();
    let events = all(follow(&server, id, "", &format!("Last-Event-ID: {last}\r\n")));
    assert_eq!(events.iter().map(Event::kind).collect::<Vec<_>>(), ["exit_code"]);
    assert_eq!(all(follow(&server, id, "", "")).len(), 5);
    let head = admin(&server, "HEAD", &format!("/{id}"), b"");
    assert_eq!((head.status, head.field("content-type").as_deref()), (200, Some("text/event-stream")));
}

#[test]
fn an_error_is_told_once_to_who_comes_back_behind_it() {
    let server = server(&[]);
    let seen = run(&server, &with(sh("echo a; sleep 1000"), json!({"timeout_secs": 1})));
    assert_eq!(seen.errors.len(), 1);
    let id = admin(&server, "GET", "", b"").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let events = all(follow(&server, &id, "", ""));
    assert_eq!(
        events.iter().map(Event::kind).collect::<Vec<_>>(),
        ["started", "stdout", "error", "exit_code"]
    );
    for (event, rest) in events.iter().zip([
        &["stdout", "error", "exit_code"][..],
        &["error", "exit_code"],
        &["exit_code"],
        &["exit_code"],
    ]) {
        let events = all(follow(&server, &id, "", &format!("Last-Event-ID: {}\r\n", event.id)));
        assert_eq!(events.iter().map(Event::kind).collect::<Vec<_>>(), rest, "after {event:?}");
    }
}

#[test]
fn several_readers_follow_one_run() {
    let server = server(&[]);
    let mut owner = start(&server, &with(sh("while read x; do echo $x; done"), json!({"keep_stdin": true})));
    let (id, _) = owner.started();
    let mut others: Vec<Live> = (0..3).map(|_| follow(&server, &id, "", "")).collect();
    others.iter_mut().for_each(|live| assert_eq!(live.started().0, id));
    for n in 0..10 {
        admin(&server, "POST", &format!("/{id}/stdin"), format!("{n}\n").as_bytes());
        for live in others.iter_mut().chain([&mut owner]) {
            assert_eq!(live.expect("stdout").data["data"], format!("{n}\n"));
        }
    }
    // A follower that leaves ends nothing; a follower that joins late reads from the start.
    drop(others.pop());
    others.push(follow(&server, &id, "", ""));
    admin(&server, "POST", &format!("/{id}/stdin?close=true"), b"");
    for live in others.into_iter().chain([owner]) {
        assert_eq!(live.rest().exit, 0);
    }
}

#[test]
fn what_nobody_waited_for_is_forgotten_and_the_gap_is_told() {
    let server = server(&[]);
    let id = detached(&server, sh("seq 1 400000; echo last >&2; exit 3"));
    let over = wait_over(&server, &id);
    let written = over["stdout_bytes"].as_u64().unwrap();
    assert!(written > 2 << 20);
    let events = all(follow(&server, &id, "", ""));
    assert_eq!(events[0].kind(), "started");
    let gap = &events[1];
    let kept = written - (1 << 20);
    assert_eq!((gap.name.as_str(), &gap.data), ("gap", &json!({"stream": "stdout", "from": 0, "to": kept})));
    let tail = collect(&events, "stdout", kept);
    assert_eq!(tail.len(), 1 << 20);
    let wanted: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(wanted.ends_with(&tail));
    assert_eq!(collect(&events, "stderr", 0), "last\n");
    assert_eq!(events.last().unwrap().data["code"], 3);
    // From an offset that is kept nothing is missing, byte for byte.
    let from = written - 500_000;
    let events = all(follow(&server, &id, &format!("?stdout={from}"), ""));
    assert!(events.iter().all(|event| event.name == "cli"));
    assert_eq!(collect(&events, "stdout", from), wanted[from as usize..]);
}

#[test]
fn a_client_that_keeps_up_gets_all_of_it_however_much() {
    let server = server(&[]);
    let seen = run(&server, &sh("seq 1 1000000"));
    let wanted: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(seen.stdout == wanted, "{} bytes of {}", seen.stdout.len(), wanted.len());
    assert_eq!((seen.exit, seen.exit_codes), (0, 1));
}

#[test]
fn a_hundred_runs_that_are_over_are_kept() {
    let server = server(&[]);
    let first = reply(&server, sh("echo first; exit 1"))["run_id"].as_str().unwrap().to_owned();
    let second = reply(&server, sh("echo second; exit 2"))["run_id"].as_str().unwrap().to_owned();
    for _ in 0..98 {
        assert_eq!(reply(&server, json!({"args": ["true"]}))["exit_code"], 0);
    }
    assert_eq!(follow(&server, &first, "", "").rest().stdout, "first\n");
    let mut live = start(&server, &sh("exec sleep 1000"));
    let (running, _) = live.started();
    assert_eq!(summary(&server, &first)["exit_code"], 1, "those that run do not count");
    let before = reply(&server, json!({"args": ["true"]}))["run_id"].clone();
    eventually("the first is forgotten", || admin(&server, "GET", &format!("/{first}"), b"").status == 404);
    let seen = follow(&server, &second, "", "").rest();
    assert_eq!((seen.stdout.as_str(), seen.exit), ("second\n", 2));
    let newest = reply(&server, json!({"args": ["true"]}))["run_id"].clone();
    let mut list = Value::Null;
    eventually("it is the hundredth", || {
        list = admin(&server, "GET", "", b"").json();
        list["runs"].as_array().unwrap().len() == 101
    });
    assert_eq!((&list["runs"][0]["run_id"], &list["runs"][1]["run_id"]), (&newest, &before), "newest first");
    assert_eq!(summary(&server, &running)["state"], "running");
}

#[test]
fn the_output_of_old_runs_goes_before_they_do() {
    let server = server(&[]);
    let script = "yes | head -c 1048576; yes | head -c 1048576 >&2";
    let ids: Vec<String> = (0..12)
        .map(|n| {
            let id = detached(&server, sh(&format!("{script}; exit {n}")));
            assert_eq!(wait_over(&server, &id)["exit_code"], n);
            id
        })
        .collect();
    // 16 MiB of 24 are kept, those of the last eight; how it ended is known of each.
    let is_cleared = |id: &str| {
        let mut live = follow(&server, id, "", "");
        live.started();
        live.next().unwrap().name == "gap"
    };
    eventually("the fourth is cleared", || is_cleared(&ids[3]));
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(is_cleared(id), n < 4, "{n}");
        assert_eq!(summary(&server, id)["exit_code"], n);
    }
    let seen = follow(&server, &ids[0], "", "").rest();
    assert_eq!((seen.stdout.as_str(), seen.exit, seen.exit_codes), ("", 0, 1));
    assert_eq!(follow(&server, &ids[4], "", "").rest().stdout.len(), 1 << 20);
}

#[test]
fn the_output_of_a_reply_does_not_go_before_it_was_given() {
    let server = server(&[]);
    let script = "yes | head -c 1048576; yes | head -c 1048576 >&2";
    std::thread::scope(|scope| {
        let waiting = [0, 1, 2, 3].map(|n| {
            let script = format!("{script}; touch begun{n}; while [ ! -e go ]; do sleep 0.01; done");
            let server = &server;
            scope.spawn(move || reply(server, with(sh(&script), json!({"stream": false}))))
        });
        let begun = |n| server.root().join(format!("begun{n}")).exists();
        eventually("they have written", || (0..4).all(begun));
        for _ in 0..9 {
            let id = detached(&server, sh(script));
            wait_over(&server, &id);
        }
        std::fs::write(server.root().join("go"), "").unwrap();
        for reply in waiting.map(|waiting| waiting.join().unwrap()) {
            for stream in ["stdout", "stderr"] {
                assert_eq!(reply[stream].as_str().unwrap().len(), 1 << 20, "{stream}");
            }
            assert_eq!(reply["truncated"], false);
        }
    });
}

#[test]
fn places_that_are_none_are_refused() {
    let server = server(&[]);
    let id = reply(&server, sh("echo abc"))["run_id"].as_str().unwrap().to_owned();
    for (query, fields) in [
        ("?stdout=-1", ""),
        ("?stdout=x", ""),
        ("?stdout=", ""),
        ("?stdout=%2B1", ""),
        ("?stderr=1", ""),
        ("?stdout=5", ""),
        ("?stdout=18446744073709551616", ""),
        ("?stdout=1&stdout=1", ""),
        ("", "Last-Event-ID: 1\r\n"),
        ("", "Last-Event-ID: 5-0\r\n"),
        ("", "Last-Event-ID: 0-0-x\r\n"),
        ("", "Last-Event-ID: \r\n"),
    ] {
        let target = format!("/_frag/exec/{id}{query}");
        let answer = server.get(&target, &format!("{}{fields}", binary::exec::ADMIN));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{query} {fields}");
    }
    for (method, below) in [
        ("GET", "/none"),
        ("DELETE", "/none"),
        ("POST", "/none/stdin"),
        ("GET", "/00000000-0000-4000-8000-000000000000"),
    ] {
        let answer = admin(&server, method, below, b"");
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{method} {below}");
    }
    // Standard input was not asked for.
    let mut live = start(&server, &sh("exec sleep 1000"));
    let (id, _) = live.started();
    for query in ["", "?close=true"] {
        let answer = admin(&server, "POST", &format!("/{id}/stdin{query}"), b"x");
        assert_eq!((answer.status, answer.code().as_str()), (409, "conflict_error"));
        let answer = admin(&server, "POST", &format!("/{id}/stdin{query}"), b"");
        assert_eq!(answer.status, 409, "nothing to write {query}");
    }
    assert_eq!(admin(&server, "POST", &format!("/{id}/stdin?close=perhaps"), b"x").status, 400);
    assert_eq!(post(&server, "{}").status, 422);
}
