//! Random numbers from the kernel's generator (`getrandom(2)`, which needs no `/dev`).
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use std::io;

/// `N` random bytes that nobody can guess.
///
/// # Errors
/// When the kernel has no generator (`ENOSYS` before Linux 3.17).
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// A random UUID (RFC 9562 section 5.4), lower case.
///
/// # Errors
/// As for [`bytes`].
pub fn uuid_v4() -> io::Result<String> {
    Ok(uuid_v4_of(bytes()?))
}

/// The UUID of that version with these bytes, but for the six bits that say so.
pub fn uuid_v4_of(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = super::hex::hex(&bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_have_their_version_and_variant_and_differ() {
        let [a, b] = [super::uuid_v4().unwrap(), super::uuid_v4().unwrap()];
        assert_ne!(a, b);
        for uuid in [a, b] {
            let digits: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(digits, [8, 4, 4, 4, 12], "{uuid}");
            assert!(uuid[14..].starts_with('4') && uuid[19..].starts_with(['8', '9', 'a', 'b']), "{uuid}");
        }
    }
}
