//! Opens a file below the root for reading, with the facts a response needs.
use std::fs::{File, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use super::etag::State;
use super::{Etag, FileError, RelativePath, Root};

/// A regular file, open at its start. It stays what it is when the name is replaced.
#[derive(Debug)]
pub struct OpenFile {
    /// The file itself.
    pub file: File,
    /// Its length when it was opened; the workload may cut or extend it while it is sent.
    pub bytes: u64,
    /// When it was last modified.
    pub modified: SystemTime,
    /// Permission bits.
    pub mode: u32,
    /// Its entity tag.
    pub etag: Etag,
}

/// Which state of which file stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(State);

impl Version {
    /// Whether the same version later means the same content: not while a second change could fall into
    /// one tick of the kernel's clock.
    pub fn is_settled(&self) -> bool {
        self.0.is_settled()
    }
}

impl Root {
    /// What stands under a name now, without opening it: cheaper than [`open_file`](Self::open_file).
    ///
    /// # Errors
    /// As for `open_file`.
    pub fn version(&self, path: &RelativePath) -> Result<Version, FileError> {
        let (_, metadata) = self.open_checked(path, OFlag::O_PATH)?;
        Ok(Version(State::of(&metadata)))
    }

    /// Opens a regular file. Never blocks on a FIFO, and never wakes the one who writes to it.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `NotAFile`, `OutsideRoot`, `NotADirectory`, `Denied` and `Io`.
    pub fn open_file(&self, path: &RelativePath) -> Result<OpenFile, FileError> {
        let (file, metadata) = self.open_regular(path)?;
        let etag = self.tags.tag(&file, &metadata).map_err(|error| FileError::from_io(error, path))?;
        Ok(OpenFile {
            bytes: metadata.len(),
            modified: metadata.modified().unwrap_or(UNIX_EPOCH),
            mode: metadata.permissions().mode() & 0o7777,
            file,
            etag,
        })
    }

    /// Looks before it opens: merely opening a device or a FIFO has effects.
    pub(super) fn open_regular(&self, path: &RelativePath) -> Result<(File, Metadata), FileError> {
        self.open_checked(path, OFlag::O_PATH)?;
        // Somebody may swap in something else between the two, hence the flags.
        self.open_checked(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }

    fn open_checked(&self, path: &RelativePath, flags: OFlag) -> Result<(File, Metadata), FileError> {
        let file =
            File::from(self.open_beneath(path, flags).map_err(|errno| FileError::from_errno(errno, path))?);
        let metadata = file.metadata().map_err(|error| FileError::from_io(error, path))?;
        let kind = metadata.file_type();
        if kind.is_file() {
            Ok((file, metadata))
        } else if kind.is_dir() {
            Err(FileError::IsDirectory(path.display()))
        } else {
            Err(FileError::NotAFile(path.display()))
        }
    }
}
