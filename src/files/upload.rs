//! Uploads: a body streamed to disk, hashed on the way, and published whole and durable or not at
//! all. Knows readers, not requests.
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use super::etag::State;
use super::root::{file_type, give, lstat, sync_directory};
use super::sink::Sink;
use super::stage::Staged;
use super::{Conditions, FileError, RelativePath, Root};
use crate::base::hex::hex;

/// What an upload may not do, and what it should.
#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// The longest body accepted.
    pub max_bytes: u64,
    /// Permission bits (0777 at most; more is ignored). Without it: those of the file replaced, else
    /// 0666 less the umask.
    pub mode: Option<u32>,
    /// What must be there, or not.
    pub conditions: Conditions,
    /// The body's announced length: one over the limit is refused unread, and a body that turns out
    /// shorter or longer is an error.
    pub expected_bytes: Option<u64>,
}

/// A published upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Length of the body.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal, which is also the file's strong entity tag.
    pub sha256: String,
    /// Whether the name is new.
    pub created: bool,
}

impl Root {
    /// Streams `body` into the file at `path`, making the directories above it once the body is
    /// whole. When this returns, file, name and new directories are on disk. Whoever opens the name
    /// meanwhile finds the old file or the new one, never part of it. A symbolic link of that name
    /// is replaced, not followed.
    ///
    /// # Errors
    /// Any [`FileError`] but [`NotEmpty`](FileError::NotEmpty); nothing has then changed, save for
    /// empty directories made for a file that could not be published after all. One exception: the
    /// disk may fail (`Io`) to sync a name that is already visible.
    pub fn upload(
        &self,
        path: &RelativePath,
        body: &mut dyn Read,
        options: &UploadOptions,
    ) -> Result<Uploaded, FileError> {
        let failed = |errno| FileError::from_errno(errno, path);
        let Some((parent, name)) = path.split_last() else {
            return Err(FileError::IsDirectory(path.display()));
        };
        if options.expected_bytes.is_some_and(|expected| expected > options.max_bytes) {
            return Err(FileError::TooLarge { limit_bytes: options.max_bytes });
        }

        // What is hopeless is refused before the body is read.
        let (staging, is_parent) = self.open_existing(&parent)?;
        if is_parent {
            replaced(&staging, name, path)?;
        }
        self.check(path, &options.conditions)?;

        let staged = Staged::create(self, &Rc::new(staging)).map_err(failed)?;
        let (bytes, digest) = copy(body, &staged.file, path, options)?;

        let directory = Rc::new(self.create_directories(&parent)?);
        let old = replaced(&directory, name, path)?;
        self.dress(&staged.file, options.mode, old.as_ref()).map_err(|e| FileError::from_io(e, path))?;
        staged.file.sync_all().map_err(|e| FileError::from_io(e, path))?;
        let written = staged.file.metadata().map_err(|e| FileError::from_io(e, path))?;
        let file = staged.file.try_clone().map_err(|e| FileError::from_io(e, path))?;

        let created = {
            let _publishing = self.turn(path, &options.conditions)?;
            replaced(&directory, name, path)?;
            staged.publish(&directory, name).map_err(|errno| FileError::of_naming(errno, path))?
        };
        sync_directory(directory.as_fd()).map_err(failed)?;

        // Taking its name changed the file's change time and must not have changed more.
        if let Ok(published) = file.metadata().map(|now| State::of(&now))
            && published.same_contents(&State::of(&written))
        {
            self.tags.insert(published, digest);
        }
        Ok(Uploaded { bytes, sha256: hex(&digest), created })
    }

    /// Sets permissions and owner. Permissions first: the new owner's file may no longer be ours to
    /// change.
    pub(super) fn dress(&self, file: &File, mode: Option<u32>, old: Option<&FileStat>) -> io::Result<()> {
        // A link's own bits are always 0777 and mean nothing.
        let inherited = old.filter(|old| file_type(old) == SFlag::S_IFREG).map(|old| old.st_mode);
        if let Some(mode) = mode.or(inherited) {
            file.set_permissions(Permissions::from_mode(mode & 0o777))?;
        }
        if let Some(owner) = self.owner {
            give(file.as_fd(), owner)?;
        }
        Ok(())
    }
}

/// What an upload would replace: nothing, a file or a link. Anything else is refused.
pub(super) fn replaced(
    directory: &OwnedFd,
    name: &OsStr,
    path: &RelativePath,
) -> Result<Option<FileStat>, FileError> {
    match lstat(directory.as_fd(), name) {
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(FileError::from_errno(errno, path)),
        Ok(stat) => match file_type(&stat) {
            SFlag::S_IFREG | SFlag::S_IFLNK => Ok(Some(stat)),
            SFlag::S_IFDIR => Err(FileError::IsDirectory(path.display())),
            _ => Err(FileError::NotAFile(path.display())),
        },
    }
}

/// Reads the body to its end, but at most one byte over the limit.
fn copy(
    body: &mut dyn Read,
    file: &File,
    path: &RelativePath,
    options: &UploadOptions,
) -> Result<(u64, [u8; 32]), FileError> {
    let mut sink = Sink::new(file);
    let mut total: u64 = 0;
    loop {
        let space = sink.space();
        let allowed = (options.max_bytes - total).saturating_add(1).min(space.len() as u64) as usize;
        let count = match body.read(&mut space[..allowed]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::Body(error)),
        };
        total = total.saturating_add(count as u64);
        if total > options.max_bytes {
            return Err(FileError::TooLarge { limit_bytes: options.max_bytes });
        }
        sink.take(count).map_err(|error| FileError::from_io(error, path))?;
    }
    match options.expected_bytes {
        Some(expected) if expected != total => {
            let text = format!("{total} bytes instead of {expected}");
            Err(FileError::Body(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
        }
        _ => sink.finish().map_err(|error| FileError::from_io(error, path)),
    }
}
