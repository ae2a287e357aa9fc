//! Runs as others of this process see them: whoever keeps a history is told of each one's start and end,
//! once, in their order, and a reader that was announced finds all of the output.
#![allow(clippy::unwrap_used)]

mod common;
use common::{LONG, eventually, processes};
use simple_artifact_server::exec::{Change, Exec, Host, Program, Settings, StartError, Wanted};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Started { id: String, args: usize, pid: i32 },
    Exited { id: String, pid: Option<i32>, code: i32, signal: Option<i32>, timed_out: bool },
}

fn exec(max_concurrent: usize) -> (Exec, Arc<Mutex<Vec<Told>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let settings = Settings {
        program: Program::Any,
        max_timeout: LONG,
        max_output: 4 << 20,
        max_concurrent,
        env: Vec::new(),
    };
    let host = Host { processes: processes(), root: "/".into(), user: None, stop_grace: LONG };
    let observer = move |change: &Change<'_>| {
        let told = match change {
            Change::Started(run) => {
                Told::Started { id: run.id.clone(), args: run.args, pid: run.pid().unwrap() }
            }
            Change::Exited(run, outcome) => Told::Exited {
                id: run.id.clone(),
                pid: run.pid(),
                code: outcome.code,
                signal: outcome.signal,
                timed_out: outcome.timed_out,
            },
        };
        sink.lock().unwrap().push(told);
        // A fault of whoever listens is not the run's.
        assert!(!run_is_to_panic(change));
    };
    (Exec::new(settings, host, Box::new(observer)), told)
}

fn run_is_to_panic(change: &Change<'_>) -> bool {
    matches!(change, Change::Started(run) if run.args == 3)
}

fn wanted(args: &[&str], seconds: u64) -> Wanted {
    Wanted {
        args: args.iter().map(ToString::to_string).collect(),
        timeout: Duration::from_secs(seconds),
        ..Wanted::default()
    }
}

#[test]
fn starts_and_ends_are_told_once_each() {
    let (exec, told) = exec(8);
    for (args, seconds, code, signal, starts) in [
        (&["sh", "-c", "exit 3"][..], 20, 3, None, true),
        (&["sh", "-c", "kill -9 $$"], 20, -1, Some(9), true),
        (&["no-such-program"], 20, 1, None, false),
        (&["sleep", "1000"], 0, -1, None, false),
        (&["sleep", "1000"], 1, -1, Some(9), true),
        (&["sh", "-c", "exit 4", "panics"], 20, 4, None, true),
    ] {
        let run = exec.start(wanted(args, seconds)).unwrap();
        assert!(run.wait_end(LONG));
        eventually("the end is told", || matches!(told.lock().unwrap().last(), Some(Told::Exited { .. })));
        let mut wanted = Vec::new();
        if starts {
            let (args, pid) = (args.len() - 1, run.pid().unwrap());
            wanted.push(Told::Started { id: run.id.clone(), args, pid });
        }
        let timed_out = seconds < 2;
        wanted.push(Told::Exited { id: run.id.clone(), pid: run.pid(), code, signal, timed_out });
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), wanted);
    }
}

#[test]
fn the_end_of_all_runs_is_waited_for_and_nothing_starts_after_it() {
    let (exec, told) = exec(2);
    let runs = [0, 1].map(|_| exec.start(wanted(&["sleep", "1000"], 1000)).unwrap());
    assert!(matches!(exec.start(wanted(&["true"], 1)), Err(StartError::TooMany(2))));
    assert!(!exec.wait_idle(Duration::from_millis(1)));
    let began = Instant::now();
    exec.begin_shutdown(LONG);
    assert!(exec.wait_idle(LONG) && began.elapsed() < LONG);
    assert!(runs.iter().all(|run| run.outcome().unwrap().signal == Some(15)));
    assert!(matches!(exec.start(wanted(&["true"], 1)), Err(StartError::ShuttingDown)));
    assert_eq!(told.lock().unwrap().len(), 4);
    eventually("nobody is left uncollected", || common::zombies() == 0);
}

#[test]
fn the_first_output_waits_for_a_reader_that_is_to_come() {
    const BYTES: usize = 2 << 20;
    let (exec, _) = exec(1);
    let command = ["head", &format!("-c{BYTES}"), "/dev/zero"];
    let run = exec.start(Wanted { awaits_reader: true, ..wanted(&command, 1000) }).unwrap();
    eventually("it has written what can be kept", || run.written()[0] >= 800 << 10);
    assert!(!run.wait_end(Duration::from_millis(100)), "its reader is not there yet");
    let mut reader = run.read_from([0; 2], true);
    let mut seen = 0;
    loop {
        let mut batch = reader.read(LONG);
        assert_eq!(batch.gaps, []);
        while let Some(piece) = batch.next_piece() {
            seen += piece.text.len();
        }
        if let Some(outcome) = batch.outcome {
            assert_eq!(outcome.code, 0);
            break;
        }
    }
    assert!(seen >= BYTES, "{seen}");
}
