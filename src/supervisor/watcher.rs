//! The thread `watcher`: the only one that starts, stops and judges the server. Never blocks for long,
//! so control requests reach it in every phase.
//!
//! ```text
//!          spawned              answers
//! launch -----------> starting ---------> ready
//!   |                  |    ^-- refuses --'  |
//!   '-> port_busy      |---------------------|---- exit -----> backoff, or failed
//!       (port taken)   '---------------------'- stop, restart -> draining -> stopping
//! ```
//! From stopping to launch (restart) or stopped (stop). Back to launch come port_busy and backoff when
//! their time is over, these and failed after an upload, and all without a process on start or restart.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, never, select};

use super::Spec;
use super::child::Shared;
use super::message::{Message, Reply, answer};
use super::policy::{Policy, Verdict, chance};
use super::readiness;
use super::running::Running;
use super::status::{ControlError, State};
use crate::process::{Exit, Signal};

/// How long a SIGKILL may take; more means a process stuck in the kernel.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(2);
/// How often a group is looked at whose leader is gone: nobody tells when the last member leaves.
const GROUP_POLL: Duration = Duration::from_millis(5);
const ADOPTED_WAIT: Duration = Duration::from_secs(1);

enum Phase {
    Starting {
        probe_at: Instant,
        pause: Duration,
    },
    Ready,
    Draining {
        until: Instant,
    },
    Stopping {
        until: Instant,
        killed: bool,
    },
    /// No process: stopped and failed without, backoff and port_busy with a time to try again.
    Idle {
        until: Option<Instant>,
    },
}

/// What follows when the server is gone.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Run,
    Rest,
    End,
}

pub(super) struct Watcher {
    spec: Spec,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    finished: Sender<Exit>,
    policy: Policy,
    phase: Phase,
    then: Then,
    running: Option<Running>,
    /// Who waits for a process to run, for it to be gone, for the end.
    run_waiters: Vec<Sender<Reply>>,
    rest_waiters: Vec<Sender<Reply>>,
    end_waiters: Vec<Sender<Reply>>,
    ended: bool,
}

impl Watcher {
    pub(super) fn new(
        spec: Spec,
        shared: Arc<Shared>,
        messages: Receiver<Message>,
        finished: Sender<Exit>,
    ) -> Watcher {
        Watcher {
            policy: Policy::new(spec.max_restarts),
            spec,
            shared,
            messages,
            finished,
            phase: Phase::Idle { until: Some(Instant::now()) },
            then: Then::Run,
            running: None,
            run_waiters: Vec::new(),
            rest_waiters: Vec::new(),
            end_waiters: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn run(mut self) {
        while !self.ended {
            let exit = match &self.running {
                Some(Running { exit, exited: None, .. }) => exit.clone(),
                _ => never(),
            };
            let timer = self.wake_at().map_or_else(never, at);
            select! {
                recv(self.messages) -> message => {
                    if let Ok(message) = message {
                        self.take(message);
                    }
                }
                recv(exit) -> exit => {
                    if let Some(running) = &mut self.running {
                        // Every exit is sent; without one we would have lost it to a bug.
                        running.exited = Some(exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32)));
                    }
                }
                recv(timer) -> _ => {}
            }
            // Whatever else came meanwhile counts before the next step: bursts fold into one.
            while let Ok(message) = self.messages.try_recv() {
                self.take(message);
            }
            self.step();
        }
    }

    /// When `step` has something to do although nothing happens.
    fn wake_at(&self) -> Option<Instant> {
        let exited = self.running.as_ref().is_none_or(|running| running.exited.is_some());
        match self.phase {
            Phase::Starting { probe_at, .. } => Some(probe_at),
            Phase::Ready => None,
            Phase::Draining { until } => Some(until),
            Phase::Stopping { .. } if exited => Some(Instant::now() + GROUP_POLL),
            Phase::Stopping { until, .. } => Some(until),
            Phase::Idle { until } => until,
        }
    }

