//! Waiting for several pipes at once, `poll(2)`.
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Something to wait for, and what of it.
pub(super) type Source<'f> = Option<(BorrowedFd<'f>, PollFlags)>;

/// Wait until this can be read, or has ended.
pub(super) fn readable(file: Option<&impl AsFd>) -> Source<'_> {
    file.map(|file| (file.as_fd(), PollFlags::POLLIN))
}

/// Waits until one of the sources is ready, or until then; which are.
pub(super) fn wait<const N: usize>(sources: [Source<'_>; N], until: Option<Instant>) -> [bool; N] {
    let timeout = match until.map(|at| at.saturating_duration_since(Instant::now())) {
        // poll(2) counts whole milliseconds; round up, else the last one would spin.
        Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    let there = sources.iter().flatten();
    let mut fds: Vec<PollFd<'_>> = there.map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => {
            log::error!("a run's pipes cannot be waited for: {error}");
            return [false; N];
        }
    }
    let mut answers = fds.iter().map(|fd| fd.any().unwrap_or(true));
    sources.map(|source| source.is_some() && answers.next() == Some(true))
}

/// Whether there is something to read in it now.
pub(super) fn has_data(pipe: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled == Ok(1) && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}
