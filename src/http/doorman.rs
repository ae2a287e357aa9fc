//! The listener thread: one epoll loop over the listeners and every connection that waits — for a
//! request, for the wrapped server, for its client to finish — so that waiting costs no thread.
use super::conn::{Conn, Found, Role};
use super::door::Return;
use super::error::HttpError;
use super::head::{HeadError, Method};
use super::limits::{HELD_BYTES, LINGER_TIME, UNFINISHED_HEADS_BYTES};
use super::meter::{Class, Meter};
use super::pool::{Pool, Shared};
use super::request_id::{self, REQUEST_ID};
use super::waiting::{Phase, Waiting, WaitingRoom};
use super::weight::Weight;
use crossbeam_channel::Receiver;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, IoSlice, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The wake-up's key in epoll, above every slab key in use; listeners stand right below it.
pub(super) const WAKE: u64 = u64::MAX;
/// A pause after a failure that may last.
const EPOLL_REST: Duration = Duration::from_millis(50);
/// How often held requests are tried besides the wake-up: none can be forgotten.
const HOLD_POLL: Duration = Duration::from_millis(50);
/// How long an unfinished head may still take once we are ending.
const DRAIN_HEAD: Duration = Duration::from_secs(1);
/// Batches of connections that are accepted at the end, at most: somebody may connect all the time.
const LAST_BATCHES: usize = 64;

pub(super) struct Doorman {
    pub(super) inbox: Receiver<Return>,
    pub(super) listeners: Vec<(TcpListener, Role)>,
    pub(super) waiting: WaitingRoom,
    pub(super) next_sweep: Instant,
    pub(super) accept_at: Option<Instant>,
    /// When accepting was last refused by the kernel.
    pub(super) short_at: Option<Instant>,
    pub(super) draining: bool,
    pub(super) public: Arc<Pool>,
    pub(super) control: Arc<Pool>,
    pub(super) shared: Arc<Shared>,
    pub(super) scratch: Vec<u8>,
}

