//! What texts, ids and digests in a bundle may be. Pure.
use super::error::WorkersError;
use super::model::ConfigBundleRef;

/// Bytes of a bundle's id.
const ID_BYTES: usize = 128;
/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 64;
/// Bytes of any other text in a bundle.
const TEXT_BYTES: usize = 2048;
/// What a text may not contain: it would name a place on some machine.
const LOCAL: [&str; 9] = [
    ".cache",
    ".sock",
    "/sock",
    "/run/",
    "/sessions/",
    ".yoi/sessions",
    "socket=",
    "session_path",
    "cache_path",
];

/// Whether a reference has the form of one.
///
/// # Errors
/// What is wrong with its id or its digest.
pub(super) fn check_reference(reference: &ConfigBundleRef) -> Result<(), WorkersError> {
    let id = &reference.id;
    if id.is_empty() || id.len() > ID_BYTES {
        return Err(invalid(&format!("config bundle id must be 1 to {ID_BYTES} bytes long")));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if !id.as_bytes()[0].is_ascii_alphanumeric() || !id.bytes().all(allowed) {
        return Err(invalid(
            "config bundle id must begin with a letter or digit and go on with these, `-`, `_`, `.` and `:`",
        ));
    }
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if reference.digest.len() != DIGEST_DIGITS || !reference.digest.bytes().all(digit) {
        return Err(invalid(&format!(
            "config bundle digest must be {DIGEST_DIGITS} lower-case hexadecimal digits"
        )));
    }
    Ok(())
}

pub(super) fn invalid(why: &str) -> WorkersError {
    WorkersError::Invalid(why.to_owned())
}

pub(super) fn filled(what: &str, value: &str) -> Result<(), WorkersError> {
    if value.trim().is_empty() {
        return Err(invalid(&format!("config bundle {what} must not be empty")));
    }
    text(what, value)
}

pub(super) fn no_controls(what: &str, value: &str) -> Result<(), WorkersError> {
    if value.chars().any(char::is_control) {
        return Err(invalid(&format!("config bundle {what} must not contain control characters")));
    }
    Ok(())
}

/// The rules of a text: short, printable, and no path, socket or session of somebody's machine.
pub(super) fn text(what: &str, value: &str) -> Result<(), WorkersError> {
    let trimmed = value.trim();
    if trimmed.len() > TEXT_BYTES {
        return Err(invalid(&format!("config bundle {what} is longer than {TEXT_BYTES} bytes")));
    }
    no_controls(what, value)?;
    let lower = trimmed.to_lowercase();
    let slashed = lower.replace('\\', "/");
    let local = slashed.starts_with('/')
        || slashed.starts_with('~')
        || lower.contains(":\\")
        || LOCAL.iter().any(|part| lower.contains(part) || slashed.contains(part));
    if local {
        return Err(invalid(&format!("config bundle {what} must not name a place on a machine")));
    }
    Ok(())
}
