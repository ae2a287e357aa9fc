//! Bytes from one socket to another that never enter this process: splice(2), through a pipe.
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a pipe is asked to hold; where that is not allowed it keeps the usual 64 KiB.
const PIPE_BYTES: usize = 256 * 1024;
/// Pipes at a time, of two descriptors each; beyond that bytes are copied.
const PIPES_MAX: usize = 32;

/// Pipes now.
static PIPES: AtomicUsize = AtomicUsize::new(0);

/// A pipe that bytes pass through on their way.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Bytes in it.
    pub(super) held: usize,
    _place: Place,
}

/// A place among the pipes, given back on drop.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let more = |now| (now < PIPES_MAX).then_some(now + 1);
        PIPES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// A pipe, unless there are enough of them or the system has none.
    pub(super) fn new() -> Option<Pipe> {
        let place = Place::take()?;
        let (out, into) = pipe2(OFlag::O_CLOEXEC).ok()?;
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        Some(Pipe { out, into, held: 0, _place: place })
    }

    /// Takes up to `most` bytes that are there to be read from a socket, waiting as long as that waits:
    /// 0 is its end. Only an empty pipe may be filled, or it could wait for its own emptying.
    ///
    /// # Errors
    /// Those of `splice(2)`.
    pub(super) fn fill(&mut self, from: &TcpStream, most: u64) -> Result<usize, Errno> {
        debug_assert_eq!(self.held, 0);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIPE_BYTES);
        self.held = splice(from, None, &self.into, None, most, SpliceFFlags::empty())?;
        Ok(self.held)
    }

    /// Sends what it holds, or as much as the socket takes in its time.
    ///
    /// # Errors
    /// Those of `splice(2)`.
    pub(super) fn empty(&mut self, to: &TcpStream) -> Result<usize, Errno> {
        // Not SPLICE_F_MORE: what is here is to arrive now, also if the rest is long in coming.
        let sent = splice(&self.out, None, to, None, self.held, SpliceFFlags::empty())?;
        self.held -= sent;
        Ok(sent)
    }
}

/// Whether an error says that these two cannot be spliced, and nothing was.
pub(super) fn is_impossible(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENOSYS | Errno::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_pipes_and_places_come_back() {
        let pipes: Vec<Pipe> = std::iter::from_fn(Pipe::new).take(PIPES_MAX + 1).collect();
        assert!(pipes.len() <= PIPES_MAX);
        assert!(Pipe::new().is_none() || pipes.len() < PIPES_MAX);
        drop(pipes);
        assert!(Pipe::new().is_some());
    }
}
