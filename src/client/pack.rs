//! A tar stream of files here, made while it is read: nothing but one block is kept in memory.
use super::progress::Progress;
use super::server::Unread;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;
use tar::{EntryType, Header};

/// Bytes of a block.
const BLOCK: u64 = 512;
/// Bytes of a name in a header; longer ones stand in front of it.
const NAME_BYTES: usize = 100;

/// A directory or a file to be packed, by its path from the top.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) is_directory: bool,
}

/// The stream.
pub(super) struct Pack<'p> {
    top: PathBuf,
    items: IntoIter<Item>,
    /// Headers and padding on their way, and how much of it is gone.
    block: Vec<u8>,
    at: usize,
    /// The file on its way, and how much of it is to come.
    file: Option<(File, u64, String)>,
    /// Bytes that fill its last block.
    padding: usize,
    ended: bool,
    progress: &'p mut Progress,
}

impl<'p> Pack<'p> {
    pub(super) fn new(top: &Path, items: Vec<Item>, progress: &'p mut Progress) -> Pack<'p> {
        let items = items.into_iter();
        Pack {
            top: top.to_owned(),
            items,
            block: Vec::new(),
            at: 0,
            file: None,
            padding: 0,
            ended: false,
            progress,
        }
    }

    fn next_item(&mut self) -> io::Result<()> {
        self.block.clear();
        self.at = 0;
        let Some(item) = self.items.next() else {
            // Two empty blocks are the end.
            self.block.resize(2 * BLOCK as usize, 0);
            self.ended = true;
            return Ok(());
        };
        let mut bytes = 0;
        if !item.is_directory {
            let unread = |error: io::Error| io::Error::other(Unread(format!("{}: {error}", item.path)));
            let file = File::open(self.top.join(&item.path)).map_err(unread)?;
            bytes = file.metadata().map_err(unread)?.len();
            self.padding = (bytes.next_multiple_of(BLOCK) - bytes) as usize;
            self.file = Some((file, bytes, item.path.clone()));
        }
        append_headers(&mut self.block, &item, bytes);
        Ok(())
    }
}

fn append_headers(block: &mut Vec<u8>, item: &Item, bytes: u64) {
    let name = item.path.as_bytes();
    if name.len() > NAME_BYTES {
        let mut header = header(b"././@LongLink", EntryType::GNULongName, 0o644);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        block.extend_from_slice(header.as_bytes());
        block.extend_from_slice(name);
        block.push(0);
        block.resize(block.len().next_multiple_of(BLOCK as usize), 0);
    }
    let kind = if item.is_directory { EntryType::Directory } else { EntryType::Regular };
    let mut header = header(&name[..name.len().min(NAME_BYTES)], kind, item.mode);
    header.set_size(bytes);
    header.set_cksum();
    block.extend_from_slice(header.as_bytes());
}

fn header(name: &[u8], kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header
}

impl Read for Pack<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.block.len() {
                let count = out.len().min(self.block.len() - self.at);
                out[..count].copy_from_slice(&self.block[self.at..self.at + count]);
                self.at += count;
                return Ok(count);
            }
            if self.ended {
                return Ok(0);
            }
            let Some((file, left, path)) = &mut self.file else {
                self.next_item()?;
                continue;
            };
            let room = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
            let unread = |what: &dyn std::fmt::Display| io::Error::other(Unread(format!("{path}: {what}")));
            let count = match file.read(&mut out[..room]) {
                Ok(0) if *left > 0 => return Err(unread(&"became shorter while it was sent")),
                Ok(count) => count,
                Err(error) => return Err(unread(&error)),
            };
            *left -= count as u64;
            self.progress.add(count as u64);
            if *left == 0 {
                // What was appended meanwhile is none of this archive's.
                self.file = None;
                self.block.clear();
                self.block.resize(self.padding, 0);
                self.at = 0;
            }
            if count > 0 {
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_packed_is_read_again() {
        let top = tempfile::tempdir().unwrap();
        let long = format!("d/{}", "n".repeat(200));
        fs::create_dir(top.path().join("d")).unwrap();
        let contents = [("a", 0), ("d/b", 511), ("d/c", 512), (&*long, 1000)];
        for (name, bytes) in contents {
            fs::write(top.path().join(name), vec![b'x'; bytes]).unwrap();
        }
        let item = |path: &str| Item { path: path.to_owned(), mode: 0o750, is_directory: path == "d" };
        let items: Vec<Item> = ["d"].into_iter().chain(contents.map(|(name, _)| name)).map(item).collect();
        for room in [1, 511, 512, 100_000] {
            let mut progress = Progress::new("", 0);
            let mut pack = Pack::new(top.path(), items.clone(), &mut progress);
            let mut packed = Vec::new();
            let mut piece = vec![0; room];
            loop {
                let count = pack.read(&mut piece).unwrap();
                if count == 0 {
                    break;
                }
                packed.extend_from_slice(&piece[..count]);
            }
            let mut archive = tar::Archive::new(&packed[..]);
            let found: Vec<(String, u64, u32)> = archive
                .entries()
                .unwrap()
                .map(|entry| {
                    let mut entry = entry.unwrap();
                    let mut data = Vec::new();
                    entry.read_to_end(&mut data).unwrap();
                    let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                    (name, data.len() as u64, entry.header().mode().unwrap())
                })
                .collect();
            let expected: Vec<(String, u64, u32)> = [("d", 0)]
                .into_iter()
                .chain(contents)
                .map(|(name, bytes)| (name.to_owned(), bytes as u64, 0o750))
                .collect();
            assert_eq!(found, expected);
        }
        let mut progress = Progress::new("", 0);
        let gone = Pack::new(top.path(), vec![item("gone")], &mut progress).read(&mut [0; 512]).unwrap_err();
        assert!(gone.get_ref().unwrap().is::<Unread>());
    }
}
