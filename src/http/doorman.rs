//! The listener thread: one epoll loop over the listeners and every connection that waits — for a
//! request, for the wrapped server, for its client to finish — so that waiting costs no thread.
use super::conn::{Conn, Role, Slot};
use super::error::HttpError;
use super::head::{HeadError, Scan, leading_empty_lines, scan};
use super::limits::{HEAD_BYTES, LINGER_TIME, UNFINISHED_HEADS_BYTES};
use super::pool::{Pool, Shared};
use super::slab::Slab;
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::{self, IoSlice, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The wake-up's key in epoll, above every slab key in use; listeners stand right below it.
const WAKE: u64 = u64::MAX;
/// Connections taken from a listener at a time, so that one busy listener does not starve the rest.
const ACCEPT_BATCH: usize = 64;
/// How long accepting rests after the kernel refused (out of descriptors or memory).
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How often held requests are tried besides the wake-up: none can be forgotten.
const HOLD_POLL: Duration = Duration::from_millis(50);

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests, nothing received.
    Idle,
    /// Part of a head is received, or the connection is new.
    Head,
    /// Its request is held.
    Held,
    /// We read and throw away; with how much so far.
    Closing { thrown: usize },
}

struct Waiting {
    conn: Conn,
    phase: Phase,
    since: Instant,
    deadline: Instant,
}

pub(super) struct Doorman {
    epoll: Epoll,
    inbox: Receiver<Return>,
    listeners: Vec<(TcpListener, Role)>,
    waiting: Slab<Waiting>,
    /// Bytes in the buffers of unfinished heads.
    unfinished: usize,
    held: usize,
    next_sweep: Instant,
    accept_at: Option<Instant>,
    draining: bool,
    public: Arc<Pool>,
    control: Arc<Pool>,
    shared: Arc<Shared>,
    scratch: Vec<u8>,
}

