//! What differs between a directory here and one on the server, or between two looks at the one here: what
//! is to be sent and what is to be deleted.
use super::exclude::Exclude;
use super::failure::{Failure, Refusal};
use super::path::encoded_path;
use super::scan::{Snapshot, State};
use super::server::Server;
use crate::base::hex::hex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read and hashed at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Files to be sent.
    pub(super) files: Vec<String>,
    /// Directories to be made.
    pub(super) directories: Vec<String>,
    /// Files and directories that are there and not here; what is in a directory comes before it.
    pub(super) gone: Vec<String>,
    /// Those of them that are in the way of something to be sent.
    pub(super) in_the_way: Vec<String>,
}

/// What the server has.
#[derive(Debug, Default)]
pub(super) struct Remote(BTreeMap<String, Found>);

#[derive(Debug, Deserialize)]
struct Found {
    path: String,
    r#type: String,
    bytes: u64,
    modified_ms: u64,
    mode: String,
    sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listing {
    entries: Vec<Found>,
    truncated: bool,
}

impl Remote {
    /// Asks the server for everything below a directory; nothing if there is none.
    pub(super) fn list(server: &Server, directory: &str, exclude: &Exclude) -> Result<Remote, Failure> {
        let except: Vec<String> = exclude.names().into_iter().map(super::path::encoded).collect();
        let path = encoded_path(directory);
        let target = format!("files/{path}?recursive=true&sha256=true&except={}", except.join(","));
        let json = match server.get(&target) {
            Err(Failure::Refused(Refusal { status: 404, code: Some(code), .. })) if code == "not_found" => {
                return Ok(Remote::default());
            }
            other => other?,
        };
        let listing: Listing = serde_json::from_value(json).map_err(|_| {
            Failure::Local("this server does not list whole directories (cargo feature `archive`)".to_owned())
        })?;
        if listing.truncated {
            let text = "there is more in that directory than the server lists; leave some out with --exclude";
            return Err(Failure::Local(text.to_owned()));
        }
        let found = listing.entries.into_iter().filter(|found| !exclude.matches_any_part(&found.path));
        Ok(Remote(found.map(|found| (found.path.clone(), found)).collect()))
    }

