//! Where the members of an archive are staged: in one directory of each mount that they go to, since a file
//! can be given a name only on the mount it was made on.
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::libc::dev_t;
use nix::sys::stat::fstat;

use crate::files::stage::Staged;
use crate::files::{FileError, RelativePath, Root};

/// Mounts that one archive may go to: each costs a descriptor.
pub(super) const MOST: usize = 8;

/// Tells mounts apart. Parts of one file system (subvolumes) differ in the device, places at which the same
/// one is mounted in the number, which is not to be had without `/proc`.
#[derive(PartialEq, Eq)]
struct Mount {
    device: dev_t,
    number: Option<String>,
}

/// The places of one archive.
pub(super) struct Places<'r> {
    root: &'r Root,
    /// The first is the mount of the archive's own directory.
    known: Vec<(Mount, Rc<OwnedFd>)>,
    /// Archives tell one directory after the other.
    last: Option<(RelativePath, usize)>,
}

impl<'r> Places<'r> {
    /// Looks at the archive's directory, or what there is above it.
    ///
    /// # Errors
    /// Those of opening it.
    pub(super) fn new(root: &'r Root, base: &RelativePath) -> Result<Places<'r>, FileError> {
        let (directory, _) = root.open_existing(base)?;
        let mount = mount_of(root, &directory).ok_or_else(|| FileError::NotFound(base.display()))?;
        Ok(Places { root, known: vec![(mount, Rc::new(directory))], last: None })
    }

    /// The number of the place for what goes into `directory`, which may not be there yet; none if that is
    /// one mount too many. What is wrong with the directory is found when everything is looked at.
    pub(super) fn find(&mut self, directory: &RelativePath) -> Option<usize> {
        let number = match &self.last {
            Some((last, number)) if last == directory => *number,
            _ => self.look(directory)?,
        };
        self.last = Some((directory.clone(), number));
        Some(number)
    }

    /// Starts a file that goes into `directory`, and says where. The first directory of a mount may be closed
    /// to us and need not change; this one has to, and is the mount's place from then on.
    pub(super) fn stage(
        &mut self,
        number: usize,
        directory: &RelativePath,
    ) -> Result<(Staged<'r>, Rc<OwnedFd>), Errno> {
        let (_, place) = self.known.get_mut(number).ok_or(Errno::ENOENT)?;
        let staged = match Staged::create(self.root, place) {
            Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => {
                let (opened, _) = self.root.open_existing(directory).map_err(|_| errno)?;
                *place = Rc::new(opened);
                Staged::create(self.root, place)
            }
            staged => staged,
        };
        Ok((staged?, Rc::clone(place)))
    }

    fn look(&mut self, directory: &RelativePath) -> Option<usize> {
        let Ok((opened, _)) = self.root.open_existing(directory) else { return Some(0) };
        let Some(mount) = mount_of(self.root, &opened) else { return Some(0) };
        let known = self.known.iter().position(|(known, _)| *known == mount);
        if known.is_none() && self.known.len() < MOST {
            self.known.push((mount, Rc::new(opened)));
            return Some(self.known.len() - 1);
        }
        known
    }

    /// A directory of each mount.
    pub(super) fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        self.known.iter().map(|(_, place)| &**place)
    }
}

fn mount_of(root: &Root, directory: &OwnedFd) -> Option<Mount> {
    let device = fstat(directory).ok()?.st_dev;
    let number = root.descriptors.as_ref().and_then(|_| {
        let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd())).ok()?;
        told.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|number| number.trim().to_owned())
    });
    Some(Mount { device, number })
}
