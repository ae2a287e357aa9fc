//! A request that is over as a line of the access log. No query, no field and no body of it is logged, and
//! no secret in its path.
use super::PREFIX;
use crate::api;
use crate::base::time::micros;
use crate::http::{Class, Record};
use crate::logger::{self, AccessLine};

/// Characters of a path that are logged.
const PATH_CHARS: usize = 2048;

pub(super) fn log(record: &Record<'_>) {
    let head = record.head;
    let method = head.map(|head| head.method_bytes().escape_ascii().to_string());
    let path = head.map(|head| path(head.path(), record.class));
    let user = head.and_then(api::user);
    logger::access(AccessLine {
        client: &record.peer.ip().to_canonical().to_string(),
        method: method.as_deref(),
        path: path.as_deref(),
        status: (record.status > 0).then_some(record.status),
        duration_us: micros(record.took),
        received: record.received,
        sent: record.sent,
        class: record.class.as_str(),
        id: std::str::from_utf8(record.id).ok().filter(|id| !id.is_empty()),
        user: user.as_deref(),
        ..AccessLine::default()
    });
}

/// Escaped, so that no client can begin a line or a word.
fn path(path: &[u8], class: Class) -> String {
    let escaped = |path: &[u8]| path.escape_ascii().take(PATH_CHARS).map(char::from).collect::<String>();
    // What nobody read may have been for us.
    if class == Class::Relay {
        return escaped(path);
    }
    let below = path.strip_prefix(PREFIX).filter(|below| below.starts_with(b"/")).unwrap_or(path);
    let shown = api::loggable(below);
    let mut text = escaped(&path[..path.len() - below.len()]) + &escaped(shown);
    if shown.len() < below.len() {
        text.push('…');
    }
    text
}

#[cfg(all(test, feature = "artifacts"))]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_path_is_shown_to_its_owner_alone() {
        let secret = "/_frag/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f";
        for class in [Class::Control, Class::Unread] {
            assert_eq!(path(secret.as_bytes(), class), "/_frag/0b4f2c1e…");
        }
        assert_eq!(path(b"/0b4f2c1e-9c7a-4d6b-8f21-3a5d7e9b1c0f", Class::Relay).len(), 37);
    }
}
