//! Threads with a name, a stack size, and no panic when the kernel has none to give.
use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack of every thread we start, in bytes. The deepest call chain (a relayed request) uses less
/// than a quarter of it; only touched pages cost memory.
pub const STACK_BYTES: usize = 256 * 1024;

/// Starts a named thread.
///
/// # Errors
/// When the process is out of threads or memory (`pthread_create(3)`: EAGAIN).
pub fn spawn<F, T>(name: impl Into<String>, body: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}
