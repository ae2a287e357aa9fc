//! Accepting: within the bound on connections, and through a shortage of descriptors or memory.
use super::conn::{Conn, Role, Slot};
use super::doorman::{Doorman, WAKE};
use super::error::HttpError;
use super::limits::CONTROL_CONNECTIONS;
use super::listener::is_shortage;
use super::unsent::bound_unsent_of_small_window;
use super::waiting::{Phase, Waiting};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections taken from a listener at a time, so that one busy listener does not starve the rest.
const ACCEPT_BATCH: usize = 64;
/// How long accepting rests after the kernel refused (out of descriptors or memory).
const ACCEPT_REST: Duration = Duration::from_millis(50);

impl Doorman {
    /// Watches the listeners, or no longer. Each is tried, also after one that fails.
    pub(super) fn listen(&self, on: bool) -> io::Result<()> {
        let mut all = Ok(());
        for (index, (listener, _)) in self.listeners.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, WAKE - 1 - index as u64);
            let epoll = &self.waiting.epoll;
            match if on { epoll.add(listener, event) } else { epoll.delete(listener) } {
                // As it was before an attempt that failed in the middle.
                Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {}
                Err(errno) => all = Err(errno.into()),
            }
        }
        all
    }

    /// Accepts a batch; whether there may be more at once.
    pub(super) fn accept(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some((listener, role)) = self.listeners.get(index) else { return false };
            let role = *role;
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stats = &self.shared.stats;
                    stats.accepted.fetch_add(1, Ordering::Relaxed);
                    bound_unsent_of_small_window(&stream);
                    let conn = Conn::new(stream, peer, role, Slot::take(stats, role));
                    if self.make_room() {
                        // Its request is often here already.
                        self.receive(conn, Phase::Head, Instant::now());
                    } else {
                        self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
                        self.refuse(conn, &HttpError::overloaded("too many connections are open"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.shared.stats.accept_errors.fetch_add(1, Ordering::Relaxed);
                    if is_shortage(&error) {
                        self.rest(&error);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Closes the longest waiting connections until the bound is kept; false when all are busy. One
    /// that was refused and still lingers goes like the others and makes no room by that.
    fn make_room(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        while shared.stats.bounded_connections() > shared.limits.max_connections {
            // Those that do not count make no room.
            let control = shared.stats.control_connections.load(Ordering::Relaxed) > CONTROL_CONNECTIONS;
            let counts = |w: &Waiting| w.conn.role != Role::Control || control;
            match self.waiting.oldest(|w| w.phase != Phase::Held && counts(w)) {
                Some(oldest) => self.shed(oldest),
                None => return false,
            }
        }
        true
    }

    /// Out of descriptors or memory: frees the longest waiting connection and tries again soon.
    pub(super) fn rest(&mut self, error: &io::Error) {
        // Once at the start of a shortage, which may go on at every rest.
        if self.short_at.is_none_or(|at| at.elapsed() > ACCEPT_REST * 20) {
            log::warn!("accepting: {error}");
        }
        self.short_at = Some(Instant::now());
        if let Some(oldest) = self.waiting.oldest(|w| w.phase != Phase::Held) {
            self.shed(oldest);
        }
        let _ = self.listen(false);
        let at = Instant::now() + ACCEPT_REST;
        self.accept_at = Some(at);
        self.next_sweep = self.next_sweep.min(at);
    }
}
