//! Bytes as text.
use std::borrow::Cow;

/// Bytes as text, with U+FFFD for what is not UTF-8. Most bytes are text, and finding that out is many
/// times faster than looking for what is not, which is all that [`String::from_utf8_lossy`] does.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}
