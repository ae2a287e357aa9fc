//! Spawning, reaping, signalling and reading output, with real children.
#![allow(clippy::unwrap_used)]
mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{LONG, eventually, fixture, processes, sh, spawn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use simple_artifact_server::process::{Exit, Output, Signal, SpawnError, Spawned, Stdin, Stream, User};

const LINE_BYTES: usize = 8 * 1024;

fn run(script: &str) -> Exit {
    processes().spawn(sh(script)).unwrap().exit.recv_timeout(LONG).unwrap()
}

/// Everything on stdout, until everybody has closed it.
fn stdout(mut spawned: Spawned) -> String {
    let mut text = String::new();
    spawned.stdout.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_exit_code_arrives() {
    for first in (0..256).step_by(16) {
        let running: Vec<_> = (first..first + 16)
            .map(|code| (code, processes().spawn(sh(&format!("exit {code}"))).unwrap()))
            .collect();
        for (code, spawned) in running {
            let exit = spawned.exit.recv_timeout(LONG).unwrap();
            assert_eq!((exit, exit.shell_code()), (Exit::Code(code), code));
        }
    }
}

#[test]
fn every_fatal_signal_arrives() {
    // 34 and 64 are real-time signals.
    for number in [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 34, 64] {
        let exit = run(&format!("ulimit -c 0; kill -{number} $$"));
        assert_eq!((exit, exit.shell_code()), (Exit::Signal(number), 128 + number));
    }
}

#[test]
fn a_missing_program_is_127_and_an_unusable_one_126() {
    let directory = tempfile::tempdir().unwrap();
    let error = |argv: &[&str]| processes().spawn(spawn(argv)).unwrap_err();
    let missing = error(&["/no/such/program"]);
    assert!(matches!(missing, SpawnError::NotFound(_)), "{missing:?}");
    assert_eq!(
        (missing.shell_code(), missing.to_string().as_str()),
        (127, "command not found: /no/such/program")
    );
    assert!(matches!(error(&["no-such-program-in-path"]), SpawnError::NotFound(_)));

    let plain = directory.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    for path in [plain.as_path(), directory.path()] {
        let refused = error(&[path.to_str().unwrap()]);
        assert!(matches!(refused, SpawnError::NotExecutable(..)), "{refused:?}");
        assert_eq!(refused.shell_code(), 126);
    }
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error_text = error(&[script.to_str().unwrap()]).to_string();
    assert!(error_text.contains("interpreter or loader is missing"), "{error_text}");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, b"\x7fELF").unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o755)).unwrap();
    // glibc hands such a file to a shell, musl reports ENOEXEC.
    match processes().spawn(spawn(&[garbage.to_str().unwrap()])) {
        Ok(spawned) => assert!(matches!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Code(126 | 127))),
        Err(error) => assert_eq!(error.shell_code(), 126),
    }
    assert!(matches!(error(&[]), SpawnError::Other(_)));
    assert!(matches!(error(&["/bin/sh", "nul\0nul"]), SpawnError::Other(_)));
}

#[test]
fn a_missing_directory_is_not_a_missing_program() {
    let mut spawn = sh("true");
    spawn.cwd = "/no/such/directory".into();
    let error = processes().spawn(spawn).unwrap_err();
    assert!(matches!(error, SpawnError::Directory(..)), "{error:?}");
}

#[test]
fn a_child_starts_clean() {
    // Not through a shell: it blocks signals itself for a moment.
    let text = stdout(processes().spawn(spawn(&["grep", "^Sig", "/proc/self/status"])).unwrap());
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(text.contains("SigIgn:\t0000000000000000"), "{text}");

    let mut spawn =
        sh("ulimit -Sn; readlink /proc/self/fd/0; cut -d' ' -f5 /proc/$$/stat; echo $$ $PWD $ONE $HOME");
    spawn.env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("ONE".into(), "1".into())];
    spawn.cwd = "/usr".into();
    spawn.nofile_soft = Some(77);
    let spawned = processes().spawn(spawn).unwrap();
    let pid = spawned.pid;
    assert_eq!(stdout(spawned), format!("77\n/dev/null\n{pid}\n{pid} /usr 1\n"));
}

#[test]
fn a_piped_stdin_reaches_the_child() {
    let mut spawn = sh("cat");
    spawn.stdin = Stdin::Piped;
    let mut spawned = processes().spawn(spawn).unwrap();
    spawned.stdin.take().unwrap().write_all(b"typed").unwrap();
    assert_eq!(stdout(spawned), "typed");
}

