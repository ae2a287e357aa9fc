//! Signals to the program itself, seen from outside: this test binary runs itself as the program.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod common;

use std::io::{BufRead, BufReader};

use common::{LONG, eventually, processes, sh, spawn};
use simple_artifact_server::process::{Exit, Pid, Signal, Spawned, install_signals};

/// Not a test: the program, when the tests below run it.
#[test]
#[ignore = "run by the other tests"]
fn program() {
    if std::env::var_os("FRAG_TEST_PROGRAM").is_none() {
        return;
    }
    let processes = processes();
    let child = processes.spawn(sh("exec sleep 600")).unwrap();
    let (terminate, terminated) = crossbeam_channel::unbounded();
    let forward = |signal: Signal| println!("\ngot {signal}");
    install_signals(move |count| terminate.send(count).unwrap(), forward).unwrap();
    assert!(install_signals(|_| {}, |_| {}).is_err(), "once only");
    println!("\nchild {}", child.pid);
    while let Ok(count) = terminated.recv() {
        assert!(processes.kill_all_adopted(LONG));
        println!("\nterminate {count}");
        if count == 2 {
            processes.kill_everything();
            println!("\n{}", child.exit.recv().unwrap());
            return;
        }
    }
}

struct Program {
    pid: Pid,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    exit: crossbeam_channel::Receiver<Exit>,
    child: i32,
    /// A process that is our child since before we started, as `sh -c 'redis & exec us'` makes one.
    inherited: i32,
}

impl Program {
    fn start() -> Program {
        let exe = std::env::current_exe().unwrap();
        let script = "trap '' PIPE; sleep 600 & echo inherited $!; exec \"$0\" \"$@\"";
        let arguments = ["--exact", "program", "--ignored", "--nocapture"];
        let command = ["/bin/sh", "-c", script, exe.to_str().unwrap()];
        let mut spawn = spawn(&[command, arguments].concat());
        spawn.env.push(("FRAG_TEST_PROGRAM".into(), "1".into()));
        let Spawned { pid, stdout, exit, .. } = processes().spawn(spawn).unwrap();
        let mut program =
            Program { pid, lines: BufReader::new(stdout).lines(), exit, child: 0, inherited: 0 };
        program.inherited = program.expect("inherited ").parse().unwrap();
        program.child = program.expect("child ").parse().unwrap();
        program
    }

    /// Reads to the line that begins so and returns its rest.
    fn expect(&mut self, start: &str) -> String {
        let line = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(start));
        line.unwrap()[start.len()..].to_owned()
    }

    fn signal(&self, signal: Signal) {
        assert!(processes().signal_process(self.pid, signal));
    }
}

#[test]
fn a_servers_signals_are_passed_on_and_the_second_termination_kills() {
    use Signal::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU};
    use Signal::{SIGUSR1, SIGUSR2, SIGWINCH};
    let mut program = Program::start();
    for signal in [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCONT] {
        program.signal(SIGTTIN);
        program.signal(SIGTTOU);
        program.signal(signal);
        assert_eq!(program.expect("got "), signal.as_str());
    }
    program.signal(SIGTERM);
    assert_eq!(program.expect("terminate "), "1");
    assert!(common::stat(program.inherited).is_some_and(|(state, _)| state != 'Z'), "not ours to kill");
    program.signal(SIGINT);
    assert_eq!(program.expect("terminate "), "2");
    program.expect("killed by SIGKILL");
    assert_eq!(program.exit.recv_timeout(LONG), Ok(Exit::Code(0)));
}

#[test]
fn children_do_not_outlive_a_killed_program() {
    let program = Program::start();
    assert!(common::stat(program.child).is_some());
    program.signal(Signal::SIGKILL);
    assert_eq!(program.exit.recv_timeout(LONG), Ok(Exit::Signal(9)));
    eventually("the child is gone", || common::stat(program.child).is_none());
}