    /// Notes what a message wants; `step` does it.
    fn take(&mut self, message: Message) {
        let refusal = ControlError::ShuttingDown;
        match message {
            Message::Restart(reply) | Message::Start(reply) | Message::Stop(reply)
                if self.then == Then::End =>
            {
                let _ = reply.send(Err(refusal));
            }
            Message::Restart(reply) => {
                self.want_run(reply);
                if matches!(self.phase, Phase::Starting { .. } | Phase::Ready) {
                    self.drain();
                }
            }
            Message::Start(reply) => match self.phase {
                Phase::Starting { .. } | Phase::Ready => {
                    let _ = reply.send(Ok(()));
                }
                _ => self.want_run(reply),
            },
            Message::Stop(reply) => {
                self.then = Then::Rest;
                answer(&mut self.run_waiters, &Err(ControlError::NotRunning));
                self.rest_waiters.push(reply);
                match self.phase {
                    Phase::Starting { .. } | Phase::Ready => self.drain(),
                    Phase::Draining { .. } | Phase::Stopping { .. } => {}
                    Phase::Idle { .. } => self.rest(),
                }
            }
            Message::Shutdown(reply) => {
                self.then = Then::End;
                answer(&mut self.run_waiters, &Err(refusal.clone()));
                answer(&mut self.rest_waiters, &Err(refusal));
                self.end_waiters.push(reply);
                match self.phase {
                    Phase::Stopping { .. } => {}
                    _ => self.terminate(),
                }
            }
            Message::Changed => {
                self.shared.change_pending.store(false, Ordering::Release);
                self.policy.forgive();
                if let (Phase::Idle { until }, Then::Run) = (&mut self.phase, self.then) {
                    *until = Some(Instant::now());
                }
            }
            Message::Drained => {}
            Message::Dead(generation) => {
                let current = self.shared.status().generation == generation;
                if current && matches!(self.phase, Phase::Ready) {
                    self.starting("the server refused a connection");
                }
            }
        }
    }

    fn want_run(&mut self, reply: Sender<Reply>) {
        self.policy.forgive();
        self.then = Then::Run;
        answer(&mut self.rest_waiters, &Err(ControlError::NotRunning));
        self.run_waiters.push(reply);
        if let Phase::Idle { until } = &mut self.phase {
            *until = Some(Instant::now());
        }
    }

    fn step(&mut self) {
        let now = Instant::now();
        let exited = self.running.as_ref().and_then(|running| running.exited).is_some();
        match self.phase {
            Phase::Starting { .. } | Phase::Ready if exited => self.died(),
            Phase::Starting { probe_at, pause } if now >= probe_at => self.probe(pause),
            Phase::Draining { until } if exited || now >= until || self.shared.in_flight() == 0 => {
                self.terminate();
            }
            Phase::Stopping { until, killed } => self.stopping(now >= until, killed),
            Phase::Idle { until: Some(until) } if now >= until => self.launch(),
            _ => {}
        }
    }

    /// Starts a process, if the port is free.
    fn launch(&mut self) {
        // What a former life left behind would hold the port, or take it when it comes to it.
        self.shared.processes.kill_adopted(ADOPTED_WAIT);
        if readiness::accepts(self.spec.port).is_some() {
            return self.port_busy();
        }
        self.policy.unblocked();
        match Running::start(&self.spec, &self.shared) {
            Ok(running) => {
                let (pid, started) = (running.pid, running.started);
                self.shared.say(&format!("started process {pid}"));
                self.running = Some(running);
                self.phase = Phase::Starting { probe_at: started, pause: readiness::FIRST_PAUSE };
                self.shared.update(|child| {
                    (child.state, child.pid, child.started) = (State::Starting, Some(pid), Some(started));
                    (child.retry_at, child.message, child.in_flight) = (None, None, 0);
                    child.generation += 1;
                });
                answer(&mut self.run_waiters, &Ok(()));
            }
            Err((code, message)) => {
                self.shared.say(&message);
                self.retry_or_fail(Exit::Code(code), &message, Duration::ZERO);
                answer(&mut self.run_waiters, &Err(ControlError::Spawn(message)));
            }
        }
    }

    fn port_busy(&mut self) {
        let message = format!("port {} is taken by a process that is not ours", self.spec.port);
        self.shared.say(&message);
        let retry_at = Instant::now() + self.policy.blocked(chance());
        self.phase = Phase::Idle { until: Some(retry_at) };
        self.shared.update(|child| {
            (child.state, child.retry_at) = (State::PortBusy, Some(retry_at));
            child.message = Some(message.clone());
        });
        answer(&mut self.run_waiters, &Err(ControlError::Spawn(message)));
    }

    fn probe(&mut self, pause: Duration) {
        if let Some(upstream) = readiness::probe(self.spec.port, self.spec.ready_path.as_deref()) {
            self.phase = Phase::Ready;
            self.shared.update(|child| {
                (child.state, child.upstream, child.message) = (State::Ready, Some(upstream), None);
            });
        } else {
            let pause_after = readiness::next_pause(pause);
            self.phase = Phase::Starting { probe_at: Instant::now() + pause, pause: pause_after };
        }
    }