impl Doorman {
    pub(super) fn new(
        inbox: Receiver<Return>,
        listeners: Vec<(TcpListener, Role)>,
        public: Arc<Pool>,
        control: Arc<Pool>,
        shared: Arc<Shared>,
    ) -> io::Result<Doorman> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*shared.door.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let doorman = Doorman {
            epoll,
            inbox,
            listeners,
            waiting: Slab::new(),
            unfinished: 0,
            held: 0,
            next_sweep: Instant::now() + Duration::from_secs(1),
            accept_at: None,
            draining: false,
            public,
            control,
            shared,
            scratch: vec![0; 16 * 1024],
        };
        doorman.listen(true)?;
        Ok(doorman)
    }

    fn listen(&self, on: bool) -> io::Result<()> {
        for (index, (listener, _)) in self.listeners.iter().enumerate() {
            if on {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, WAKE - 1 - index as u64);
                self.epoll.add(listener, event)?;
            } else {
                self.epoll.delete(listener)?;
            }
        }
        Ok(())
    }

    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    log::error!("epoll_wait: {error}");
                    std::thread::sleep(ACCEPT_REST);
                    0
                }
            };
            for event in &events[..ready] {
                match event.data() {
                    WAKE => {
                        let _ = self.shared.door.wake.read();
                    }
                    key if key > WAKE - 1 - self.listeners.len() as u64 && !self.draining => {
                        self.accept((WAKE - 1 - key) as usize);
                    }
                    key => self.on_event(key, event.events()),
                }
            }
            while let Ok(what) = self.inbox.try_recv() {
                if !self.on_return(what) {
                    return;
                }
            }
            if Instant::now() >= self.next_sweep {
                self.sweep();
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if self.waiting.len() == 0 && self.accept_at.is_none() {
            return EpollTimeout::NONE;
        }
        let wait = self.next_sweep.saturating_duration_since(Instant::now());
        // Rounded up: a millisecond early would find nothing due and spin.
        EpollTimeout::from(u16::try_from(wait.as_millis() + 1).unwrap_or(u16::MAX))
    }

    fn on_return(&mut self, what: Return) -> bool {
        let now = Instant::now();
        match what {
            Return::Idle(conn) if conn.buffer.is_empty() => {
                if !self.draining {
                    let mut conn = conn;
                    conn.buffer = Vec::new();
                    self.wait(conn, Phase::Idle, now + self.shared.limits.idle_timeout);
                }
            }
            Return::Idle(conn) => self.examine(conn, Phase::Head, now),
            Return::Held(conn, time) => {
                let until = conn.hold.since.unwrap_or(now) + time;
                self.wait(conn, Phase::Held, until);
            }
            Return::Closing(conn) => self.close_kindly(conn),
            Return::Resume => self.resume_held(),
            Return::Drain => {
                self.draining = true;
                let _ = self.listen(false);
                self.listeners.clear();
                let idle: Vec<u64> = self.keys(|w| w.phase == Phase::Idle);
                for key in idle {
                    self.take(key);
                }
            }
            Return::Stop => return false,
        }
        true
    }

    /// Registers a connection to wait.
    fn wait(&mut self, conn: Conn, phase: Phase, deadline: Instant) {
        let interest = match phase {
            // Its data is the next request's: only its going away matters, or we would spin.
            Phase::Held => EpollFlags::EPOLLRDHUP,
            _ => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
        };
        let stream = Arc::clone(&conn.stream);
        let due = if phase == Phase::Held { deadline.min(Instant::now() + HOLD_POLL) } else { deadline };
        self.next_sweep = self.next_sweep.min(due);
        match phase {
            Phase::Head => self.unfinished += conn.buffer.len(),
            Phase::Held => {
                self.held += 1;
                self.shared.stats.held.store(self.held, Ordering::Relaxed);
            }
            _ => {}
        }
        let key = self.waiting.insert(Waiting { conn, phase, since: Instant::now(), deadline });
        if let Err(error) = self.epoll.add(&*stream, EpollEvent::new(interest, key)) {
            log::warn!("epoll_ctl: {error}");
            self.take_unregistered(key);
        }
        while self.unfinished > UNFINISHED_HEADS_BYTES {
            match self.oldest(|w| w.phase == Phase::Head) {
                Some(oldest) => self.shed(oldest),
                None => break,
            }
        }
    }

    /// Takes a waiting connection out; its socket is no longer watched.
    fn take(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.take_unregistered(key)?;
        let _ = self.epoll.delete(&*waiting.conn.stream);
        Some(waiting)
    }

    fn take_unregistered(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        match waiting.phase {
            Phase::Head => self.unfinished -= waiting.conn.buffer.len(),
            Phase::Held => {
                self.held -= 1;
                self.shared.stats.held.store(self.held, Ordering::Relaxed);
            }
            _ => {}
        }
        Some(waiting)
    }

    fn keys(&self, wanted: impl Fn(&Waiting) -> bool) -> Vec<u64> {
        self.waiting.iter().filter(|(_, w)| wanted(w)).map(|(key, _)| key).collect()
    }

    fn oldest(&self, wanted: impl Fn(&Waiting) -> bool) -> Option<u64> {
        self.waiting.iter().filter(|(_, w)| wanted(w)).min_by_key(|(_, w)| w.since).map(|(key, _)| key)
    }

    /// Closes a connection because a bound is reached.
    fn shed(&mut self, key: u64) {
        self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
        self.take(key);
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPT_BATCH {
            let Some((listener, role)) = self.listeners.get(index) else { return };
            let role = *role;
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stats = Arc::clone(&self.shared.stats);
                    stats.accepted.fetch_add(1, Ordering::Relaxed);
                    let full =
                        stats.connections.load(Ordering::Relaxed) >= self.shared.limits.max_connections;
                    let conn = Conn::new(stream, peer, role, Slot::take(&stats.connections));
                    if full {
                        match self.oldest(|w| w.phase != Phase::Held) {
                            Some(oldest) => self.shed(oldest),
                            None => {
                                stats.shed.fetch_add(1, Ordering::Relaxed);
                                self.refuse(conn, &HttpError::overloaded("too many connections are open"));
                                continue;
                            }
                        }
                    }
                    // Its request is often here already.
                    self.receive(conn, Phase::Head, Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.shared.stats.accept_errors.fetch_add(1, Ordering::Relaxed);
                    if is_shortage(&error) {
                        self.rest(&error);
                        return;
                    }
                }
            }
        }
    }

    /// Out of descriptors or memory: frees the longest waiting connection and tries again soon.
    fn rest(&mut self, error: &io::Error) {
        log::warn!("accept: {error}");
        if let Some(oldest) = self.oldest(|w| w.phase != Phase::Held) {
            self.shed(oldest);
        }
        let _ = self.listen(false);
        let at = Instant::now() + ACCEPT_REST;
        self.accept_at = Some(at);
        self.next_sweep = self.next_sweep.min(at);
    }

    fn receive(&mut self, mut conn: Conn, phase: Phase, since: Instant) {
        match conn.receive_now(&mut self.scratch) {
            Ok(Some(0)) | Err(_) => {}
            Ok(Some(_)) => self.examine(conn, Phase::Head, since),
            Ok(None) => {
                let time = match phase {
                    Phase::Idle => self.shared.limits.idle_timeout,
                    _ => self.shared.limits.head_timeout,
                };
                self.wait(conn, phase, since + time);
            }
        }
    }

    /// Looks for a complete head in what a connection has received and sends it where it belongs.
    fn examine(&mut self, mut conn: Conn, phase: Phase, since: Instant) {
        let empty = leading_empty_lines(&conn.buffer);
        if empty > 0 {
            conn.consume(empty);
        }
        match scan(&conn.buffer, conn.scanned) {
            Scan::Complete(length) if length > HEAD_BYTES => self.refuse(conn, &HeadError::TooLarge.into()),
            Scan::More if conn.buffer.len() > HEAD_BYTES => self.refuse(conn, &HeadError::TooLarge.into()),
            Scan::Complete(_) | Scan::Broken => {
                let _ = self.submit(conn);
            }
            Scan::More => {
                conn.scanned = conn.buffer.len();
                self.wait(conn, phase, since + self.shared.limits.head_timeout);
            }
        }
    }

    fn submit(&mut self, conn: Conn) -> Result<(), ()> {
        let pool = if self.shared.is_control(&conn) { &self.control } else { &self.public };
        match pool.submit(conn) {
            Ok(()) => Ok(()),
            Err(conn) => {
                self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
                self.refuse(conn, &HttpError::overloaded("too many requests are waiting"));
                Err(())
            }
        }
    }

    fn on_event(&mut self, key: u64, flags: EpollFlags) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        match waiting.phase {
            Phase::Held => {
                if flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    self.take(key);
                }
            }
            Phase::Closing { mut thrown } => {
                let open = waiting.conn.discard(&mut self.scratch, &mut thrown);
                waiting.phase = Phase::Closing { thrown };
                if !open {
                    self.take(key);
                }
            }
            Phase::Head => self.on_head_bytes(key),
            Phase::Idle => {
                if let Some(waiting) = self.take(key) {
                    self.receive(waiting.conn, Phase::Idle, Instant::now());
                }
            }
        }
    }

    /// More of an unfinished head: the connection stays registered while the head stays unfinished.
    fn on_head_bytes(&mut self, key: u64) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        let before = waiting.conn.buffer.len();
        let received = waiting.conn.receive_now(&mut self.scratch);
        self.unfinished += waiting.conn.buffer.len() - before;
        match received {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => drop(self.take(key)),
            Ok(Some(_)) => {
                if let Some(waiting) = self.take(key) {
                    self.examine(waiting.conn, Phase::Head, waiting.since);
                }
            }
        }
    }

    /// Writes an error without waiting for the client to read it, and closes.
    fn refuse(&mut self, conn: Conn, error: &HttpError) {
        let bytes = error.response().to_final_bytes();
        // A few hundred bytes fit into any socket's empty send buffer.
        let _ = conn.stream.set_nonblocking(true);
        let _ = (&*conn.stream).write_vectored(&[IoSlice::new(&bytes)]);
        conn.end_writing();
        self.close_kindly(conn);
    }

    fn close_kindly(&mut self, mut conn: Conn) {
        conn.buffer = Vec::new();
        self.wait(conn, Phase::Closing { thrown: 0 }, Instant::now() + LINGER_TIME);
    }

    fn resume_held(&mut self) {
        for key in self.keys(|w| w.phase == Phase::Held) {
            // What does not fit into the queue stays held and has its turn a moment later.
            if !self.public.has_room() {
                return;
            }
            if let Some(waiting) = self.take(key) {
                let _ = self.submit(waiting.conn);
            }
        }
    }

    /// Acts on every deadline that is over and finds the next.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept_at = None;
            if let Err(error) = self.listen(true) {
                log::error!("listening again: {error}");
            }
        }
        if self.held > 0 && self.shared.service.can_resume() {
            self.resume_held();
        }
        for key in self.keys(|w| now >= w.deadline) {
            let Some(waiting) = self.take(key) else { continue };
            match waiting.phase {
                Phase::Held => {
                    let _ = self.submit(waiting.conn);
                }
                Phase::Head if !waiting.conn.buffer.is_empty() => {
                    let error = HttpError::new(408, "head_timeout", "the request head did not come in time");
                    self.refuse(waiting.conn, &error);
                }
                _ => {}
            }
        }
        let polled = if self.held > 0 { now + HOLD_POLL } else { now + Duration::from_secs(60) };
        let due = self.waiting.iter().map(|(_, w)| w.deadline).chain(self.accept_at).min();
        self.next_sweep = due.map_or(polled, |due| due.min(polled));
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
