//! The last lines the wrapped server wrote, and what we did to it, numbered; bounded in lines and in
//! bytes a line. Knows nothing of processes; the output thread and the watcher write, anybody reads.
//!
//! Lock order: a leaf.
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::base::lock::lock;
use crate::base::ring::Ring;

/// Lines one call of [`Logs::after`] returns at most; the caller comes back for more.
const AFTER_LINES: usize = 256;

/// Bytes of one line at most; a longer one is kept as several.
pub(super) const LINE_BYTES: usize = 8 * 1024;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// The server's standard output.
    Stdout,
    /// The server's standard error.
    Stderr,
    /// The supervisor.
    System,
}

/// One line, without its end.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Counts from 1 without gaps.
    pub id: u64,
    /// When we read it.
    pub at: SystemTime,
    /// Who wrote it.
    pub stream: LogStream,
    /// At most 8 KiB; shared, so that a thousand readers cost no memory.
    pub text: Arc<str>,
}

struct Inner {
    ring: Ring<LogLine>,
    closed: bool,
}

/// The ring of lines.
pub struct Logs {
    inner: Mutex<Inner>,
    grown: Condvar,
}

impl Logs {
    pub(super) fn new(lines: usize) -> Logs {
        Logs { inner: Mutex::new(Inner { ring: Ring::new(lines), closed: false }), grown: Condvar::new() }
    }

    pub(super) fn push(&self, stream: LogStream, text: &str) {
        let text = Arc::from(text);
        let mut inner = lock(&self.inner);
        let id = inner.ring.last() + 1;
        inner.ring.push(LogLine { id, at: SystemTime::now(), stream, text });
        drop(inner);
        self.grown.notify_all();
    }

    /// Nothing more will come: followers stop waiting.
    pub(super) fn close(&self) {
        lock(&self.inner).closed = true;
        self.grown.notify_all();
    }

    /// Whether nothing more will come; a follower that has read everything then ends.
    pub fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }

    /// The last `n` lines, of one stream if asked, oldest first.
    pub fn tail(&self, n: usize, stream: Option<LogStream>) -> Vec<LogLine> {
        let inner = lock(&self.inner);
        let mut lines: Vec<_> = inner
            .ring
            .after(0)
            .map(|(_, line)| line)
            .filter(|line| stream.is_none_or(|wanted| line.stream == wanted))
            .collect();
        lines.drain(..lines.len().saturating_sub(n));
        lines.into_iter().cloned().collect()
    }

    /// The lines numbered above `id`, oldest first and 256 at most, and the number of the oldest line
    /// kept: if that is above `id + 1`, the ones between are lost. Waits up to `wait` while there are
    /// none. An `id` of the future is from another life of this program and means 0.
    pub fn after(&self, id: u64, wait: Duration) -> (Vec<LogLine>, u64) {
        let until = Instant::now() + wait;
        let mut inner = lock(&self.inner);
        let id = if id > inner.ring.last() { 0 } else { id };
        while inner.ring.after(id).next().is_none() && !inner.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.grown.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let lines = inner.ring.after(id).take(AFTER_LINES).map(|(_, line)| line.clone()).collect();
        (lines, inner.ring.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn tail_filters_and_after_tells_what_is_lost() {
        let logs = Logs::new(3);
        for (stream, text) in [
            (LogStream::Stdout, "a"),
            (LogStream::Stderr, "b"),
            (LogStream::Stdout, "c"),
            (LogStream::System, "d"),
        ] {
            logs.push(stream, text);
        }
        assert_eq!(texts(&logs.tail(2, None)), ["c", "d"]);
        assert_eq!(texts(&logs.tail(9, Some(LogStream::Stdout))), ["c"]);
        let (lines, first) = logs.after(1, Duration::ZERO);
        assert_eq!((texts(&lines), first, lines[0].id), (vec!["b", "c", "d"], 2, 2));
        assert!(logs.after(4, Duration::ZERO).0.is_empty());
        assert_eq!(logs.after(99, Duration::ZERO).0.len(), 3, "an id of another life");
    }

    #[test]
    fn a_follower_sees_every_line_and_the_end() {
        let logs = Logs::new(10_000);
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let mut last = 0;
                loop {
                    let (lines, _) = logs.after(last, Duration::from_secs(20));
                    for line in &lines {
                        assert_eq!(line.id, last + 1);
                        last = line.id;
                    }
                    if lines.is_empty() {
                        return last;
                    }
                }
            });
            for n in 0..5000 {
                logs.push(LogStream::Stdout, &n.to_string());
            }
            logs.close();
            assert_eq!(follower.join().ok(), Some(5000));
        });
    }
}
