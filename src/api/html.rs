//! What our pages have in common: their type, and the nonce that lets their own scripts run.
use crate::base::base64::base64;
use crate::base::random;
use std::io;

/// The type of a page.
pub(super) const HTML: &str = "text/html; charset=utf-8";
/// Random bytes in a nonce.
const NONCE_BYTES: usize = 16;

/// A nonce for one response: what a content security policy names as `'nonce-…'`.
///
/// # Errors
/// When the system has no random bytes.
pub(super) fn nonce() -> io::Result<String> {
    let bytes = random::bytes::<NONCE_BYTES>();
    let bytes = bytes.inspect_err(|error| log::error!("no random bytes: {error}"))?;
    Ok(base64(&bytes))
}
