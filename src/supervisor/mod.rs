//! Keeps one server process running: starts it, knows when it answers, restarts it, keeps its last
//! words. Knows nothing of HTTP beyond one readiness probe; the relay, the control routes and the
//! composition root hold a [`Supervisor`].
mod child;
mod logs;
mod message;
mod policy;
mod readiness;
mod running;
mod status;
mod watcher;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::base::lock::lock;
use crate::process::{Exit, Processes, Signal, User};
use child::Shared;
use message::{Message, Reply};
use watcher::{KILL_WAIT, Watcher};

pub use child::{InFlight, Life};
pub use logs::{LogLine, LogStream, Logs};
pub use status::{ControlError, NotReady, State, Status};

/// What a control request may take beyond the waits that were configured.
const SLACK: Duration = Duration::from_secs(5);

/// The server to run, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Program and arguments; run without a shell.
    pub command: Vec<String>,
    /// The port it listens on, on loopback; it is told in `PORT`.
    pub port: u16,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whom it runs as; None: whoever we are.
    pub user: Option<User>,
    /// Ready when `GET` of this answers 2xx or 3xx; None: when it accepts a connection.
    pub ready_path: Option<String>,
    /// What [`Supervisor::interrupt`] sends.
    pub interrupt_signal: Signal,
    /// How long requests in flight may take to finish before it is stopped.
    pub drain: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Restarts in a row after which it has failed; None: never. 0: the first exit is final.
    pub max_restarts: Option<u32>,
    /// Lines of output kept.
    pub log_lines: usize,
    /// Whether its output also goes to our own stdout and stderr.
    pub pass_output: bool,
}

/// Starts the thread `watcher`, which starts the server.
///
/// # Errors
/// An empty command, a readiness path that is no path, or no thread to be had. A command that cannot
/// be run is not an error here but a state.
pub fn start(spec: Spec, processes: Processes) -> io::Result<Supervisor> {
    start_observed(spec, processes, None)
}

/// What is told of each change, see [`Supervisor::on_change`].
pub type OnChange = Box<dyn Fn(&Status) + Send + Sync>;

/// The same, with an observer that misses nothing, not even the first start.
///
/// # Errors
/// As for [`start`].
pub fn start_observed(
    spec: Spec,
    processes: Processes,
    observer: Option<OnChange>,
) -> io::Result<Supervisor> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if spec.command.is_empty() {
        return invalid("the command is empty");
    }
    if spec
        .ready_path
        .as_ref()
        .is_some_and(|path| !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return invalid("the readiness path must start with a slash and hold no spaces");
    }
    let (sender, messages) = unbounded();
    let (finished, receiver) = bounded(1);
    let shared = Arc::new(Shared::new(spec.log_lines, processes, sender));
    if let Some(observer) = observer {
        shared.observe(observer);
    }
    let limit = spec.drain + spec.stop_grace + KILL_WAIT + SLACK;
    let interrupt_signal = spec.interrupt_signal;
    let watcher = Watcher::new(spec, Arc::clone(&shared), messages, finished);
    let thread = crate::base::thread::spawn("watcher", move || watcher.run())?;
    let thread = Mutex::new(Some(thread));
    Ok(Supervisor { inner: Arc::new(Inner { shared, thread, finished: receiver, limit, interrupt_signal }) })
}

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    finished: Receiver<Exit>,
    limit: Duration,
    interrupt_signal: Signal,
}

/// The handle to the server; when the last one is dropped it is shut down.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Supervisor").field(&self.status()).finish()
    }
}

impl Supervisor {
    /// How it is right now.
    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// Leave to send a request, while the server is ready.
    ///
    /// # Errors
    /// It is not; wait with [`Supervisor::on_change`] or [`Supervisor::wait_ready`].
    pub fn enter(&self) -> Result<InFlight, NotReady> {
        self.inner.shared.enter()
    }

    /// Drains, stops and starts it; returns when the new process runs (ready or not). Requests made
    /// before that are one restart.
    ///
    /// # Errors
    /// When it did not come to that.
    pub fn restart(&self) -> Result<(), ControlError> {
        self.inner.control(Message::Restart)
    }

    /// Signals its group with the configured signal.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn interrupt(&self) -> Result<(), ControlError> {
        if self.inner.shared.signal(self.inner.interrupt_signal) {
            Ok(())
        } else {
            Err(ControlError::NotRunning)
        }
    }

    /// Drains and stops it until somebody starts it; returns when it is gone.
    ///
    /// # Errors
    /// `NotRunning` when somebody started it again meanwhile, `Deadline`, `ShuttingDown`.
    pub fn stop(&self) -> Result<(), ControlError> {
        self.inner.control(Message::Stop)
    }

    /// Starts it unless it runs; returns when the process runs.
    ///
    /// # Errors
    /// As for [`Supervisor::restart`].
    pub fn start(&self) -> Result<(), ControlError> {
        self.inner.control(Message::Start)
    }

    /// Its files changed: a server that failed or waits is started at once, a stopped one is not.
    pub fn changed(&self) {
        let shared = &self.inner.shared;
        shared.send_once(&shared.change_pending, Message::Changed);
    }

    /// It refused a connection in this generation: from now on nobody enters, until the watcher has
    /// looked whether it still answers.
    pub fn report_dead(&self, generation: u64) {
        self.inner.shared.report_dead(generation);
    }

    /// Waits until it is ready; false after `timeout` or at the program's end.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.inner.shared.wait_ready(timeout)
    }

    /// Calls `f` after each change of state (and sometimes without one), on the watcher's thread and without a lock: it must not
    /// block, nor call a method that waits.
    pub fn on_change(&self, f: OnChange) {
        self.inner.shared.observe(f);
    }

    /// Passes a signal on to its group, if it runs.
    pub fn forward_signal(&self, signal: Signal) {
        self.inner.shared.signal(signal);
    }

    /// Its last lines.
    pub fn logs(&self) -> &Logs {
        &self.inner.shared.logs
    }

    /// Gets the last exit each time the server has failed for good. One receiver gets each message.
    pub fn finished(&self) -> Receiver<Exit> {
        self.inner.finished.clone()
    }

    /// Stops it for ever, without draining: SIGTERM, the grace, SIGKILL, then everything adopted.
    /// Bounded by the grace and a few seconds; later control requests answer `ShuttingDown`.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    /// SIGKILLs every group in the program at once, and starts nothing more.
    pub fn kill_now(&self) {
        let (reply, _) = bounded(1);
        self.inner.shared.send(Message::Shutdown(reply));
        self.inner.shared.processes.kill_everything();
    }
}

impl Inner {
    fn control(&self, message: fn(Sender<Reply>) -> Message) -> Result<(), ControlError> {
        let (reply, answer) = bounded(1);
        self.shared.send(message(reply));
        answer.recv_timeout(self.limit).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => ControlError::Deadline,
                RecvTimeoutError::Disconnected => ControlError::ShuttingDown,
            })
        })
    }

    fn shutdown(&self) {
        let ended = self.control(Message::Shutdown);
        let thread = lock(&self.thread).take();
        // After a deadline the watcher may hang on a process that does not die; so would a join.
        if ended != Err(ControlError::Deadline)
            && let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}
