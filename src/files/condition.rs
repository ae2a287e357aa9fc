//! What a caller counts on when a file is replaced or deleted: the preconditions of RFC 9110, sections
//! 13.1.1 and 13.1.2. A directory, a link or a device is a version without a sum.
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::sync::MutexGuard;

use nix::errno::Errno;

use super::etag::{State, is_sum};
use super::root::lstat;
use super::{Etag, FileError, RelativePath, Root};
use crate::base::lock::lock;

/// Versions of a file that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// `*`: any.
    Any,
    /// One of those with these entity tags, told without quotes and in lower case: the SHA-256, or what a
    /// weak tag has.
    Tags(Vec<String>),
}

/// How often a file that changes all the time is read anew.
const TRIES: usize = 3;

/// Conditions, each of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// A file longer than this, in bytes, has no sum, unless an upload told it.
    pub max_bytes: u64,
    /// `If-Match`: one of these is there. A weak tag does not say so.
    pub if_match: Option<Versions>,
    /// `If-None-Match`: none of these is.
    pub if_none_match: Option<Versions>,
}

impl Conditions {
    /// Whether a file may have to be read to know whether they hold.
    pub fn reads(&self) -> bool {
        [&self.if_match, &self.if_none_match]
            .iter()
            .any(|versions| matches!(versions, Some(Versions::Tags(_))))
    }
}

/// The sum that was found when conditions were looked at, with the state of the file it is of.
#[derive(Debug, Default)]
pub(super) struct Sum(Option<(State, Option<String>)>);

impl Root {
    /// `PreconditionFailed` unless the conditions hold. What they say of a long file may take a while to
    /// find out, once for each of its states.
    pub(super) fn check(&self, path: &RelativePath, conditions: &Conditions) -> Result<Sum, FileError> {
        let mut sum = Sum::default();
        self.look(path, conditions, &mut |file, metadata| {
            let state = State::of(metadata);
            if sum.0.as_ref().is_none_or(|(known, _)| *known != state) {
                sum.0 = Some((state, self.tags.sha256(file, metadata, conditions.max_bytes)?));
            }
            Ok(sum.0.as_ref().and_then(|(_, sum)| sum.clone()))
        })?;
        Ok(sum)
    }

    /// Waits for the turn to publish or delete, with the conditions met: no other upload or deletion acts until
    /// the guard is dropped.
    pub(super) fn turn(
        &self,
        path: &RelativePath,
        conditions: &Conditions,
    ) -> Result<MutexGuard<'_, ()>, FileError> {
        for _ in 0..TRIES {
            // Reads a long file, if need be, before the lock is held.
            let sum = self.check(path, conditions)?;
            let publishing = lock(&self.publishing);
            if self.check_again(path, conditions, &sum)? {
                return Ok(publishing);
            }
        }
        // Whatever it was, it is another one by now.
        let publishing = lock(&self.publishing);
        self.look(path, conditions, &mut |_, _| Ok(None))?;
        Ok(publishing)
    }

    /// The same without reading: with the sum that was found before. False if that is of another state of the
    /// file, or of another file.
    pub(super) fn check_again(
        &self,
        path: &RelativePath,
        conditions: &Conditions,
        sum: &Sum,
    ) -> Result<bool, FileError> {
        let mut is_same = true;
        let looked = self.look(path, conditions, &mut |_, metadata| {
            let known = sum.0.as_ref().filter(|(state, _)| *state == State::of(metadata));
            is_same &= known.is_some();
            Ok(known.and_then(|(_, sum)| sum.clone()))
        });
        if is_same { looked.map(|()| true) } else { Ok(false) }
    }

    fn look(
        &self,
        path: &RelativePath,
        conditions: &Conditions,
        sum: &mut dyn FnMut(&File, &Metadata) -> io::Result<Option<String>>,
    ) -> Result<(), FileError> {
        for (versions, wanted) in [(&conditions.if_match, true), (&conditions.if_none_match, false)] {
            let weakly = !wanted;
            if let Some(versions) = versions
                && self.is_there(path, versions, weakly, sum)? != wanted
            {
                return Err(FileError::PreconditionFailed(path.display()));
            }
        }
        Ok(())
    }

    fn is_there(
        &self,
        path: &RelativePath,
        versions: &Versions,
        weakly: bool,
        sum: &mut dyn FnMut(&File, &Metadata) -> io::Result<Option<String>>,
    ) -> Result<bool, FileError> {
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
        if !wanted.iter().any(|tag| is_sum(tag)) {
            return Ok(false);
        }
        let found = sum(&file, &metadata).map_err(|e| FileError::from_io(e, path))?;
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
