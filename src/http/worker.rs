//! A thread of a pool: serves requests of one connection after the other, and waits a moment on each for the
//! next one. That wait saves two context switches a request on a busy connection.
use super::conn::{Conn, Found, Hold};
use super::door::Return;
use super::error::HttpError;
use super::exchange::{Exchange, Scratch, Served};
use super::limits::{CROWD_TICK, LINGER_ROUNDS, THREAD_IDLE, THREAD_RESTS};
use super::memory::give_back_free_memory;
use super::pool::{Pool, Shared};
use super::scheduling::become_batch_thread;
use super::seat::Seat;
use super::weight::Weight;
use crossbeam_channel::RecvTimeoutError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How a connection goes on after a request.
enum Next {
    Keep,
    /// Read what the client still sends, then close.
    Close,
    Hold(Duration),
    Gone,
    /// The response broke off, which its client must be able to tell.
    Cut,
}

/// One thread of a pool.
pub(super) struct Worker {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    seat: Seat,
    scratch: Scratch,
}

impl Worker {
    pub(super) fn new(pool: Arc<Pool>) -> Worker {
        let (shared, seat) = (Arc::clone(pool.shared()), pool.seat());
        Worker { pool, shared, seat, scratch: Scratch::default() }
    }

    pub(super) fn run(mut self) {
        become_batch_thread();
        // Whoever started this thread has counted it as waiting already.
        let mut rested = true;
        loop {
            match self.pool.next(if rested { THREAD_IDLE } else { THREAD_RESTS }) {
                Ok(conn) => {
                    rested = false;
                    if !self.serve_connection(conn) {
                        // This thread was a stream's and the pool has filled its place.
                        self.pool.note_end();
                        return;
                    }
                    if !self.pool.wants_again() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) if !rested => {
                    rested = true;
                    self.shared.service.rest();
                }
                Err(RecvTimeoutError::Timeout) if !self.pool.dismiss() => self.rest(),
                Err(_) => return,
            }
        }
    }

    /// Keeps no memory that nobody needs now.
    fn rest(&mut self) {
        self.scratch.copy.shrink();
        if self.pool.took_ends() {
            give_back_free_memory();
        }
    }

    /// Serves requests of one connection until it is handed on; true while this thread is the pool's.
    fn serve_connection(&mut self, mut conn: Conn) -> bool {
        loop {
            let next = self.serve_request(&mut conn);
            conn.weight = Weight::default();
            let ours = self.seat.end() || self.pool.enter();
            let next = match next {
                // At its very end: its client is no longer listened to.
                Next::Keep if self.seat.is_cut() => Next::Close,
                Next::Hold(_) if self.seat.is_cut() => Next::Gone,
                next => next,
            };
            match next {
                Next::Keep => conn.known |= !self.seat.waited_for_client(),
                Next::Gone => return ours,
                Next::Cut => {
                    conn.cut();
                    return ours;
                }
                Next::Hold(time) => {
                    self.shared.door.send(Return::Held(conn, time));
                    return ours;
                }
                Next::Close => {
                    conn.end_writing();
                    self.shared.door.send(Return::Closing(conn));
                    return ours;
                }
            }
            if !ours || !self.has_next_request(&mut conn) {
                self.shared.door.send(Return::Idle(conn));
                return ours;
            }
        }
    }

    /// Whether the next request is complete and this thread should serve it. Others that wait in the
    /// queue go first, and a request for the other pool is not ours.
    fn has_next_request(&mut self, conn: &mut Conn) -> bool {
        if self.pool.is_behind() {
            return false;
        }
        if conn.buffer.is_empty() && !self.linger(conn) {
            return false;
        }
        conn.find_head() == Found::Complete
            && self.pool.is_control() == self.shared.is_control(conn)
            && conn.weigh()
    }

    /// Waits a little for the next request, as long as the pool could have another thread if somebody
    /// came. In a full pool nobody does: who waits with a thread would go before all who wait at the
    /// listener thread, again and again. Nor when connections are as many as allowed: only those at
    /// the listener thread can make room.
    fn linger(&mut self, conn: &mut Conn) -> bool {
        let Shared { stats, limits, .. } = &*self.shared;
        let crowded = || stats.bounded_connections() >= limits.max_connections;
        // A connection that is used now and then is not worth a thread for long.
        let rounds = if conn.busy { LINGER_ROUNDS } else { 1 };
        conn.busy = false;
        for _ in 0..rounds {
            if self.pool.is_full() || self.pool.is_behind() || crowded() {
                return false;
            }
            match conn.receive_soon(self.scratch.copy.get()) {
                Ok(Some(1..)) => {
                    conn.busy = true;
                    return true;
                }
                Ok(None) => {}
                // The listener thread sees the same end or error and closes.
                Ok(Some(0)) | Err(_) => return false,
            }
        }
        false
    }

    fn serve_request(&mut self, conn: &mut Conn) -> Next {
        self.seat.begin(&conn.stream);
        self.shared.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        let next = self.serve_head(conn);
        self.shared.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
        next
    }

    fn serve_head(&mut self, conn: &mut Conn) -> Next {
        let head = match conn.take_head() {
            Ok(head) => head,
            Err(error) => {
                let meter = self.seat.meter();
                meter.answered(error.status);
                self.shared.service.served(&meter.end(None, (conn.peer, conn.role), self.seat.age()));
                let response = error.response().to_final_bytes(false);
                // A client that does not even take this is not waited for.
                let once =
                    |moved, _| if moved > 0 { Ok(CROWD_TICK) } else { Err(io::ErrorKind::TimedOut.into()) };
                return match conn.write_all(&mut [io::IoSlice::new(&response)], once) {
                    Ok(()) => Next::Close,
                    Err(_) => Next::Gone,
                };
            }
        };
        let stopping = &self.shared.stopping;
        let (limits, scratch) = (&self.shared.limits, &mut self.scratch);
        let mut exchange = Exchange::new(head, conn, &self.seat, limits, scratch, stopping);
        let service = &self.shared.service;
        let served = catch_unwind(AssertUnwindSafe(|| service.serve(&mut exchange)));
        let served = served.unwrap_or_else(|_| {
            self.shared.stats.panics.fetch_add(1, Ordering::Relaxed);
            exchange.close_after();
            Err(HttpError::internal())
        });
        match served {
            Ok(Served::Gone) => {
                service.served(&exchange.record());
                return if exchange.is_cut() { Next::Cut } else { Next::Gone };
            }
            Ok(Served::Hold(time)) => {
                exchange.put_back();
                conn.hold.since.get_or_insert_with(Instant::now);
                conn.hold.began.get_or_insert_with(|| self.seat.began());
                return Next::Hold(time);
            }
            Ok(Served::Done) => {}
            Err(error) => {
                if exchange.is_unanswered() && exchange.respond(error.response()).is_err() {
                    service.served(&exchange.record());
                    return Next::Gone;
                }
            }
        }
        service.served(&exchange.record());
        let answered = !exchange.is_unanswered();
        let cut = exchange.is_cut();
        let kept = exchange.conclude();
        conn.hold = Hold::default();
        match (kept, answered && !cut) {
            (true, _) => Next::Keep,
            (false, true) => Next::Close,
            // Cut in the middle it must not look complete: no orderly end.
            (false, false) => Next::Cut,
        }
    }
}
