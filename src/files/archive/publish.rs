//! Gives the members of an archive their names, or takes them back: first everything is looked at, then
//! the directories are made, then each file gets its name, the one it replaces being kept under a hidden
//! name until all of them have theirs.
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::plan::{Contents, Node, Plan};
use crate::base::lock::lock;
use crate::files::root::sync_directory;
use crate::files::stage::{remove, take_name};
use crate::files::upload::replaced;
use crate::files::{FileError, RelativePath, Root};

/// Syncs everything at once.
type SyncAll<'s> = Option<&'s dyn Fn() -> Result<(), Errno>>;

/// Publishes the plan. With `sync_all` that is done, instead of syncing each directory.
pub(super) fn publish(root: &Root, plan: Plan<'_>, sync_all: SyncAll<'_>) -> Result<(), FileError> {
    look(root, &plan)?;
    let mut done = Done { root, directories: Vec::new(), files: Vec::new(), kept: false };
    let modes = done.make_directories(&plan)?;
    let base = plan.base.clone();
    let touched = done.name_files(plan)?;
    done.sync(&base, touched, modes, sync_all)
}

/// Refuses what is hopeless while nothing has changed.
fn look(root: &Root, plan: &Plan<'_>) -> Result<(), FileError> {
    let mut here = Here::default();
    let missing = |error: &FileError| matches!(error, FileError::NotFound(_));
    for (path, node) in &plan.nodes {
        match node {
            Node::Directory(_) => match root.open_directory(path) {
                Err(error) if !missing(&error) => return Err(error),
                _ => {}
            },
            Node::File(_) => {
                let Some((parent, name)) = path.split_last() else { continue };
                match here.directory(root, &parent) {
                    Ok(directory) => drop(replaced(&directory, name, path)?),
                    Err(error) if missing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// The directory that was needed last: a sorted plan needs it again.
#[derive(Default)]
struct Here(Option<(RelativePath, Rc<OwnedFd>)>);

impl Here {
    fn directory(&mut self, root: &Root, path: &RelativePath) -> Result<Rc<OwnedFd>, FileError> {
        if let Some((known, directory)) = &self.0
            && known == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = Rc::new(root.open_directory(path)?);
        self.0 = Some((path.clone(), Rc::clone(&directory)));
        Ok(directory)
    }
}

/// What has changed so far. Dropped before all has, it is taken back.
struct Done<'r> {
    root: &'r Root,
    /// Those that were made, in order.
    directories: Vec<RelativePath>,
    files: Vec<Named>,
    /// Nothing is taken back any more.
    kept: bool,
}

/// A file that has its name.
struct Named {
    path: RelativePath,
    before: Before,
}

/// What had the name before.
enum Before {
    Nothing,
    /// This file, which now has a hidden name.
    Kept(OsString),
    /// A file that could not be given a second name: some file systems have none.
    Lost,
}

impl Done<'_> {
    /// Makes what is missing from the root down to the last directory of the plan; the modes to be set
    /// at the end, since a directory that is closed to us could not be filled.
    fn make_directories(&mut self, plan: &Plan<'_>) -> Result<BTreeMap<RelativePath, u32>, FileError> {
        let mut modes = BTreeMap::new();
        let mut above = RelativePath::root();
        for name in plan.base.names() {
            above.push(name);
            self.make_directory(&above)?;
        }
        for (path, node) in &plan.nodes {
            if let Node::Directory(mode) = node
                && self.make_directory(path)?
            {
                modes.extend(mode.map(|mode| (path.clone(), mode)));
            }
        }
        Ok(modes)
    }

    /// Makes a directory unless it is there; whether it was made.
    fn make_directory(&mut self, path: &RelativePath) -> Result<bool, FileError> {
        match self.root.open_directory(path) {
            Ok(_) => return Ok(self.directories.last() == Some(path)),
            Err(FileError::NotFound(_)) => {}
            Err(other) => return Err(other),
        }
        let Some((parent, name)) = path.split_last() else {
            return Err(FileError::NotFound(path.display()));
        };
        let above = self.root.open_directory(&parent)?;
        self.root.create_directory(&above, name, path).map_err(|errno| FileError::from_errno(errno, path))?;
        self.directories.push(path.clone());
        Ok(true)
    }

    /// Gives each file its name; the directories that have changed.
    fn name_files(&mut self, plan: Plan<'_>) -> Result<Vec<RelativePath>, FileError> {
        let mut touched: Vec<RelativePath> = Vec::new();
        let mut here = Here::default();
        let root = self.root;
        let _publishing = lock(&root.publishing);
        for (path, node) in plan.nodes {
            let Node::File(contents) = node else { continue };
            let Some((parent, name)) = path.split_last() else { continue };
            let name = name.to_owned();
            let directory = here.directory(root, &parent)?;
            let failed = |errno| FileError::of_naming(errno, &path);
            let before = match replaced(&directory, &name, &path)? {
                None => Before::Nothing,
                Some(_) => keep(&directory, &name),
            };
            let named = match contents {
                Contents::Open(staged, _) => staged.publish(&directory, &name).map(drop),
                Contents::Aside(hidden) => hidden.rename(&directory, &name),
            };
            if let (Err(_), Before::Kept(hidden)) = (&named, &before) {
                let _ = remove(directory.as_fd(), hidden);
            }
            named.map_err(failed)?;
            if touched.last() != Some(&parent) {
                touched.push(parent);
            }
            self.files.push(Named { path, before });
        }
        Ok(touched)
    }

    /// Lets go of what was replaced, gives the directories their modes and makes all of it durable.
    fn sync(
        mut self,
        base: &RelativePath,
        touched: Vec<RelativePath>,
        modes: BTreeMap<RelativePath, u32>,
        all: SyncAll<'_>,
    ) -> Result<(), FileError> {
        self.kept = true;
        self.let_go();
        let above = self.directories.iter().filter_map(|path| path.split_last().map(|(above, _)| above));
        let changed: BTreeSet<_> = touched.into_iter().chain(above).chain(modes.keys().cloned()).collect();
        // The deepest first: a directory that is closed to us closes what is below it.
        for path in changed.into_iter().rev() {
            let mode = modes.get(&path);
            if mode.is_none() && all.is_some() {
                continue;
            }
            let failed = |errno| FileError::from_errno(errno, &path);
            let directory = self.root.open_directory(&path)?;
            if let Some(mode) = mode {
                fchmod(&directory, Mode::from_bits_truncate(*mode)).map_err(failed)?;
            }
            if all.is_none() {
                sync_directory(directory.as_fd()).map_err(failed)?;
            }
        }
        all.map_or(Ok(()), |sync_all| sync_all()).map_err(|errno| FileError::from_errno(errno, base))
    }

    fn let_go(&self) {
        let mut here = Here::default();
        for file in &self.files {
            if let (Before::Kept(hidden), Some((parent, _))) = (&file.before, file.path.split_last())
                && let Ok(directory) = here.directory(self.root, &parent)
            {
                // If this fails, the sweep at the next start finds it.
                let _ = remove(directory.as_fd(), hidden);
            }
        }
    }

    fn take_back(&self) {
        let mut here = Here::default();
        for file in self.files.iter().rev() {
            let Some((parent, name)) = file.path.split_last() else { continue };
            let taken_back = here.directory(self.root, &parent).and_then(|directory| {
                match &file.before {
                    Before::Nothing => remove(directory.as_fd(), name),
                    Before::Kept(hidden) => renameat(&*directory, hidden.as_os_str(), &*directory, name),
                    Before::Lost => Err(Errno::EOPNOTSUPP),
                }
                .map_err(|errno| FileError::from_errno(errno, &file.path))
            });
            if let Err(error) = taken_back {
                log::warn!("an archive could not be published, and this member not be taken back: {error}");
            }
        }
        for path in self.directories.iter().rev() {
            let Some((parent, name)) = path.split_last() else { continue };
            if let Ok(above) = self.root.open_directory(&parent) {
                let _ = unlinkat(&above, name, UnlinkatFlags::RemoveDir);
            }
        }
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.take_back();
        }
    }
}

/// Gives what has the name a second, hidden one.
fn keep(directory: &OwnedFd, name: &OsStr) -> Before {
    let link = |hidden: &OsStr| linkat(directory, name, directory, hidden, AtFlags::empty());
    take_name(link).map_or(Before::Lost, |((), hidden)| Before::Kept(hidden))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::files::stage::Staged;
    use std::fs;
    use std::io::Write;

    #[test]
    fn what_was_named_is_taken_back_when_a_later_name_fails() {
        let host = tempfile::tempdir().unwrap();
        let root = Root::open(host.path()).unwrap();
        fs::write(host.path().join("old"), "before").unwrap();
        let base = RelativePath::root();
        let mut plan = Plan::new(&base, 10);
        let staging = Rc::new(root.open_directory(&base).unwrap());
        for name in ["new/a", "old", "z/last"] {
            let path = base.join(name.as_bytes()).unwrap();
            plan.expect_file(&path).unwrap();
            let staged = Staged::create(&root, &staging).unwrap();
            (&staged.file).write_all(b"after").unwrap();
            plan.add_file(path, Contents::Aside(staged.put_aside(&staging).unwrap()));
        }
        look(&root, &plan).unwrap();
        let mut done = Done { root: &root, directories: Vec::new(), files: Vec::new(), kept: false };
        done.make_directories(&plan).unwrap();
        // The workload interferes.
        fs::remove_dir(host.path().join("z")).unwrap();
        let error = done.name_files(plan).unwrap_err();
        assert_eq!(error.code(), "not_found");
        assert_eq!(fs::read(host.path().join("new/a")).unwrap(), b"after");
        assert_eq!(fs::read(host.path().join("old")).unwrap(), b"after");
        drop(done);
        assert_eq!(fs::read(host.path().join("old")).unwrap(), b"before");
        let names: Vec<_> = fs::read_dir(host.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["old"]);
    }
}
