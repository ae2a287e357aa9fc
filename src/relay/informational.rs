//! Informational answers (RFC 9110 section 15.2): any number may come before the final one. They are not
//! passed on, and an app that sends them without an end is stopped.
use crate::http::response_head_length;
use std::io;

/// Bytes of all that come before one final answer.
pub(super) const BYTES_MAX: usize = 64 * 1024;

/// What follows empty lines.
pub(super) fn past_empty_lines(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..]
}

/// Whether this begins an informational answer.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let bytes = past_empty_lines(bytes);
    bytes.starts_with(b"HTTP/1.") && bytes.get(9) == Some(&b'1')
}

/// Bytes of those that are whole at the front of `bytes`. Another protocol (101) is a final answer.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut used = 0;
    while begins(&bytes[used..])
        && let Some((status, length)) = response_head_length(&bytes[used..])
        && status != 101
    {
        used += length;
    }
    used
}

/// Counts so many bytes of them.
///
/// # Errors
/// They have become too many.
pub(super) fn count(total: &mut usize, bytes: usize) -> io::Result<()> {
    *total += bytes;
    if *total > BYTES_MAX {
        return Err(io::Error::other("the wrapped server's informational answers are too long"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ones_count() {
        let hints =
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\r\nHTTP/1.1 100 Continue\r\nTransfer-Encoding: d\r\n\r\n";
        let all = [&hints[..], b"HTTP/1.1 200 OK\r\n\r\n"].concat();
        assert_eq!(whole(&all), hints.len());
        assert_eq!(whole(&hints[..hints.len() - 1]), 37);
        assert_eq!(whole(&hints[..36]), 0);
        for other in
            ["HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 10 \r\n\r\n", "HTTP/1.1 100\r\nbad\r\n\r\n", "", "1"]
        {
            assert_eq!(whole(other.as_bytes()), 0, "{other}");
        }
    }
}
