//! Our standard output and error: pipes, as a rule, whose readers may be slow, or gone to sleep for good.
use super::lock::lock;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

/// Held from the look whether there is room to the write: a pipe that has room has it for one of us. Each
/// stream has its own, unless both are the same file.
static ROOM: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

/// Writes as much as there is room for, `PIPE_BUF` bytes at most, without ever waiting, also where the stream
/// is a blocking one.
///
/// # Errors
/// `EAGAIN` where there is no room; what write(2) says.
pub fn write_now(to: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let number = to.as_raw_fd();
    let to = terminal(to).map_or(to, AsFd::as_fd);
    let _room = lock(&ROOM[usize::from(number == libc::STDERR_FILENO && !is_one_file())]);
    if !has_room(to, PollTimeout::ZERO)? {
        return Err(Errno::EAGAIN);
    }
    // As much as a pipe that can be written takes whole.
    nix::unistd::write(to, &bytes[..bytes.len().min(libc::PIPE_BUF)])
}

/// Whether standard output and error lead to the same place.
fn is_one_file() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    *ONE.get_or_init(|| {
        let [out, err] = [fstat(std::io::stdout()), fstat(std::io::stderr())].map(Result::ok);
        out.zip(err).is_none_or(|(out, err)| (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino))
    })
}

/// Of a terminal, an open file of our own that never waits: unlike a pipe it has room, to its own word, where a
/// single byte fits. None where the stream is something else, or cannot be opened anew, as without `/proc`: such
/// a terminal can keep a writer waiting.
fn terminal(stream: BorrowedFd<'_>) -> Option<&'static OwnedFd> {
    /// Of the standard streams, by number.
    static TERMINALS: [OnceLock<Option<OwnedFd>>; 3] = [const { OnceLock::new() }; 3];
    let number = stream.as_raw_fd();
    let reopened = || {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let anew = || open(format!("/proc/self/fd/{number}").as_str(), flags, Mode::empty()).ok();
        stream.is_terminal().then(anew).flatten()
    };
    TERMINALS.get(usize::try_from(number).ok()?)?.get_or_init(reopened).as_ref()
}

/// Waits so long for room; whether there is some.
///
/// # Errors
/// `EINTR`; what poll(2) says.
pub fn has_room(to: BorrowedFd<'_>, within: PollTimeout) -> nix::Result<bool> {
    Ok(poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], within)? == 1)
}
