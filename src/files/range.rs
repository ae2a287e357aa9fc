//! The `Range` header (RFC 9110 section 14) against a file's size. Pure.

/// What part of a file to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeResult {
    /// All of it: no usable single byte range was asked for (RFC 9110 lets a server ignore `Range`).
    Whole,
    /// The bytes from `start` to `end_inclusive`, both below the size.
    Part {
        /// First byte.
        start: u64,
        /// Last byte.
        end_inclusive: u64,
    },
    /// The range lies past the end.
    Unsatisfiable,
}

/// Understands one range in bytes: `bytes=5-9`, `bytes=5-`, `bytes=-5`. Other units, several ranges
/// and malformed ones count as absent.
pub fn parse_range(header: &[u8], size: u64) -> RangeResult {
    single(header, size).unwrap_or(RangeResult::Whole)
}

fn single(header: &[u8], size: u64) -> Option<RangeResult> {
    let header = header.trim_ascii();
    let (unit, range) = header.split_at_checked(b"bytes=".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let range = range.trim_ascii();
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&range[..dash], &range[dash + 1..]);
    if first.is_empty() {
        let suffix = number(last)?;
        return match (suffix, size) {
            (0, _) => Some(RangeResult::Unsatisfiable),
            // The last bytes of nothing are all of it, and no Content-Range can say so.
            (_, 0) => None,
            _ => Some(RangeResult::Part { start: size.saturating_sub(suffix), end_inclusive: size - 1 }),
        };
    }
    let start = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)? };
    if end < start {
        return None;
    }
    if start >= size {
        return Some(RangeResult::Unsatisfiable);
    }
    Some(RangeResult::Part { start, end_inclusive: end.min(size - 1) })
}

/// Digits only; what does not fit is as good as the largest number, for no file is that long.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

#[cfg(test)]
mod tests {
    use super::RangeResult::{Part, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn a_table_of_ranges() {
        let part = |start, end_inclusive| Part { start, end_inclusive };
        let table: &[(&str, u64, RangeResult)] = &[
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-9", 10, part(0, 9)),
            ("bytes=0-10", 10, part(0, 9)),
            ("bytes=2-5", 10, part(2, 5)),
            ("bytes=9-", 10, part(9, 9)),
            ("bytes=0-", 10, part(0, 9)),
            ("bytes=-1", 10, part(9, 9)),
            ("bytes=-10", 10, part(0, 9)),
            ("bytes=-11", 10, part(0, 9)),
            ("Bytes=1-2", 10, part(1, 2)),
            (" bytes=1-2 ", 10, part(1, 2)),
            ("bytes=0001-0002", 10, part(1, 2)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=0-18446744073709551615", 10, part(0, 9)),
            ("bytes=0-99999999999999999999999999", 10, part(0, 9)),
            ("bytes=99999999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-99999999999999999999999999", 10, part(0, 9)),
            ("bytes=18446744073709551615-", u64::MAX, Unsatisfiable),
            ("bytes=18446744073709551614-", u64::MAX, part(u64::MAX - 1, u64::MAX - 1)),
            ("", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=1", 10, Whole),
            ("bytes=5-2", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=1-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1-+2", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            ("bytes=1 -2", 10, Whole),
            ("bytes=1- 2", 10, Whole),
            ("bytes=1-2-3", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=0-1,", 10, Whole),
            ("bytes=,0-1", 10, Whole),
            ("bytes =0-1", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("bytes:0-1", 10, Whole),
            ("bytes=\u{0661}-2", 10, Whole),
        ];
        for (header, size, expected) in table {
            assert_eq!(parse_range(header.as_bytes(), *size), *expected, "{header:?} of {size}");
        }
        assert_eq!(parse_range(b"bytes=\xff-\0", 10), Whole);
    }
}
