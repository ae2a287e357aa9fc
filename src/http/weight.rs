//! What the heads of all requests under way weigh together. Each is kept as long as its request lasts, and
//! more than once: it is parsed, translated, and sent.
use super::limits::{HEAVY_HEADS_BYTES, LIGHT_HEAD_BYTES};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all of them have beyond what is light.
static HEAVY: AtomicUsize = AtomicUsize::new(0);

/// The share of one head in it, given back on drop. An ordinary head weighs nothing.
#[derive(Debug, Default)]
pub(super) struct Weight(u32);

impl Weight {
    /// For a head of this many bytes; `None` when there is no room for it beside the others.
    pub(super) fn of(bytes: usize) -> Option<Weight> {
        let heavy = bytes.saturating_sub(LIGHT_HEAD_BYTES);
        let more = |all: usize| (all + heavy <= HEAVY_HEADS_BYTES).then_some(all + heavy);
        let fits = heavy == 0 || HEAVY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        // Not `then_some`: a weight that was made and dropped would give back what it never took. What
        // fits is far less than 4 GiB.
        fits.then(|| Weight(u32::try_from(heavy).unwrap_or(0)))
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        if self.0 > 0 {
            HEAVY.fetch_sub(self.0 as usize, Ordering::Relaxed);
        }
    }
}
