//! The last bytes of one output stream, each at its offset in the whole. Pure.
use std::collections::VecDeque;

/// Keeps the last `capacity` bytes; memory grows with what there is.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    capacity: usize,
    end: u64,
    closed: bool,
}

impl Tail {
    pub(super) fn new(capacity: usize) -> Tail {
        Tail { bytes: VecDeque::new(), capacity, end: 0, closed: false }
    }

    /// The offset of the first byte still there.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Bytes that ever came.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether no more will come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Bytes kept now.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends; the oldest bytes make room.
    pub(super) fn push(&mut self, data: &[u8]) {
        let kept = &data[data.len().saturating_sub(self.capacity)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
        self.end += data.len() as u64;
    }

    /// Appends to `into` up to `most` bytes from offset `from` on, or from the first one kept if that
    /// is later; the offset it began at.
    pub(super) fn copy(&self, from: u64, most: usize, into: &mut Vec<u8>) -> u64 {
        let from = from.clamp(self.start(), self.end);
        let skip = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        let (first, second) = self.bytes.as_slices();
        let mut left = most;
        for part in [first.get(skip..).unwrap_or_default(), &second[skip.saturating_sub(first.len())..]] {
            let part = &part[..part.len().min(left)];
            into.extend_from_slice(part);
            left -= part.len();
        }
        from
    }

    /// Gives the memory back; what was there counts as gone.
    pub(super) fn forget(&mut self) {
        self.bytes = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(tail: &Tail, from: u64, most: usize) -> (u64, String) {
        let mut into = Vec::new();
        let at = tail.copy(from, most, &mut into);
        (at, String::from_utf8(into).unwrap())
    }

    #[test]
    fn keeps_the_last_bytes_at_their_offsets() {
        let mut tail = Tail::new(8);
        assert_eq!(copied(&tail, 5, 9), (0, String::new()));
        tail.push(b"abcdef");
        assert_eq!((tail.start(), tail.end(), tail.len()), (0, 6, 6));
        tail.push(b"ghij");
        assert_eq!((tail.start(), tail.end(), tail.len()), (2, 10, 8));
        assert_eq!(copied(&tail, 0, 99), (2, "cdefghij".to_owned()));
        for from in 2..=10 {
            assert_eq!(
                copied(&tail, from, 3).1,
                "cdefghij"[from as usize - 2..].chars().take(3).collect::<String>()
            );
        }
        assert_eq!(copied(&tail, 99, 99), (10, String::new()));
        tail.push(b"0123456789AB");
        assert_eq!(copied(&tail, 0, 99), (14, "456789AB".to_owned()));
        tail.forget();
        assert_eq!((tail.start(), tail.end()), (22, 22));
    }
}
