//! How far an upload is: a bar on a terminal, nothing elsewhere. A short upload shows none.
use super::output::bytes;
use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

/// Between two looks of the bar.
const REDRAW: Duration = Duration::from_millis(100);
/// What takes no longer has no bar.
const SHORT: Duration = Duration::from_millis(300);
/// Characters of the bar.
const WIDTH: u64 = 24;

/// The progress of one upload.
#[derive(Debug)]
pub(super) struct Progress {
    label: String,
    total: u64,
    done: u64,
    began: Instant,
    drawn: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(label: &str, total: u64) -> Progress {
        let is_shown = io::stderr().is_terminal();
        Progress { label: label.to_owned(), total, done: 0, began: Instant::now(), drawn: None, is_shown }
    }

    /// So many bytes more were sent.
    pub(super) fn add(&mut self, count: u64) {
        self.done += count;
        let now = Instant::now();
        let due = self.drawn.map_or(now - self.began >= SHORT, |at| now - at >= REDRAW);
        if self.is_shown && due {
            self.drawn = Some(now);
            let _ = write!(io::stderr().lock(), "\r\x1b[K{}", self.line(now - self.began));
        }
    }

    fn line(&self, time: Duration) -> String {
        let total = self.total.max(1);
        let done = self.done.min(total);
        // Products of two numbers that a u64 holds.
        let part =
            |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total)).unwrap_or(of);
        let full = part(WIDTH);
        let bar: String = (0..WIDTH).map(|at| if at < full { '#' } else { '-' }).collect();
        let rate = (self.done as f64 / time.as_secs_f64().max(0.001)) as u64;
        format!("{} [{bar}] {}% of {}, {}/s", self.label, part(100), bytes(self.total), bytes(rate))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// A reader that tells its progress.
pub(super) struct Counted<'p, R> {
    pub(super) reader: R,
    pub(super) progress: &'p mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(out)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_should_be() {
        let mut progress = Progress::new("f", 200);
        progress.add(100);
        let line = progress.line(Duration::from_secs(1));
        assert_eq!(line, format!("f [{}{}] 50% of 200 B, 100 B/s", "#".repeat(12), "-".repeat(12)));
        progress.add(u64::MAX - 100);
        assert!(progress.line(Duration::ZERO).contains("] 100% of"));
        assert!(Progress::new("", 0).line(Duration::ZERO).contains("0%"));
    }
}
