//! What is to be at which path once an archive is published: each path once, directories above what is
//! in them, no more of them than allowed. Pure: knows nothing of the disk.
use std::collections::BTreeMap;

use super::Place;
use crate::files::stage::{HiddenName, Staged};
use crate::files::{FileError, RelativePath};

/// Bytes of a path, on average.
const PATH_BYTES: usize = 256;

/// A staged file.
#[derive(Debug)]
pub(super) enum Contents<'r> {
    /// Without a name, as an open file.
    Open(Staged<'r>, #[allow(dead_code, reason = "its drop gives the place back")] Place<'r>),
    /// Under a hidden name.
    Aside(HiddenName),
}

/// What a path is to be.
#[derive(Debug)]
pub(super) enum Node<'r> {
    /// A directory, with this mode if it is made.
    Directory(Option<u32>),
    File(Contents<'r>),
}

/// All paths of an archive, sorted: a directory comes before what is in it.
#[derive(Debug)]
pub(super) struct Plan<'r> {
    /// The directory the archive goes to.
    pub(super) base: RelativePath,
    pub(super) nodes: BTreeMap<RelativePath, Node<'r>>,
    path_bytes: usize,
    limit: usize,
}

impl<'r> Plan<'r> {
    pub(super) fn new(base: &RelativePath, limit: usize) -> Self {
        Plan { base: base.clone(), nodes: BTreeMap::new(), path_bytes: 0, limit }
    }

    /// A directory; it may be told twice, and be known from what is in it.
    pub(super) fn add_directory(&mut self, path: RelativePath, mode: Option<u32>) -> Result<(), FileError> {
        if !path.is_root() {
            self.add_above(&path)?;
        }
        match self.nodes.get_mut(&path) {
            Some(Node::Directory(known)) => *known = mode.or(*known),
            Some(Node::File(_)) => return Err(clash(&path)),
            None => self.insert(path, Node::Directory(mode))?,
        }
        Ok(())
    }

    /// Makes sure that a file may be at `path`, and counts it.
    pub(super) fn expect_file(&mut self, path: &RelativePath) -> Result<(), FileError> {
        match self.nodes.get(path) {
            _ if *path == self.base => Err(refused(path, "is the directory itself")),
            Some(Node::Directory(_)) => Err(clash(path)),
            Some(Node::File(_)) => Err(refused(path, "is there twice")),
            None => {
                self.add_above(path)?;
                self.count(path)
            }
        }
    }

    /// The file that was expected.
    pub(super) fn add_file(&mut self, path: RelativePath, contents: Contents<'r>) {
        self.nodes.insert(path, Node::File(contents));
    }

    /// The directories between the base and `path`.
    fn add_above(&mut self, path: &RelativePath) -> Result<(), FileError> {
        let mut missing = Vec::new();
        let mut here = path.clone();
        while let Some((above, _)) = here.split_last() {
            if here == self.base || above == self.base {
                break;
            }
            match self.nodes.get(&above) {
                Some(Node::Directory(_)) => break,
                Some(Node::File(_)) => return Err(clash(&above)),
                None => missing.push(above.clone()),
            }
            here = above;
        }
        missing.into_iter().try_for_each(|path| self.insert(path, Node::Directory(None)))
    }

    fn insert(&mut self, path: RelativePath, node: Node<'r>) -> Result<(), FileError> {
        self.count(&path)?;
        self.nodes.insert(path, node);
        Ok(())
    }

    fn count(&mut self, path: &RelativePath) -> Result<(), FileError> {
        self.path_bytes += path.as_os_str().len();
        if self.nodes.len() >= self.limit || self.path_bytes > self.limit.saturating_mul(PATH_BYTES) {
            return Err(FileError::TooManyMembers { limit: self.limit });
        }
        Ok(())
    }
}

fn refused(path: &RelativePath, problem: &str) -> FileError {
    FileError::MemberRefused { member: path.display(), problem: problem.to_owned() }
}

fn clash(path: &RelativePath) -> FileError {
    refused(path, "is a file and a directory")
}
