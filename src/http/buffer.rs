//! Buffers that begin small and grow while what passes through fills them, all of them together within
//! one bound: a thousand slow transfers cost little, a few fast ones get all they can use.
use super::limits::GROWN_BYTES;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What every buffer begins with, in bytes.
pub const FIRST_BYTES: usize = 4 * 1024;
/// What one grows to at most.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that all buffers have beyond their first ones.
static GROWN: AtomicUsize = AtomicUsize::new(0);

/// One buffer; costs nothing until its first use.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// All of it; its contents are whatever was there.
    pub fn get(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; FIRST_BYTES];
        }
        &mut self.0
    }

    /// What is in it, nothing before the first use.
    pub fn contents(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has grown.
    pub fn is_grown(&self) -> bool {
        self.0.len() > FIRST_BYTES
    }

    /// Tells that a transfer used `bytes` of it: if that was most of it, the next one gets more, within
    /// the bounds of one and of all.
    pub fn used(&mut self, bytes: usize) {
        let now = self.0.len();
        if bytes * 2 > now && now < BUFFER_BYTES_MAX {
            let larger = (now * 4).min(BUFFER_BYTES_MAX);
            let more = |grown: usize| (grown + larger - now <= GROWN_BYTES).then_some(grown + larger - now);
            if GROWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
                self.0.resize(larger, 0);
            }
        }
    }

    /// Makes it at least so large: something has to be in it whole.
    pub fn need(&mut self, bytes: usize) {
        let now = self.get().len();
        if bytes > now {
            GROWN.fetch_add(bytes - now, Ordering::Relaxed);
            self.0.resize(bytes, 0);
        }
    }

    /// Gives back what it has grown by. What it held is gone.
    pub fn shrink(&mut self) {
        if self.is_grown() {
            GROWN.fetch_sub(self.0.len() - FIRST_BYTES, Ordering::Relaxed);
            self.0 = Vec::new();
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_it_is_filled_and_all_together_stay_within_their_bound() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.get().len(), FIRST_BYTES);
        buffer.used(100);
        assert!(!buffer.is_grown());
        let mut many: Vec<Buffer> =
            (0..GROWN_BYTES / BUFFER_BYTES_MAX + 50).map(|_| Buffer::default()).collect();
        for buffer in &mut many {
            for _ in 0..3 {
                let filled = buffer.get().len();
                buffer.used(filled);
            }
        }
        let grown: usize = many.iter().map(|buffer| buffer.0.len() - FIRST_BYTES).sum();
        assert!(grown <= GROWN_BYTES && grown > GROWN_BYTES / 2, "{grown}");
        assert!(!many.last().unwrap().is_grown());
        drop(many);
        let filled = buffer.get().len();
        buffer.used(filled);
        assert!(buffer.is_grown());
    }
}
