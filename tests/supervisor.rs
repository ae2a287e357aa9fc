//! The supervised server's life, with real servers. The tests run side by side and share one process
//! table, as the parts of the program do.
#![allow(clippy::unwrap_used)]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use common::{LONG, eventually, processes, ready, run, script, spec, texts};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use simple_artifact_server::process::{Exit, Signal};
use simple_artifact_server::supervisor::{ControlError, LogStream, Spec, State, Supervisor, start};

fn listener() -> Spec {
    script("exec $F listen $PORT")
}

fn reaches(supervisor: &Supervisor, state: State) {
    eventually(state.as_str(), || supervisor.status().state == state);
}

/// The pid of whoever serves, if anybody does.
fn asked(supervisor: &Supervisor) -> Option<i32> {
    let mut stream = TcpStream::connect(supervisor.enter().ok()?.upstream).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.rsplit('\n').next()?.parse().ok()
}

fn ask(supervisor: &Supervisor) -> i32 {
    asked(supervisor).unwrap()
}

#[test]
fn a_server_gets_its_port_and_becomes_ready() {
    let supervisor = ready(script("echo hello; exec $F listen $PORT 30"));
    let status = supervisor.status();
    assert_eq!((status.state, status.ready, status.running), (State::Ready, true, true));
    assert_eq!((status.generation, status.restarts, status.exit), (1, 0, None));
    assert!(status.uptime.unwrap() >= Duration::from_millis(30));
    assert_eq!(status.pid, Some(ask(&supervisor)));
    assert!(texts(&supervisor).contains(&"hello".to_owned()));
}

#[test]
fn a_server_on_ipv6_loopback_alone_is_found() {
    let supervisor = ready(script("exec $F listen6 $PORT"));
    assert!(supervisor.enter().unwrap().upstream.is_ipv6());
    assert_eq!(supervisor.status().pid, Some(ask(&supervisor)));
}

#[test]
fn a_ready_path_must_answer_well() {
    let with_path = |command: &str| Spec { ready_path: Some("/up?x=1".into()), ..script(command) };
    ready(with_path("exec $F answer $PORT 302"));
    let unwell = run(with_path("exec $F answer $PORT 500"));
    assert!(!unwell.wait_ready(Duration::from_millis(500)));
    assert_eq!(unwell.status().state, State::Starting);
    assert_eq!(unwell.enter().unwrap_err().state, State::Starting);
}

#[test]
fn an_impossible_spec_is_refused() {
    let refused = |spec| start(spec, processes()).is_err();
    assert!(refused(spec(&[])));
    for path in ["", "up", "/a b", "/a\r\nX: y"] {
        assert!(refused(Spec { ready_path: Some(path.into()), ..listener() }), "{path:?}");
    }
}

#[test]
fn a_restart_takes_effect_and_a_burst_is_few_restarts() {
    let supervisor = ready(listener());
    let first = supervisor.status().pid.unwrap();
    assert_eq!(supervisor.restart(), Ok(()));
    let status = supervisor.status();
    assert_eq!((status.generation, status.exit), (2, Some(Exit::Signal(15))));
    assert_ne!(status.pid, Some(first));
    assert_eq!(common::stat(first), None);
    assert!(supervisor.wait_ready(LONG));

    let inside = supervisor.enter().unwrap();
    let together = Barrier::new(20);
    std::thread::scope(|scope| {
        let restart = || {
            together.wait();
            supervisor.restart()
        };
        let restarts: Vec<_> = (0..20).map(|_| scope.spawn(restart)).collect();
        reaches(&supervisor, State::Draining);
        assert_eq!(supervisor.enter().unwrap_err().state, State::Draining);
        drop(inside);
        for restart in restarts {
            assert_eq!(restart.join().unwrap(), Ok(()));
        }
    });
    // All that came before the new process are one, those that came just after are another. On a busy
    // machine some threads come late; never is it one restart each.
    assert!(supervisor.status().generation < 2 + 10, "{:?}", supervisor.status());
    assert!(supervisor.wait_ready(LONG));
}

#[test]
fn a_drain_has_an_end_and_a_late_leaver_does_no_harm() {
    let supervisor = ready(Spec { drain: Duration::from_millis(20), ..listener() });
    let stuck = supervisor.enter().unwrap();
    assert_eq!(supervisor.restart(), Ok(()));
    assert!(supervisor.wait_ready(LONG));
    let inside = supervisor.enter().unwrap();
    assert_eq!((stuck.life.generation, inside.life.generation), (1, 2));
    drop(stuck);
    drop(inside);
    assert_eq!(supervisor.restart(), Ok(()));
}

#[test]
fn a_server_that_is_starting_is_restarted_too() {
    let supervisor = run(script("exec sleep 600"));
    eventually("it runs", || supervisor.status().running);
    assert_eq!(supervisor.restart(), Ok(()));
    let status = supervisor.status();
    assert_eq!((status.state, status.generation, status.restarts), (State::Starting, 2, 1));
}