#[test]
fn another_user_is_taken_on_for_good() {
    let mut spawn = sh("id -u; id -g; id -G");
    spawn.user = Some(User { uid: 65_534, gid: 65_533 });
    match processes().spawn(spawn) {
        Ok(spawned) => assert_eq!(stdout(spawned), "65534\n65533\n65533\n"),
        // Only root may.
        Err(error) => assert!(matches!(error, SpawnError::Other(_)), "{error:?}"),
    }
}

#[test]
fn the_group_dies_with_its_leader() {
    let spawned = processes().spawn(sh("sleep 600 & echo $!; exit 3")).unwrap();
    let (pid, exit) = (spawned.pid, spawned.exit.clone());
    // The end of the pipe: the sleeper, who held it, is gone.
    let sleeper: i32 = stdout(spawned).trim().parse().unwrap();
    assert_eq!(exit.recv_timeout(LONG).unwrap(), Exit::Code(3));
    eventually("the sleeper is reaped", || common::stat(sleeper).is_none());
    assert!(!processes().group_alive(pid));
    assert!(!processes().signal_group(pid, Signal::SIGKILL), "nobody is left");
    assert!(!processes().signal_process(pid, Signal::SIGKILL));
}

#[test]
fn a_pipe_tells_the_end_of_a_process() {
    let spawned = processes().spawn(spawn(&["cat"])).unwrap();
    assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Code(0), "it has no input");
    let read = |mut pipe: std::io::PipeReader| pipe.read(&mut [0]).unwrap();
    assert_eq!(read(processes().exit_pipe(spawned.pid).unwrap()), 0, "long ended");
    let mut command = spawn(&["cat"]);
    command.stdin = Stdin::Piped;
    let spawned = processes().spawn(command).unwrap();
    let pipe = processes().exit_pipe(spawned.pid).unwrap();
    let reader = std::thread::spawn(move || read(pipe));
    assert!(!reader.is_finished());
    drop(spawned.stdin);
    assert_eq!(reader.join().unwrap(), 0);
    assert_eq!(spawned.exit.try_recv(), Ok(Exit::Code(0)), "its status is there by then");
}

#[test]
fn whoever_sees_the_end_finds_the_status() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let spawned = processes().spawn(spawn(&["true"])).unwrap();
                    // It may be running, a zombie, or collected by now.
                    let mut pipe = processes().exit_pipe(spawned.pid).unwrap();
                    assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
                    assert_eq!(spawned.exit.try_recv(), Ok(Exit::Code(0)));
                }
            });
        }
    });
}

#[test]
fn a_group_may_outlive_its_leader_and_be_signalled() {
    let mut spawn = sh("sleep 600 & echo $!");
    spawn.kill_group_on_exit = false;
    let spawned = processes().spawn(spawn).unwrap();
    let pid = spawned.pid;
    assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Code(0));
    assert!(processes().group_alive(pid));
    assert!(processes().kill_adopted(LONG), "a known group is spared, so nothing is left to kill");
    assert!(processes().group_alive(pid));
    assert!(processes().signal_group(pid, Signal::SIGTERM));
    let sleeper: i32 = stdout(spawned).trim().parse().unwrap();
    eventually("the group is gone", || !processes().group_alive(pid));
    assert_eq!(common::stat(sleeper), None);
}

#[test]
fn adopted_descendants_are_killed_generation_by_generation() {
    // Each in a session of its own, out of reach of a group kill.
    let script = "setsid sh -c 'echo; setsid sh -c \"echo; setsid sleep 600; :\"; :'; :";
    let mut spawned = processes().spawn(sh(script)).unwrap();
    spawned.stdout.read_exact(&mut [0; 2]).unwrap();
    assert!(processes().signal_group(spawned.pid, Signal::SIGKILL));
    assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Signal(9));
    // The pipe ends when the last of them is gone.
    eventually("all are dead", || processes().kill_adopted(LONG) && closed(&spawned.stdout));
}

fn closed(pipe: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn a_signal_reaches_the_process_or_its_group() {
    let spawned = processes().spawn(sh("sleep 600; :")).unwrap();
    assert!(processes().signal_group(spawned.pid, Signal::SIGTERM));
    assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Signal(15));
    let spawned = processes().spawn(sh("trap 'exit 9' USR1; echo; while :; do sleep 0.01; done")).unwrap();
    let mut stdout = spawned.stdout;
    stdout.read_exact(&mut [0]).unwrap();
    assert!(processes().signal_process(spawned.pid, Signal::SIGUSR1));
    assert_eq!(spawned.exit.recv_timeout(LONG).unwrap(), Exit::Code(9));
}

type Seen = Arc<Mutex<Vec<(Stream, usize, String)>>>;

