//! A directory below the root for a child process to work in: reached through its descriptor, so that
//! no link swapped in meanwhile leads elsewhere.
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::{FileError, RelativePath, Root};

/// A directory held open.
#[derive(Debug)]
pub struct Entered {
    directory: OwnedFd,
    has_proc: bool,
    name: RelativePath,
}

impl Root {
    /// Opens a directory to be entered by a child.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `OutsideRoot`, `Denied` and `Io`.
    pub fn enter(&self, path: &RelativePath) -> Result<Entered, FileError> {
        let directory = self.open_directory(path)?;
        Ok(Entered { directory, has_proc: self.descriptors.is_some(), name: path.clone() })
    }
}

impl Entered {
    /// A path that leads a child of ours to the directory, while this is kept. Without `/proc` that is
    /// its name below `root`.
    pub fn path(&self, root: &std::path::Path) -> PathBuf {
        if self.has_proc {
            return PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        }
        root.join(self.name.as_os_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::files::root::Resolver;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn leads_to_the_directory_it_was_opened_as() {
        let host = tempfile::tempdir().unwrap();
        let inside = host.path().join("root");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        symlink("..", inside.join("out")).unwrap();
        fs::write(inside.join("file"), "").unwrap();
        let root = Root::open(&inside).unwrap();
        let enter = |text: &str| root.enter(&RelativePath::of_text(text)?);
        for text in ["", ".", "./a//b/", "a/./b", "a"] {
            let entered = enter(text).unwrap();
            let real = fs::canonicalize(inside.join(text)).unwrap();
            assert_eq!(fs::canonicalize(entered.path(&inside)).unwrap(), real, "{text}");
        }
        for (text, code) in [
            ("..", "path_invalid"),
            ("a/../..", "path_invalid"),
            ("/etc", "path_invalid"),
            ("a\0", "path_invalid"),
            ("a/x", "not_found"),
            ("file", "not_a_directory"),
            ("out", "outside_root"),
        ] {
            assert_eq!(enter(text).unwrap_err().code(), code, "{text}");
        }
        // Without /proc there is only the name.
        let without = Root::open_with(&inside, Resolver::Walk, false).unwrap();
        let entered = without.enter(&RelativePath::of_text("./a/b").unwrap()).unwrap();
        assert_eq!(entered.path(&inside), inside.join("a/b"));
        let entered = enter("a").unwrap();
        fs::rename(inside.join("a"), inside.join("moved")).unwrap();
        symlink("/etc", inside.join("a")).unwrap();
        assert_eq!(
            fs::canonicalize(entered.path(&inside)).unwrap(),
            fs::canonicalize(inside.join("moved")).unwrap()
        );
    }
}
