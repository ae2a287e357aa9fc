//! A root that is the directory at its path, whichever that is now: one that builds remove and make anew.
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::sys::stat::{fstat, stat};

use super::{FileError, Root};
use crate::base::lock::lock;

/// Where a root is. What is opened below one stays below that one.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    seen: Mutex<Arc<Root>>,
}

impl Place {
    /// Opens the directory that is there now.
    ///
    /// # Errors
    /// When `path` is not a directory we may read.
    pub fn open(path: PathBuf) -> Result<Place, FileError> {
        let seen = Mutex::new(Arc::new(Root::open(&path)?));
        Ok(Place { path, seen })
    }

    /// The directory that is there now; while there is none, the last one.
    pub fn root(&self) -> Arc<Root> {
        let seen = Arc::clone(&lock(&self.seen));
        if !self.is_another(&seen) {
            return seen;
        }
        match Root::open(&self.path) {
            Ok(root) => {
                let root = Arc::new(root);
                *lock(&self.seen) = Arc::clone(&root);
                root
            }
            Err(error) => {
                log::warn!("opening {} anew: {error}", self.path.display());
                seen
            }
        }
    }

    /// Whether another directory is there. One that we have open shares its number with no other.
    fn is_another(&self, seen: &Root) -> bool {
        let (Ok(here), Ok(seen)) = (stat(&self.path), fstat(seen)) else { return false };
        (here.st_dev, here.st_ino) != (seen.st_dev, seen.st_ino)
    }
}
