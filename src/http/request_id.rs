//! Ids of requests: the client's own (`X-Request-Id`) if it is a sane one, else one of ours. A number
//! that counts up, behind a beginning that is random once, so that no request asks the kernel for one.
use crate::base::{hex::hex, random};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The field that carries an id, from clients, to the wrapped server and back.
pub const REQUEST_ID: &str = "x-request-id";
/// Characters of a client's id at most.
pub const REQUEST_ID_BYTES: usize = 128;
/// Hexadecimal digits of the beginning, and of the number at least.
const DIGITS: usize = 12;

/// An id of ours, `5f3a09c1d2e4-00000000002f`.
pub(super) type OwnId = [u8; 2 * DIGITS + 1];

/// Whether a client's id is passed on: short, and harmless in any log.
pub(super) fn is_sane(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// The next number; never twice.
pub(super) fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The id with that number.
pub(super) fn own(number: u64) -> OwnId {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = [b'-'; 2 * DIGITS + 1];
    id[..DIGITS].copy_from_slice(beginning());
    for (place, shift) in id[DIGITS + 1..].iter_mut().rev().zip((0..).step_by(4)) {
        *place = HEX[(number >> shift & 15) as usize];
    }
    id
}

fn beginning() -> &'static [u8; DIGITS] {
    static BEGINNING: OnceLock<[u8; DIGITS]> = OnceLock::new();
    BEGINNING.get_or_init(|| {
        // Without a generator the ids of two lives may be the same: a nuisance in a log, no danger.
        let text = hex(&random::bytes::<{ DIGITS / 2 }>().unwrap_or_default());
        let mut beginning = [b'0'; DIGITS];
        beginning.copy_from_slice(text.as_bytes());
        beginning
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sane_and_differ() {
        let (a, b) = (own(next()), own(next()));
        assert!(is_sane(&a) && is_sane(&b));
        assert_ne!(a, b);
        assert_eq!(a[..13], b[..13]);
        assert!(own(0x2f).ends_with(b"-00000000002f"));
    }

    #[test]
    fn what_could_do_harm_in_a_log_is_no_id() {
        for id in [&b"a"[..], b"A.b_c-9", &[b'x'; REQUEST_ID_BYTES]] {
            assert!(is_sane(id));
        }
        for id in
            [&b""[..], b"a b", b"a\tb", b"a\"", b"a/b", b"a,b", b"caf\xe9", &[b'x'; REQUEST_ID_BYTES + 1]]
        {
            assert!(!is_sane(id), "{}", id.escape_ascii());
        }
    }
}
