//! How much the kernel takes for a client that does not read it.
#![allow(unsafe_code)]
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of a connection that may wait in the kernel besides those that are on their way. Without a bound they
/// grow to what `net.ipv4.tcp_wmem` allows, four megabytes as a rule, which no limit of ours sees.
static UNSENT_BYTES: libc::c_int = 1024 * 1024;
/// The same for a client with a small window.
static SMALL_WINDOW_UNSENT_BYTES: libc::c_int = 64 * 1024;
/// A window is small where the kernel, which halves it, sends segments below this. Each segment takes a buffer
/// of its own from the beginning: filling a megabyte of them cost more than all else that is done for a slow
/// reader.
const SMALL_SEGMENT: u32 = 1024;

/// Bounds what a listener's connections leave in the kernel.
pub(super) fn bound_unsent(listener: &impl AsFd) {
    set(listener, &UNSENT_BYTES);
}

/// The same for a connection just accepted, if its client's window is small.
pub(super) fn bound_unsent_of_small_window(stream: &impl AsFd) {
    if getsockopt(stream, sockopt::TcpMaxSeg).is_ok_and(|bytes| bytes < SMALL_SEGMENT) {
        set(stream, &SMALL_WINDOW_UNSENT_BYTES);
    }
}

/// `TCP_NOTSENT_LOWAT`, `tcp(7)`; a listener hands it down. Where the kernel has no such thing all is as before.
fn set(socket: &impl AsFd, bytes: &libc::c_int) {
    let fd = socket.as_fd().as_raw_fd();
    let length = size_of_val(bytes) as libc::socklen_t;
    let value: *const libc::c_int = bytes;
    // SAFETY: the kernel reads one live int, whose size it is told.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value.cast(), length) };
    if let Err(errno) = Errno::result(result) {
        log::debug!("TCP_NOTSENT_LOWAT: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket};
    use std::io::Write;

    /// How many bytes are taken for a client that reads none and has such a buffer.
    fn taken(receive_buffer: usize) -> usize {
        let listener = super::super::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        setsockopt(&client, sockopt::RcvBuf, &receive_buffer).unwrap();
        connect(client.as_raw_fd(), &SockaddrStorage::from(listener.local_addr().unwrap())).unwrap();
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ready, PollTimeout::from(20_000u16)), Ok(1));
        let mut stream = listener.accept().unwrap().0;
        bound_unsent_of_small_window(&stream);
        let mut taken = 0;
        while let Ok(n) = stream.write(&[0; 16 * 1024]) {
            taken += n;
        }
        taken
    }

    #[test]
    fn a_megabyte_waits_for_a_client_that_does_not_read_and_less_where_the_window_is_small() {
        let (usual, small) = (taken(64 * 1024), taken(1));
        assert!((1 << 20..1 << 21).contains(&usual), "{usual}");
        assert!((1 << 16..1 << 17).contains(&small), "{small}");
    }
}
