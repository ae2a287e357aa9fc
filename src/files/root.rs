//! The root directory's descriptor and the only way to open anything below it: `openat2(2)` with
//! RESOLVE_BENEATH, or, where the kernel or a seccomp filter has none, a walk that follows no link.
//! Also makes missing directories. Knows nothing of what is opened.
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchown, fsync};

use super::etag::TagCache;
use super::{FileError, RelativePath};

/// How a directory is opened to be read, changed and synced.
pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// `openat2(2)` gives EAGAIN when a rename anywhere on the system made a `..` in a link uncertain.
/// Somebody who renames without pause may win this often, never for ever.
const RACE_RETRIES: usize = 128;

/// How paths below the root are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    /// The kernel follows links as long as they stay below the root.
    Openat2,
    /// Name by name with O_NOFOLLOW: every link is refused.
    Walk,
}

/// Who gets the files and directories that uploads create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// An open root directory. Renaming or replacing the directory later does not redirect it.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    resolver: Resolver,
    /// `/proc/self/fd`, through which an unnamed file gets its name; none without `/proc`.
    pub(super) descriptors: Option<OwnedFd>,
    pub(super) owner: Option<Owner>,
    /// Held while a name changes hands, so that a precondition still holds when its file is replaced.
    /// Guards no data of ours. Taken before the lock in `tags`.
    pub(super) publishing: Mutex<()>,
    pub(super) tags: TagCache,
    #[cfg(feature = "archive")]
    pub(super) in_use: super::archive::InUse,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Root {
    /// Opens the directory and finds out, once, which system calls work here.
    ///
    /// # Errors
    /// When `path` is not a directory we may read.
    pub fn open(path: &Path) -> Result<Root, FileError> {
        let mut root = Self::open_with(path, Resolver::Openat2, true)?;
        // On a kernel that has openat2 and may use it, opening the root itself cannot fail:
        // ENOSYS (before 5.6, gVisor), EPERM (seccomp) and whatever else all mean "not here".
        if root.open_beneath(&RelativePath::root(), OFlag::O_PATH | OFlag::O_DIRECTORY).is_err() {
            root.resolver = Resolver::Walk;
        }
        Ok(root)
    }

    /// Opens the directory with a given resolver, and with or without the use of `/proc` and
    /// O_TMPFILE: the tests force the fallbacks with it.
    pub(super) fn open_with(path: &Path, resolver: Resolver, use_proc: bool) -> Result<Root, FileError> {
        let directory = open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| FileError::from_errno(errno, &RelativePath::root()))?;
        Ok(Root {
            directory,
            resolver,
            descriptors: if use_proc { open_descriptors() } else { None },
            owner: None,
            publishing: Mutex::new(()),
            tags: TagCache::default(),
            #[cfg(feature = "archive")]
            in_use: super::archive::InUse::default(),
        })
    }

    /// Gives everything created from now on to `owner`; needs CAP_CHOWN.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Root {
        self.owner = Some(owner);
        self
    }

    /// Opens something that exists below the root. Never creates.
    pub(super) fn open_beneath(&self, path: &RelativePath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_CLOEXEC;
        if self.resolver == Resolver::Walk {
            return self.walk(path, flags);
        }
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut attempt = 0;
        loop {
            match openat2(&self.directory, path.as_os_str(), how) {
                Err(Errno::EAGAIN | Errno::EINTR) if attempt < RACE_RETRIES => attempt += 1,
                result => return result,
            }
        }
    }

    fn walk(&self, path: &RelativePath, flags: OFlag) -> Result<OwnedFd, Errno> {
        let Some((parent, last)) = path.split_last() else {
            return openat(&self.directory, ".", flags, Mode::empty());
        };
        let mut above: Option<OwnedFd> = None;
        for name in parent.names() {
            let here = above.as_ref().unwrap_or(&self.directory);
            above = Some(open_name(here.as_fd(), name, OFlag::O_PATH | OFlag::O_DIRECTORY)?);
        }
        open_name(above.as_ref().unwrap_or(&self.directory).as_fd(), last, flags)
    }

    /// Opens a directory that must exist.
    pub(super) fn open_directory(&self, path: &RelativePath) -> Result<OwnedFd, FileError> {
        self.open_beneath(path, DIRECTORY).map_err(|errno| FileError::from_errno(errno, path))
    }

    /// Opens the lowest directory of `path` that exists; `true` if that is `path` itself.
    pub(super) fn open_existing(&self, path: &RelativePath) -> Result<(OwnedFd, bool), FileError> {
        let mut here = path.clone();
        loop {
            match self.open_directory(&here) {
                Ok(directory) => return Ok((directory, here == *path)),
                Err(FileError::NotFound(subject)) => match here.split_last() {
                    Some((above, _)) => here = above,
                    None => return Err(FileError::NotFound(subject)),
                },
                Err(other) => return Err(other),
            }
        }
    }

    /// Opens a directory, first making it and those above it if need be (0777 less the umask).
    /// Each one made is on disk before this returns.
    pub(super) fn create_directories(&self, path: &RelativePath) -> Result<OwnedFd, FileError> {
        match self.open_directory(path) {
            Err(FileError::NotFound(_)) => {}
            result => return result,
        }
        let mut here = RelativePath::root();
        let mut directory = self.open_directory(&here)?;
        for name in path.names() {
            here.push(name);
            directory = match self.open_beneath(&here, DIRECTORY) {
                Err(Errno::ENOENT) => self.create_directory(&directory, name, &here).and_then(|made| {
                    sync_directory(directory.as_fd())?;
                    Ok(made)
                }),
                result => result,
            }
            .map_err(|errno| FileError::from_errno(errno, &here))?;
        }
        Ok(directory)
    }

    /// Makes one directory, which the caller syncs into the one above.
    pub(super) fn create_directory(
        &self,
        above: &OwnedFd,
        name: &OsStr,
        path: &RelativePath,
    ) -> Result<OwnedFd, Errno> {
        match mkdirat(above, name, Mode::from_bits_truncate(0o777)) {
            Ok(()) => {}
            // Somebody was faster, or a dangling link has that name.
            Err(Errno::EEXIST) => return self.open_beneath(path, DIRECTORY),
            Err(errno) => return Err(errno),
        }
        let made = open_name(above.as_fd(), name, DIRECTORY)?;
        if let Some(owner) = self.owner {
            // Whoever may write to the directory above can swap another one in at this point; an
            // empty one is no loss, a full one must not change hands.
            if is_empty(&made)? {
                give(made.as_fd(), owner)?;
            }
        }
        Ok(made)
    }
}

