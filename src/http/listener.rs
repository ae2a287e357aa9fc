//! Opening the addresses we listen on, and what accepting can fail with.
use super::socket::open_listener;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Binds `address` with a backlog of 4096 and the socket options every connection inherits.
///
/// # Errors
/// `bind(2)`: the address is in use, not ours, or a privileged port.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    open_listener(address)
}

/// Whether accepting failed because the process or the machine has no more to give.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
