//! Floor 0: what the standard library lacks. Knows nothing of HTTP, processes or the product.
pub mod arguments;
pub mod base64;
pub mod hex;
pub mod lock;
pub mod outlet;
pub mod random;
pub mod ring;
pub mod stop;
pub mod text;
pub mod thread;
pub mod time;
