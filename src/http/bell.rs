//! Something to wait for beside a socket.
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Interrupts a wait, from any thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// One that was not rung.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Bell> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Bell(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Ends the wait, or the next one.
    pub fn ring(&self) {
        // Full means that it has been rung rather often.
        let _ = self.0.write(1);
    }

    pub(super) fn hush(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
