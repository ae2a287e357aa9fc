//! The way to the listener thread: a queue, and an eventfd that wakes its epoll loop.
use super::conn::Conn;
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What workers and the server tell the listener thread.
pub(super) enum Return {
    /// Between requests; what was read ahead stays in its buffer.
    Idle(Conn),
    /// Its request waits for the wrapped server, at most this long since it was first held.
    Held(Conn, Duration),
    /// We have said our last word; the client may still be sending.
    Closing(Conn),
    /// Held requests may be tried again.
    Resume,
    /// Accept no more, end what is idle.
    Drain,
    /// End the thread.
    Stop,
}

/// The way to the listener thread.
#[derive(Clone)]
pub(super) struct Door {
    returns: Sender<Return>,
    wake: Arc<EventFd>,
}

impl Door {
    pub(super) fn open() -> io::Result<(Door, Receiver<Return>)> {
        // Unbounded, yet never longer than there are connections and control calls.
        let (returns, inbox) = unbounded();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok((Door { returns, wake: Arc::new(wake) }, inbox))
    }

    pub(super) fn send(&self, what: Return) {
        // Without a listener thread (shutdown) the connection closes here.
        if self.returns.send(what).is_ok() {
            let _ = self.wake.write(1);
        }
    }

    /// What epoll watches for a message.
    pub(super) fn bell(&self) -> &EventFd {
        &self.wake
    }

    /// Takes the wake-up; to be done before the queue is read, or a message could be missed.
    pub(super) fn answer(&self) {
        let _ = self.wake.read();
    }
}
