//! Cuts output into pieces of text: one a line, at most 64 KiB each, or as many whole lines as fit when
//! there are too many for that. Pure.
//!
//! A piece ends with a line end, unless more of its line follows: so the pieces written one after the
//! other are the output, but for `\r\n`, which becomes `\n`, bytes that are not UTF-8, which become
//! U+FFFD, and a line end that is added to a last line without one.
use crate::base::text::lossy;
use std::borrow::Cow;

/// Bytes of output in one piece at most.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Output from somewhere in a stream on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'b> {
    /// What there is.
    pub(super) bytes: &'b [u8],
    /// Nothing comes after it.
    pub(super) last: bool,
    /// Several lines may share a piece.
    pub(super) joined: bool,
}

/// The first piece, and how many bytes of output it stands for; none until there is more output.
pub(super) fn first_piece(window: Window<'_>) -> Option<(usize, Cow<'_, str>)> {
    let Window { bytes, last, joined } = window;
    let reach = &bytes[..bytes.len().min(PIECE_BYTES + 1)];
    let line_end = |b: &u8| *b == b'\n';
    let end = if joined { reach.iter().rposition(line_end) } else { reach.iter().position(line_end) };
    match end {
        Some(end) => Some((end + 1, without_returns(lossy(&bytes[..=end])))),
        None if bytes.len() > PIECE_BYTES => {
            let cut = character_border(&bytes[..PIECE_BYTES]);
            Some((cut, lossy(&bytes[..cut])))
        }
        None if last && !bytes.is_empty() => {
            let mut text = lossy(bytes).into_owned();
            text.push('\n');
            Some((bytes.len(), Cow::Owned(text)))
        }
        None => None,
    }
}

fn without_returns(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { text }
}

/// The longest beginning that does not end inside a character, as far as UTF-8 has any.
fn character_border(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    let lead = bytes[start..].iter().rposition(|b| b & 0xC0 != 0x80).map_or(bytes.len(), |at| start + at);
    match std::str::from_utf8(&bytes[lead..]) {
        Err(error) if error.error_len().is_none() && lead > 0 => lead,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &[u8], last: bool, joined: bool) -> (Vec<String>, usize) {
        let (mut seen, mut at) = (Vec::new(), 0);
        while let Some((length, text)) = first_piece(Window { bytes: &bytes[at..], last, joined }) {
            assert!(length > 0);
            seen.push(text.into_owned());
            at += length;
        }
        (seen, at)
    }

    #[test]
    fn one_piece_a_line() {
        assert_eq!(pieces(b"a\r\nb", true, false), (vec!["a\n".to_owned(), "b\n".to_owned()], 4));
        assert_eq!(pieces(b"a\r\nb", false, false), (vec!["a\n".to_owned()], 3));
        assert_eq!(pieces(b"\n\r\n\r", true, false).0, ["\n", "\n", "\r\n"]);
        assert_eq!(pieces(b"", true, false).0, [""; 0]);
        assert_eq!(pieces(b"a\r\r\nb\rc\n", true, false).0, ["a\r\n", "b\rc\n"]);
    }

    #[test]
    fn broken_characters_are_replaced_and_nothing_after_them_is_lost() {
        assert_eq!(
            pieces(b"a\xffb\nc\xc3\n\xe2\x82\xac\n\xe2\x82", true, false).0,
            ["a\u{fffd}b\n", "c\u{fffd}\n", "\u{20ac}\n", "\u{fffd}\n"]
        );
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_joins_again() {
        for character in ["x", "\u{e9}", "\u{20ac}", "\u{1f600}"] {
            for shift in 0..4 {
                let line = "-".repeat(shift) + &character.repeat(PIECE_BYTES) + "\r\n";
                let (seen, used) = pieces(line.as_bytes(), false, false);
                assert_eq!(used, line.len());
                assert!(seen.len() > 1 && seen.iter().all(|piece| piece.len() <= PIECE_BYTES));
                assert_eq!(seen.concat(), line.replace("\r\n", "\n"));
            }
        }
        // Exactly as long as a piece may be, with its line end or still without.
        let exact = "x".repeat(PIECE_BYTES);
        assert_eq!(pieces(format!("{exact}\n").as_bytes(), false, false).0, [format!("{exact}\n")]);
        assert_eq!(pieces(exact.as_bytes(), false, false).0, [""; 0]);
        assert_eq!(pieces(exact.as_bytes(), true, false).0, [format!("{exact}\n")]);
        // Continuation bytes alone have no border; they are cut all the same.
        let broken = vec![0x80; 2 * PIECE_BYTES];
        assert_eq!(pieces(&broken, true, false).0.concat().chars().count(), 2 * PIECE_BYTES + 1);
    }

    #[test]
    fn joined_pieces_are_whole_lines_together() {
        let text = "one\r\ntwo\n".repeat(PIECE_BYTES / 4) + "rest";
        let (seen, used) = pieces(text.as_bytes(), false, true);
        assert_eq!(used, text.len() - 4);
        assert!(seen.len() < 8 && seen.iter().all(|piece| piece.ends_with('\n')));
        assert_eq!(seen.concat() + "rest", text.replace("\r\n", "\n"));
        let long = "x".repeat(3 * PIECE_BYTES) + "\n";
        assert_eq!(pieces(long.as_bytes(), false, true).0.concat(), long);
    }
}
