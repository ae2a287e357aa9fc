//! What a caller counts on when a file is replaced or deleted: the preconditions of RFC 9110, sections
//! 13.1.1 and 13.1.2. A directory, a link or a device is a version without a sum.
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::root::lstat;
use super::{Etag, FileError, RelativePath, Root};

/// Versions of a file that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// `*`: any.
    Any,
    /// One of those with these entity tags, told without quotes and in lower case: the SHA-256, or what a
    /// weak tag has.
    Tags(Vec<String>),
}

/// Conditions, each of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: one of these is there. A weak tag does not say so.
    pub if_match: Option<Versions>,
    /// `If-None-Match`: none of these is.
    pub if_none_match: Option<Versions>,
}

impl Root {
    /// `PreconditionFailed` unless the conditions hold. What they say of a long file may take a while to
    /// find out, once for each of its states.
    pub(super) fn check(&self, path: &RelativePath, conditions: &Conditions) -> Result<(), FileError> {
        for (versions, wanted) in [(&conditions.if_match, true), (&conditions.if_none_match, false)] {
            let weakly = !wanted;
            if let Some(versions) = versions
                && self.is_there(path, versions, weakly)? != wanted
            {
                return Err(FileError::PreconditionFailed(path.display()));
            }
        }
        Ok(())
    }

    fn is_there(&self, path: &RelativePath, versions: &Versions, weakly: bool) -> Result<bool, FileError> {
        let Versions::Tags(wanted) = versions else { return self.is_name(path) };
        let (file, metadata) = match self.open_regular(path) {
            Ok(open) => open,
            Err(
                FileError::NotFound(_)
                | FileError::OutsideRoot(_)
                | FileError::LinkLoop(_)
                | FileError::IsDirectory(_)
                | FileError::NotAFile(_),
            ) => return Ok(false),
            Err(other) => return Err(other),
        };
        // Whoever has a weak tag got it before the sum was known.
        let weak = Etag::weak(&metadata).to_string();
        if weakly && wanted.iter().any(|tag| weak == format!("W/\"{tag}\"")) {
            return Ok(true);
        }
        let found = self.tags.sha256(&file, &metadata).map_err(|e| FileError::from_io(e, path))?;
        Ok(found.is_some_and(|found| wanted.contains(&found)))
    }

    /// Whether anything has this name: a link has, wherever it leads, and an upload would replace it.
    fn is_name(&self, path: &RelativePath) -> Result<bool, FileError> {
        let Some((parent, name)) = path.split_last() else { return Ok(true) };
        let directory = match self.open_directory(&parent) {
            Ok(directory) => directory,
            Err(FileError::NotFound(_) | FileError::OutsideRoot(_) | FileError::LinkLoop(_)) => {
                return Ok(false);
            }
            Err(other) => return Err(other),
        };
        match lstat(directory.as_fd(), name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(FileError::from_errno(errno, path)),
        }
    }
}