#[test]
fn a_crashing_server_is_started_again_with_pauses() {
    let supervisor = run(script("echo oops >&2; exit 3"));
    eventually("a pause", || supervisor.status().next_retry.is_some_and(|d| d > Duration::from_millis(20)));
    let status = supervisor.status();
    assert_eq!((status.state, status.exit), (State::Backoff, Some(Exit::Code(3))));
    assert_eq!(status.message.as_deref(), Some("exited with code 3"));
    assert!(status.restarts >= 1);
    let errors = supervisor.logs().tail(1, Some(LogStream::Stderr));
    assert_eq!(&*errors[0].text, "oops");
    let before = supervisor.status().generation;
    assert_eq!(supervisor.restart(), Ok(()), "a restart does not wait for the pause");
    assert!(supervisor.status().generation > before);
}

#[test]
fn a_server_that_crashes_when_ready_comes_back() {
    let supervisor = ready(listener());
    kill(Pid::from_raw(supervisor.status().pid.unwrap()), Signal::SIGKILL).unwrap();
    eventually("it comes back", || supervisor.status().generation == 2 && supervisor.wait_ready(LONG));
    assert_eq!(supervisor.status().exit, Some(Exit::Signal(9)));
}

#[test]
fn after_the_allowed_restarts_it_has_failed_until_something_changes() {
    let supervisor = run(Spec { max_restarts: Some(2), ..script("exit 5") });
    assert_eq!(supervisor.finished().recv_timeout(LONG), Ok(Exit::Code(5)));
    let status = supervisor.status();
    assert_eq!((status.state, status.restarts, status.next_retry), (State::Failed, 2, None));
    supervisor.changed();
    assert_eq!(supervisor.finished().recv_timeout(LONG), Ok(Exit::Code(5)));
    assert_eq!(supervisor.status().restarts, 5, "it got its row of chances again");

    let supervisor = run(Spec { max_restarts: Some(0), ..script("kill -9 $$") });
    assert_eq!(supervisor.finished().recv_timeout(LONG), Ok(Exit::Signal(9)));
    assert_eq!(supervisor.status().restarts, 0);
}

#[test]
fn a_command_that_cannot_run_is_a_state() {
    for (command, code) in [("/no/such/server", 127), ("/etc/passwd", 126)] {
        let supervisor = run(Spec { max_restarts: Some(0), ..spec(&[command]) });
        assert_eq!(supervisor.finished().recv_timeout(LONG), Ok(Exit::Code(code)));
        let status = supervisor.status();
        assert_eq!((status.state, status.generation, status.running), (State::Failed, 0, false));
        let message = status.message.unwrap();
        assert!(message.contains(command), "{message}");
        assert_eq!(supervisor.restart(), Err(ControlError::Spawn(message)));
    }
}

#[test]
fn a_server_deaf_to_sigterm_is_killed_after_the_grace() {
    let deaf = script("trap '' TERM; exec $F listen $PORT");
    let supervisor = ready(Spec { stop_grace: Duration::from_millis(50), ..deaf });
    assert_eq!(supervisor.stop(), Ok(()));
    let status = supervisor.status();
    assert_eq!((status.state, status.exit), (State::Stopped, Some(Exit::Signal(9))));
    assert!(!status.running);
}

#[test]
fn a_stop_reaches_descendants_that_left_the_group() {
    let supervisor = ready(script("setsid sleep 600 & echo escaped $!; exec $F listen $PORT"));
    eventually("it is known", || texts(&supervisor).iter().any(|l| l.starts_with("escaped ")));
    let line = texts(&supervisor).into_iter().find(|l| l.starts_with("escaped ")).unwrap();
    let escaped = line["escaped ".len()..].parse().unwrap();
    assert!(common::stat(escaped).is_some());
    assert_eq!(supervisor.stop(), Ok(()));
    eventually("it is reaped", || common::stat(escaped).is_none());
}

#[test]
fn a_stopped_server_is_woken_by_start_but_not_by_changes() {
    let supervisor = ready(listener());
    assert_eq!(supervisor.stop(), Ok(()));
    assert_eq!(supervisor.interrupt(), Err(ControlError::NotRunning));
    supervisor.changed();
    // Answered after the change was seen.
    assert_eq!(supervisor.stop(), Ok(()));
    assert_eq!((supervisor.status().state, supervisor.status().generation), (State::Stopped, 1));
    assert_eq!(supervisor.start(), Ok(()));
    assert!(supervisor.wait_ready(LONG));
    assert_eq!(supervisor.start(), Ok(()), "it runs already");
    assert_eq!(supervisor.status().generation, 2);
    assert_eq!(supervisor.stop(), Ok(()));
    assert_eq!(supervisor.restart(), Ok(()));
    assert_eq!(supervisor.status().generation, 3);
}

