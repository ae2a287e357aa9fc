//! What gateways of this kind got wrong, one test each: ours does not.

use crate::binary::exec::{
    ADMIN, TOKEN, admin, post, reply, run, run_at, server, sh, start, summary, with, with_program,
};
use crate::binary::{IDLE, Server, eventually, unused_port};
use crate::common;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

fn runs(pid: i32) -> bool {
    common::stat(pid).is_some_and(|(state, _)| state != 'Z')
}

#[track_caller]
fn ends(pid: i32) {
    eventually("the process is gone", || !runs(pid));
}

fn pid_in(text: &Value) -> i32 {
    text.as_str().unwrap().trim().parse().unwrap()
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// 1: the whole group dies, not only the program itself.
#[test]
fn a_timeout_kills_grandchildren() {
    let server = server(&[]);
    let mut live =
        start(&server, &with(sh("sleep 1000 & echo $!; sleep 1000; :"), json!({"timeout_secs": 1})));
    let (_, leader) = live.started();
    let grandchild = pid_in(&live.expect("stdout").data["data"]);
    assert!(runs(leader) && runs(grandchild));
    assert_eq!(live.rest().errors, ["Timeout after 1s"]);
    ends(leader);
    ends(grandchild);
}

/// 2: who leaves ends the run, whether or not it writes; unless it was to go on.
#[test]
fn a_client_that_leaves_ends_its_run() {
    let server = server(&[]);
    for script in ["sleep 1000 & echo $!; wait", "sleep 1000 & echo $!; exec yes"] {
        let mut live = start(&server, &sh(script));
        let (id, leader) = live.started();
        let grandchild = pid_in(&live.expect("stdout").data["data"]);
        drop(live);
        ends(leader);
        ends(grandchild);
        eventually("it is over", || summary(&server, &id)["state"] == "exited");
        assert_eq!(summary(&server, &id)["error"], "Stopped: its client has left");
    }
    // A client that only closes its sending side counts as gone, and so does one that waits for JSON.
    let mut live = start(&server, &sh("exec sleep 1000"));
    let (_, pid) = live.started();
    live.stream.shutdown(Shutdown::Write).unwrap();
    ends(pid);
    let mut waiting = server.connect();
    let body = with(sh("echo $$ > pid.part; mv pid.part pid; exec sleep 1000"), json!({"stream": false}))
        .to_string();
    let head = format!(
        "POST /_frag/exec HTTP/1.1\r\nHost: h\r\n{ADMIN}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut waiting, format!("{head}{body}").as_bytes()).unwrap();
    let file = server.root().join("pid");
    eventually("it runs", || file.exists());
    let pid = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!(runs(pid));
    drop(waiting);
    ends(pid);
    let mut detached =
        start(&server, &with(sh("read go; echo done"), json!({"detach": true, "keep_stdin": true})));
    let (id, pid) = detached.started();
    drop(detached);
    // Another run's end on the same way shows that there was time to notice.
    let mut other = start(&server, &sh("exec sleep 1000"));
    let (_, other_pid) = other.started();
    drop(other);
    ends(other_pid);
    assert!(runs(pid));
    assert_eq!(admin(&server, "POST", &format!("/{id}/stdin"), b"go\n").status, 200);
    eventually("it is over", || summary(&server, &id)["exit_code"] == 0);
}

/// 3: the deadline does not depend on open pipes, nor the exit code on who else holds them.
#[test]
fn a_program_that_closes_its_pipes_still_has_a_deadline() {
    let server = server(&[]);
    let seen = run(&server, &with(sh("exec >&- 2>&-; exec sleep 1000"), json!({"timeout_secs": 1})));
    assert_eq!((seen.sequence().as_str(), seen.exit), ("started error exit_code", -1));
    assert_eq!(seen.errors, ["Timeout after 1s"]);
    // Closed pipes do not end a run before its time either.
    let seen = run(&server, &sh("exec >&- 2>&-; sleep 0.3; exit 5"));
    assert_eq!((seen.sequence().as_str(), seen.exit), ("started exit_code", 5));
    assert!(seen.last["duration_ms"].as_u64().unwrap() >= 300);
}

#[test]
fn a_grandchild_that_holds_the_pipes_delays_nothing_for_long() {
    let server = server(&[]);
    let mut live = start(&server, &sh("sleep 1000 & echo $!; exit 3"));
    let (_, leader) = live.started();
    let grandchild = pid_in(&live.expect("stdout").data["data"]);
    ends(leader);
    let began = Instant::now();
    let seen = live.rest();
    // Half a second is the promise; a busy machine may be late to keep it.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let ms = seen.last["duration_ms"].as_u64().unwrap();
    assert!((500..3000).contains(&ms), "{ms}");
    assert_eq!((seen.exit, &seen.last["truncated"]), (3, &json!(false)));
    ends(grandchild);
}

#[test]
fn what_is_to_stay_in_the_background_stays() {
    let server = server(&["--exec-max-concurrent", "2"]);
    let wanted = json!({"keep_background": true});
    // Without our pipes: it lives until it is stopped, and holds no place.
    let mut live = start(&server, &with(sh("sleep 1000 >/dev/null 2>&1 & echo $!"), wanted.clone()));
    let (id, leader) = live.started();
    let quiet = pid_in(&live.expect("stdout").data["data"]);
    assert_eq!(live.rest().exit, 0);
    ends(leader);
    // With them: what it writes is read on, so that it is not killed by writing.
    let script = "(while [ ! -e go ]; do sleep 0.01; done; while :; do echo noise; : > beat; sleep 0.01; done) & \
        echo $!; touch go; exit 4";
    let mut live = start(&server, &with(sh(script), wanted));
    let (chatty_id, _) = live.started();
    let chatty = pid_in(&live.expect("stdout").data["data"]);
    let seen = live.rest();
    assert_eq!((seen.exit, seen.exit_codes), (4, 1));
    let beat = server.root().join("beat");
    for _ in 0..3 {
        let _ = std::fs::remove_file(&beat);
        eventually("it still writes", || beat.exists());
    }
    assert!(runs(quiet) && runs(chatty));
    // One of two places is taken by what is read.
    let mut second = start(&server, &sh("exec sleep 1000"));
    second.started();
    assert_eq!(post(&server, &sh("true").to_string()).status, 429);
    drop(second);
    for (id, pid) in [(id, quiet), (chatty_id, chatty)] {
        assert_eq!(admin(&server, "DELETE", &format!("/{id}"), b"").json()["signal"], Value::Null);
        ends(pid);
    }
}

/// 4: one bad byte is one bad character.
#[test]
fn invalid_text_in_the_middle_loses_nothing() {
    let server = server(&[]);
    let seen = run(
        &server,
        &sh("printf 'a\\n\\377b\\303\\n'; printf 'c\\n'; head -c 200000 /dev/zero | tr '\\0' x"),
    );
    assert_eq!(seen.stdout, format!("a\n\u{fffd}b\u{fffd}\nc\n{}\n", "x".repeat(200_000)));
    assert_eq!((seen.exit, seen.exit_codes), (0, 1));
    let seen = run(&server, &sh("head -c 300000 /dev/zero | tr '\\0' '\\377' >&2"));
    assert_eq!((seen.stderr.chars().filter(|c| *c == '\u{fffd}').count(), seen.exit), (300_000, 0));
}

/// 5: the clock is the run's own.
#[test]
fn a_client_that_stops_reading_does_not_stop_the_deadline() {
    let server = server(&["--exec-max-output", "4GiB"]);
    let mut live = start(&server, &with(sh("exec yes"), json!({"timeout_secs": 2})));
    let (id, pid) = live.started();
    // From here on it reads nothing. The program is held back, then killed in time all the same.
    ends(pid);
    let mut over = Value::Null;
    eventually("it is over", || {
        over = summary(&server, &id);
        over["state"] == "exited"
    });
    assert_eq!((&over["timed_out"], &over["exit_code"]), (&json!(true), &json!(-1)));
    assert!(over["duration_ms"].as_u64().unwrap() < 10_000, "{over}");
    let written = over["stdout_bytes"].as_u64().unwrap();
    assert!(written < 64 << 20, "nobody held it back: {written}");
    // What was written before is all there when it reads again.
    let seen = live.rest();
    assert_eq!(seen.stdout.len() as u64, written.div_ceil(2) * 2);
    assert!(seen.stdout.bytes().step_by(2).all(|b| b == b'y'));
    assert_eq!((seen.errors[0].as_str(), seen.exit, seen.exit_codes), ("Timeout after 2s", -1, 1));
}

/// 6: no time is no time.
#[test]
fn a_timeout_of_zero_is_over_at_once_and_runs_nothing() {
    let server = server(&[]);
    for _ in 0..20 {
        let seen = run(&server, &with(sh("touch ran"), json!({"timeout_secs": 0})));
        assert_eq!((seen.sequence().as_str(), seen.exit, seen.exit_codes), ("error exit_code", -1, 1));
        assert_eq!((seen.errors[0].as_str(), &seen.last["timed_out"]), ("Timeout after 0s", &json!(true)));
    }
    assert!(!server.root().join("ran").exists());
}

/// 7: neither lines nor output grow without bound. (A whole gigabyte: tests/e2e/exec.py.)
#[test]
fn a_stream_without_line_ends_takes_no_memory() {
    let server = server(&["--exec-max-output", "1GiB"]);
    let bytes: u64 = 128 << 20;
    let script = format!("head -c {bytes} /dev/zero | tr '\\0' x");
    let before = resident_kib(&server);
    let mut live = start(&server, &with(sh(&script), json!({"detach": true})));
    let (id, _) = live.started();
    drop(live);
    let mut highest = before;
    eventually("it is over", || {
        highest = highest.max(resident_kib(&server));
        summary(&server, &id)["state"] == "exited"
    });
    let over = summary(&server, &id);
    assert_eq!((&over["stdout_bytes"], &over["exit_code"]), (&json!(bytes), &json!(0)));
    assert!(highest < before + 8 * 1024, "{before} KiB, then {highest}");
    // Read by a client, it comes in pieces of 64 KiB.
    let mut live = start(&server, &sh("head -c 1000000 /dev/zero | tr '\\0' x"));
    live.started();
    let mut sum = 0;
    while let Some(event) = live.next() {
        if let Some(text) = event.data["data"].as_str() {
            assert!(text.len() <= 64 * 1024 + 1);
            assert_eq!(event.data["offset"], sum);
            sum += text.trim_end().len();
        }
    }
    assert_eq!(sum, 1_000_000);
}

/// 8: there are only so many at once.
#[test]
fn the_seventeenth_run_has_to_wait() {
    let server = server(&[]);
    let mut live: Vec<_> = (0..16).map(|_| start(&server, &sh("exec sleep 1000"))).collect();
    live.iter_mut().for_each(|live| drop(live.started()));
    let answer = post(&server, &sh("true").to_string());
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    assert_eq!(answer.json()["message"], "too many runs at once (max 16)");
    assert_eq!(run(&server, &sh("true")).exit, 1, "the reference client takes it for a failure");
    drop(live.pop());
    eventually("a place is free", || run(&server, &sh("true")).exit == 0);
    // The same places for those that nobody listens to, and none are lost by runs that never began.
    drop(live);
    eventually("all are free", || {
        let list = admin(&server, "GET", "", b"").json();
        list["runs"].as_array().unwrap().iter().all(|run| run["state"] == "exited")
    });
    for _ in 0..20 {
        assert_eq!(run(&server, &json!({"args": ["no-such-program"]})).errors.len(), 1);
    }
    let again: Vec<_> = (0..16).map(|_| start(&server, &sh("exec sleep 1000"))).collect();
    assert!(again.iter().all(|live| live.head.starts_with("HTTP/1.1 200 ")));
}

/// 9: our environment, standard input and token are not the program's.
#[test]
fn secrets_and_input_of_ours_do_not_reach_the_program() {
    let start = |program: &str, flags: &[&str]| {
        let flags = [&["--exec", program], flags].concat();
        Server::start_with(IDLE, unused_port(), &flags, |binary| {
            binary
                .env("FRAG_TOKEN", TOKEN)
                .env("AWS_SECRET_ACCESS_KEY", "s3cret")
                .env("ALLOWED", "yes")
                .env("LC_TIME", "C")
                .env("TZ", "UTC")
                .env("HOME", "/h")
                .env("FRAG_LOG_LINES", "10");
        })
    };
    let server = start("any", &["--exec-env", "ALLOWED", "--exec-env=UNSET"]);
    let answer =
        reply(&server, with(sh("env; cat"), json!({"env": {"MINE": "a=b c", "TZ": "Europe/Vienna"}})));
    let stdout = answer["stdout"].as_str().unwrap();
    for wanted in ["ALLOWED=yes", "LC_TIME=C", "HOME=/h", "MINE=a=b c", "TZ=Europe/Vienna"] {
        assert!(stdout.lines().any(|line| line == wanted), "{wanted} in {stdout}");
    }
    assert!(stdout.contains("PATH="));
    for secret in ["s3cret", TOKEN, "FRAG_", "AWS_", "SYSTEMPROMPT_", "UNSET"] {
        assert!(!stdout.contains(secret), "{secret} in {stdout}");
    }
    let server = start(&common::fixture(), &[]);
    let seen = run(&server, &json!({"args": ["env"]}));
    assert!(seen.stdout.contains("SYSTEMPROMPT_CLI_REMOTE=1\n"), "{seen:?}");
    for secret in ["s3cret", TOKEN, "FRAG_", "ALLOWED"] {
        assert!(!seen.stdout.contains(secret), "{secret} in {}", seen.stdout);
    }
}

/// 10: arguments may be secrets; only the debug log has them.
#[test]
fn arguments_are_not_logged() {
    for (level, logged) in [("info", false), ("debug", true)] {
        let server = server(&["--log-level", level]);
        let request = json!({"args": ["sh", "-c", "echo $0; exit 1", "s3cret"], "env": {"X": "hidden"}, "stdin": "typed"});
        assert_eq!(run(&server, &request).stdout, "s3cret\n");
        run(&server, &json!({"args": ["no-such-program", "s3cret"]}));
        run(&server, &json!({"args": ["s3cret", "\0"]}));
        eventually("it is logged", || server.log.lock().unwrap().contains("not started"));
        let log = server.log.lock().unwrap().clone();
        assert!(log.contains("3 arguments"), "{log}");
        assert_eq!(log.contains("s3cret"), logged, "{log}");
        assert!(!log.contains("hidden") && !log.contains("typed") && !log.contains(TOKEN), "{log}");
    }
}

/// 11: a caller does not say who it is.
#[test]
fn ids_do_not_come_from_headers_of_the_callers_own() {
    let server = with_program(&common::fixture(), &[]);
    let fields =
        format!("{ADMIN}X-Session-Id: evil\r\nX-User-Id: evil\r\nX-Verified-User-Data: {{\"id\":7}}\r\n");
    let seen = run_at(server.address, "/_frag/exec", &fields, &json!({"args": ["env"]}));
    assert!(seen.stdout.contains("SYSTEMPROMPT_SESSION_ID=\n"), "{seen:?}");
    assert!(seen.stdout.contains("SYSTEMPROMPT_USER_ID=7\n"), "{seen:?}");
    assert!(!seen.stdout.contains("evil"));
    let request = json!({"args": ["env"], "env": {"SYSTEMPROMPT_USER_ID": "evil"}});
    assert_eq!(post(&server, &request.to_string()).status, 400);
}

/// 12: a machine can tell the failures apart.
#[test]
fn each_kind_of_failure_can_be_told_from_the_others() {
    let server = server(&["--exec-max-output", "100"]);
    let told = |request: Value| {
        let seen = run(&server, &request);
        assert_eq!(seen.exit, -1, "{seen:?}");
        ["signal", "timed_out", "truncated"].map(|field| seen.last[field].clone())
    };
    let killed = told(sh("kill -9 $$"));
    let timed_out = told(with(sh("sleep 1000"), json!({"timeout_secs": 1})));
    let truncated = told(sh("yes"));
    assert_eq!(killed, [json!(9), json!(false), json!(false)]);
    assert_eq!(timed_out, [json!(9), json!(true), json!(false)]);
    assert_eq!(truncated[1..], [json!(false), json!(true)]);
}

/// After our own end nothing of any run is left, wherever it has moved to.
#[test]
fn nothing_is_left_when_the_server_ends() {
    let mut server = server(&["--stop-grace", "500ms"]);
    let scripts = [
        ("sleep 1000 & echo $!; wait", json!({})),
        ("trap '' TERM; sleep 1000 & echo $!; while :; do sleep 0.1; done", json!({})),
        ("setsid sh -c 'echo $$; exec sleep 1000' & wait", json!({"detach": true})),
        ("sleep 1000 >/dev/null 2>&1 & echo $!", json!({"keep_background": true})),
        ("sleep 1000 & echo $!", json!({"keep_background": true})),
        ("setsid sh -c 'echo $$; exec sleep 1000'", json!({"keep_background": true})),
    ];
    let mut pids = Vec::new();
    let mut lives = Vec::new();
    for (script, fields) in scripts {
        let mut live = start(&server, &with(sh(script), fields));
        pids.push(live.started().1);
        let below = pid_in(&live.expect("stdout").data["data"]);
        assert!(runs(below), "{script}");
        pids.push(below);
        lives.push(live);
    }
    assert_eq!(server.terminate(), Some(0));
    for pid in pids {
        assert!(!runs(pid), "{pid} is left");
    }
    for live in lives {
        assert_eq!(live.rest().exit_codes, 1);
    }
}

/// A second signal does not wait for anybody.
#[test]
fn a_second_signal_ends_stubborn_runs_at_once() {
    let mut server = server(&["--stop-grace", "1h", "--shutdown-grace", "1h"]);
    let mut live = start(&server, &sh("trap '' TERM; echo; while :; do sleep 0.1; done"));
    let (_, pid) = live.started();
    live.expect("stdout");
    let us = Pid::from_raw(server.pid());
    kill(us, Signal::SIGTERM).unwrap();
    eventually("it ends", || server.log.lock().unwrap().contains("ending"));
    assert!(runs(pid));
    kill(us, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait(), Some(1));
    ends(pid);
    let _ = live.stream.read(&mut [0; 100]);
}
