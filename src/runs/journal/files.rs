//! Files that only grow, line by line, and reading them: forwards, backwards, and after an end that came
//! in the middle of a line.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a line at most; what is longer is no line of ours.
const LINE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes read at once from the end.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub(in crate::runs) struct Places(PathBuf);

impl Places {
    pub(in crate::runs) fn new(dir: &Path) -> Places {
        Places(dir.to_owned())
    }

    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.logs())
    }

    pub(in crate::runs) fn runs(&self) -> PathBuf {
        self.0.join("runs.jsonl")
    }

    pub(in crate::runs) fn state(&self) -> PathBuf {
        self.0.join("state.jsonl")
    }

    pub(in crate::runs) fn approvals(&self) -> PathBuf {
        self.0.join("approvals.jsonl")
    }

    pub(in crate::runs) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The log of a run. Ids that are no file names never come here: see [`is_id`](crate::runs::is_id).
    pub(in crate::runs) fn log(&self, id: &str) -> PathBuf {
        self.logs().join(format!("{id}.jsonl"))
    }

    /// Makes what is new in the directories last.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(self.logs())?.sync_all()?;
        File::open(&self.0)?.sync_all()
    }
}

/// A file that only grows.
#[derive(Debug)]
pub(super) struct Growing {
    file: File,
    length: u64,
    pending: Vec<u8>,
}

impl Growing {
    /// Opens or makes it, for us alone to read and write.
    pub(super) fn open(path: &Path) -> io::Result<Growing> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Growing { file, length, pending: Vec::new() })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Adds a line, for the next [`flush`](Self::flush).
    pub(super) fn push(&mut self, line: &str) {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// Bytes that wait for a flush.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Writes what was added; on an error nothing of it stays, if the disk lets us.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.pending);
        match written {
            Ok(()) => self.length += self.pending.len() as u64,
            Err(_) => drop(self.file.set_len(self.length)),
        }
        self.pending.clear();
        written
    }

    /// Flushes, and returns when it is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    /// Cuts it to `length` bytes.
    pub(super) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        self.file.sync_all()
    }

    /// Cuts what stands behind the last whole line, or a last line that is none: how many bytes.
    pub(super) fn cut_torn_line(&mut self) -> io::Result<u64> {
        let mut end = self.length;
        if let Some((start, line)) = Backwards::new(&self.file, self.length).next().transpose()? {
            let is_whole = byte_at(&self.file, self.length - 1)? == b'\n';
            if !is_whole || crate::events::Json::parse(&line).is_err() {
                end = start;
            }
        }
        let torn = self.length - end;
        if torn > 0 {
            self.cut(end)?;
        }
        Ok(torn)
    }

    /// The lines from the last to the first, with the place where each begins.
    pub(super) fn backwards(&self) -> Backwards<'_> {
        Backwards::new(&self.file, self.length)
    }
}

fn byte_at(file: &File, at: u64) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(byte[0])
}

/// Lines of a file from its end on.
pub(in crate::runs) struct Backwards<'f> {
    file: &'f File,
    /// What begins here is in `block`.
    from: u64,
    block: Vec<u8>,
    done: bool,
}

impl<'f> Backwards<'f> {
    pub(in crate::runs) fn new(file: &'f File, length: u64) -> Backwards<'f> {
        Backwards { file, from: length, block: Vec::new(), done: length == 0 }
    }

    fn line(&mut self) -> io::Result<(u64, Vec<u8>)> {
        loop {
            // The line end before the last one is where the last line begins.
            let inner = self.block.len().saturating_sub(1);
            if let Some(at) = self.block[..inner].iter().rposition(|b| *b == b'\n') {
                let line = self.block.split_off(at + 1);
                return Ok((self.from + at as u64 + 1, without_end(line)));
            }
            if self.from == 0 {
                self.done = true;
                return Ok((0, without_end(std::mem::take(&mut self.block))));
            }
            if self.block.len() as u64 > LINE_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
            let count = self.from.min(BLOCK_BYTES);
            let mut block = vec![0; count as usize];
            self.file.read_exact_at(&mut block, self.from - count)?;
            block.append(&mut self.block);
            (self.block, self.from) = (block, self.from - count);
        }
    }
}

fn without_end(mut line: Vec<u8>) -> Vec<u8> {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    line
}

impl Iterator for Backwards<'_> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let line = self.line();
        self.done |= line.is_err();
        Some(line)
    }
}

/// The lines of a file, each without its end and with whether it had one. A file that is not there has
/// none.
pub(in crate::runs) struct Lines(Option<BufReader<File>>);

impl Lines {
    pub(in crate::runs) fn open(path: &Path) -> io::Result<Lines> {
        match File::open(path) {
            Ok(file) => Ok(Lines(Some(BufReader::new(file)))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Lines(None)),
            Err(error) => Err(error),
        }
    }

    /// From a file that is open, from its beginning.
    pub(super) fn of(mut file: &File) -> io::Result<Lines> {
        file.seek(SeekFrom::Start(0))?;
        Ok(Lines(Some(BufReader::new(file.try_clone()?))))
    }
}

impl Iterator for Lines {
    type Item = io::Result<(Vec<u8>, bool)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.0.as_mut()?.take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                let whole = line.last() == Some(&b'\n');
                Some(Ok((without_end(line), whole)))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn lines_backwards_are_those_forwards() {
        let long = "x".repeat(BLOCK_BYTES as usize * 2 + 5);
        for lines in [vec![], vec![""], vec!["a"], vec!["a", "", "b"], vec!["a", &long, "b", &long]] {
            for last_end in ["\n", ""] {
                if lines.last().is_none_or(|last: &&str| last.is_empty()) && last_end.is_empty() {
                    continue;
                }
                let content = if lines.is_empty() { String::new() } else { lines.join("\n") + last_end };
                let (_dir, path) = file(content.as_bytes());
                let forwards: Vec<_> = Lines::open(&path).unwrap().map(|l| l.unwrap().0).collect();
                let growing = Growing::open(&path).unwrap();
                let mut backwards: Vec<_> = growing.backwards().map(Result::unwrap).collect();
                for (start, line) in &backwards {
                    assert!(content.as_bytes()[*start as usize..].starts_with(line));
                }
                backwards.reverse();
                assert_eq!(backwards.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), forwards);
                assert_eq!(forwards.len(), lines.len());
            }
        }
    }

    #[test]
    fn a_torn_line_is_cut_and_nothing_else() {
        for (content, left) in [
            (&b""[..], &b""[..]),
            (b"{}\n", b"{}\n"),
            (b"{}\n{\"a\":", b"{}\n"),
            (b"{}\n{}", b"{}\n"),
            (b"{}\n\0\0\0\n", b"{}\n"),
            (b"{\"a\"", b""),
            (b"broken\n{}\n", b"broken\n{}\n"),
        ] {
            let (_dir, path) = file(content);
            let torn = Growing::open(&path).unwrap().cut_torn_line().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), left);
            assert_eq!(torn as usize, content.len() - left.len());
        }
    }

    #[test]
    fn what_grows_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(&dir.path().join("journal"));
        places.make().unwrap();
        let mut growing = Growing::open(&places.log("a")).unwrap();
        growing.push("1");
        growing.push("2");
        growing.sync().unwrap();
        growing.push("3");
        growing.flush().unwrap();
        assert_eq!(std::fs::read(places.log("a")).unwrap(), b"1\n2\n3\n");
        assert_eq!(std::fs::metadata(places.log("a")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(places.logs()).unwrap().mode() & 0o777, 0o700);
    }
}