#[test]
fn a_start_overtakes_a_stop_that_still_drains() {
    let supervisor = ready(listener());
    let inside = supervisor.enter().unwrap();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| supervisor.stop());
        reaches(&supervisor, State::Draining);
        let start = scope.spawn(|| supervisor.start());
        assert_eq!(stop.join().unwrap(), Err(ControlError::NotRunning));
        drop(inside);
        assert_eq!(start.join().unwrap(), Ok(()));
    });
    assert_eq!(supervisor.status().generation, 2);
}

#[test]
fn a_foreign_listener_is_never_taken_for_the_server() {
    let spec = listener();
    let foreign = TcpListener::bind(("127.0.0.1", spec.port)).unwrap();
    let supervisor = run(spec);
    reaches(&supervisor, State::PortBusy);
    let status = supervisor.status();
    assert!(!status.ready && status.message.unwrap().contains("port"));
    assert!(status.next_retry.is_some());
    assert!(matches!(supervisor.restart(), Err(ControlError::Spawn(_))));
    assert_eq!(supervisor.status().generation, 0);
    drop(foreign);
    assert!(supervisor.wait_ready(LONG));
}

#[test]
fn a_listener_left_behind_by_an_earlier_life_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let flag = directory.path().join("flag").display().to_string();
    let supervisor =
        ready(script(&format!("[ -e {flag} ] && exec $F listen $PORT; touch {flag}; exec $F escape $PORT")));
    // If it binds late, between our look at the port and the next life's, it may answer for a moment.
    eventually("our own answers", || {
        let pid = asked(&supervisor);
        pid.is_some() && supervisor.status().pid == pid
    });
}

#[test]
fn a_server_reported_dead_is_looked_at() {
    let supervisor = ready(script("$F listen $PORT & exec sleep 600"));
    supervisor.report_dead(2);
    assert!(supervisor.status().ready, "another life was meant");
    supervisor.report_dead(1);
    assert!(supervisor.wait_ready(LONG), "it still answers");
    let listener = ask(&supervisor);
    kill(Pid::from_raw(listener), Signal::SIGKILL).unwrap();
    eventually("it is no longer ready", || {
        supervisor.report_dead(1);
        supervisor.status().state == State::Starting
    });
    assert!(supervisor.status().running);
    assert!(supervisor.enter().is_err());
}

#[test]
fn signals_reach_the_group() {
    let trapped = "trap 'echo usr1' USR1; trap 'exit 7' INT; $F listen $PORT & while :; do wait; done";
    let supervisor = ready(script(trapped));
    supervisor.forward_signal(Signal::SIGCONT);
    assert_eq!(supervisor.interrupt(), Ok(()));
    eventually("it ended", || supervisor.status().exit == Some(Exit::Code(7)));
    assert!(supervisor.wait_ready(LONG));
}

#[test]
fn observers_see_every_state_in_order() {
    let supervisor = ready(Spec { max_restarts: Some(0), ..listener() });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    supervisor.on_change(Box::new(move |status| {
        sink.lock().unwrap().push(status.state);
        assert!(status.ready || status.state != State::Draining, "an observer's panic harms nobody");
    }));
    assert_eq!(supervisor.restart(), Ok(()));
    assert!(supervisor.wait_ready(LONG));
    eventually("the last is seen", || seen.lock().unwrap().last() == Some(&State::Ready));
    let mut states = seen.lock().unwrap().clone();
    // Perhaps also the first `ready`, which woke us before the observers heard of it.
    states.dedup();
    states.drain(..states.len().saturating_sub(4));
    assert_eq!(states, [State::Draining, State::Stopping, State::Starting, State::Ready]);
}

#[test]
fn a_shutdown_leaves_nobody_and_answers_everybody() {
    let supervisor = ready(listener());
    let pid = supervisor.status().pid.unwrap();
    let _inside = supervisor.enter().unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut last = 0;
            while !supervisor.logs().is_closed() {
                last = supervisor.logs().after(last, LONG).0.last().map_or(last, |line| line.id);
            }
        });
        let started = Instant::now();
        supervisor.shutdown();
        assert!(started.elapsed() < LONG, "it does not wait for who is inside");
        follower.join().unwrap();
    });
    assert_eq!(common::stat(pid), None);
    assert_eq!(supervisor.status().state, State::Stopped);
    assert!(!supervisor.wait_ready(LONG));
    for refused in [supervisor.restart(), supervisor.start(), supervisor.stop()] {
        assert_eq!(refused, Err(ControlError::ShuttingDown));
    }
    supervisor.shutdown();
}

#[test]
fn dropping_the_last_handle_ends_the_server() {
    let supervisor = ready(listener());
    let pid = supervisor.status().pid.unwrap();
    drop(supervisor.clone());
    assert!(supervisor.status().running);
    drop(supervisor);
    assert_eq!(common::stat(pid), None);
}