    /// Back to starting although the process lives.
    fn starting(&mut self, message: &str) {
        self.shared.say(message);
        let pause = readiness::FIRST_PAUSE;
        self.phase = Phase::Starting { probe_at: Instant::now() + pause, pause };
        self.shared.update(|child| {
            (child.state, child.upstream, child.message) = (State::Starting, None, Some(message.to_owned()));
        });
    }

    /// The process ended without being told to.
    fn died(&mut self) {
        let life = self.running.as_ref().map(|running| running.started.elapsed()).unwrap_or_default();
        // First of all nobody may enter any more; then its last words may take a moment.
        self.shared.update(|child| (child.state, child.upstream) = (State::Backoff, None));
        let Some(exit) = self.collect() else { return };
        self.retry_or_fail(exit, &exit.to_string(), life);
    }

    /// Reads the rest of the output and forgets the process.
    fn collect(&mut self) -> Option<Exit> {
        let exited = self.running.take()?.finish();
        if let Some(exit) = exited {
            self.shared.say(&exit.to_string());
        }
        self.shared.update(|child| (child.pid, child.exit) = (None, exited.or(child.exit)));
        exited
    }

    fn retry_or_fail(&mut self, exit: Exit, message: &str, life: Duration) {
        let (state, until) = match self.policy.ended(life, chance()) {
            Verdict::Retry(pause) => (State::Backoff, Some(Instant::now() + pause)),
            Verdict::GiveUp => (State::Failed, None),
        };
        self.phase = Phase::Idle { until };
        self.shared.update(|child| {
            (child.state, child.pid, child.upstream) = (state, None, None);
            (child.exit, child.retry_at, child.message) = (Some(exit), until, Some(message.to_owned()));
        });
        if state == State::Failed {
            self.shared.say("not started again");
            // If the last one was not fetched yet, that one will do.
            let _ = self.finished.try_send(exit);
        }
    }

    /// Lets nobody in any more and waits for who is inside.
    fn drain(&mut self) {
        self.phase = Phase::Draining { until: Instant::now() + self.spec.drain };
        self.shared.update(|child| (child.state, child.upstream) = (State::Draining, None));
    }

    /// SIGTERM to the group. From here on its members may outlive the leader, for the grace.
    fn terminate(&mut self) {
        if let Some(Running { pid, exited: None, .. }) = self.running {
            self.shared.processes.set_kill_group_on_exit(pid, false);
            self.shared.signal(Signal::SIGTERM);
        }
        self.phase = Phase::Stopping { until: Instant::now() + self.spec.stop_grace, killed: false };
        self.shared.update(|child| {
            (child.state, child.upstream, child.retry_at) = (State::Stopping, None, None);
        });
    }

    fn stopping(&mut self, late: bool, killed: bool) {
        let Some(Running { pid, exited, .. }) = &self.running else { return self.gone() };
        let (pid, exited) = (*pid, exited.is_some());
        if exited && !self.shared.processes.group_alive(pid) {
            return self.gone();
        }
        if !late {
            return;
        }
        if killed && (exited || self.then == Then::End) {
            // A process stuck in the kernel; what the port says decides about the next start.
            return self.gone();
        }
        self.shared.processes.signal_group(pid, Signal::SIGKILL);
        self.shared.say(if killed { "still not gone after SIGKILL" } else { "not gone in time: SIGKILL" });
        self.phase = Phase::Stopping { until: Instant::now() + KILL_WAIT, killed: true };
    }

    /// The process and its group are gone.
    fn gone(&mut self) {
        if self.then == Then::End {
            self.shared.processes.kill_all_adopted(ADOPTED_WAIT);
        } else {
            self.shared.processes.kill_adopted(ADOPTED_WAIT);
        }
        self.collect();
        match self.then {
            Then::Run => self.launch(),
            Then::Rest => self.rest(),
            Then::End => {
                self.rest();
                self.shared.update(|child| child.closed = true);
                self.shared.logs.close();
                self.ended = true;
                answer(&mut self.end_waiters, &Ok(()));
            }
        }
    }

    fn rest(&mut self) {
        self.phase = Phase::Idle { until: None };
        self.shared.update(|child| {
            (child.state, child.retry_at, child.message) = (State::Stopped, None, None);
        });
        answer(&mut self.rest_waiters, &Ok(()));
    }
}
