//! How much the kernel takes for a client that does not read it.
#![allow(unsafe_code)]
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of a connection that may wait in the kernel besides those that are on their way. Without a bound they
/// grow to megabytes, which no limit of ours sees, and for a client with a tiny window each few hundred bytes of
/// them take a buffer of their own: filling that cost more than all else that is done for a slow reader.
static UNSENT_BYTES: libc::c_int = 128 * 1024;

/// Bounds that for a listener and all it accepts: `TCP_NOTSENT_LOWAT`, `tcp(7)`. A kernel that refuses is as
/// before.
pub(super) fn bound_unsent(listener: &impl AsFd) {
    // SAFETY: the kernel reads one live int, whose size it is told.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const UNSENT_BYTES).cast(),
            size_of_val(&UNSENT_BYTES) as libc::socklen_t,
        )
    };
    if let Err(errno) = Errno::result(result) {
        log::debug!("TCP_NOTSENT_LOWAT: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;

    #[test]
    fn little_waits_for_a_client_that_does_not_read() {
        let listener = super::super::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = loop {
            if let Ok(accepted) = listener.accept() {
                break accepted;
            }
        };
        let mut taken = 0;
        while let Ok(n) = stream.write(&[0; 16 * 1024]) {
            taken += n;
        }
        // Besides what the client's own kernel has.
        assert!(taken < 4 * UNSENT_BYTES as usize, "{taken}");
    }
}