/// Opens one name without following a link: a link gives EXDEV, as one that leads out does. The descriptor is
/// looked at, not the name once more, so that the answer stands even while names are being swapped.
pub(super) fn open_name(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let open = |flags| {
        openat(directory, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| if errno == Errno::ELOOP { Errno::EXDEV } else { errno })
    };
    let found = open(OFlag::O_PATH)?;
    match file_type(&fstat(&found)?) {
        SFlag::S_IFLNK => Err(Errno::EXDEV),
        SFlag::S_IFDIR => openat(&found, ".", flags | OFlag::O_CLOEXEC, Mode::empty()),
        _ if flags.contains(OFlag::O_DIRECTORY) => Err(Errno::ENOTDIR),
        _ if flags.contains(OFlag::O_PATH) => Ok(found),
        _ => open(flags),
    }
}

/// What a name is, links not followed.
pub(super) fn lstat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The type bits of a mode.
pub(super) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// `fchown(2)`.
pub(super) fn give(file: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// Makes the names in a directory durable. Some FUSE file systems cannot and answer EINVAL: there
/// is nothing more to do for them.
pub(super) fn sync_directory(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsync(directory) {
        Err(Errno::EINVAL) => Ok(()),
        result => result,
    }
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut entries = Dir::openat(directory, ".", DIRECTORY, Mode::empty())?;
    for entry in entries.iter() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `/proc/self/fd`, if a real procfs is mounted there and not something an image brought along.
fn open_descriptors() -> Option<OwnedFd> {
    let directory = open("/proc/self/fd", DIRECTORY, Mode::empty()).ok()?;
    (fstatfs(&directory).ok()?.filesystem_type() == PROC_SUPER_MAGIC).then_some(directory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn path(raw: &str) -> RelativePath {
        RelativePath::parse_directory(raw.as_bytes()).unwrap()
    }

    #[test]
    fn follows_links_that_stay_inside_and_refuses_the_others() {
        let host = tempfile::tempdir().unwrap();
        let inside = host.path().join("root");
        fs::create_dir_all(inside.join("real/deep")).unwrap();
        fs::create_dir(host.path().join("outside")).unwrap();
        for (target, name) in [
            ("real/deep", "down"),
            ("../../real", "real/deep/up"),
            ("../../../outside", "real/deep/escape"),
            ("../outside", "out"),
            ("/", "absolute"),
            ("/proc/self/cwd", "magic"),
            ("loop", "loop"),
            ("nowhere", "dangling"),
        ] {
            symlink(target, inside.join(name)).unwrap();
        }
        let root = Root::open(&inside).unwrap();
        for (name, expected) in [
            ("down", "ok"),
            ("real/deep/up", "ok"),
            ("real/deep/escape", "outside_root"),
            ("out", "outside_root"),
            ("absolute", "outside_root"),
            ("absolute/etc", "outside_root"),
            ("magic", "outside_root"),
            ("loop", "outside_root"),
            ("dangling", "not_found"),
        ] {
            let got = root.open_directory(&path(name)).map_or_else(|error| error.code(), |_| "ok");
            // A test machine without openat2 follows nothing.
            if root.resolver == Resolver::Openat2 {
                assert_eq!(got, expected, "{name}");
            }
            let walker = Root::open_with(&inside, Resolver::Walk, true).unwrap();
            assert_eq!(walker.open_directory(&path(name)).unwrap_err().code(), "outside_root", "{name}");
            assert_eq!(walker.create_directories(&path(name)).unwrap_err().code(), "outside_root", "{name}");
        }
        assert_eq!(root.create_directories(&path("dangling/x")).unwrap_err().code(), "not_found");
    }

    #[test]
    fn creates_directories_and_gives_them_away() {
        let host = tempfile::tempdir().unwrap();
        for resolver in [Resolver::Openat2, Resolver::Walk] {
            let mut root = Root::open_with(host.path(), resolver, true).unwrap();
            let root_user = nix::unistd::geteuid().is_root();
            if root_user {
                root = root.with_owner(Owner { uid: 12345, gid: 54321 });
            }
            let name = format!("{resolver:?}/b/c");
            root.create_directories(&path(&name)).unwrap();
            root.create_directories(&path(&name)).unwrap();
            let made = fs::metadata(host.path().join(&name)).unwrap();
            assert!(made.is_dir());
            if root_user {
                assert_eq!((made.uid(), made.gid()), (12345, 54321));
            }
        }
    }

    #[test]
    fn stays_with_its_directory_when_the_path_is_replaced() {
        let host = tempfile::tempdir().unwrap();
        let inside = host.path().join("root");
        fs::create_dir(&inside).unwrap();
        let root = Root::open(&inside).unwrap();
        fs::rename(&inside, host.path().join("moved")).unwrap();
        fs::create_dir(&inside).unwrap();
        root.create_directories(&path("a")).unwrap();
        assert!(host.path().join("moved/a").is_dir());
        assert!(!inside.join("a").exists());
    }

    #[test]
    fn opening_says_what_is_wrong_without_the_host_path() {
        let host = tempfile::tempdir().unwrap();
        let error = Root::open(&host.path().join("absent")).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), ("not_found", ".: not found"));
        fs::write(host.path().join("file"), "").unwrap();
        assert_eq!(Root::open(&host.path().join("file")).unwrap_err().code(), "not_a_directory");
    }
}
