//! The members of a tar stream, in order. The `tar` crate reads the headers, one at a time; what they
//! claim is believed only within bounds. Longer names and pax records come in headers of their own, which
//! are read here, because their size is the client's to claim.
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read};

use tar::{Archive, Entry, EntryType};

use crate::files::FileError;

/// Bytes of a header that only describes the next one: a long name, or pax records.
const EXTENSION_BYTES: u64 = 64 * 1024;
/// Such headers before one member: each kind once.
const EXTENSIONS: usize = 4;
/// Bytes behind the archive's end: tar fills its last record with zeros, one of 1 MiB at most.
const PADDING_BYTES: u64 = 1 << 20;
/// Characters of a name that an error repeats.
const SHOWN_CHARS: usize = 256;

/// The body, watched: the library below does not tell a short body from a finished archive.
struct Watched<'b> {
    body: RefCell<&'b mut dyn Read>,
    ended: Cell<bool>,
    failed: RefCell<Option<io::Error>>,
}

impl Read for &Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.body.borrow_mut().read(out);
            match read {
                Ok(count) => {
                    self.ended.set(count == 0 && !out.is_empty());
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failed.replace(Some(error));
                    return Err(kind.into());
                }
            }
        }
    }
}

impl Watched<'_> {
    /// What an error of the library, or a member's early end, comes from.
    fn fault(&self, error: &dyn Display) -> FileError {
        match self.failed.take() {
            Some(error) => FileError::Body(error),
            None if self.ended.get() => FileError::ArchiveInvalid("it ends in the middle".to_owned()),
            None => FileError::ArchiveInvalid(error.to_string()),
        }
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// One file or directory.
pub(super) struct Member<'m, 'b> {
    /// As it stands in the archive.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, nothing else.
    pub(super) mode: u32,
    /// Length of the file.
    pub(super) bytes: u64,
    data: &'m mut dyn Read,
    watched: &'m Watched<'b>,
}

impl Member<'_, '_> {
    /// Hands the file's bytes on.
    pub(super) fn copy(
        self,
        buffer: &mut [u8],
        mut write: impl FnMut(&[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let mut left = self.bytes;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.data.read(&mut buffer[..room]) {
                Ok(0) => return Err(self.watched.fault(&"it ends in the middle")),
                Ok(count) => {
                    write(&buffer[..count])?;
                    left -= count as u64;
                }
                Err(error) => return Err(self.watched.fault(&error)),
            }
        }
        Ok(())
    }
}

/// An error that names the member.
pub(super) fn refused(name: &[u8], problem: impl Display) -> FileError {
    let member = String::from_utf8_lossy(name).chars().take(SHOWN_CHARS).collect();
    FileError::MemberRefused { member, problem: problem.to_string() }
}

/// Hands on each member of the stream, then makes sure that the archive is whole and nothing follows it.
///
/// # Errors
/// `ArchiveInvalid`, `MemberRefused`, `Body`, and those of `take`.
pub(super) fn each(
    body: &mut dyn Read,
    mut take: impl FnMut(Member<'_, '_>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let watched = Watched { body: RefCell::new(body), ended: Cell::new(false), failed: RefCell::new(None) };
    let mut archive = Archive::new(&watched);
    let entries = archive.entries().map_err(|error| watched.fault(&error))?.raw(true);
    let mut described = Described::default();
    for entry in entries {
        let mut entry = entry.map_err(|error| watched.fault(&error))?;
        if described.take(&mut entry, &watched)? {
            continue;
        }
        let described = std::mem::take(&mut described);
        let header = entry.header();
        let name = described.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let (mode, bytes) = header
            .mode()
            .and_then(|mode| Ok((mode & 0o777, header.entry_size()?)))
            .map_err(|error| refused(&name, error))?;
        let kind = kind(header.entry_type()).map_err(|what| refused(&name, what))?;
        if kind == Kind::Directory && bytes > 0 {
            return Err(refused(&name, "is a directory with contents of its own"));
        }
        if kind == Kind::File && name.ends_with(b"/") {
            return Err(refused(&name, "is a file with the name of a directory"));
        }
        if described.bytes.is_some_and(|told| told != bytes) {
            return Err(refused(&name, "two sizes are told for it"));
        }
        take(Member { name, kind, mode, bytes, data: &mut entry, watched: &watched })?;
    }
    if watched.ended.get() || described.headers > 0 {
        return Err(FileError::ArchiveInvalid("it has no end".to_owned()));
    }
    only_zeros(&watched)
}

/// What the archive's end may be followed by.
fn only_zeros(watched: &Watched<'_>) -> Result<(), FileError> {
    let mut piece = [0; 4096];
    let mut bytes = 0;
    loop {
        let count = (&*watched).read(&mut piece).map_err(|error| watched.fault(&error))?;
        bytes += count as u64;
        match count {
            0 => return Ok(()),
            _ if bytes <= PADDING_BYTES && piece[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Err(FileError::ArchiveInvalid("something follows its end".to_owned())),
        }
    }
}

fn kind(found: EntryType) -> Result<Kind, &'static str> {
    match found {
        EntryType::Regular => Ok(Kind::File),
        EntryType::Directory => Ok(Kind::Directory),
        EntryType::Link => Err("is a hard link"),
        EntryType::Symlink => Err("is a symbolic link"),
        EntryType::Char | EntryType::Block => Err("is a device"),
        EntryType::Fifo => Err("is a FIFO"),
        EntryType::GNUSparse => Err("is a sparse file"),
        _ => Err("is neither a file nor a directory"),
    }
}

/// What the headers before a member say of it.
#[derive(Default)]
struct Described {
    headers: usize,
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    /// The name is from a pax record, which counts more than a GNU header.
    by_pax: bool,
}

impl Described {
    /// Reads a header that describes the next member; false if this is a member.
    fn take(
        &mut self,
        entry: &mut Entry<'_, &Watched<'_>>,
        watched: &Watched<'_>,
    ) -> Result<bool, FileError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        self.headers += 1;
        if self.headers > EXTENSIONS {
            return Err(FileError::ArchiveInvalid("too many headers describe one member".to_owned()));
        }
        if entry.size() > EXTENSION_BYTES {
            let problem = format!("a header that describes a member has more than {EXTENSION_BYTES} bytes");
            return Err(FileError::ArchiveInvalid(problem));
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).map_err(|error| watched.fault(&error))?;
        if data.len() as u64 != entry.size() {
            return Err(watched.fault(&"it ends in the middle"));
        }
        match kind {
            EntryType::GNULongName => {
                while data.last() == Some(&0) {
                    data.pop();
                }
                if !self.by_pax && self.name.replace(data).is_some() {
                    return Err(FileError::ArchiveInvalid("a member has two long names".to_owned()));
                }
            }
            EntryType::XHeader => self.take_records(&data)?,
            EntryType::XGlobalHeader => {
                let mut global = Described::default();
                global.take_records(&data)?;
                if global.name.is_some() || global.bytes.is_some() {
                    let problem = "a global header tells a name or a size".to_owned();
                    return Err(FileError::ArchiveInvalid(problem));
                }
            }
            // The target of a link, which is refused when it comes.
            _ => {}
        }
        Ok(true)
    }

    /// Takes the name and the size from pax records, and passes over owners, times and the like.
    fn take_records(&mut self, data: &[u8]) -> Result<(), FileError> {
        let invalid = |problem: &str| FileError::ArchiveInvalid(problem.to_owned());
        let mut left = data;
        while !left.is_empty() {
            let (key, value, rest) =
                first_record(left).ok_or_else(|| invalid("a pax record is malformed"))?;
            left = rest;
            match key {
                b"path" if self.by_pax => return Err(invalid("a member has two pax names")),
                b"path" => {
                    self.name = Some(value.to_vec());
                    self.by_pax = true;
                }
                b"size" => {
                    let bytes = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    let bytes = bytes.ok_or_else(|| invalid("a pax size is no number"))?;
                    if self.bytes.replace(bytes).is_some() {
                        return Err(invalid("a member has two pax sizes"));
                    }
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(invalid("it holds a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The key, the value and what follows of pax records, `LENGTH KEY=VALUE\n` each (POSIX, `pax`). The length
/// is that of the whole record; the library goes by line ends instead, which a value may hold.
fn first_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&data[..space]).ok().filter(|digits| !digits.starts_with('+'))?;
    let (record, rest) = data.split_at_checked(digits.parse().ok()?)?;
    let line = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = line.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&line[..equals], &line[equals + 1..], rest))
}
