//! The body of a request, read as the client sends it: framing, `100 Continue`, minimum rate, size.
use super::chunked::Decoder;
use super::conn::Conn;
use super::head::{Framing, Head};
use super::limits::{DRAIN_BYTES, WATCH_TICK};
use super::rate::MinimumRate;
use super::seat::Seat;
use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, Read};
use std::time::Duration;

/// Why a body cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client closed before the end its framing promised.
    Incomplete,
    /// A chunked body that is not one, with what is wrong.
    Malformed(String),
    /// More bytes than allowed.
    TooLarge,
    /// The client sent slower than the minimum rate.
    TooSlow,
    /// Others' bodies take all the memory there is for them.
    NoRoom,
    /// The request made room for others.
    Cut,
}

impl BodyError {
    /// The body error inside an I/O error, if there is one.
    pub fn of(error: &io::Error) -> Option<BodyError> {
        error.get_ref()?.downcast_ref::<BodyError>().cloned()
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Incomplete => "the request body ended early",
            BodyError::Malformed(what) => what,
            BodyError::TooLarge => "the request body is too large",
            BodyError::TooSlow => "the request body came too slowly",
            BodyError::NoRoom => "too many request bodies are in memory",
            BodyError::Cut => "too many requests last, and this is the slowest",
        })
    }
}

impl Error for BodyError {}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        io::Error::other(error)
    }
}

#[derive(Debug)]
enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Decoder),
    /// An error ended it: the connection cannot be used again.
    Broken,
}

/// How far the body of the current request was read.
#[derive(Debug)]
pub(super) struct BodyState {
    left: Left,
    /// The client waits for `100 Continue`.
    continue_due: bool,
    rate: MinimumRate,
    /// Bytes that may still come.
    allowance: u64,
}

impl BodyState {
    pub(super) fn of(head: &Head, min_rate: u64) -> BodyState {
        BodyState {
            left: match head.framing() {
                Framing::None | Framing::Length(0) => Left::Nothing,
                Framing::Length(length) => Left::Bytes(length),
                Framing::Chunked => Left::Chunks(Decoder::new()),
            },
            continue_due: head.expects_continue(),
            rate: MinimumRate::new(min_rate),
            allowance: u64::MAX,
        }
    }

    /// Bounds the body; tells at once when its declared length is over the bound.
    pub(super) fn limit(&mut self, bytes: u64) -> Result<(), BodyError> {
        self.allowance = bytes;
        match self.left {
            Left::Bytes(left) if left > bytes => Err(BodyError::TooLarge),
            _ => Ok(()),
        }
    }

    /// Nothing of the body is left to read.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// Whether the rest can be read away cheaply, so that the connection can be kept. A client that
    /// waits for `100 Continue` may or may not send its body: such a connection is not kept.
    pub(super) fn is_drainable(&self) -> bool {
        match &self.left {
            Left::Nothing => true,
            Left::Bytes(left) => *left <= DRAIN_BYTES as u64 && !self.continue_due,
            Left::Chunks(_) => !self.continue_due,
            Left::Broken => false,
        }
    }
}

/// Reads the body; `Ok(0)` is its proper end, an early end is an error.
pub struct BodyReader<'e> {
    pub(super) conn: &'e mut Conn,
    pub(super) state: &'e mut BodyState,
    pub(super) seat: &'e Seat,
    /// Asked at each tick of waiting.
    pub(super) watch: Option<&'e dyn Fn() -> io::Result<()>>,
}

impl fmt::Debug for BodyReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let result = self.read_some(out);
        if result.is_err() {
            self.state.left = Left::Broken;
        }
        result
    }
}