/// Runs it to its end and returns its lines (their start, and their length in bytes).
fn lines(spawn: simple_artifact_server::process::Spawn) -> Vec<(Stream, usize, String)> {
    let seen = Seen::default();
    let spawned = processes().spawn(spawn).unwrap();
    let sink = Arc::clone(&seen);
    let output = Output::start(spawned.stdout, spawned.stderr, false, LINE_BYTES, move |stream, line| {
        sink.lock().unwrap().push((stream, line.len(), line.chars().take(20).collect()));
    })
    .unwrap();
    spawned.exit.recv_timeout(LONG).unwrap();
    output.finish();
    std::mem::take(&mut seen.lock().unwrap())
}

#[test]
fn the_last_words_are_heard_on_both_streams() {
    let seen = lines(sh("echo out; echo err >&2; printf end; kill -9 $$"));
    let of = |stream| seen.iter().filter(|l| l.0 == stream).map(|l| l.2.as_str()).collect::<Vec<_>>();
    assert_eq!(of(Stream::Stdout), ["out", "end"]);
    assert_eq!(of(Stream::Stderr), ["err"]);
}

#[test]
fn a_flood_without_a_newline_comes_in_bounded_pieces() {
    const BYTES: usize = 64 << 20;
    let seen = lines(spawn(&[&fixture(), "flood", &BYTES.to_string()]));
    assert!(seen.iter().all(|line| line.1 <= LINE_BYTES));
    assert_eq!(seen.iter().map(|line| line.1).sum::<usize>(), BYTES);
}

#[test]
fn who_listens_slowly_still_hears_the_last_words() {
    // Several times what is read at once, and less than a pipe holds.
    let spawned = processes().spawn(sh("seq 1 12000")).unwrap();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (hear, heard) = std::sync::mpsc::channel();
    let output = Output::start(spawned.stdout, spawned.stderr, false, LINE_BYTES, move |_, line| {
        if ["1", "8000"].contains(&line) {
            let _ = gate.recv();
        }
        hear.send(line.to_owned()).unwrap();
    })
    .unwrap();
    spawned.exit.recv_timeout(LONG).unwrap();
    // It gives up waiting, but not listening: also when that stops for long after the end was known.
    output.finish();
    open.send(()).unwrap();
    let until_silence = || std::iter::from_fn(|| heard.recv_timeout(Duration::from_secs(1)).ok()).count();
    assert_eq!(until_silence(), 7999);
    open.send(()).unwrap();
    assert_eq!(until_silence(), 4001);
}

#[test]
fn a_grandchild_that_writes_for_ever_does_not_hold_us() {
    let mut spawn = sh("(yes & echo $! >&2) ; exit 0");
    spawn.kill_group_on_exit = false;
    let spawned = processes().spawn(spawn).unwrap();
    let (pid, output) = (spawned.pid, Output::start(spawned.stdout, spawned.stderr, false, 100, |_, _| {}));
    spawned.exit.recv_timeout(LONG).unwrap();
    output.unwrap().finish_all();
    processes().signal_group(pid, Signal::SIGKILL);
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
    let mut spawn = sh("echo before; sleep 15 &");
    spawn.kill_group_on_exit = false;
    // It is nobody's after the test, so it ends by itself.
    let started = Instant::now();
    assert_eq!(lines(spawn).len(), 1);
    assert!(started.elapsed() < LONG / 2);
}

#[test]
fn a_group_is_asked_before_it_is_killed() {
    let second = Duration::from_secs(1);
    // Each prints when it is ready; the leader waits for the signal, or not.
    let polite =
        processes().spawn(sh("trap 'echo asked; exit 3' TERM; echo ready; sleep 1000 & wait")).unwrap();
    let mut stdout = polite.stdout;
    stdout.read_exact(&mut [0; 6]).unwrap();
    assert!(processes().end_group(polite.pid, &[(Signal::SIGTERM, 30 * second)]));
    assert_eq!(polite.exit.recv_timeout(LONG).unwrap(), Exit::Code(3));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "asked\n", "and the sleeper holds the pipe no more");

    let deaf = processes().spawn(sh("trap '' TERM INT; echo ready; while :; do sleep 1000; done")).unwrap();
    let mut stdout = deaf.stdout;
    stdout.read_exact(&mut [0; 6]).unwrap();
    let steps = [(Signal::SIGINT, second / 20), (Signal::SIGTERM, second / 20)];
    assert!(processes().end_group(deaf.pid, &steps));
    assert_eq!(deaf.exit.recv_timeout(LONG).unwrap(), Exit::Signal(9));
    assert!(!processes().group_alive(deaf.pid));
}
