//! Our standard output and error: pipes, as a rule, whose readers may be slow, or gone to sleep for good.
use super::lock::lock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

/// Held from the look whether there is room to the write: a pipe that has room has it for one of us. Both
/// streams may be the same pipe.
static ROOM: Mutex<()> = Mutex::new(());

/// Writes as much as there is room for, `PIPE_BUF` bytes at most, without ever waiting, also where the stream
/// is a blocking one.
///
/// # Errors
/// `EAGAIN` where there is no room; what write(2) says.
pub fn write_now(to: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let _room = lock(&ROOM);
    if !has_room(to, PollTimeout::ZERO)? {
        return Err(Errno::EAGAIN);
    }
    // As much as a pipe that can be written takes whole.
    nix::unistd::write(to, &bytes[..bytes.len().min(libc::PIPE_BUF)])
}

/// Waits so long for room; whether there is some.
///
/// # Errors
/// `EINTR`; what poll(2) says.
pub fn has_room(to: BorrowedFd<'_>, within: PollTimeout) -> nix::Result<bool> {
    Ok(poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], within)? == 1)
}
