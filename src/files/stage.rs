//! A file on its way: written without a name (O_TMPFILE) or, where that does not work, under a
//! hidden one; then published whole, or gone without a trace.
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::Root;
use super::path::HIDDEN_PREFIX;
use super::root::lstat;

/// Before the umask, like any program's.
const DEFAULT_MODE: Mode = Mode::from_bits_truncate(0o666);

/// A hidden name holds a random number, so only a deliberate collision repeats, and this ends it.
const NAME_ATTEMPTS: usize = 16;

/// Tells our hidden names from those of an earlier life with the same pid: in a container that is
/// always 1.
static LIFE: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Not yet visible to anybody. Dropped unpublished, nothing of it remains.
#[derive(Debug)]
pub(super) struct Staged<'root> {
    /// What to write into.
    pub(super) file: File,
    place: Place<'root>,
}

#[derive(Debug)]
enum Place<'root> {
    /// No name yet; `/proc/self/fd` will give it one.
    Unnamed {
        descriptors: &'root OwnedFd,
    },
    Hidden(HiddenName),
}

impl<'root> Staged<'root> {
    /// Starts a file on the file system that holds `directory`.
    pub(super) fn create(root: &'root Root, directory: &Rc<OwnedFd>) -> Result<Self, Errno> {
        if let Some(descriptors) = &root.descriptors {
            let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            match openat(&**directory, ".", flags, DEFAULT_MODE) {
                Ok(file) => {
                    return Ok(Staged { file: file.into(), place: Place::Unnamed { descriptors } });
                }
                // What file systems and kernels without it answer; EISDIR means before 3.11.
                Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (file, hidden) =
            HiddenName::take(directory, |name| openat(&**directory, name, flags, DEFAULT_MODE))?;
        Ok(Staged { file: file.into(), place: Place::Hidden(hidden) })
    }

    /// Puts the file aside under a hidden name in `directory`, without a descriptor.
    #[cfg(feature = "archive")]
    pub(super) fn put_aside(self, directory: &Rc<OwnedFd>) -> Result<HiddenName, Errno> {
        match self.place {
            Place::Unnamed { descriptors } => {
                let number = self.file.as_raw_fd().to_string();
                let link = |name: &OsStr| {
                    let follow = AtFlags::AT_SYMLINK_FOLLOW;
                    linkat(descriptors, number.as_str(), &**directory, name, follow)
                };
                HiddenName::take(directory, link).map(|((), hidden)| hidden)
            }
            Place::Hidden(hidden) => Ok(hidden),
        }
    }

    /// Gives the file its name, in one step, replacing whatever non-directory has it; `true` if the
    /// name is new. The caller syncs the file before and the directory after.
    pub(super) fn publish(self, directory: &Rc<OwnedFd>, name: &OsStr) -> Result<bool, Errno> {
        match self.place {
            Place::Unnamed { descriptors } => {
                let number = self.file.as_raw_fd().to_string();
                let link = |name: &OsStr| {
                    linkat(descriptors, number.as_str(), &**directory, name, AtFlags::AT_SYMLINK_FOLLOW)
                };
                match link(name) {
                    Err(Errno::EEXIST) => {}
                    result => return result.map(|()| true),
                }
                let ((), hidden) = HiddenName::take(directory, link)?;
                hidden.rename(directory, name)?;
                Ok(false)
            }
            Place::Hidden(hidden) => {
                let is_new = matches!(lstat(directory.as_fd(), name), Err(Errno::ENOENT));
                hidden.rename(directory, name)?;
                Ok(is_new)
            }
        }
    }
}

/// A hidden name that exists; dropping it removes it.
#[derive(Debug)]
pub(super) struct HiddenName {
    directory: Rc<OwnedFd>,
    name: OsString,
    renamed: bool,
}

impl HiddenName {
    /// Finds a free name, `make` being what takes it.
    pub(super) fn take<T>(
        directory: &Rc<OwnedFd>,
        make: impl Fn(&OsStr) -> Result<T, Errno>,
    ) -> Result<(T, HiddenName), Errno> {
        let (made, name) = take_name(make)?;
        Ok((made, HiddenName { directory: Rc::clone(directory), name, renamed: false }))
    }

    /// Gives the file this name in its place, replacing whatever non-directory has it.
    pub(super) fn rename(mut self, directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        renameat(&*self.directory, self.name.as_os_str(), directory, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for HiddenName {
    fn drop(&mut self) {
        if !self.renamed {
            // If even this fails, the sweep at the next start finds it.
            let _ = remove(self.directory.as_fd(), &self.name);
        }
    }
}

/// Finds a free hidden name, `make` being what takes it; nobody removes it by itself.
pub(super) fn take_name<T>(make: impl Fn(&OsStr) -> Result<T, Errno>) -> Result<(T, OsString), Errno> {
    let mut attempts = 0;
    loop {
        let name = next_name();
        match make(&name) {
            Ok(made) => return Ok((made, name)),
            Err(Errno::EEXIST) if attempts < NAME_ATTEMPTS => attempts += 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// `.frag-upload-<pid>-<counter>-<life>`.
fn next_name() -> OsString {
    let mut name = OsStr::from_bytes(HIDDEN_PREFIX).to_owned();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    name.push(format!("{}-{count}-{:016x}", std::process::id(), *LIFE));
    name
}

/// Whether a hidden name was left by another process, dead as a rule: it is hidden, and not ours.
pub(super) fn is_stale(name: &[u8]) -> bool {
    let ours = format!("-{:016x}", *LIFE);
    name.starts_with(HIDDEN_PREFIX) && !name.ends_with(ours.as_bytes())
}

/// Unlinks a name that is no directory.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_differ_and_are_ours() {
        let (one, two) = (next_name(), next_name());
        assert_ne!(one, two);
        assert!(one.as_bytes().starts_with(HIDDEN_PREFIX));
        assert!(!is_stale(one.as_bytes()));
        let same_pid = format!(".frag-upload-{}-0-0123456789abcdef", std::process::id());
        assert!(is_stale(same_pid.as_bytes()), "an earlier life with our pid");
        assert!(!is_stale(b"frag-upload-1-1-1"));
    }
}
