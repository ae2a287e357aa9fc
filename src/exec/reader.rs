//! A place in a run's output: reads on from there, as text, at its own pace.
use super::outcome::Outcome;
use super::run::{Run, State, Stream};
use super::text::{Window, first_piece};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of each stream taken at once.
const TAKE_BYTES: usize = 256 * 1024;
/// Pieces of one line that a reader gets in a second; of more lines several come in one piece. Nobody
/// reads faster, and a flood of short lines would become fifty times as many bytes on the wire.
const LINES_A_SECOND: u32 = 4096;

/// Output that was forgotten before it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which stream's.
    pub stream: Stream,
    /// The offset of the first byte that is missing.
    pub from: u64,
    /// The offset of the first byte that is there again.
    pub to: u64,
}

/// Some text of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'b> {
    /// Which stream's.
    pub stream: Stream,
    /// The offset of its first byte.
    pub offset: u64,
    /// Up to where both streams were read with it, this piece included.
    pub read: [u64; 2],
    /// The text.
    pub text: Cow<'b, str>,
}

/// A reader of one run. While it `holds` the run, the program waits for it rather than that output is
/// forgotten; dropped, it holds nothing.
#[derive(Debug)]
pub struct Reader {
    run: Arc<Run>,
    at: [u64; 2],
    /// What was there at the last look.
    seen: [u64; 2],
    holds: bool,
    buffers: [Vec<u8>; 2],
    /// Pieces of one line still to be had in the second that began then.
    singles: u32,
    second: Instant,
}

/// What was read at once.
#[derive(Debug)]
pub struct Batch<'r> {
    /// What is missing before it.
    pub gaps: Vec<Gap>,
    /// After it there is nothing more, and this is how the run ended.
    pub outcome: Option<Outcome>,
    at: &'r mut [u64; 2],
    buffers: &'r [Vec<u8>; 2],
    used: [usize; 2],
    last: [bool; 2],
    singles: &'r mut u32,
}

impl Run {
    /// A reader from these offsets on.
    pub fn read_from(self: &Arc<Run>, at: [u64; 2], holds: bool) -> Reader {
        self.update(|state| {
            state.readers += 1;
            if holds {
                state.held = Some(at);
            }
        });
        Reader {
            run: Arc::clone(self),
            at,
            seen: [0; 2],
            holds,
            buffers: [Vec::new(), Vec::new()],
            singles: LINES_A_SECOND,
            second: Instant::now(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let holds = self.holds;
        self.run.update(|state| {
            state.readers -= 1;
            if holds {
                state.held = None;
            }
        });
        self.run.ring();
    }
}

impl Reader {
    /// Up to where both streams were read.
    pub fn position(&self) -> [u64; 2] {
        self.at
    }

    /// What there is to read, after waiting for it `time` at most. What of a batch is not taken comes
    /// again in the next one.
    pub fn read(&mut self, time: Duration) -> Batch<'_> {
        self.release();
        let seen = self.seen;
        let news = |state: &State| {
            state.is_final() || Stream::BOTH.iter().any(|&s| state.tails[s as usize].end() > seen[s as usize])
        };
        let state = self.run.wait(time, news);
        let mut gaps = Vec::new();
        let mut whole = [false; 2];
        for stream in Stream::BOTH {
            let s = stream as usize;
            let tail = &state.tails[s];
            let buffer = &mut self.buffers[s];
            buffer.clear();
            let from = tail.copy(self.at[s], TAKE_BYTES, buffer);
            if from > self.at[s] {
                gaps.push(Gap { stream, from: self.at[s], to: from });
                self.at[s] = from;
            }
            let copied = from + buffer.len() as u64;
            whole[s] = copied == tail.end();
            // With more to copy there is no reason to wait next time.
            self.seen[s] = if whole[s] { copied } else { 0 };
        }
        let closed = Stream::BOTH.map(|stream| state.tails[stream as usize].is_closed());
        let outcome = if whole == [true; 2] { state.outcome.clone() } else { None };
        drop(state);
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.singles, self.second) = (LINES_A_SECOND, Instant::now());
        }
        Batch {
            gaps,
            outcome,
            at: &mut self.at,
            buffers: &self.buffers,
            used: [0; 2],
            last: [0, 1].map(|s| whole[s] && closed[s]),
            singles: &mut self.singles,
        }
    }

    /// Tells the pump how far we are.
    fn release(&mut self) {
        if !self.holds {
            return;
        }
        let mut state = self.run.state();
        state.held = Some(self.at);
        let paused = std::mem::take(&mut state.paused);
        drop(state);
        if paused {
            self.run.ring();
        }
    }
}

impl<'r> Batch<'r> {
    /// The next piece of it; standard output first, as the order between the two is not known.
    pub fn next_piece(&mut self) -> Option<Piece<'r>> {
        let buffers = self.buffers;
        for stream in Stream::BOTH {
            let s = stream as usize;
            let bytes = &buffers[s][self.used[s]..];
            let window = Window { bytes, last: self.last[s], joined: *self.singles == 0 };
            if let Some((length, text)) = first_piece(window) {
                *self.singles = self.singles.saturating_sub(1);
                let offset = self.at[s];
                self.used[s] += length;
                self.at[s] += length as u64;
                return Some(Piece { stream, offset, read: *self.at, text });
            }
        }
        None
    }

    /// Up to where both streams were read.
    pub fn position(&self) -> [u64; 2] {
        *self.at
    }
}
