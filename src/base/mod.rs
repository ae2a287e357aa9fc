//! Floor 0: what the standard library lacks. Knows nothing of HTTP, processes or the product.
pub mod atomic_file;
pub mod id;
pub mod lock;
pub mod ring;
pub mod stop;
pub mod thread;
pub mod time;
