//! What may be kept: a text that is not empty and not too long. Pure.
use std::fmt;
use std::sync::Arc;

/// The longest payload, in UTF-16 code units: that is how the browsers that make and read it count.
pub const PAYLOAD_CHARS: usize = 500_000;

/// Why a text is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// It has no characters.
    Empty,
    /// It has more than [`PAYLOAD_CHARS`].
    TooLong,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadError::Empty => "Payload must not be empty.",
            PayloadError::TooLong => "Payload exceeds the maximum allowed length of 500,000 characters.",
        })
    }
}

impl std::error::Error for PayloadError {}

/// A text of 1 to [`PAYLOAD_CHARS`] UTF-16 code units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Arc<str>);

impl Payload {
    /// Checks a text.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn new(text: String) -> Result<Payload, PayloadError> {
        if text.is_empty() {
            return Err(PayloadError::Empty);
        }
        // A text has at most as many code units as bytes, so most need not be counted.
        if text.len() > PAYLOAD_CHARS && text.encode_utf16().count() > PAYLOAD_CHARS {
            return Err(PayloadError::TooLong);
        }
        Ok(Payload(text.into()))
    }

    /// The text.
    pub fn into_text(self) -> Arc<str> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_utf_16() {
        let new = |text: String| Payload::new(text).map(|_| ());
        assert_eq!(new(String::new()), Err(PayloadError::Empty));
        assert_eq!(new("\0".to_owned()), Ok(()));
        for (unit, most) in
            [("a", 500_000), ("\u{e9}", 500_000), ("\u{20ac}", 500_000), ("\u{1f600}", 250_000)]
        {
            assert_eq!(new(unit.repeat(most)), Ok(()), "{unit}");
            assert_eq!(new(unit.repeat(most + 1)), Err(PayloadError::TooLong), "{unit}");
        }
    }
}
