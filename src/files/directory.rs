//! Lists directories and deletes names. Looks at links, never through them.
use std::collections::BinaryHeap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::path::HIDDEN_PREFIX;
use super::root::{file_type, lstat, sync_directory};
use super::{Conditions, FileError, RelativePath, Root, stage};

/// A directory's entries, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The first ones by name, as many as were asked for.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// One name in a directory and what `lstat(2)` says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; bytes that are not UTF-8 became U+FFFD.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Length, as `stat(2)` counts it for that kind.
    pub bytes: u64,
    /// Last modification, in milliseconds since the epoch; 0 if before.
    pub modified_ms: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, dangling or not.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

impl Root {
    /// Lists a directory, unfinished uploads left out. Memory is bounded by `limit`, not by the
    /// directory; entries that vanish meanwhile are left out too.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `OutsideRoot`, `Denied` and `Io`.
    pub fn list(&self, path: &RelativePath, limit: usize) -> Result<Listing, FileError> {
        let failed = |errno| FileError::from_errno(errno, path);
        let mut directory = Dir::from_fd(self.open_directory(path)?).map_err(failed)?;
        // The greatest name is on top: what does not fit under the limit goes first.
        let mut first_names: BinaryHeap<CString> = BinaryHeap::new();
        let mut truncated = false;
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            if is_listed(entry.file_name()) {
                first_names.push(entry.file_name().to_owned());
                if first_names.len() > limit {
                    first_names.pop();
                    truncated = true;
                }
            }
        }
        let entries = first_names
            .into_sorted_vec()
            .iter()
            .map(|name| OsStr::from_bytes(name.to_bytes()))
            .filter_map(|name| Some(Entry::new(name, &lstat(directory.as_fd(), name).ok()?)))
            .collect();
        Ok(Listing { entries, truncated })
    }

    /// Deletes a file, a link (not what it points to) or an empty directory, durably.
    ///
    /// # Errors
    /// `PreconditionFailed`, `NotFound`, `NotEmpty`, `NotADirectory`, `OutsideRoot`, `Denied`, `ReadOnly`
    /// and `Io`; the root itself is refused (`PathInvalid`).
    pub fn delete(&self, path: &RelativePath, conditions: &Conditions) -> Result<(), FileError> {
        let failed = |errno| FileError::from_errno(errno, path);
        let Some((parent, name)) = path.split_last() else {
            return Err(FileError::PathInvalid("the root cannot be deleted"));
        };
        let publishing = self.turn(path, conditions)?;
        let directory = self.open_directory(&parent)?;
        // Linux says EISDIR where POSIX has EPERM, so no look is needed before the leap.
        match stage::remove(directory.as_fd(), name) {
            Err(Errno::EISDIR) => unlinkat(&directory, name, UnlinkatFlags::RemoveDir),
            result => result,
        }
        .map_err(failed)?;
        drop(publishing);
        sync_directory(directory.as_fd()).map_err(failed)
    }
}

pub(super) fn is_listed(name: &CStr) -> bool {
    let name = name.to_bytes();
    !matches!(name, b"." | b"..") && !name.starts_with(HIDDEN_PREFIX)
}

impl Entry {
    pub(super) fn new(name: &OsStr, stat: &FileStat) -> Self {
        let seconds_ms = u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000);
        Entry {
            name: name.to_string_lossy().into_owned(),
            kind: match file_type(stat) {
                SFlag::S_IFREG => Kind::File,
                SFlag::S_IFDIR => Kind::Directory,
                SFlag::S_IFLNK => Kind::Symlink,
                _ => Kind::Other,
            },
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ms: seconds_ms
                .saturating_add(u64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1_000_000),
            mode: stat.st_mode & 0o7777,
        }
    }
}
