//! The journal: every run as lines in files that only grow, sealed so that a change shows.
//!
//! ```text
//! runs.jsonl         a line when a run begins, one when it has ended; the later one counts
//! state.jsonl        the state when it ended
//! logs/{id}.jsonl    its actions
//! approvals.jsonl    each approval when it is asked for and when it is decided
//! ```
//! One thread writes; whoever must not lose what it says waits for it.
mod approvals;
mod files;
mod lines;
mod read;
mod recover;
mod writer;

pub(super) use approvals::parse as parse_approval;
pub(super) use files::{Lines, Places};
pub(super) use lines::{action_line, ending, parse_record, record_line, state_line};
pub use recover::Recovered;
pub(super) use writer::Sealed;

use super::approval::Approval;
use super::run::{Kind, Record};
use crate::base::lock::lock;
use crate::events::{Action, State};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use nix::fcntl::{Flock, FlockArg};
use serde_json::value::RawValue;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};
use writer::Writer;

/// Messages that wait to be written. An agent's lines may take up half of it, see [`Journal::wait_for_room`].
const QUEUE: usize = 4096;
/// Bytes of actions that may wait; who can wait does, above. Those who cannot say little.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Messages written together at most.
const BATCH: usize = 256;
/// How long the end waits for the last lines: a disk may hang, and the next start puts in order what is missing.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often someone who waits for room looks.
const ROOM_LOOK: Duration = Duration::from_millis(2);

/// A run that has ended.
pub(super) struct Finish {
    pub(super) id: String,
    /// The action that ended it.
    pub(super) last: Action,
    /// The state with that action in it. Ends that wait share what did not change between them; as JSON each
    /// would be a copy.
    pub(super) state: State,
    /// Told once it is on the disk; `None` when it cannot be.
    pub(super) done: Box<dyn FnOnce(Option<Sealed>) + Send>,
}

pub(super) enum Message {
    Begin { id: String, kind: Kind, first: Action, reply: Option<Sender<bool>> },
    Append { id: String, action: Action, bytes: usize },
    Finish(Box<Finish>),
    Approval { line: String, reply: Option<Sender<bool>> },
}

impl Message {
    /// Bytes that count towards what waits.
    fn bytes(&self) -> usize {
        if let Message::Append { bytes, .. } = self { *bytes } else { 0 }
    }
}

/// The handle to the journal; dropped, it writes what is left and ends.
pub(super) struct Journal {
    queue: Mutex<Option<Sender<Message>>>,
    /// The thread, and what is disconnected when it has ended.
    thread: Mutex<Option<(ThreadId, Receiver<()>)>>,
    known: Arc<Known>,
    places: Places,
    /// Held while the journal is ours.
    _lock: Flock<File>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("failed", &self.known.failed).finish_non_exhaustive()
    }
}

/// What stood in the journal when it was opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) approvals: Vec<Approval>,
    /// The chain's head, and the runs sealed so far.
    pub(super) head: String,
    pub(super) runs: u64,
}

