//! What can go wrong with files below the root. Names the path below the root, never the host's,
//! and knows no HTTP status.
use std::fmt;
use std::io;

use nix::errno::Errno;

use super::RelativePath;

/// Why an operation on the root's files failed. A `String` is the path below the root, for people.
#[derive(Debug)]
pub enum FileError {
    /// The path from the URL breaks a rule; the text says which.
    PathInvalid(&'static str),
    /// The path goes through a symbolic link that leaves the root or is absolute (or through any link, on
    /// kernels without `openat2(2)`).
    OutsideRoot(String),
    /// The path goes through symbolic links without end, and so leads nowhere.
    LinkLoop(String),
    /// What was written cannot get its name: between the two another file system begins, or did not a moment
    /// ago.
    OtherFileSystem(String),
    /// A file is needed, a directory is there.
    IsDirectory(String),
    /// A directory is needed, something else is there; often a parent that is a file.
    NotADirectory(String),
    /// A FIFO, socket or device is there.
    NotAFile(String),
    /// The directory to delete still holds something.
    NotEmpty(String),
    /// Nothing of that name is there.
    NotFound(String),
    /// The body is longer than allowed.
    TooLarge {
        /// The most bytes one upload may have.
        limit_bytes: u64,
    },
    /// The disk or the quota is full.
    NoSpace(String),
    /// The file system is mounted read-only.
    ReadOnly(String),
    /// The permissions forbid it.
    Denied(String),
    /// The file is not, or no longer, the version the caller counts on.
    PreconditionFailed(String),
    /// The file system allows no name or path that long.
    NameTooLong(String),
    /// The body is no whole archive; the text says what is wrong with it.
    #[cfg(feature = "archive")]
    ArchiveInvalid(String),
    /// A member of the archive cannot be taken; nothing of the archive is.
    #[cfg(feature = "archive")]
    MemberRefused {
        /// Its name, as it stands there.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The archive holds more files and directories than allowed, or their names are too long together.
    #[cfg(feature = "archive")]
    TooManyMembers {
        /// The most files and directories of one archive.
        limit: usize,
    },
    /// As many archives as can be are being taken now.
    #[cfg(feature = "archive")]
    Busy,
    /// The body could not be read to its announced end: the reader's own error.
    Body(io::Error),
    /// Anything else the kernel reports.
    Io {
        /// The path below the root.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl FileError {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            FileError::PathInvalid(_) => "path_invalid",
            FileError::OutsideRoot(_) | FileError::LinkLoop(_) => "outside_root",
            FileError::OtherFileSystem(_) => "other_file_system",
            FileError::IsDirectory(_) => "is_directory",
            FileError::NotADirectory(_) => "not_a_directory",
            FileError::NotAFile(_) => "not_a_file",
            FileError::NotEmpty(_) => "not_empty",
            FileError::NotFound(_) => "not_found",
            FileError::TooLarge { .. } => "too_large",
            FileError::NoSpace(_) => "no_space",
            FileError::ReadOnly(_) => "read_only_file_system",
            FileError::Denied(_) => "denied",
            FileError::PreconditionFailed(_) => "precondition_failed",
            FileError::NameTooLong(_) => "name_too_long",
            #[cfg(feature = "archive")]
            FileError::ArchiveInvalid(_) => "archive_invalid",
            #[cfg(feature = "archive")]
            FileError::MemberRefused { .. } => "member_refused",
            #[cfg(feature = "archive")]
            FileError::TooManyMembers { .. } => "too_many_members",
            #[cfg(feature = "archive")]
            FileError::Busy => "busy",
            FileError::Body(_) => "body_incomplete",
            FileError::Io { .. } => "io",
        }
    }

    /// Sorts a system call's error.
    pub(super) fn from_errno(errno: Errno, path: &RelativePath) -> Self {
        let subject = path.display();
        match errno {
            Errno::ENOENT => FileError::NotFound(subject),
            Errno::EXDEV => FileError::OutsideRoot(subject),
            Errno::ELOOP => FileError::LinkLoop(subject),
            Errno::EISDIR => FileError::IsDirectory(subject),
            Errno::ENOTDIR => FileError::NotADirectory(subject),
            Errno::ENXIO | Errno::ENODEV => FileError::NotAFile(subject),
            Errno::ENOTEMPTY | Errno::EEXIST => FileError::NotEmpty(subject),
            Errno::ENOSPC | Errno::EDQUOT => FileError::NoSpace(subject),
            Errno::EROFS => FileError::ReadOnly(subject),
            Errno::EACCES | Errno::EPERM => FileError::Denied(subject),
            Errno::ENAMETOOLONG => FileError::NameTooLong(subject),
            other => FileError::Io { path: subject, source: other.into() },
        }
    }

    /// Sorts the error of giving a file its name.
    pub(super) fn of_naming(errno: Errno, path: &RelativePath) -> Self {
        match errno {
            Errno::EXDEV => FileError::OtherFileSystem(path.display()),
            other => Self::from_errno(other, path),
        }
    }

    /// Sorts the standard library's error.
    pub(super) fn from_io(error: io::Error, path: &RelativePath) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::from_errno(Errno::from_raw(number), path),
            None => FileError::Io { path: path.display(), source: error },
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::PathInvalid(rule) => write!(f, "the path is refused: {rule}"),
            FileError::OutsideRoot(path) => write!(f, "{path}: a symbolic link leads out of the root"),
            FileError::LinkLoop(path) => write!(f, "{path}: symbolic links lead around in a circle"),
            FileError::OtherFileSystem(path) => {
                write!(f, "{path}: another file system is mounted there, or was while it was written")
            }
            FileError::IsDirectory(path) => write!(f, "{path}: is a directory"),
            FileError::NotADirectory(path) => write!(f, "{path}: not a directory, or below a file"),
            FileError::NotAFile(path) => write!(f, "{path}: not a regular file"),
            FileError::NotEmpty(path) => write!(f, "{path}: the directory is not empty"),
            FileError::NotFound(path) => write!(f, "{path}: not found"),
            FileError::TooLarge { limit_bytes } => write!(f, "the body exceeds {limit_bytes} bytes"),
            FileError::NoSpace(path) => write!(f, "{path}: no space left"),
            FileError::ReadOnly(path) => write!(f, "{path}: the file system is read-only"),
            FileError::Denied(path) => write!(f, "{path}: permission denied"),
            FileError::PreconditionFailed(path) => {
                write!(f, "{path}: is not as If-Match or If-None-Match has it")
            }
            FileError::NameTooLong(path) => write!(f, "{path}: the name is too long"),
            #[cfg(feature = "archive")]
            FileError::ArchiveInvalid(problem) => write!(f, "the archive is refused: {problem}"),
            #[cfg(feature = "archive")]
            FileError::MemberRefused { member, problem } => write!(f, "the member {member}: {problem}"),
            #[cfg(feature = "archive")]
            FileError::TooManyMembers { limit } => write!(
                f,
                "the archive has more than {limit} files and directories, or their names are too long together"
            ),
            #[cfg(feature = "archive")]
            FileError::Busy => f.write_str("other archives are being taken; try again"),
            FileError::Body(source) => write!(f, "the body did not arrive whole: {source}"),
            FileError::Io { path, source } => write!(f, "{path}: {source}"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileError::Body(source) | FileError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
