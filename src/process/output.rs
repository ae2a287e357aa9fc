//! Reads a child's stdout and stderr on one thread, passes the bytes through, and cuts them into
//! lines of bounded length. Knows nothing of what the lines are for.
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdout};
use std::time::{Duration, Instant};

use crate::base::outlet::write_now;
use crossbeam_channel::{Receiver, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long, after its process's end, a pipe is waited for that somebody else still holds open.
pub(super) const DRAIN: Duration = Duration::from_millis(500);
/// How long, after its process's end, who reads our own output may take nothing of what it wrote.
const STALL: Duration = Duration::from_secs(5);
/// Bytes read then at most: more than the two pipes can hold, but not all that somebody else may write.
const DRAIN_BYTES: usize = 2 << 20;
const READ_BYTES: usize = 16 * 1024;

/// One of a child's two output pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The thread `output` of one child.
#[derive(Debug)]
pub struct Output {
    /// Closed to say that the child has ended.
    ended: Option<PipeWriter>,
    done: Receiver<()>,
}

impl Output {
    /// Starts reading. `on_line` gets each line without its line end, at most `line_bytes` of UTF-8: the
    /// rest of a longer one becomes further lines. With `pass_through` the bytes also go to our own
    /// stdout and stderr as they come.
    ///
    /// # Errors
    /// When a pipe or a thread cannot be had.
    pub fn start(
        stdout: ChildStdout,
        stderr: ChildStderr,
        pass_through: bool,
        line_bytes: usize,
        mut on_line: impl FnMut(Stream, &str) + Send + 'static,
    ) -> io::Result<Output> {
        let (ended_reader, ended) = io::pipe()?;
        let (finished, done) = bounded(1);
        crate::base::thread::spawn("output", move || {
            let mut out = Pipe::new(Stream::Stdout, stdout, pass_through, line_bytes);
            let mut err = Pipe::new(Stream::Stderr, stderr, pass_through, line_bytes);
            pump(&mut out, &mut err, ended_reader, &mut on_line);
            out.lines.finish(|line| on_line(Stream::Stdout, line));
            err.lines.finish(|line| on_line(Stream::Stderr, line));
            let _ = finished.send(());
        })?;
        Ok(Output { ended: Some(ended), done })
    }

    /// Says that the process has ended, and waits until its last bytes have been handed on: up to
    /// half a second if somebody else holds a pipe, or takes what he is handed too slowly. The thread then
    /// ends by itself.
    pub fn finish(mut self) {
        self.ended = None;
        let _ = self.done.recv_timeout(DRAIN + DRAIN / 5);
    }

    /// The same, but for whoever takes what he is handed there is no limit.
    pub fn finish_all(mut self) {
        self.ended = None;
        let _ = self.done.recv();
    }
}

struct Pipe<R> {
    stream: Stream,
    /// None after its end.
    reader: Option<R>,
    pass_through: bool,
    lines: Lines,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(stream: Stream, reader: R, pass_through: bool, line_bytes: usize) -> Self {
        Pipe { stream, reader: Some(reader), pass_through, lines: Lines::new(line_bytes) }
    }

    /// Reads once what `poll` promised; how many bytes that was. `ended` until the child has.
    fn read(
        &mut self,
        buffer: &mut [u8],
        ended: Option<&PipeReader>,
        on_line: &mut impl FnMut(Stream, &str),
    ) -> usize {
        let Some(reader) = &mut self.reader else { return 0 };
        let bytes = match reader.read(buffer) {
            Ok(count) if count > 0 => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
            _ => {
                self.reader = None;
                return 0;
            }
        };
        if self.pass_through {
            // Our own stdout may be closed; the server goes on.
            self.pass_through = match self.stream {
                Stream::Stdout => pass_on(io::stdout().as_fd(), bytes, ended),
                Stream::Stderr => pass_on(io::stderr().as_fd(), bytes, ended),
            };
        }
        let stream = self.stream;
        self.lines.push(bytes, |line| on_line(stream, line));
        bytes.len()
    }
}

/// Writes to one of our own streams; false when nobody takes that any more. It waits for who is slow, and so
/// does the child; but once that has ended only for so long, or each of its lives would leave a thread here.
/// Others may have made the stream non-blocking: it is theirs as well.
fn pass_on(to: BorrowedFd<'_>, mut bytes: &[u8], mut ended: Option<&PipeReader>) -> bool {
    while !bytes.is_empty() {
        let timeout = match ended {
            Some(_) => PollTimeout::NONE,
            None => PollTimeout::try_from(STALL).unwrap_or(PollTimeout::MAX),
        };
        let writable = || PollFd::new(to, PollFlags::POLLOUT);
        let ending = ended.map(|ended| PollFd::new(ended.as_fd(), PollFlags::POLLIN));
        let mut fds = [writable(), ending.unwrap_or_else(writable)];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Err(Errno::EINTR) => continue,
            Err(_) => return false,
            Ok(_) if fds[0].any() == Some(false) => ended = None,
            Ok(_) => match write_now(to, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => return false,
            },
        }
    }
    true
}