impl Journal {
    /// Opens or makes the journal in `dir`, puts in order what an end in the middle left behind, and
    /// starts the thread `journal`.
    ///
    /// # Errors
    /// The disk's, or `ResourceBusy` when another server has this journal.
    pub(super) fn open(dir: &Path) -> io::Result<(Journal, Found)> {
        let places = Places::new(dir);
        places.make()?;
        let lock =
            Flock::lock(File::open(dir)?, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    nix::errno::Errno::EWOULDBLOCK => {
                        io::Error::new(io::ErrorKind::ResourceBusy, "another server has this journal open")
                    }
                    errno => errno.into(),
                },
            )?;
        let (writer, recovered, approvals) = recover::recover(places.clone())?;
        let found = Found { recovered, approvals, head: writer.head.clone(), runs: writer.count };
        let (queue, messages) = bounded(QUEUE);
        let known = Known { sealed: AtomicU64::new(writer.count), ..Known::default() };
        let known = Arc::new(known);
        let tells = Arc::clone(&known);
        let (ending, ended) = bounded(0);
        let thread = crate::base::thread::spawn("journal", move || {
            let _ending = ending;
            serve(writer, &messages, &tells);
        })?;
        let (queue, thread) = (Mutex::new(Some(queue)), Mutex::new(Some((thread.thread().id(), ended))));
        Ok((Journal { queue, thread, known, places, _lock: lock }, found))
    }

    /// Whether everything that was told to the journal is, or will be, in it.
    pub(super) fn is_well(&self) -> bool {
        !self.known.failed.load(Ordering::Acquire)
    }

    /// Runs sealed so far, and bytes of the files that all runs share.
    pub(super) fn size(&self) -> (u64, u64) {
        let files = [self.places.runs(), self.places.state(), self.places.approvals()];
        let bytes = files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        (self.known.sealed.load(Ordering::Relaxed), bytes)
    }

    /// Begins a run and waits until it cannot be lost; false when the journal cannot be written.
    pub(super) fn begin_surely(&self, id: &str, kind: Kind, first: Action) -> bool {
        self.surely(|reply| Message::Begin { id: id.to_owned(), kind, first, reply: Some(reply) })
    }

    /// Begins a run without waiting.
    pub(super) fn begin(&self, id: &str, kind: Kind, first: Action) {
        let _ = self.send(Message::Begin { id: id.to_owned(), kind, first, reply: None });
    }

    /// Adds an action of about so many bytes to a run's log.
    pub(super) fn append(&self, id: &str, action: Action, bytes: usize) {
        self.known.waiting.fetch_add(bytes, Ordering::AcqRel);
        if !self.send(Message::Append { id: id.to_owned(), action, bytes }) {
            self.known.waiting.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    /// Ends a run.
    pub(super) fn finish(&self, finish: Finish) {
        let _ = self.send(Message::Finish(Box::new(finish)));
    }

    /// Notes an approval; with `surely` it waits until that cannot be lost, and tells whether.
    pub(super) fn approval(&self, approval: &Approval, surely: bool) -> bool {
        let line = approvals::line(approval);
        if surely {
            return self.surely(|reply| Message::Approval { line, reply: Some(reply) });
        }
        self.send(Message::Approval { line, reply: None })
    }

    /// Whether less than half of the queue is taken, and not much waits in it.
    pub(super) fn has_room(&self) -> bool {
        let is_long = lock(&self.queue).as_ref().is_some_and(|queue| queue.len() > QUEUE / 2);
        !is_long && self.known.waiting.load(Ordering::Acquire) <= QUEUE_BYTES
    }

    /// Waits for room: so that somebody who has much to say leaves some for those who must not wait.
    pub(super) fn wait_for_room(&self) {
        while self.lacks_room() {
            std::thread::park_timeout(ROOM_LOOK);
        }
    }

    /// Whether there is room by then, or will never be: nothing more is written.
    pub(super) fn wait_for_room_until(&self, until: Instant) -> bool {
        while self.lacks_room() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::park_timeout(ROOM_LOOK);
        }
        true
    }

    fn lacks_room(&self) -> bool {
        self.is_well() && !self.has_room()
    }

    fn surely(&self, message: impl FnOnce(Sender<bool>) -> Message) -> bool {
        let (reply, written) = bounded(1);
        let Some(queue) = lock(&self.queue).clone() else { return false };
        queue.send(message(reply)).is_ok() && written.recv() == Ok(true)
    }

    /// Never waits: what does not fit is lost, and the journal has failed. Whether it fitted.
    fn send(&self, message: Message) -> bool {
        let Some(queue) = lock(&self.queue).clone() else {
            refuse(message);
            return false;
        };
        let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = queue.try_send(message)
        else {
            return true;
        };
        if !self.known.failed.swap(true, Ordering::AcqRel) {
            log::error!("the journal has failed: the disk is too slow for it");
        }
        refuse(message);
        false
    }

    /// Those sealed runs that began last; see [`read::latest`].
    pub(super) fn latest(
        &self,
        limit: usize,
        since_ms: u64,
        wanted: impl Fn(&Record) -> bool,
    ) -> io::Result<Vec<Record>> {
        read::latest(&self.places, limit, since_ms, wanted)
    }

    /// A sealed run by its id, which passes [`is_id`](super::is_id).
    pub(super) fn find(&self, id: &str) -> io::Result<Option<Record>> {
        read::find(&self.places, id)
    }

    /// How many bytes the actions of a run have as text.
    pub(super) fn log_bytes(&self, id: &str) -> usize {
        read::log_bytes(&self.places, id)
    }

    /// The actions of a run, and whether there are more than is given away at once.
    pub(super) fn actions(&self, id: &str) -> io::Result<(Vec<Box<RawValue>>, bool)> {
        read::actions(&self.places, id)
    }

    /// Writes what is left, in [`LAST_WORDS`]; what comes later is not written.
    pub(super) fn close(&self) {
        lock(&self.queue).take();
        let thread = lock(&self.thread).take();
        if let Some((thread, ended)) = thread
            && thread != std::thread::current().id()
            && ended.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout)
        {
            log::warn!("the journal's disk does not take its last lines: they are not waited for");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the thread tells whoever asks.
#[derive(Debug, Default)]
struct Known {
    /// It writes no more.
    failed: AtomicBool,
    /// Bytes of the actions that wait for it.
    waiting: AtomicUsize,
    /// Runs sealed so far.
    sealed: AtomicU64,
}

/// The thread `journal`: takes what has come, writes it, tells who waits.
fn serve(mut writer: Writer, messages: &Receiver<Message>, known: &Known) {
    while let Ok(first) = messages.recv() {
        let batch: Vec<Message> = [first].into_iter().chain(messages.try_iter().take(BATCH - 1)).collect();
        let bytes: usize = batch.iter().map(Message::bytes).sum();
        if known.failed.load(Ordering::Acquire) {
            batch.into_iter().for_each(refuse);
            known.waiting.fetch_sub(bytes, Ordering::AcqRel);
            continue;
        }
        let written = writer.write(&batch);
        known.waiting.fetch_sub(bytes, Ordering::AcqRel);
        match written {
            Ok(ends) => {
                known.sealed.store(writer.count, Ordering::Relaxed);
                tell(batch, ends);
            }
            Err(error) => {
                log::error!("the journal has failed and is not written any more: {error}");
                known.failed.store(true, Ordering::Release);
                batch.into_iter().for_each(refuse);
            }
        }
    }
}

/// Tells everybody that what they said is on the disk. Seals come in the order of the ends.
fn tell(batch: Vec<Message>, sealed: Vec<(String, Sealed)>) {
    let mut sealed = sealed.into_iter().peekable();
    for message in batch {
        match message {
            Message::Begin { reply: Some(reply), .. } | Message::Approval { reply: Some(reply), .. } => {
                let _ = reply.send(true);
            }
            Message::Finish(finish) => {
                let own = sealed.next_if(|(id, _)| *id == finish.id);
                (finish.done)(own.map(|(_, sealed)| sealed));
            }
            _ => {}
        }
    }
}

fn refuse(message: Message) {
    match message {
        Message::Begin { reply: Some(reply), .. } | Message::Approval { reply: Some(reply), .. } => {
            let _ = reply.send(false);
        }
        Message::Finish(finish) => (finish.done)(None),
        _ => {}
    }
}
