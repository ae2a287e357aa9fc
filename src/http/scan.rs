//! Where a request head ends in what was received so far. Pure; looks at line ends only.

/// What a buffer holds so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// No complete head yet.
    More,
    /// A complete head of this many bytes.
    Complete(usize),
    /// Something no further byte can mend; parsing it says what.
    Broken,
}

/// Looks for the end of a head in `buffer`, of which `seen` bytes were looked at before.
///
/// A line feed without its carriage return is `Broken` at once: waiting for more would only give a
/// sender time.
pub fn scan(buffer: &[u8], seen: usize) -> Scan {
    match buffer {
        // Half of an empty line before the request line.
        [b'\r'] => return Scan::More,
        [first, ..] if !is_token(*first) => return Scan::Broken,
        _ => {}
    }
    let mut at = seen;
    while let Some(offset) = buffer[at..].iter().position(|&b| b == b'\n') {
        at += offset;
        if at == 0 || buffer[at - 1] != b'\r' {
            return Scan::Broken;
        }
        if at >= 3 && &buffer[at - 3..at] == b"\r\n\r" {
            return Scan::Complete(at + 1);
        }
        at += 1;
    }
    Scan::More
}

/// How many bytes of empty lines stand before a request line (RFC 9112 section 2.2 says to skip them).
pub fn leading_empty_lines(buffer: &[u8]) -> usize {
    buffer.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_in_whatever_pieces_it_comes() {
        let whole = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        for end in 0..whole.len() {
            let found = if end < whole.len() - 4 { Scan::More } else { Scan::Complete(whole.len() - 4) };
            for seen in 0..=end.min(whole.len() - 5) {
                assert_eq!(scan(&whole[..end], seen), found, "{end} {seen}");
            }
        }
    }

    #[test]
    fn what_cannot_become_a_head_is_told_at_once() {
        for start in [&b"\n"[..], b"\r\r", b" GET", b"\x16\x03", b"GET / HTTP/1.1\n", b"G\r\nA\n"] {
            assert_eq!(scan(start, 0), Scan::Broken, "{start:?}");
        }
        assert_eq!((scan(b"\r", 0), leading_empty_lines(b"\r\n\r\n\rG")), (Scan::More, 4));
    }
}
