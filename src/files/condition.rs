//! What a caller counts on when a file is replaced or deleted: the preconditions of RFC 9110, sections
//! 13.1.1 and 13.1.2. A directory or a device is a version without a sum.
use super::{FileError, RelativePath, Root};

/// Versions of a file that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// `*`: any.
    Any,
    /// One of these SHA-256 digests, in lower-case hexadecimal.
    Sha256(Vec<String>),
}

/// Conditions, each of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: one of these is there.
    pub if_match: Option<Versions>,
    /// `If-None-Match`: none of these is.
    pub if_none_match: Option<Versions>,
}

impl Root {
    /// `PreconditionFailed` unless the conditions hold. What they say of a long file may take a while to
    /// find out, once for each of its states.
    pub(super) fn check(&self, path: &RelativePath, conditions: &Conditions) -> Result<(), FileError> {
        for (versions, wanted) in [(&conditions.if_match, true), (&conditions.if_none_match, false)] {
            if let Some(versions) = versions
                && self.is_there(path, versions)? != wanted
            {
                return Err(FileError::PreconditionFailed(path.display()));
            }
        }
        Ok(())
    }

    fn is_there(&self, path: &RelativePath, versions: &Versions) -> Result<bool, FileError> {
        let (file, metadata) = match self.open_regular(path) {
            Ok(open) => open,
            Err(FileError::NotFound(_) | FileError::OutsideRoot(_)) => return Ok(false),
            Err(FileError::IsDirectory(_) | FileError::NotAFile(_)) => return Ok(*versions == Versions::Any),
            Err(other) => return Err(other),
        };
        let Versions::Sha256(wanted) = versions else { return Ok(true) };
        let found = self.tags.sha256(&file, &metadata).map_err(|e| FileError::from_io(e, path))?;
        Ok(found.is_some_and(|found| wanted.contains(&found)))
    }
}