impl Doorman {
    pub(super) fn new(
        inbox: Receiver<Return>,
        listeners: Vec<(TcpListener, Role)>,
        public: Arc<Pool>,
        control: Arc<Pool>,
        shared: Arc<Shared>,
    ) -> io::Result<Doorman> {
        let waiting = WaitingRoom::open(Arc::clone(&shared.stats))?;
        waiting.epoll.add(shared.door.bell(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let doorman = Doorman {
            inbox,
            listeners,
            waiting,
            next_sweep: Instant::now() + Duration::from_secs(1),
            accept_at: None,
            short_at: None,
            draining: false,
            public,
            control,
            shared,
            scratch: vec![0; 16 * 1024],
        };
        doorman.listen(true)?;
        Ok(doorman)
    }

    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = match self.waiting.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    log::error!("epoll_wait: {error}");
                    std::thread::sleep(EPOLL_REST);
                    0
                }
            };
            for event in &events[..ready] {
                match event.data() {
                    WAKE => self.shared.door.answer(),
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
        if self.waiting.is_empty() && self.accept_at.is_none() {
            return EpollTimeout::NONE;
        }
        let wait = self.next_sweep.saturating_duration_since(Instant::now());
        // Rounded up: a millisecond early would find nothing due and spin.
        EpollTimeout::from(u16::try_from(wait.as_millis() + 1).unwrap_or(u16::MAX))
    }

    fn on_return(&mut self, what: Return) -> bool {
        let now = Instant::now();
        match what {
            Return::Idle(mut conn) if conn.buffer.is_empty() => {
                conn.buffer = Vec::new();
                self.wait(conn, Phase::Idle, now, self.shared.limits.idle_timeout);
            }
            Return::Idle(conn) => self.examine(conn, now),
            Return::Held(conn, time) => self.hold(conn, time),
            Return::Closing(conn) => self.close_kindly(conn),
            Return::Resume => self.resume_held(),
            Return::Drain => self.drain(),
            Return::Stop => return false,
        }
        true
    }

    /// Registers a connection to wait.
    fn wait(&mut self, conn: Conn, phase: Phase, since: Instant, time: Duration) {
        if self.draining && conn.buffer.is_empty() && matches!(phase, Phase::Idle | Phase::Head) {
            return;
        }
        let mut deadline = since + time;
        if self.draining && phase == Phase::Head {
            deadline = deadline.min(Instant::now() + DRAIN_HEAD);
        }
        let due = if phase == Phase::Held { deadline.min(Instant::now() + HOLD_POLL) } else { deadline };
        self.next_sweep = self.next_sweep.min(due);
        self.waiting.insert(Waiting { conn, phase, since, deadline });
        self.bound_unfinished();
    }

    /// Keeps the total of unfinished heads within its bound: the oldest go.
    fn bound_unfinished(&mut self) {
        while self.waiting.unfinished_bytes() > UNFINISHED_HEADS_BYTES {
            match self.waiting.oldest(|w| w.phase == Phase::Head) {
                Some(oldest) => self.shed(oldest),
                None => break,
            }
        }
    }

    /// Keeps a request for later, if there is room for its bytes.
    fn hold(&mut self, mut conn: Conn, time: Duration) {
        if self.draining {
            return self.refuse(conn, &HttpError::shutting_down());
        }
        if self.waiting.held_bytes() + conn.buffer.len() > HELD_BYTES {
            self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
            self.refuse(conn, &HttpError::overloaded("too many requests are held"));
            return;
        }
        conn.buffer.shrink_to_fit();
        let since = conn.hold.since.unwrap_or_else(Instant::now);
        self.wait(conn, Phase::Held, since, time);
    }

    /// The end has begun: what has arrived is served, what is silent closes.
    fn drain(&mut self) {
        for index in 0..self.listeners.len() {
            // Clients the kernel has greeted for us.
            for _ in 0..LAST_BATCHES {
                if !self.accept(index) {
                    break;
                }
            }
        }
        self.draining = true;
        let _ = self.listen(false);
        self.listeners.clear();
        self.accept_at = None;
        for key in self.waiting.keys(|w| w.phase == Phase::Held) {
            if let Some(waiting) = self.waiting.take(key) {
                self.refuse(waiting.conn, &HttpError::shutting_down());
            }
        }
        let soon = Instant::now() + DRAIN_HEAD;
        for key in self.waiting.keys(|w| matches!(w.phase, Phase::Idle | Phase::Head)) {
            if self.waiting.phase(key) == Some(Phase::Head) {
                self.on_head_bytes(key);
                let silent = self.waiting.change(key, |w| {
                    w.deadline = w.deadline.min(soon);
                    w.conn.buffer.is_empty()
                });
                if silent == Some(true) {
                    self.waiting.take(key);
                }
            } else if let Some(waiting) = self.waiting.take(key) {
                self.receive(waiting.conn, Phase::Idle, Instant::now());
            }
        }
        self.next_sweep = self.next_sweep.min(soon);
    }

    /// Closes a connection because a bound is reached.
    pub(super) fn shed(&mut self, key: u64) {
        self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
        self.waiting.take(key);
    }

    /// Takes what a connection has to say, without waiting for it.
    pub(super) fn receive(&mut self, mut conn: Conn, phase: Phase, since: Instant) {
        match conn.receive_now(&mut self.scratch) {
            Ok(Some(0)) | Err(_) => {}
            Ok(Some(_)) => self.examine(conn, since),
            Ok(None) => {
                let limits = &self.shared.limits;
                let time = if phase == Phase::Idle { limits.idle_timeout } else { limits.head_timeout };
                self.wait(conn, phase, since, time);
            }
        }
    }

    /// Sends a connection with a complete head where it belongs; another waits for the rest.
    fn examine(&mut self, mut conn: Conn, since: Instant) {
        match conn.find_head() {
            Found::Unfinished => self.wait(conn, Phase::Head, since, self.shared.limits.head_timeout),
            found => self.dispatch(conn, found),
        }
    }

    fn dispatch(&mut self, conn: Conn, found: Found) {
        match found {
            Found::TooLarge => self.refuse(conn, &HeadError::TooLarge.into()),
            Found::Unfinished | Found::Complete => self.submit(conn),
        }
    }

    fn submit(&mut self, mut conn: Conn) {
        let submitted = if conn.weigh() { self.enqueue(conn) } else { Err(conn) };
        if let Err(conn) = submitted {
            self.refuse_for_crowd(conn);
        }
    }

    /// Gives a request that was weighed to its pool, or back.
    #[allow(clippy::result_large_err, reason = "what is given back is the connection itself")]
    fn enqueue(&self, conn: Conn) -> Result<(), Conn> {
        if self.shared.is_control(&conn) { self.control.submit(conn) } else { self.public.submit(conn) }
    }

    fn refuse_for_crowd(&mut self, conn: Conn) {
        self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
        self.refuse(conn, &HttpError::overloaded("too many requests are waiting"));
    }

    fn on_event(&mut self, key: u64, flags: EpollFlags) {
        match self.waiting.phase(key) {
            // An event for a connection that was taken out in this very round.
            None => {}
            Some(Phase::Head) => self.on_head_bytes(key),
            Some(Phase::Idle) => {
                if let Some(waiting) = self.waiting.take(key) {
                    self.receive(waiting.conn, Phase::Idle, Instant::now());
                }
            }
            Some(Phase::Held) => {
                let gone = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
                if flags.intersects(gone)
                    && let Some(mut waiting) = self.waiting.take(key)
                {
                    self.record(&mut waiting.conn, 0);
                }
            }
            Some(Phase::Closing { mut thrown }) => {
                let scratch = &mut self.scratch;
                let open = self.waiting.change(key, |waiting| {
                    let open = waiting.conn.discard(scratch, &mut thrown);
                    waiting.phase = Phase::Closing { thrown };
                    open
                });
                if open == Some(false) {
                    self.waiting.take(key);
                }
            }
        }
    }

    /// More of an unfinished head: the connection stays registered while the head stays unfinished.
    fn on_head_bytes(&mut self, key: u64) {
        let scratch = &mut self.scratch;
        let found = self.waiting.change(key, |waiting| match waiting.conn.receive_now(scratch) {
            Ok(None) => Some(Found::Unfinished),
            Ok(Some(0)) | Err(_) => None,
            Ok(Some(_)) => Some(waiting.conn.find_head()),
        });
        match found {
            None => {}
            Some(Some(Found::Unfinished)) => self.bound_unfinished(),
            Some(found) => {
                if let (Some(waiting), Some(found)) = (self.waiting.take(key), found) {
                    self.dispatch(waiting.conn, found);
                }
            }
        }
    }

    /// Counts the request at the front of a connection's buffer, which ends here: with the status it is
    /// answered, or 0 when its client has left. Its id, if it has one, and whether it is a `HEAD`.
    fn record(&self, conn: &mut Conn, status: u16) -> (Option<Vec<u8>>, bool) {
        let meter = Meter::new(Arc::clone(&self.shared.stats));
        let hold = conn.hold;
        if hold.since.is_some() {
            meter.set_class(Class::Relay);
        }
        meter.answered(status);
        let head = conn.take_head().ok();
        let own = hold.number.map(request_id::own);
        let id = head.as_ref().and_then(|head| head.request_id().or(own.as_ref().map(|id| &id[..])));
        let took = hold.began.map_or(Duration::ZERO, |began| began.elapsed());
        let told = head.as_ref().map(|head| (head, id.unwrap_or_default()));
        self.shared.service.refused(&meter.end(told, (conn.peer, conn.role), took));
        let id = id.map(<[u8]>::to_vec);
        (id, head.is_some_and(|head| head.method() == Method::Head))
    }

    /// Writes an error without waiting for the client to read it, and closes.
    pub(super) fn refuse(&mut self, mut conn: Conn, error: &HttpError) {
        let mut response = error.response();
        let (id, is_head) = self.record(&mut conn, error.status);
        if let Some(id) = id {
            response = response.with(REQUEST_ID, id);
        }
        let bytes = response.to_final_bytes(is_head);
        // A few hundred bytes fit into any socket's empty send buffer.
        let _ = conn.stream.set_nonblocking(true);
        let _ = (&*conn.stream).write_vectored(&[IoSlice::new(&bytes)]);
        conn.end_writing();
        self.close_kindly(conn);
    }

    fn close_kindly(&mut self, mut conn: Conn) {
        conn.buffer = Vec::new();
        conn.weight = Weight::default();
        self.wait(conn, Phase::Closing { thrown: 0 }, Instant::now(), LINGER_TIME);
    }

    fn resume_held(&mut self) {
        for key in self.waiting.keys(|w| w.phase == Phase::Held) {
            // What does not fit into the queue, or beside the heads under way, stays held and has its turn a
            // moment later.
            if !self.public.has_room() {
                return;
            }
            if self.waiting.change(key, |waiting| waiting.conn.weigh()) != Some(true) {
                continue;
            }
            if let Some(waiting) = self.waiting.take(key)
                && let Err(conn) = self.enqueue(waiting.conn)
            {
                self.refuse_for_crowd(conn);
            }
        }
    }

    /// Acts on every deadline that is over and finds the next.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept_at = None;
            if let Err(error) = self.listen(true) {
                self.rest(&error);
            }
        }
        if self.waiting.held() > 0 && self.shared.service.can_resume() {
            self.resume_held();
        }
        for key in self.waiting.keys(|w| now >= w.deadline) {
            let Some(waiting) = self.waiting.take(key) else { continue };
            match waiting.phase {
                Phase::Held => self.submit(waiting.conn),
                Phase::Head if !waiting.conn.buffer.is_empty() => {
                    let error = HttpError::new(408, "head_timeout", "the request head did not come in time");
                    self.refuse(waiting.conn, &error);
                }
                _ => {}
            }
        }
        let polled = if self.waiting.held() > 0 { HOLD_POLL } else { Duration::from_secs(60) };
        let due = self.waiting.due().into_iter().chain(self.accept_at).min();
        self.next_sweep = due.map_or(now + polled, |due| due.min(now + polled));
    }
}