impl BodyReader<'_> {
    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() || matches!(self.state.left, Left::Nothing) {
            return Ok(0);
        }
        if std::mem::take(&mut self.state.continue_due) {
            let (rate, seat) = (&mut self.state.rate, self.seat);
            let go_on = &mut [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")];
            // A client that never reads must not hold us here.
            self.conn.write_all(go_on, |_, waited| pace(seat, rate, 0, waited, true))?;
        }
        let n = match &mut self.state.left {
            Left::Nothing => 0,
            Left::Broken => return Err(BodyError::Incomplete.into()),
            Left::Bytes(_) => self.read_bytes(out)?,
            Left::Chunks(_) => self.read_chunks(out)?,
        };
        match self.state.allowance.checked_sub(n as u64) {
            Some(left) => self.state.allowance = left,
            None => return Err(BodyError::TooLarge.into()),
        }
        self.seat.meter().received(n);
        Ok(n)
    }

    fn read_bytes(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Left::Bytes(left) = self.state.left else { return Ok(0) };
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.receive(&mut out[..most], left)? {
            0 => Err(BodyError::Incomplete.into()),
            n if n as u64 == left => {
                self.state.left = Left::Nothing;
                Ok(n)
            }
            n => {
                self.state.left = Left::Bytes(left - n as u64);
                Ok(n)
            }
        }
    }

    fn read_chunks(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Left::Chunks(decoder) = &mut self.state.left else { return Ok(0) };
            let (used, made) = decoder
                .decode(&self.conn.buffer, out)
                .map_err(|error| BodyError::Malformed(error.to_string()))?;
            let (done, data_left) = (decoder.is_done(), decoder.data_left());
            self.conn.consume(used);
            if done {
                self.state.left = Left::Nothing;
                return Ok(made);
            }
            if made > 0 {
                return Ok(made);
            }
            // In the middle of a chunk its data goes straight to the caller; between chunks what
            // comes is framing, and is kept in the connection's buffer.
            if data_left > 0 {
                let most = out.len().min(usize::try_from(data_left).unwrap_or(usize::MAX));
                let n = self.receive(&mut out[..most], u64::MAX)?;
                if n == 0 {
                    return Err(BodyError::Incomplete.into());
                }
                if let Left::Chunks(decoder) = &mut self.state.left {
                    decoder.took(n as u64);
                }
                return Ok(n);
            }
            self.receive_framing()?;
        }
    }

    /// Not inlined: its room would be on the stack of every request with a body.
    #[inline(never)]
    fn receive_framing(&mut self) -> io::Result<()> {
        let mut framing = [0; 4096];
        match self.receive(&mut framing, u64::MAX)? {
            0 => Err(BodyError::Incomplete.into()),
            n => {
                self.conn.buffer.extend_from_slice(&framing[..n]);
                Ok(())
            }
        }
    }

    /// Some of the body, of which so many bytes are to come.
    fn receive(&mut self, out: &mut [u8], left: u64) -> io::Result<usize> {
        let (rate, seat, watch) = (&mut self.state.rate, self.seat, self.watch);
        self.conn.read_body(out, |moved, waited| {
            if moved == 0 {
                watch.map_or(Ok(()), |watch| watch())?;
            }
            let tick = pace(seat, rate, moved, waited, (moved as u64) < left)?;
            Ok(if watch.is_some() { tick.min(WATCH_TICK) } else { tick })
        })
    }

    /// Reads the rest away, up to the drain bound; true when the connection can be used again.
    pub(super) fn drain(self) -> bool {
        self.state.is_read() || (self.state.is_drainable() && self.throw_away())
    }

    /// Not inlined: its room would be on the stack of every request that waits.
    #[inline(never)]
    fn throw_away(mut self) -> bool {
        let mut thrown = 0;
        let mut scratch = [0; 8192];
        while thrown <= DRAIN_BYTES {
            match self.read(&mut scratch) {
                Ok(0) => return self.state.is_read(),
                Ok(n) => thrown += n,
                Err(_) => return false,
            }
        }
        false
    }
}

/// A step of reading: counts it for the seat and holds the client to its minimum rate. How long the next
/// may take.
fn pace(
    seat: &Seat,
    rate: &mut MinimumRate,
    moved: usize,
    waited: Duration,
    goes_on: bool,
) -> io::Result<Duration> {
    if seat.is_cut() {
        return Err(BodyError::Cut.into());
    }
    let tick = seat.step(moved, waited, goes_on);
    if rate.step(moved, waited) { Ok(tick) } else { Err(BodyError::TooSlow.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::limits::WAITED;
    use super::super::seat::tests::in_a_crowd;
    use super::*;

    #[test]
    fn an_upload_leaves_the_pool_at_once_while_more_is_to_come() {
        for goes_on in [true, false] {
            let seat = in_a_crowd();
            pace(&seat, &mut MinimumRate::new(0), 1, WAITED, goes_on).unwrap();
            assert_eq!(seat.end(), !goes_on);
        }
    }
}
