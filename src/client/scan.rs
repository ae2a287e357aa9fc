//! What is in a directory here, and what has changed since the last look.
use super::exclude::Exclude;
use super::failure::Failure;
use super::path::below;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Directories below one another.
const MAX_DEPTH: usize = 64;

/// One state of a file: another one differs in some of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) bytes: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// Nanoseconds since 1970.
    pub(super) modified_ns: i128,
    changed_ns: i128,
    inode: u64,
}

impl State {
    fn of(metadata: &fs::Metadata) -> State {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        State {
            bytes: metadata.size(),
            mode: metadata.mode() & 0o777,
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// Everything below a directory, by its path from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) files: BTreeMap<String, State>,
    /// With their permission bits.
    pub(super) directories: BTreeMap<String, u32>,
    /// Links, sockets and the like, which stay here; nothing of that name is deleted there.
    pub(super) others: BTreeSet<String>,
    /// Names that are not UTF-8, which stay here as well.
    pub(super) unnamed: usize,
}

impl Snapshot {
    /// Looks through a directory; `enter` is told of each one before it is read.
    ///
    /// # Errors
    /// A directory that cannot be read; what vanishes meanwhile is passed over, except for the top.
    pub(super) fn take(
        top: &Path,
        exclude: &Exclude,
        enter: &mut dyn FnMut(&Path),
    ) -> Result<Snapshot, Failure> {
        let mut snapshot = Snapshot::default();
        let mut waiting = vec![(String::new(), 0)];
        while let Some((directory, depth)) = waiting.pop() {
            let at = top.join(&directory);
            enter(&at);
            let entries = match fs::read_dir(&at) {
                Err(error) if error.kind() == ErrorKind::NotFound && depth > 0 => continue,
                other => other.map_err(|error| Failure::local(at.display(), error))?,
            };
            for entry in entries {
                let entry = entry.map_err(|error| Failure::local(at.display(), error))?;
                let Ok(name) = entry.file_name().into_string() else {
                    snapshot.unnamed += 1;
                    continue;
                };
                let path = below(&directory, &name);
                if exclude.matches(&path) {
                    continue;
                }
                // Of a link it tells the link's own.
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_file() {
                    snapshot.files.insert(path, State::of(&metadata));
                } else if metadata.is_dir() && depth < MAX_DEPTH {
                    snapshot.directories.insert(path.clone(), metadata.mode() & 0o777);
                    waiting.push((path, depth + 1));
                } else {
                    snapshot.others.insert(path);
                }
            }
        }
        Ok(snapshot)
    }

    /// Makes any other look find this file changed; false if it is no file.
    pub(super) fn forget(&mut self, path: &str) -> bool {
        self.files.get_mut(path).map(|state| state.changed_ns = i128::MIN).is_some()
    }

    /// What is not taken along, for people; nothing if all is.
    pub(super) fn left_out(&self) -> Option<String> {
        let count = self.others.len() + self.unnamed;
        (count > 0).then(|| {
            format!("{count} names are left out: links, sockets and the like, and what is not UTF-8")
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_is_seen_with_what_is_left_out() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at(".git/x")).unwrap();
        for name in ["a/b/f", "f", ".git/x/f", "a/f.swp"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("/etc", at("link")).unwrap();
        let mut entered = 0;
        let take = |entered: &mut usize| {
            Snapshot::take(top.path(), &Exclude::new(&[]), &mut |_| *entered += 1).unwrap()
        };
        let first = take(&mut entered);
        assert_eq!(first.files.keys().collect::<Vec<_>>(), ["a/b/f", "f"]);
        assert_eq!(first.directories.keys().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((first.others.len(), first.unnamed, entered), (1, 0, 3));
        assert_eq!(first.files["f"].bytes, 1);
        // Saved by renaming over it: the same length, another file.
        fs::write(at("new"), "F").unwrap();
        fs::rename(at("new"), at("f")).unwrap();
        let second = take(&mut entered);
        assert_ne!(first.files["f"], second.files["f"]);
        assert_eq!(first.files["a/b/f"], second.files["a/b/f"]);
        assert!(Snapshot::take(&at("absent"), &Exclude::new(&[]), &mut |_| {}).is_err());
    }
}
