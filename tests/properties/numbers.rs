//! Numbers at random that are the same in every run.

/// xorshift64*.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }
}
