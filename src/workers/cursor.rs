//! A place in the sequence of observed events: `wo_` and 16 hexadecimal digits. Pure.
use std::fmt;

/// The number of the last event that was seen; 0 stands before all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

impl Cursor {
    /// Reads one. Upper-case digits, and a plus sign before them, are taken too: the sign is one of
    /// the sixteen characters then, as it always was.
    pub fn parse(text: &str) -> Option<Cursor> {
        let digits = text.strip_prefix("wo_")?;
        let plain = digits.strip_prefix('+').unwrap_or(digits);
        let hexadecimal = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits.len() != DIGITS || !hexadecimal {
            return None;
        }
        u64::from_str_radix(plain, 16).ok().map(Cursor)
    }
}

const DIGITS: usize = 16;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wo_{:0DIGITS$x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_three_letters_and_sixteen_digits() {
        for (text, number) in [
            ("wo_0000000000000000", 0),
            ("wo_00000000000000ff", 255),
            ("wo_00000000000000FF", 255),
            ("wo_+0000000000000ff", 255),
            ("wo_ffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(Cursor::parse(text), Some(Cursor(number)), "{text}");
        }
        for text in [
            "",
            "wo_",
            "wo_0",
            "wo_00000000000000000",
            "WO_0000000000000000",
            "0000000000000000",
            "wo_000000000000000g",
            "wo_-000000000000001",
            "wo_++00000000000001",
            "wo_ 000000000000001",
            "wo_00000000000000\u{e9}",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
        assert_eq!(Cursor(0xAB).to_string(), "wo_00000000000000ab");
    }
}
