//! Opening the addresses we listen on.
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
