//! Operations on real files, with every fallback forced in turn.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[cfg(feature = "archive")]
mod archives;
mod hostile;
mod limits;
mod publishing;
mod reading;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::root::Resolver;
use super::*;

/// A root with a neighbour that nothing may touch.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(host.inside("")).unwrap();
        fs::create_dir(host.outside("")).unwrap();
        fs::write(host.outside("f"), "secret").unwrap();
        host
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join("outside").join(name)
    }

    fn root(&self) -> Root {
        Root::open(&self.inside("")).unwrap()
    }

    /// The ordinary root, and those that must do without openat2, without O_TMPFILE, without both.
    fn roots(&self) -> Vec<Root> {
        let with = |resolver, proc| Root::open_with(&self.inside(""), resolver, proc).unwrap();
        vec![
            self.root(),
            with(Resolver::Walk, true),
            with(Resolver::Openat2, false),
            with(Resolver::Walk, false),
        ]
    }

    fn assert_outside_untouched(&self) {
        assert_eq!(names(&self.outside("")), ["f"]);
        assert_eq!(fs::read(self.outside("f")).unwrap(), b"secret");
        assert_eq!(names(self.directory.path()), ["outside", "root"]);
    }
}

/// All names in a directory, hidden ones included.
fn names(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn path(raw: &str) -> RelativePath {
    RelativePath::parse_file(raw.as_bytes()).unwrap()
}

fn options() -> UploadOptions {
    UploadOptions { max_bytes: 1 << 30, mode: None, conditions: Conditions::default(), expected_bytes: None }
}

fn matching(if_match: Option<Versions>) -> Conditions {
    Conditions { max_bytes: u64::MAX, if_match, ..Conditions::default() }
}

fn put(root: &Root, name: &str, body: &[u8]) -> Result<Uploaded, FileError> {
    root.upload(&path(name), &mut { body }, &options())
}

fn get(root: &Root, name: &str) -> Result<Vec<u8>, FileError> {
    let mut contents = Vec::new();
    root.open_file(&path(name))?.file.read_to_end(&mut contents).unwrap();
    Ok(contents)
}

fn code<T: std::fmt::Debug>(result: Result<T, FileError>) -> &'static str {
    result.unwrap_err().code()
}

/// Gives some bytes, then fails as a connection does.
struct CutBody {
    left: usize,
}

impl Read for CutBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = buffer.len().min(self.left);
        buffer[..count].fill(b'x');
        self.left -= count;
        Ok(count)
    }
}

/// A body of which nobody may read.
struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("the body was read");
    }
}
