//! The chunked transfer coding (RFC 9112 section 7.1), decoded strictly and without I/O.
//!
//! Used for the bodies of clients and, after an early response, of the wrapped server. Extensions and
//! trailers are bounded, checked and dropped.
use super::limits::CHUNK_LINE_BYTES;
use std::fmt;

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkError(&'static str);

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the hexadecimal digits of a chunk's size.
    Size {
        digits: u8,
    },
    /// In a chunk extension.
    Extension,
    /// After the CR of a size line.
    SizeEnd,
    /// In a chunk's data.
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk.
    TrailerStart,
    Trailer,
    TrailerEnd,
    /// After the CR of the empty line that ends it all.
    LastLf,
    Done,
}

/// The decoder's state between two pieces of input.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of the current chunk still to come.
    left: u64,
    /// Bytes of the current size line, or of all trailers.
    line: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a body.
    pub fn new() -> Self {
        Decoder { state: State::Size { digits: 0 }, left: 0, line: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk's data that can be read past the decoder; say so with `took`.
    pub fn data_left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// `n` bytes of data were taken past the decoder.
    pub fn took(&mut self, n: u64) {
        self.left -= n;
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    /// Decodes from `input` into `out`; returns how much of each was used. Stops when either is used
    /// up or the body is done.
    ///
    /// # Errors
    /// [`ChunkError`] at the first byte that has no place.
    pub fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), ChunkError> {
        let (mut used, mut made) = (0, 0);
        while used < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = (input.len() - used)
                    .min(out.len() - made)
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                if n == 0 {
                    break;
                }
                out[made..made + n].copy_from_slice(&input[used..used + n]);
                used += n;
                made += n;
                self.took(n as u64);
            } else {
                self.state = self.step(input[used])?;
                used += 1;
            }
        }
        Ok((used, made))
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::Size { digits } => match (byte as char).to_digit(16) {
                Some(digit) => {
                    if digits == 16 {
                        return Err(ChunkError("a chunk size has too many digits"));
                    }
                    self.left = self.left << 4 | u64::from(digit);
                    Ok(State::Size { digits: digits + 1 })
                }
                None if digits == 0 => Err(ChunkError("a chunk size is missing")),
                None if byte == b'\r' => Ok(State::SizeEnd),
                None if byte == b';' => {
                    self.line = 0;
                    Ok(State::Extension)
                }
                None => Err(ChunkError("a chunk size is malformed")),
            },
            State::Extension => match byte {
                b'\r' => Ok(State::SizeEnd),
                _ => self.line_byte(byte).map(|()| State::Extension),
            },
            State::SizeEnd => {
                expect(byte, b'\n')?;
                self.line = 0;
                Ok(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            State::DataCr => expect(byte, b'\r').map(|()| State::DataLf),
            State::DataLf => expect(byte, b'\n').map(|()| State::Size { digits: 0 }),
            State::TrailerStart if byte == b'\r' => Ok(State::LastLf),
            State::TrailerStart | State::Trailer => match byte {
                b'\r' => Ok(State::TrailerEnd),
                _ => self.line_byte(byte).map(|()| State::Trailer),
            },
            State::TrailerEnd => expect(byte, b'\n').map(|()| State::TrailerStart),
            State::LastLf => expect(byte, b'\n').map(|()| State::Done),
            State::Data | State::Done => Err(ChunkError("a byte after the end")),
        }
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.line += 1;
        if self.line > CHUNK_LINE_BYTES {
            return Err(ChunkError("a chunk extension or the trailers are too long"));
        }
        if byte == b'\t' || (byte >= b' ' && byte != 127) {
            Ok(())
        } else {
            Err(ChunkError("a control character in a chunk extension or trailer"))
        }
    }
}

fn expect(byte: u8, wanted: u8) -> Result<(), ChunkError> {
    if byte == wanted { Ok(()) } else { Err(ChunkError("a line end is missing in a chunked body")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let (mut decoder, mut all, mut at) = (Decoder::new(), Vec::new(), 0);
        while at < input.len() && !decoder.is_done() {
            let mut out = [0; 3];
            let end = (at + piece).min(input.len());
            let (used, made) = decoder.decode(&input[at..end], &mut out)?;
            all.extend_from_slice(&out[..made]);
            at += used;
        }
        Ok((all, decoder.is_done(), at))
    }

    #[test]
    fn decodes_whatever_the_pieces() {
        let body = b"4;x=\"y\"\r\nWiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\nGET /";
        for piece in 1..=body.len() {
            assert_eq!(decode(body, piece), Ok((b"Wikipedia".to_vec(), true, body.len() - 5)), "{piece}");
        }
    }

    #[test]
    fn refuses_what_is_not_exactly_chunked() {
        for body in [
            &b"+5\r\nhello\r\n0\r\n\r\n"[..],
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"\r\n",
            b";ext\r\n",
            b"-1\r\n",
            b"10000000000000000\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"5;a\0b\r\nhello\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\n",
        ] {
            assert!(decode(body, 64).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let (data, done, _) = decode(b"ffffffffffffffff\r\nab", 64).unwrap();
        assert_eq!((data.as_slice(), done), (&b"ab"[..], false));
    }

    #[test]
    fn extensions_and_trailers_fill_their_bound() {
        let mut fits = b"1;".to_vec();
        fits.extend(std::iter::repeat_n(b'e', CHUNK_LINE_BYTES));
        let mut bursts = fits.clone();
        fits.extend_from_slice(b"\r\nx\r\n0\r\n\r\n");
        bursts.extend_from_slice(b"e\r\nx\r\n0\r\n\r\n");
        assert!(decode(&fits, 7).unwrap().1);
        assert!(decode(&bursts, 7).is_err());
        let mut trailers = b"0\r\n".to_vec();
        for _ in 0..=CHUNK_LINE_BYTES / 4 {
            trailers.extend_from_slice(b"a: b\r\n");
        }
        assert!(decode(&trailers, 11).is_err());
    }
}
