//! Unguessable identifiers from the kernel's random source (`random(4)`).
use std::fs::File;
use std::io::{self, Read};

/// `N` random bytes.
///
/// # Errors
/// When `/dev/urandom` cannot be read (an empty chroot without `/dev`): callers refuse to start
/// rather than fall back to something guessable.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char])
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hex_is_lower_case_and_two_digits_a_byte() {
        assert_eq!(super::hex(&[0, 15, 255]), "000fff");
    }
}
