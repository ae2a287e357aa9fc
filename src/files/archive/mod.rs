//! A tar archive becomes the files below a directory, all of them or none: each member is staged as a
//! single upload is, and only when the whole archive was read and fits do they get their names.
mod members;
mod places;
mod plan;
mod publish;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::unistd::syncfs;

use super::stage::Staged;
use super::{FileError, RelativePath, Root};
use members::{Kind, refused};
use places::Places;
use plan::{Contents, Plan};

/// Archives that are taken at a time: each keeps its names in memory.
const AT_ONCE: usize = 4;
/// Members, of all archives together, that are kept without a name, as open files. Further ones get
/// hidden names: no listing of ours shows those, but a watcher of the directory may see them.
const UNNAMED: usize = 128;
/// Files of an archive that are synced one by one; for more, the file system is, once.
const SYNCED_SINGLY: u64 = 64;
/// Bytes copied at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// Descriptors that archives hold at most, besides their connections.
pub const DESCRIPTORS: u64 = (UNNAMED + AT_ONCE * (8 + places::MOST)) as u64;

/// What is in use below one root.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// Archives now being taken.
    archives: AtomicUsize,
    /// Their members that are open files.
    unnamed: AtomicUsize,
}

/// What an archive may not exceed.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveOptions {
    /// Bytes of all files together.
    pub max_bytes: u64,
    /// Files and directories, those included that only a longer name implies. Their paths may have 256
    /// bytes each on average.
    pub max_members: usize,
}

/// A published archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Files in it.
    pub files: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// A place among so many, given back when it is dropped.
#[derive(Debug)]
struct Place<'r>(&'r AtomicUsize);

impl<'r> Place<'r> {
    fn take(of: &'r AtomicUsize, most: usize) -> Option<Place<'r>> {
        let more = |now| (now < most).then_some(now + 1);
        of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place(of))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Root {
    /// Reads a tar archive from `body` (ustar, GNU or pax; files and directories alone) and puts its
    /// members below the directory `base`, which is made if need be. When this returns all is on disk.
    ///
    /// A file that is there is replaced, a directory stays and keeps its mode. Only permission bits are
    /// taken over, and no owner or time.
    ///
    /// # Errors
    /// Any [`FileError`]. Nothing has then changed, with these exceptions. If a name cannot be given
    /// after others were (the disk is full, the workload moves directories meanwhile), those others are
    /// taken back in reverse order, old files included, and who looks meanwhile may see a mixture; what
    /// cannot be taken back stays, and is logged. If the machine loses power while names are given, some
    /// are given; each file is whole. The disk may fail (`Io`) to sync names that are visible already.
    pub fn upload_archive(
        &self,
        base: &RelativePath,
        body: &mut dyn Read,
        options: ArchiveOptions,
    ) -> Result<Unpacked, FileError> {
        let _running = Place::take(&self.in_use.archives, AT_ONCE).ok_or(FileError::Busy)?;
        // What is hopeless is refused before the body is read.
        let mut places = Places::new(self, base)?;

        let mut plan = Plan::new(base, options.max_members);
        let mut unpacked = Unpacked { files: 0, bytes: 0 };
        let mut buffer = vec![0; BUFFER_BYTES];
        members::each(body, |member| {
            let name = member.name.clone();
            let path = base.join(&name).map_err(|error| refused(&name, error))?;
            let parent = path.split_last().map_or_else(RelativePath::root, |(parent, _)| parent);
            let problem = format!("is on one file system more than the {} of an archive", places::MOST);
            let place = places.find(&parent).ok_or_else(|| refused(&name, problem))?;
            if member.kind == Kind::Directory {
                return plan.add_directory(path, Some(member.mode));
            }
            unpacked.files += 1;
            unpacked.bytes = unpacked.bytes.saturating_add(member.bytes);
            if unpacked.bytes > options.max_bytes {
                return Err(FileError::TooLarge { limit_bytes: options.max_bytes });
            }
            plan.expect_file(&path)?;
            let failed = |errno| FileError::from_errno(errno, &path);
            let disk = |error| FileError::from_io(error, &path);
            let (staged, staging) = places.stage(place, &parent).map_err(failed)?;
            let mode = member.mode;
            member.copy(&mut buffer, |piece| (&staged.file).write_all(piece).map_err(disk))?;
            self.dress(&staged.file, Some(mode), None).map_err(disk)?;
            if unpacked.files <= SYNCED_SINGLY {
                staged.file.sync_all().map_err(disk)?;
            }
            let contents = self.keep_staged(staged, &staging).map_err(failed)?;
            plan.add_file(path, contents);
            Ok(())
        })?;
        let sync_all = unpacked.files > SYNCED_SINGLY;
        let sync = || places.all().try_for_each(syncfs);
        if sync_all {
            sync().map_err(|errno| FileError::from_errno(errno, base))?;
        }
        publish::publish(self, plan, sync_all.then_some(&sync))?;
        Ok(unpacked)
    }

    /// Keeps a staged file as an open one while there is room for that, else under a hidden name.
    fn keep_staged<'r>(&'r self, staged: Staged<'r>, staging: &Rc<OwnedFd>) -> Result<Contents<'r>, Errno> {
        match Place::take(&self.in_use.unnamed, UNNAMED) {
            Some(place) => Ok(Contents::Open(staged, place)),
            None => staged.put_aside(staging).map(Contents::Aside),
        }
    }
}
