//! Many callers, one connection that writes. Whoever wants something written queues it; who finds the
//! connection free writes for all who queued, in one transaction, and then calls the next in line. So
//! sixteen callers wait for one sync of the disk and not for sixteen.
use super::closed;
use super::writer::{Done, Work, Writer};
use crate::artifacts::{Counts, Long, StoreError};
use crate::base::lock::lock;
use rusqlite::Connection;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A call that lasts longer says so.
const LONG: Duration = Duration::from_millis(100);
/// Batches that one caller writes while its own answer waits.
const TURNS: usize = 8;
/// What one transaction does at most, so that it stays some dozens of megabytes.
const BATCH: usize = 64;
/// A batch that takes longer is worth a wait for those who are about to come: they would need one of their own.
const SLOW: Duration = Duration::from_micros(400);
/// How long that wait is at most.
const GATHERING: Duration = Duration::from_millis(2);

/// The connection that writes, and who waits for it.
#[derive(Debug)]
pub(super) struct Batches {
    queue: Mutex<Queue>,
    /// As many wait as are gathered for.
    gathered: Condvar,
    /// Used by whoever's turn it is. Held during its I/O, which is what it is for.
    writer: Mutex<Option<Writer>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Job>>,
    /// Somebody writes.
    busy: bool,
    /// How many must wait for the one whose turn it is to begin at once.
    gathering: Option<usize>,
    /// How long the last batch took.
    took: Duration,
    /// Who was in it, and who came meanwhile. They come again, if they are busy.
    callers: usize,
}

/// What somebody waits for.
#[derive(Debug)]
struct Job {
    work: Work,
    /// Who waits.
    owner: Thread,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// Its owner is to write next: the last one has told so.
    Called,
    Done(Result<Done, StoreError>),
}

/// Somebody's turn at the writer, ended also by a panic: the next in line is called.
struct Turn<'s>(&'s Batches);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match queue.waiting.front() {
            Some(next) => {
                *lock(&next.state) = State::Called;
                next.owner.unpark();
            }
            None => queue.busy = false,
        }
    }
}

/// Tells the results to those who wait, also after a panic.
struct Answers<'b> {
    batch: &'b [Arc<Job>],
    results: Vec<Result<Done, StoreError>>,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        let lost = || Err(StoreError::Failed("a transaction was lost".to_owned()));
        let results = self.results.drain(..).chain(std::iter::repeat_with(lost));
        for (job, result) in self.batch.iter().zip(results) {
            *lock(&job.state) = State::Done(result);
            job.owner.unpark();
        }
    }
}

impl Batches {
    pub(super) fn new(writer: Writer) -> Batches {
        Batches {
            counts: Mutex::new(writer.counts()),
            queue: Mutex::default(),
            gathered: Condvar::new(),
            writer: Mutex::new(Some(writer)),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// The connection, which nobody uses any more.
    pub(super) fn close(&self) -> Option<Connection> {
        lock(&self.writer).take().map(Writer::into_connection)
    }

    /// Makes the disk as small as this many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        lock(&self.writer).as_ref().unwrap().limit_pages(pages);
    }

    /// Makes every write fail.
    #[cfg(test)]
    pub(super) fn forbid_writing(&self) {
        lock(&self.writer).as_ref().unwrap().forbid_writing();
    }

    /// Writes all of this as one batch.
    #[cfg(test)]
    pub(super) fn write_together(&self, works: &[&Work]) -> Vec<Result<Done, StoreError>> {
        lock(&self.writer).as_mut().unwrap().write(works)
    }

    /// Has this asked whether to wait for another process.
    #[cfg(test)]
    pub(super) fn ask_when_busy(&self, wait: fn(i32) -> bool) {
        lock(&self.writer).as_mut().unwrap().ask_when_busy(wait);
    }

    /// Has something written, with others' or alone. `long` is called, once, when that takes long.
    pub(super) fn write(&self, work: Work, long: Long<'_>) -> Result<Done, StoreError> {
        let state = Mutex::new(State::Waiting);
        let job = Arc::new(Job { work, owner: thread::current(), state });
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(Arc::clone(&job));
        if queue.gathering.is_some_and(|enough| queue.waiting.len() >= enough) {
            self.gathered.notify_one();
        }
        let is_free = !std::mem::replace(&mut queue.busy, true);
        drop(queue);
        if is_free {
            self.take_turn();
        }
        let mut told = false;
        loop {
            let state = std::mem::replace(&mut *lock(&job.state), State::Waiting);
            match state {
                State::Done(result) => return result,
                State::Called => self.take_turn(),
                State::Waiting if told => thread::park(),
                State::Waiting => {
                    let began = Instant::now();
                    thread::park_timeout(LONG);
                    if began.elapsed() >= LONG {
                        told = true;
                        long();
                    }
                }
            }
        }
    }

    /// Writes for those at the front of the queue. Whoever is called stands there. One who has the turn
    /// goes on for the next ones, some times: until another thread is awake the disk would do nothing.
    /// Where writing takes long that is nothing beside it.
    fn take_turn(&self) {
        let _turn = Turn(self);
        for _ in 0..TURNS {
            let batch = self.gather();
            if batch.is_empty() {
                return;
            }
            let began = Instant::now();
            self.write_batch(&batch);
            let took = began.elapsed();
            let mut queue = lock(&self.queue);
            (queue.took, queue.callers) = (took, batch.len() + queue.waiting.len());
            if took >= SLOW {
                return;
            }
        }
    }

    /// The next batch: of those who wait, and of those who come while a fraction of the last one's time goes
    /// by. Without that wait the callers would fall into two halves, each of which comes while the other's
    /// batch is written.
    fn gather(&self) -> Vec<Arc<Job>> {
        let mut queue = lock(&self.queue);
        let enough = queue.callers.min(BATCH);
        if queue.took >= SLOW && queue.waiting.len() < enough {
            queue.gathering = Some(enough);
            let time = (queue.took / 4).min(GATHERING);
            let gathered =
                self.gathered.wait_timeout_while(queue, time, |queue| queue.waiting.len() < enough);
            queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
            queue.gathering = None;
        }
        let most = queue.waiting.len().min(BATCH);
        queue.waiting.drain(..most).collect()
    }

    fn write_batch(&self, batch: &[Arc<Job>]) {
        let works: Vec<&Work> = batch.iter().map(|job| &job.work).collect();
        let mut answers = Answers { batch, results: Vec::new() };
        let mut writer = lock(&self.writer);
        match &mut *writer {
            Some(writer) => {
                answers.results = writer.write(&works);
                *lock(&self.counts) = writer.counts();
            }
            None => answers.results = works.iter().map(|_| Err(closed())).collect(),
        }
    }
}
