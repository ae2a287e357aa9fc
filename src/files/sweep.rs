//! Removes what an earlier, killed life left behind under hidden names.
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::openat;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::path::MAX_DEPTH;
use super::root::{DIRECTORY, file_type, lstat, open_name};
use super::stage::{is_stale, remove};
use super::{RelativePath, Root};

/// Directory entries looked at: a root with a million files must not keep the disk busy for long.
const MAX_ENTRIES: usize = 100_000;

impl Root {
    /// Deletes unfinished uploads of other processes below the root and returns how many. Follows no
    /// link, stays on the root's file system (what is mounted below it others may mount as well), goes as
    /// deep as uploads do and stops after 100,000 entries. Uploads of this process may run meanwhile;
    /// another process that serves the same root may lose one under way.
    pub fn remove_stale_temporaries(&self) -> usize {
        let Ok(top) = self.open_directory(&RelativePath::root()) else { return 0 };
        let (Ok(device), Ok(top)) = (fstat(&top).map(|stat| stat.st_dev), Level::open(top)) else {
            return 0;
        };
        let mut removed = 0;
        // From the root down to the directory being read; each holds two descriptors.
        let mut levels = vec![top];
        for _ in 0..MAX_ENTRIES {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { break };
            let Some(Ok(entry)) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_stale(name.as_bytes()) {
                removed += usize::from(remove_file(level.directory.as_fd(), name));
            } else if !matches!(name.as_bytes(), b"." | b"..") && depth < MAX_DEPTH {
                let below = level.enter(name, device);
                levels.extend(below);
            }
        }
        removed
    }
}

struct Level {
    directory: OwnedFd,
    entries: OwningIter,
}

impl Level {
    fn open(directory: OwnedFd) -> Result<Self, Errno> {
        // A second descriptor: reading entries takes its own over.
        let entries = Dir::from_fd(openat(&directory, ".", DIRECTORY, Mode::empty())?)?.into_iter();
        Ok(Level { directory, entries })
    }

    /// Opens a directory of this level, if it is one and not another file system's.
    fn enter(&self, name: &OsStr, device: nix::libc::dev_t) -> Option<Level> {
        let stat = lstat(self.directory.as_fd(), name).ok()?;
        if file_type(&stat) != SFlag::S_IFDIR || stat.st_dev != device {
            return None;
        }
        Level::open(open_name(self.directory.as_fd(), name, DIRECTORY).ok()?).ok()
    }
}

/// A file, or a link that an archive was replacing.
fn remove_file(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    let is_ours = |stat: &FileStat| matches!(file_type(stat), SFlag::S_IFREG | SFlag::S_IFLNK);
    lstat(directory, name).is_ok_and(|stat| is_ours(&stat)) && remove(directory, name).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn removes_stale_files_and_nothing_else() {
        let host = tempfile::tempdir().unwrap();
        let inside = host.path().join("root");
        let outside = host.path().join("outside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        // In a container the earlier life had our pid.
        let stale = format!(".frag-upload-{}-7-0123456789abcdef", std::process::id());
        for directory in [&inside, &inside.join("a/b"), &outside] {
            fs::write(directory.join(&stale), "half").unwrap();
            fs::write(directory.join("kept"), "whole").unwrap();
        }
        fs::create_dir(inside.join("a/.frag-upload-2-2-2")).unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink(outside.join(&stale), inside.join("a/.frag-upload-3-3-3")).unwrap();

        let root = Root::open(&inside).unwrap();
        assert_eq!(root.remove_stale_temporaries(), 3);
        assert_eq!(root.remove_stale_temporaries(), 0);
        assert!(!inside.join(&stale).exists() && !inside.join("a/b").join(&stale).exists());
        assert!(inside.join("a/.frag-upload-3-3-3").symlink_metadata().is_err(), "a link that was replaced");
        assert!(outside.join(&stale).exists(), "behind a link");
        assert!(inside.join("kept").exists() && inside.join("a/b/kept").exists());
        assert!(inside.join("a/.frag-upload-2-2-2").is_dir());
    }
}
