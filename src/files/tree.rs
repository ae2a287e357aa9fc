//! Everything below a directory in one list, with the sums of the files: what somebody needs to know who
//! keeps a directory elsewhere equal to it. Looks at links, never through them.
use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::dir::Dir;
use nix::sys::stat::fstat;

use super::directory::{Entry, is_listed};
use super::path::MAX_DEPTH;
use super::root::lstat;
use super::{FileError, Kind, RelativePath, Root};

/// Bytes of all paths together.
const PATH_BYTES: usize = 4 << 20;
/// Bytes that one list reads to hash them; what is beyond has no sum.
const HASHED_BYTES: u64 = 512 << 20;

/// What is below a directory, sorted by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// As many as were asked for, and 4 MiB of paths at most.
    pub entries: Vec<Found>,
    /// Whether there are more.
    pub truncated: bool,
}

/// One file, directory, link or other thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the directory that was asked for; bytes that are not UTF-8 became U+FFFD.
    pub path: String,
    /// What `lstat(2)` says of it; the name in it is the last of the path.
    pub entry: Entry,
    /// Of a file, if it was asked for, and as far as it is known or cheap.
    pub sha256: Option<String>,
}

impl Root {
    /// Lists everything below a directory but what bears one of the names in `except`, on the file
    /// system of that directory, as deep as uploads go. Unfinished uploads are left out, and what
    /// vanishes or closes meanwhile. With `sums`, files have their SHA-256 up to 64 MiB each, 512 MiB
    /// together, and longer ones if an upload told it.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `OutsideRoot`, `Denied` and `Io`, for the directory itself.
    pub fn tree(
        &self,
        top: &RelativePath,
        limit: usize,
        except: &[&str],
        sums: bool,
    ) -> Result<Tree, FileError> {
        let device = fstat(&self.open_directory(top)?).map_err(|e| FileError::from_errno(e, top))?.st_dev;
        let mut tree = Tree { entries: Vec::new(), truncated: false };
        let mut path_bytes = 0;
        let mut hashed = 0;
        // Directories to be read, each with its path from the top.
        let mut waiting = VecDeque::from([(top.clone(), OsString::new())]);
        while let Some((directory, prefix)) = waiting.pop_front() {
            let Ok(opened) = self.open_directory(&directory) else { continue };
            let Ok(mut opened) = Dir::from_fd(opened) else { continue };
            let names = opened.iter().map_while(Result::ok);
            let names = names.map(|entry| entry.file_name().to_owned());
            let wanted = |name: &CString| {
                is_listed(name) && !except.iter().any(|other| other.as_bytes() == name.to_bytes())
            };
            // One more than fits: enough to know that there are more.
            let most = limit - tree.entries.len() + 1;
            let names: Vec<_> = names.filter(wanted).take(most).collect();
            // Or that there may be, if one of them is gone by now.
            tree.truncated |= names.len() == most;
            for name in names {
                let name = OsStr::from_bytes(name.to_bytes());
                let Ok(stat) = lstat(opened.as_fd(), name) else { continue };
                let shown = joined(&prefix, name);
                path_bytes += shown.len();
                if tree.entries.len() == limit || path_bytes > PATH_BYTES {
                    tree.truncated = true;
                    return Ok(sorted(tree));
                }
                let mut path = directory.clone();
                path.push(name);
                let entry = Entry::new(name, &stat);
                let sha256 = if sums { self.sum(&path, &entry, &mut hashed) } else { None };
                if entry.kind == Kind::Directory && stat.st_dev == device {
                    match path.names().count() < MAX_DEPTH {
                        true => waiting.push_back((path, shown.clone())),
                        false => tree.truncated = true,
                    }
                }
                tree.entries.push(Found { path: shown.to_string_lossy().into_owned(), entry, sha256 });
            }
        }
        Ok(sorted(tree))
    }

    fn sum(&self, path: &RelativePath, entry: &Entry, hashed: &mut u64) -> Option<String> {
        let total = hashed.saturating_add(entry.bytes);
        if entry.kind != Kind::File || total > HASHED_BYTES {
            return None;
        }
        *hashed = total;
        self.open_file(path).ok()?.etag.sha256().map(str::to_owned)
    }
}

fn sorted(mut tree: Tree) -> Tree {
    tree.entries.sort_by(|a, b| a.path.cmp(&b.path));
    tree
}

fn joined(prefix: &OsStr, name: &OsStr) -> OsString {
    if prefix.is_empty() {
        return name.to_owned();
    }
    OsString::from_vec([prefix.as_bytes(), b"/", name.as_bytes()].concat())
}
