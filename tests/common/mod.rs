//! What the tests with real children share.
#![allow(dead_code, clippy::unwrap_used)]
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use simple_artifact_server::process::{Processes, Signal, Spawn, Stdin};
use simple_artifact_server::supervisor::{Spec, Supervisor, start};

/// No wait in a test is longer; a busy machine of two cores needs far less.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn processes() -> Processes {
    Processes::start().unwrap()
}

/// `target/debug/examples/fixture`, which cargo builds for `cargo test`.
pub(crate) fn fixture() -> String {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let fixture = profile.join("examples/fixture");
    assert!(fixture.exists(), "`cargo test` builds it; with --test, `cargo build --examples` comes first");
    fixture.to_str().unwrap().to_owned()
}

pub(crate) fn spawn(argv: &[&str]) -> Spawn {
    Spawn {
        argv: argv.iter().map(OsString::from).collect(),
        env: std::env::vars_os().collect(),
        cwd: PathBuf::from("/"),
        stdin: Stdin::Null,
        user: None,
        kill_group_on_exit: true,
        nofile_soft: None,
    }
}

pub(crate) fn sh(script: &str) -> Spawn {
    spawn(&["/bin/sh", "-c", script])
}

/// A port nobody listens on, outside the range the kernel gives to connecting sockets.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 200) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok();
        if free {
            return port;
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < until, "not within {LONG:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// State letter and parent of a process, if it exists.
pub(crate) fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Our children that ended and were not collected.
pub(crate) fn zombies() -> usize {
    let us = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid) == Some(('Z', us)))
        .count()
}

pub(crate) fn spec(command: &[&str]) -> Spec {
    Spec {
        command: command.iter().map(ToString::to_string).collect(),
        port: free_port(),
        cwd: "/".into(),
        user: None,
        ready_path: None,
        interrupt_signal: Signal::SIGINT,
        drain: LONG,
        stop_grace: LONG,
        max_restarts: None,
        log_lines: 1000,
        pass_output: false,
    }
}

/// Runs `script` with `$F` for the fixture.
pub(crate) fn script(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", &format!("F={}\n{script}", fixture())])
}

pub(crate) fn run(spec: Spec) -> Supervisor {
    start(spec, processes()).unwrap()
}

pub(crate) fn ready(spec: Spec) -> Supervisor {
    let supervisor = run(spec);
    assert!(supervisor.wait_ready(LONG), "{:?} {:?}", supervisor.status(), texts(&supervisor));
    supervisor
}

pub(crate) fn texts(supervisor: &Supervisor) -> Vec<String> {
    supervisor.logs().tail(1000, None).iter().map(|line| line.text.to_string()).collect()
}
