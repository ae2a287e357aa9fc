//! Where the bytes of an upload go: into the file and into its hash. A long one is hashed on a thread
//! beside the one that receives it, and the disk begins to write before the last byte has come: the wait
//! at the end, for the disk to have it all, is then short.
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

use crate::base::thread;

/// Bytes of a buffer.
const BUFFER_BYTES: usize = 128 * 1024;
/// A file is long from this many bytes on.
const LONG_BYTES: u64 = 1 << 20;
/// Buffers between the two threads of a long upload.
const BUFFERS: usize = 4;
/// Long uploads at a time that get a second thread and buffers of their own; more do both in turn.
const PARALLEL_MAX: usize = 4;
/// After this many bytes the disk is asked to begin.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// Long uploads now that have a second thread.
static PARALLEL: AtomicUsize = AtomicUsize::new(0);

/// A file being filled and hashed.
pub(super) struct Sink<'f> {
    file: &'f File,
    hashing: Hashing,
    buffer: Vec<u8>,
    bytes: u64,
    /// Up to where the disk was asked to write.
    asked: u64,
}

enum Hashing {
    Here(Sha256),
    Beside(Beside),
    /// There was no thread to be had; not to be asked again.
    HereForGood(Sha256),
}

struct Beside {
    pieces: Sender<(Vec<u8>, usize)>,
    empty: Receiver<Vec<u8>>,
    digest: Receiver<[u8; 32]>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        PARALLEL.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'f> Sink<'f> {
    pub(super) fn new(file: &'f File) -> Sink<'f> {
        let hashing = Hashing::Here(Sha256::new());
        Sink { file, hashing, buffer: vec![0; BUFFER_BYTES], bytes: 0, asked: 0 }
    }

    /// Where the next bytes are to be put.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Takes the first `count` bytes of the space.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(super) fn take(&mut self, count: usize) -> io::Result<()> {
        let piece = &self.buffer[..count];
        self.file.write_all(piece)?;
        self.bytes += count as u64;
        match &mut self.hashing {
            Hashing::Here(hasher) | Hashing::HereForGood(hasher) => hasher.update(piece),
            Hashing::Beside(beside) => {
                let full = std::mem::take(&mut self.buffer);
                let lost = || io::Error::other("the thread that hashes is gone");
                beside.pieces.send((full, count)).map_err(|_| lost())?;
                self.buffer = beside.empty.recv().map_err(|_| lost())?;
            }
        }
        if self.bytes >= LONG_BYTES {
            self.go_on_long();
        }
        Ok(())
    }

    fn go_on_long(&mut self) {
        if let Hashing::Here(hasher) = &self.hashing {
            self.hashing = match beside(hasher.clone()) {
                Some(beside) => Hashing::Beside(beside),
                None => Hashing::HereForGood(hasher.clone()),
            };
        }
        if self.bytes - self.asked >= WRITE_BACK_BYTES {
            // Linux begins to write what is dirty in a range that is not needed, and forgets only what is
            // written already, which the newest bytes are not. Where it does not, the end takes longer.
            let [from, length] = [self.asked, self.bytes - self.asked].map(|n| i64::try_from(n).unwrap_or(0));
            let _ = posix_fadvise(self.file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            self.asked = self.bytes;
        }
    }

    /// The number of bytes taken, and their SHA-256.
    ///
    /// # Errors
    /// When the thread that hashes is gone.
    pub(super) fn finish(self) -> io::Result<(u64, [u8; 32])> {
        let digest = match self.hashing {
            Hashing::Here(hasher) | Hashing::HereForGood(hasher) => hasher.finalize().into(),
            Hashing::Beside(mut beside) => {
                // The end of the pieces.
                beside.pieces = bounded(0).0;
                beside.digest.recv().map_err(|_| io::Error::other("the thread that hashes is gone"))?
            }
        };
        Ok((self.bytes, digest))
    }
}

/// A thread that goes on with `hasher`, unless enough of them run or there is none.
fn beside(mut hasher: Sha256) -> Option<Beside> {
    let more = |now| (now < PARALLEL_MAX).then_some(now + 1);
    PARALLEL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
    let (pieces, full) = bounded::<(Vec<u8>, usize)>(BUFFERS);
    let (used, empty) = bounded(BUFFERS);
    let (result, digest) = bounded(1);
    let beside = Beside { pieces, empty, digest };
    for _ in 1..BUFFERS {
        let _ = used.send(vec![0; BUFFER_BYTES]);
    }
    let started = thread::spawn("hash", move || {
        for (piece, count) in full {
            hasher.update(&piece[..count]);
            // Nobody takes it back after the last one.
            let _ = used.try_send(piece);
        }
        let _ = result.send(hasher.finalize().into());
    });
    started.is_ok().then_some(beside)
}