    /// What makes the server's directory like the one here.
    pub(super) fn changes(&self, top: &Path, here: &Snapshot) -> Changes {
        let mut changes = Changes::default();
        for (path, state) in &here.files {
            let same = self.0.get(path).is_some_and(|found| is_same(&top.join(path), state, found));
            if !same {
                changes.files.push(path.clone());
            }
        }
        let is_directory = |path: &String| self.0.get(path).is_some_and(|found| found.r#type == "directory");
        changes.directories = here.directories.keys().filter(|path| !is_directory(path)).cloned().collect();
        let deletable = self.0.values().filter(|found| ["file", "directory"].contains(&&*found.r#type));
        let there = deletable.map(|found| (found.path.clone(), found.r#type == "directory"));
        changes.find_gone(there, here);
        changes
    }
}

/// Whether the server's file is like this one. Where it tells no sum (of long files that it did not just
/// get) the length has to do, if it is not older than ours.
fn is_same(file: &Path, state: &State, found: &Found) -> bool {
    let mode = u32::from_str_radix(&found.mode, 8).unwrap_or(0) & 0o777;
    if found.r#type != "file" || found.bytes != state.bytes || mode != state.mode {
        return false;
    }
    match &found.sha256 {
        Some(theirs) => sha256(file).is_ok_and(|ours| ours == *theirs),
        None => i128::from(found.modified_ms) >= state.modified_ns / 1_000_000,
    }
}

fn sha256(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Changes {
    /// What has changed here between two looks.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Changes {
        let files = now.files.iter().filter(|(path, state)| before.files.get(*path) != Some(state));
        let directories = now.directories.keys().filter(|path| !before.directories.contains_key(*path));
        let mut changes = Changes {
            files: files.map(|(path, _)| path.clone()).collect(),
            directories: directories.cloned().collect(),
            ..Changes::default()
        };
        let files = before.files.keys().map(|path| (path.clone(), false));
        let directories = before.directories.keys().map(|path| (path.clone(), true));
        changes.find_gone(files.chain(directories), now);
        changes
    }

    /// Of what is there (true: a directory) finds what is not here any more as what it is there.
    fn find_gone(&mut self, there: impl Iterator<Item = (String, bool)>, here: &Snapshot) {
        let gone = there.filter(|(path, is_directory)| {
            let kept = match is_directory {
                true => here.directories.contains_key(path),
                false => here.files.contains_key(path),
            };
            !kept && !here.others.contains(path)
        });
        self.gone = gone.map(|(path, _)| path).collect();
        // Longer paths of a directory sort behind it.
        self.gone.sort_by(|a, b| b.cmp(a));
        let in_the_way = |path: &&String| {
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            here.directories.contains_key(*path)
                || here.files.contains_key(*path)
                || above.into_iter().any(|above| here.files.contains_key(above))
        };
        self.in_the_way = self.gone.iter().filter(in_the_way).cloned().collect();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn snapshot(top: &Path) -> Snapshot {
        Snapshot::take(top, &Exclude::new(&[]), &mut |_| {}).unwrap()
    }

    fn found(path: &str, kind: &str, state: Option<&State>, sha256: Option<&str>) -> (String, Found) {
        let found = Found {
            path: path.to_owned(),
            r#type: kind.to_owned(),
            bytes: state.map_or(0, |state| state.bytes),
            modified_ms: 0,
            mode: format!("{:o}", state.map_or(0o755, |state| state.mode)),
            sha256: sha256.map(str::to_owned),
        };
        (path.to_owned(), found)
    }

    #[test]
    fn sums_lengths_and_modes_tell_what_differs() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("new/empty")).unwrap();
        fs::create_dir(at("was-file")).unwrap();
        for name in ["same", "other", "long", "was-dir", "new/f"] {
            fs::write(at(name), "abc").unwrap();
        }
        let here = snapshot(top.path());
        let abc = Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let state = |name: &str| Some(&here.files[name]);
        let mut remote = Remote(BTreeMap::from([
            found("same", "file", state("same"), abc),
            found("other", "file", state("other"), Some("00")),
            found("long", "file", state("long"), None),
            found("was-dir", "directory", None, None),
            found("was-dir/x", "file", None, None),
            found("was-file", "file", None, None),
            found("extra", "directory", None, None),
            found("extra/a", "file", None, None),
            found("link", "symlink", None, None),
        ]));
        let changes = remote.changes(top.path(), &here);
        assert_eq!(changes.files, ["long", "new/f", "other", "was-dir"]);
        assert_eq!(changes.directories, ["new", "new/empty", "was-file"]);
        assert_eq!(changes.gone, ["was-file", "was-dir/x", "was-dir", "extra/a", "extra"]);
        assert_eq!(changes.in_the_way, ["was-file", "was-dir/x", "was-dir"]);
        // No sum, but not older than ours.
        remote.0.get_mut("long").unwrap().modified_ms = u64::MAX;
        remote.0.get_mut("same").unwrap().mode = "600".to_owned();
        assert_eq!(remote.changes(top.path(), &here).files, ["new/f", "other", "same", "was-dir"]);
    }

    #[test]
    fn two_looks_tell_what_changed_between_them() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir(at("d")).unwrap();
        for name in ["kept", "d/gone", "saved"] {
            fs::write(at(name), "1").unwrap();
        }
        let before = snapshot(top.path());
        assert_eq!(Changes::between(&before, &before), Changes::default());
        fs::remove_dir_all(at("d")).unwrap();
        fs::write(at("d"), "a file now").unwrap();
        fs::write(at("saved.tmp"), "2").unwrap();
        fs::rename(at("saved.tmp"), at("saved")).unwrap();
        let changes = Changes::between(&before, &snapshot(top.path()));
        assert_eq!(changes.files, ["d", "saved"]);
        assert_eq!((changes.gone, changes.in_the_way.len()), (vec!["d/gone".to_owned(), "d".to_owned()], 2));
    }
}
