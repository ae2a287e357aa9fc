//! A word to everybody that the end has begun; they look when they can.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Given once, never taken back. Clones are the same token.
#[derive(Clone, Debug, Default)]
pub struct StopToken(Arc<AtomicBool>);

impl StopToken {
    /// Says it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was said.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