/// Until both pipes have ended, or the child has and was waited for another [`DRAIN`]. The time that others
/// take for its lines does not count: what it wrote before its end is handed on, however slowly.
fn pump(
    out: &mut Pipe<ChildStdout>,
    err: &mut Pipe<ChildStderr>,
    ended: PipeReader,
    on_line: &mut impl FnMut(Stream, &str),
) {
    let mut buffer = vec![0; READ_BYTES];
    let mut ended = Some(ended);
    // Once it has ended: how long its pipes are still waited for, and how much is read.
    let mut rest: Option<(Duration, usize)> = None;
    while out.reader.is_some() || err.reader.is_some() {
        let timeout = match rest {
            Some((Duration::ZERO, _) | (_, 0)) => return,
            // poll(2) counts whole milliseconds; round up, else the last one would spin.
            Some((left, _)) => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
            }
            None => PollTimeout::NONE,
        };
        let sources = [
            out.reader.as_ref().map(AsFd::as_fd),
            err.reader.as_ref().map(AsFd::as_fd),
            ended.as_ref().map(AsFd::as_fd),
        ];
        let mut fds: Vec<_> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let began = Instant::now();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return log::error!("output can no longer be read: {error}"),
        }
        let waited = began.elapsed();
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let [out_ready, err_ready, ended_now] =
            sources.map(|source| source.is_some() && ready.next() == Some(true));
        let mut bytes = 0;
        if out_ready {
            bytes += out.read(&mut buffer, ended.as_ref(), on_line);
        }
        if err_ready {
            bytes += err.read(&mut buffer, ended.as_ref(), on_line);
        }
        rest = rest.map(|(time, room)| (time.saturating_sub(waited), room.saturating_sub(bytes)));
        if ended_now {
            ended = None;
            rest = Some((DRAIN, DRAIN_BYTES));
        }
    }
}

/// Cuts bytes into lines of at most `max` bytes of text, never inside a character.
struct Lines {
    max: usize,
    line: String,
    /// The first bytes of a character whose rest has not come yet, at most 3.
    partial: Vec<u8>,
    /// The line so far is the rest of an over-long one, so it counts only if it has text.
    continued: bool,
}

impl Lines {
    /// `max` is at least the 4 bytes of a character.
    fn new(max: usize) -> Lines {
        Lines { max: max.max(4), line: String::new(), partial: Vec::new(), continued: false }
    }

    fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(&str)) {
        let joined;
        let mut rest = bytes;
        if !self.partial.is_empty() {
            joined = [std::mem::take(&mut self.partial).as_slice(), bytes].concat();
            rest = &joined;
        }
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.decode(&rest[..end], true, &mut emit);
            self.end_line(&mut emit);
            rest = &rest[end + 1..];
        }
        self.decode(rest, false, &mut emit);
    }

    /// What stands unfinished at the end of the stream.
    fn finish(&mut self, mut emit: impl FnMut(&str)) {
        let partial = std::mem::take(&mut self.partial);
        self.decode(&partial, true, &mut emit);
        if !self.line.is_empty() {
            self.end_line(&mut emit);
        }
    }

    fn end_line(&mut self, emit: &mut impl FnMut(&str)) {
        if !(self.continued && self.line.is_empty()) {
            emit(self.line.strip_suffix('\r').unwrap_or(&self.line));
        }
        self.line.clear();
        self.continued = false;
    }

    /// Appends bytes without a newline. Unless `whole`, they may end inside a character.
    fn decode(&mut self, bytes: &[u8], whole: bool, emit: &mut impl FnMut(&str)) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.append(chunk.valid(), emit);
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let incomplete = std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            if !whole && chunks.peek().is_none() && incomplete {
                self.partial = invalid.to_vec();
            } else {
                self.append("\u{FFFD}", emit);
            }
        }
    }

    fn append(&mut self, mut text: &str, emit: &mut impl FnMut(&str)) {
        while self.line.len() + text.len() > self.max {
            let mut cut = self.max - self.line.len();
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            let (head, tail) = text.split_at(cut);
            self.line.push_str(head);
            emit(&self.line);
            self.line.clear();
            self.continued = true;
            text = tail;
        }
        self.line.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES: usize = 8 * 1024;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::new(LINE_BYTES), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_are_cut_at_newlines_whatever_the_chunks() {
        assert_eq!(lines(&[b"a\nb", b"c\r\n", b"\nend"]), ["a", "bc", "", "end"]);
        assert_eq!(lines(&[b""]), [""; 0]);
    }

    #[test]
    fn characters_survive_chunk_borders_and_broken_ones_are_replaced() {
        assert_eq!(lines(&[b"\xc3", b"\xa9\xf0\x9f", b"\x98", b"\x80"]), ["\u{e9}\u{1f600}"]);
        assert_eq!(lines(&[b"\xc3\n\xff", b"x\xe2\x82"]), ["\u{fffd}", "\u{fffd}x\u{fffd}"]);
    }

    #[test]
    fn an_over_long_line_becomes_several_whole_ones() {
        let text = "\u{20ac}".repeat(LINE_BYTES);
        let seen = lines(&[text.as_bytes(), b"\nnext\n"]);
        assert!(seen.iter().all(|line| line.len() <= LINE_BYTES));
        assert_eq!(seen[..seen.len() - 1].concat(), text);
        assert_eq!(seen.last().map(String::as_str), Some("next"));
        let exact = "x".repeat(LINE_BYTES);
        assert_eq!(lines(&[exact.as_bytes(), b"\n"]), [exact.as_str()]);
        assert_eq!(lines(&[exact.as_bytes(), b"y\n"]), [exact.as_str(), "y"]);
    }
}
