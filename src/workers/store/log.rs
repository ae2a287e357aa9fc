//! A file of JSON lines that only grows. A line is on disk when its append returns; one that was cut
//! by a crash is taken off when the file is opened again, and never joined to the next.
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a line; the largest input makes one of about 2 MiB.
const LINE_BYTES: usize = 16 * 1024 * 1024;

/// The file, and how much of it is whole lines.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    len: u64,
    exists: bool,
}

/// What a file of lines holds.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) lines: Vec<T>,
    /// Lines in the middle that make no sense.
    pub(super) broken: usize,
    /// Bytes at the end that were cut off.
    pub(super) cut: u64,
}

impl Log {
    /// A log that is not there yet.
    pub(super) fn new(path: PathBuf) -> Log {
        Log { path, len: 0, exists: false }
    }

    /// Reads the file, `keep` deciding what of a line is kept, and cuts a torn end off. A file that is
    /// missing is empty.
    pub(super) fn open<T: DeserializeOwned, K>(
        path: PathBuf,
        mut keep: impl FnMut(T) -> Option<K>,
    ) -> io::Result<(Log, Read<K>)> {
        let mut read = Read { lines: Vec::new(), broken: 0, cut: 0 };
        let file = match open_regular(OpenOptions::new().read(true).write(true), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Log::new(path), read)),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(&file);
        let (mut line, mut at, mut whole) = (Vec::new(), 0, 0);
        while next_line(&mut reader, &mut line)? > 0 {
            // A broken line that another follows was not torn by a crash.
            read.broken += usize::from(whole < at);
            whole = at;
            at += line.len() as u64;
            let text = line.strip_suffix(b"\n").filter(|text| text.len() <= LINE_BYTES);
            if let Some(Ok(value)) = text.map(serde_json::from_slice::<T>) {
                whole = at;
                read.lines.extend(keep(value));
            }
        }
        read.cut = at - whole;
        if read.cut > 0 {
            file.set_len(whole)?;
            file.sync_all()?;
        }
        Ok((Log { path, len: whole, exists: true }, read))
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a line. When it fails nothing was appended: what may have reached the file is written
    /// over by the next line, or cut when the file is opened again.
    pub(super) fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let mut options = OpenOptions::new();
        options.write(true).create(!self.exists).truncate(false).mode(0o600);
        let file = open_regular(&mut options, &self.path)?;
        match file.metadata()?.len().cmp(&self.len) {
            Ordering::Equal => {}
            // After an append that failed half-way.
            Ordering::Greater => file.set_len(self.len)?,
            Ordering::Less => return Err(io::Error::other("a log has become shorter by another's hand")),
        }
        file.write_all_at(&bytes, self.len)?;
        file.sync_data()?;
        if !self.exists {
            sync_parent(&self.path)?;
            self.exists = true;
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// Reads one line with its end; what is longer than a line may be is dropped but counted by the caller
/// as one broken line per piece.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    io::Read::take(reader, LINE_BYTES as u64 + 2).read_until(b'\n', line)
}

/// Opens a file, and nothing else of its name: a pipe would never be ready, a device never end, and a link
/// lead elsewhere.
///
/// # Errors
/// `InvalidData` for such a thing, else the system's.
pub(super) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "not a regular file");
    let opened = options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO | Errno::ENODEV) => strange(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(strange()) }
}

/// Makes a directory's entries last.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> (Log, Read<u64>) {
        Log::open(path.to_owned(), |n: u64| Some(n)).unwrap()
    }

    #[test]
    fn every_torn_end_is_cut_and_the_next_line_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for torn in ["3", "\"ab", "{\n", "\0\0\0\0", "\n", "\u{fffd}", "x\n"] {
            std::fs::write(&path, format!("1\n2\n{torn}")).unwrap();
            let (mut log, read) = open(&path);
            assert_eq!((read.lines, read.broken, read.cut), (vec![1, 2], 0, torn.len() as u64), "{torn:?}");
            log.append(&7).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"1\n2\n7\n", "{torn:?}");
        }
    }

    #[test]
    fn broken_lines_in_the_middle_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "1\nx\n\n2\nx\ny\n").unwrap();
        let (log, read) = open(&path);
        assert_eq!((read.lines, read.broken, read.cut), (vec![1, 2], 3, 2), "only the last one is cut");
        assert_eq!(log.len(), 9);
        assert_eq!(open(&dir.path().join("none")).1.lines, Vec::<u64>::new());
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&place("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(place("directory")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", place("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        for name in ["pipe", "directory", "link", "socket"] {
            let error = Log::open(place(name), |n: u64| Some(n)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
            assert!(Log::new(place(name)).append(&1).is_err(), "{name}");
        }
    }

    #[test]
    fn what_a_failed_append_left_is_no_part_of_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(path.clone());
        log.append(&1).unwrap();
        std::fs::write(&path, "1\n\"a long piece of a line").unwrap();
        log.append(&2).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"1\n2\n");
        std::fs::remove_file(&path).unwrap();
        assert!(log.append(&3).is_err(), "a file that has gone is not begun anew in the middle");
    }
}
