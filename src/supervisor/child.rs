//! The guarded child: its state, who is inside, and the only signals it gets. The watcher writes the
//! state, everybody else reads it, enters and leaves.
//!
//! Lock order: `child` and `observers` are leaves, never held together. Signals go out without
//! `child`: a [`Pid`] never means another process, so that a busy process table holds up no request.
use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::logs::{LogStream, Logs};
use super::message::Message;
use super::status::{NotReady, State, Status};
use crate::base::lock::lock;
use crate::process::{Exit, Pid, Processes, Signal};

pub(super) struct Child {
    pub(super) state: State,
    /// While the process is not collected.
    pub(super) pid: Option<Pid>,
    pub(super) generation: u64,
    /// Where it answered; set while ready.
    pub(super) upstream: Option<SocketAddr>,
    /// Requests inside this generation.
    pub(super) in_flight: usize,
    pub(super) started: Option<Instant>,
    pub(super) exit: Option<Exit>,
    pub(super) retry_at: Option<Instant>,
    pub(super) message: Option<String>,
    /// The supervisor ends: nobody will ever be ready again.
    pub(super) closed: bool,
}

impl Child {
    fn status(&self) -> Status {
        let now = Instant::now();
        Status {
            state: self.state,
            ready: self.state == State::Ready,
            running: self.pid.is_some(),
            pid: self.pid.map(Pid::as_raw),
            generation: self.generation,
            restarts: self.generation.saturating_sub(1),
            uptime: self.pid.and(self.started).map(|at| now.saturating_duration_since(at)),
            exit: self.exit,
            next_retry: self.retry_at.map(|at| at.saturating_duration_since(now)),
            message: self.message.clone(),
        }
    }
}

type Observer = Arc<dyn Fn(&Status) + Send + Sync>;

/// What the watcher and all handles share.
pub(super) struct Shared {
    child: Mutex<Child>,
    changed: Condvar,
    observers: Mutex<Vec<Observer>>,
    pub(super) logs: Logs,
    pub(super) processes: Processes,
    messages: Sender<Message>,
    /// A `Changed` is in the channel already: however many come, one waits.
    pub(super) change_pending: AtomicBool,
}

impl Shared {
    pub(super) fn new(log_lines: usize, processes: Processes, messages: Sender<Message>) -> Shared {
        Shared {
            child: Mutex::new(Child {
                state: State::Starting,
                pid: None,
                generation: 0,
                upstream: None,
                in_flight: 0,
                started: None,
                exit: None,
                retry_at: None,
                message: None,
                closed: false,
            }),
            changed: Condvar::new(),
            observers: Mutex::default(),
            logs: Logs::new(log_lines),
            processes,
            messages,
            change_pending: AtomicBool::new(false),
        }
    }

    pub(super) fn send(&self, message: Message) -> bool {
        self.messages.send(message).is_ok()
    }

    /// Sends `message` unless one of its kind still waits.
    pub(super) fn send_once(&self, pending: &AtomicBool, message: Message) {
        if !pending.swap(true, Ordering::AcqRel) {
            self.send(message);
        }
    }

    /// Notes what we did to the server, in its log and in ours.
    pub(super) fn say(&self, text: &str) {
        self.logs.push(LogStream::System, text);
        log::info!("server: {text}");
    }

    pub(super) fn status(&self) -> Status {
        lock(&self.child).status()
    }

    pub(super) fn in_flight(&self) -> usize {
        lock(&self.child).in_flight
    }

    /// Changes the child's state and tells everybody. For the watcher.
    pub(super) fn update(&self, change: impl FnOnce(&mut Child)) {
        let status = {
            let mut child = lock(&self.child);
            change(&mut child);
            child.status()
        };
        self.changed.notify_all();
        let observers = lock(&self.observers).clone();
        for observer in observers {
            // The watcher outlives whatever an observer does.
            if catch_unwind(AssertUnwindSafe(|| observer(&status))).is_err() {
                log::error!("an observer of the server's state panicked");
            }
        }
    }

    pub(super) fn observe(&self, observer: Box<dyn Fn(&Status) + Send + Sync>) {
        lock(&self.observers).push(Arc::from(observer));
    }

    pub(super) fn wait_ready(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut child = lock(&self.child);
        while child.state != State::Ready {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || child.closed {
                return false;
            }
            child = self.changed.wait_timeout(child, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn enter(self: &Arc<Shared>) -> Result<InFlight, NotReady> {
        let mut child = lock(&self.child);
        match (child.state, child.upstream) {
            (State::Ready, Some(upstream)) => {
                child.in_flight += 1;
                let life = Life { generation: child.generation, shared: Arc::clone(self) };
                Ok(InFlight { life, upstream, left: Cell::new(false) })
            }
            (state, _) => Err(NotReady { state }),
        }
    }

    /// Lets nobody in until the watcher has looked again, if this life is the current one and ready.
    /// The watcher tells the observers; each of its looks is asked for once.
    pub(super) fn report_dead(&self, generation: u64) {
        {
            let mut child = lock(&self.child);
            if child.generation != generation || child.state != State::Ready {
                return;
            }
            (child.state, child.upstream) = (State::Starting, None);
        }
        self.send(Message::Dead(generation));
    }

    /// Signals the child's group; false if there is none.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        let pid = lock(&self.child).pid;
        pid.is_some_and(|pid| self.processes.signal_group(pid, signal))
    }
}

/// A life of the server, to ask how it stands.
#[derive(Clone)]
pub struct Life {
    /// Its number: one more for each.
    pub generation: u64,
    shared: Arc<Shared>,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&self.generation).finish()
    }
}

impl Life {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        let child = lock(&self.shared.child);
        child.generation != self.generation || child.pid.is_none()
    }

    /// Whether requests are let in to it.
    pub fn is_ready(&self) -> bool {
        let child = lock(&self.shared.child);
        child.generation == self.generation && child.state == State::Ready
    }
}

/// Leave to send one request to the server. A restart waits for it to be dropped, up to the drain
/// time; who holds a connection for long (a tunnel) should not hold this.
pub struct InFlight {
    /// The life of the server this belongs to.
    pub life: Life,
    /// Where it listens.
    pub upstream: SocketAddr,
    left: Cell<bool>,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({} at {})", self.life.generation, self.upstream)
    }
}

impl InFlight {
    /// It is no longer a request that a restart waits for: it has become something that may last for
    /// ever. Dropping does the same.
    pub fn leave(&self) {
        if self.left.replace(true) {
            return;
        }
        let mut child = lock(&self.life.shared.child);
        // A leaver from an earlier life is not counted in this one.
        if child.generation != self.life.generation {
            return;
        }
        child.in_flight -= 1;
        let last = child.in_flight == 0 && child.state == State::Draining;
        drop(child);
        if last {
            self.life.shared.send(Message::Drained);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.leave();
    }
}
