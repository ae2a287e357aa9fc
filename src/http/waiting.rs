//! The connections that wait without a thread: registered with epoll under keys of one use each, and
//! counted by what they wait for.
use super::conn::Conn;
use super::meter::Stats;
use super::slab::Slab;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, nothing received.
    Idle,
    /// Part of a head is received, or the connection is new.
    Head,
    /// Its request is held.
    Held,
    /// We read and throw away; with how much so far.
    Closing { thrown: usize },
}

pub(super) struct Waiting {
    pub(super) conn: Conn,
    pub(super) phase: Phase,
    /// When the phase began: for a head, with its first byte.
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

/// All waiting connections. Owns the epoll instance, so that none is in one and not in the other.
pub(super) struct WaitingRoom {
    pub(super) epoll: Epoll,
    table: Slab<Waiting>,
    stats: Arc<Stats>,
    /// Bytes in the buffers of unfinished heads.
    unfinished: usize,
    held: usize,
    /// Bytes in the buffers of held requests.
    held_bytes: usize,
}

impl WaitingRoom {
    pub(super) fn open(stats: Arc<Stats>) -> io::Result<WaitingRoom> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(WaitingRoom { epoll, table: Slab::new(), stats, unfinished: 0, held: 0, held_bytes: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn unfinished_bytes(&self) -> usize {
        self.unfinished
    }

    /// Registers a connection to wait; one epoll refuses is closed.
    pub(super) fn insert(&mut self, waiting: Waiting) {
        let interest = match waiting.phase {
            // Its data is the next request's: only its going away matters, or we would spin.
            Phase::Held => EpollFlags::EPOLLRDHUP,
            _ => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
        };
        let stream = Arc::clone(&waiting.conn.stream);
        self.count(&waiting, true);
        let key = self.table.insert(waiting);
        if let Err(error) = self.epoll.add(&*stream, EpollEvent::new(interest, key)) {
            log::warn!("epoll_ctl: {error}");
            self.remove(key);
        }
    }

    /// Takes a waiting connection out; its socket is no longer watched.
    pub(super) fn take(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.remove(key)?;
        let _ = self.epoll.delete(&*waiting.conn.stream);
        Some(waiting)
    }

    /// Changes a waiting connection where it stands, and counts it anew.
    pub(super) fn change<T>(&mut self, key: u64, with: impl FnOnce(&mut Waiting) -> T) -> Option<T> {
        let waiting = self.table.get_mut(key)?;
        let (phase, before) = (waiting.phase, waiting.conn.buffer.len());
        let result = with(waiting);
        if phase == Phase::Head {
            self.unfinished = self.unfinished - before + waiting.conn.buffer.len();
        }
        Some(result)
    }

    pub(super) fn phase(&mut self, key: u64) -> Option<Phase> {
        self.table.get_mut(key).map(|waiting| waiting.phase)
    }

    fn remove(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.table.remove(key)?;
        self.count(&waiting, false);
        Some(waiting)
    }

    fn count(&mut self, waiting: &Waiting, comes: bool) {
        let bytes = waiting.conn.buffer.len();
        let change = |count: &mut usize, by: usize| *count = if comes { *count + by } else { *count - by };
        match waiting.phase {
            Phase::Head => change(&mut self.unfinished, bytes),
            Phase::Held => {
                change(&mut self.held, 1);
                change(&mut self.held_bytes, bytes);
                self.stats.held.store(self.held, Ordering::Relaxed);
            }
            Phase::Idle | Phase::Closing { .. } => {}
        }
    }

    /// The keys of all that are wanted, the longest waiting first.
    pub(super) fn keys(&self, wanted: impl Fn(&Waiting) -> bool) -> Vec<u64> {
        let mut keys: Vec<(Instant, u64)> =
            self.table.iter().filter(|(_, w)| wanted(w)).map(|(key, w)| (w.since, key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// The longest waiting of those wanted.
    pub(super) fn oldest(&self, wanted: impl Fn(&Waiting) -> bool) -> Option<u64> {
        self.table.iter().filter(|(_, w)| wanted(w)).min_by_key(|(_, w)| w.since).map(|(key, _)| key)
    }

    /// The next deadline.
    pub(super) fn due(&self) -> Option<Instant> {
        self.table.iter().map(|(_, w)| w.deadline).min()
    }
}
