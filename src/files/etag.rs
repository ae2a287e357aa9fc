//! Entity tags: a file's SHA-256, computed once for each state of the file, else its size and time.
//! Knows open files only, no paths.
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::base::hex::hex;
use crate::base::lock::lock;

/// Files up to this size are hashed when first asked for; longer ones only as they are uploaded.
pub const HASHED_UP_TO_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes read, hashed and written at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Whether a tag can be a SHA-256.
pub(super) fn is_sum(tag: &str) -> bool {
    tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Remembered digests, about 100 bytes each; over it the oldest goes.
const CACHED_DIGESTS: usize = 1024;

/// Two writes within one tick of the kernel's clock (10 ms at most) leave equal times, so the digest
/// of a file that changed this recently is not remembered.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// A file's entity tag (RFC 9110 section 8.8.3); displays as the header's value, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etag {
    /// The SHA-256 of the contents, 64 lower-case hexadecimal digits.
    Strong(String),
    /// Size and modification time of a file too long to hash.
    Weak {
        /// Length in bytes.
        bytes: u64,
        /// Nanoseconds since the epoch, wrapping.
        modified_ns: u64,
    },
}

impl Etag {
    /// The weak tag of a file.
    pub(super) fn weak(metadata: &Metadata) -> Etag {
        let State { bytes, modified_ns, .. } = State::of(metadata);
        Etag::Weak { bytes, modified_ns }
    }

    /// The SHA-256 of the contents, if this is a strong tag.
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Etag::Strong(sha256) => Some(sha256),
            Etag::Weak { .. } => None,
        }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Etag::Strong(sha256) => write!(f, "\"{sha256}\""),
            Etag::Weak { bytes, modified_ns } => write!(f, "W/\"{bytes:x}-{modified_ns:x}\""),
        }
    }
}

/// One state of one file. The change time cannot be set by hand, so equal keys mean equal contents
/// (up to the clock's tick).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: u64,
    changed_ns: u64,
}

impl State {
    /// The state `fstat(2)` found.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(ns) as u64;
        State {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether only the names and permissions differ.
    pub(super) fn same_contents(&self, other: &State) -> bool {
        State { changed_ns: 0, ..*self } == State { changed_ns: 0, ..*other }
    }

    pub(super) fn is_settled(&self) -> bool {
        let changed = UNIX_EPOCH + Duration::from_nanos(self.changed_ns);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLED_AFTER)
    }
}

/// Remembered digests, shared by all threads.
#[derive(Debug, Default)]
pub(super) struct TagCache {
    cached: Mutex<Cached>,
    /// Held while a long file is read, one at a time: who waits may find that it was the same one.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Cached {
    digests: HashMap<State, [u8; 32]>,
    /// Oldest first.
    order: VecDeque<State>,
}

impl TagCache {
    /// The tag of an open file: strong if its digest is known or cheap.
    pub(super) fn tag(&self, file: &File, metadata: &Metadata) -> io::Result<Etag> {
        let state = State::of(metadata);
        let sha256 = match self.get(&state) {
            Some(digest) => Some(hex(&digest)),
            None if state.bytes <= HASHED_UP_TO_BYTES => self.compute(file, state)?,
            None => None,
        };
        Ok(sha256.map_or_else(|| Etag::weak(metadata), Etag::Strong))
    }

    /// The SHA-256 of an open file; none if it changed meanwhile, or is unknown and longer than `max_bytes`.
    pub(super) fn sha256(
        &self,
        file: &File,
        metadata: &Metadata,
        max_bytes: u64,
    ) -> io::Result<Option<String>> {
        let state = State::of(metadata);
        if let Some(digest) = self.get(&state) {
            return Ok(Some(hex(&digest)));
        }
        if state.bytes > max_bytes {
            return Ok(None);
        }
        let _reading = (state.bytes > HASHED_UP_TO_BYTES).then(|| lock(&self.reading));
        match self.get(&state) {
            Some(digest) => Ok(Some(hex(&digest))),
            None => self.compute(file, state),
        }
    }

    fn compute(&self, file: &File, state: State) -> io::Result<Option<String>> {
        let Some(digest) = digest(file, state.bytes)? else { return Ok(None) };
        if State::of(&file.metadata()?) != state {
            return Ok(None);
        }
        if state.is_settled() {
            self.insert(state, digest);
        }
        Ok(Some(hex(&digest)))
    }

    fn get(&self, state: &State) -> Option<[u8; 32]> {
        lock(&self.cached).digests.get(state).copied()
    }

    /// Remembers what an upload computed on the way, or a download by reading.
    pub(super) fn insert(&self, state: State, digest: [u8; 32]) {
        let mut cached = lock(&self.cached);
        if cached.digests.insert(state, digest).is_some() {
            return;
        }
        cached.order.push_back(state);
        if cached.order.len() > CACHED_DIGESTS
            && let Some(oldest) = cached.order.pop_front()
        {
            cached.digests.remove(&oldest);
        }
    }
}

/// Hashes the first `bytes`, whatever the file's own position; none if it is shorter. Reads no
/// further: a file of procfs calls itself empty and may never end.
fn digest(file: &File, bytes: u64) -> io::Result<Option<[u8; 32]>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let wanted = (bytes - offset).min(BUFFER_BYTES as u64) as usize;
        match file.read_at(&mut buffer[..wanted], offset) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(hasher.finalize().into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    fn state(inode: u64) -> State {
        State { device: 1, inode, bytes: 2, modified_ns: 3, changed_ns: 4 }
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let cache = TagCache::default();
        for inode in 0..=CACHED_DIGESTS as u64 {
            cache.insert(state(inode), [inode as u8; 32]);
            cache.insert(state(inode), [inode as u8; 32]);
        }
        let cached = lock(&cache.cached);
        assert_eq!((cached.digests.len(), cached.order.len()), (CACHED_DIGESTS, CACHED_DIGESTS));
        assert!(!cached.digests.contains_key(&state(0)));
        assert!(cached.digests.contains_key(&state(1)));
    }

    #[test]
    fn a_long_file_has_a_weak_tag_until_an_upload_tells_its_digest() {
        let file = tempfile::tempfile().unwrap();
        let cache = TagCache::default();
        file.set_len(HASHED_UP_TO_BYTES + 1).unwrap();
        let metadata = file.metadata().unwrap();
        let tag = cache.tag(&file, &metadata).unwrap();
        assert!(tag.to_string().starts_with("W/\"4000001-"), "{tag}");
        assert_eq!(tag.sha256(), None);
        assert_eq!(
            cache.sha256(&file, &metadata, HASHED_UP_TO_BYTES).unwrap(),
            None,
            "nor is it read for one"
        );
        cache.insert(State::of(&metadata), [0xab; 32]);
        let tag = cache.tag(&file, &metadata).unwrap();
        assert_eq!(tag.to_string(), format!("\"{}\"", "ab".repeat(32)));
    }

    #[test]
    fn a_fresh_file_is_hashed_but_not_remembered() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let cache = TagCache::default();
        let tag = cache.tag(&file, &file.metadata().unwrap()).unwrap();
        assert_eq!(tag.sha256(), Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        let age = |changed: SystemTime| State {
            changed_ns: changed.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
            ..state(1)
        };
        assert!(!age(SystemTime::now()).is_settled());
        assert!(!age(SystemTime::now() + Duration::from_secs(9)).is_settled());
        assert!(age(SystemTime::now() - Duration::from_secs(9)).is_settled());
    }
}
