//! A request that is over as a line of the access log. No query, no field and no body of it is logged, and
//! no secret in its path.
use super::PREFIX;
use crate::api;
use crate::base::time::micros;
use crate::http::{Class, Record};
use crate::logger::{self, AccessLine};

/// Characters of a path that are logged.
const PATH_CHARS: usize = 2048;
/// Of a method.
const METHOD_CHARS: usize = 64;

/// `may_wait` for whoever reads the lines slowly.
pub(super) fn log(record: &Record<'_>, may_wait: bool) {
    let head = record.head;
    let method = head.map(|head| escaped(head.method_bytes(), METHOD_CHARS));
    let path = head.map(|head| path(head.path(), record.class));
    let user = head.and_then(api::user);
    let line = AccessLine {
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
    };
    logger::access(line, may_wait);
}

/// Of no more than so many characters, and so that no client can begin a line or a word.
fn escaped(text: &[u8], chars: usize) -> String {
    text.escape_ascii().take(chars).map(char::from).collect()
}

fn path(path: &[u8], class: Class) -> String {
    // What nobody read may have been for us.
    if class == Class::Relay {
        return escaped(path, PATH_CHARS);
    }
    let below = path.strip_prefix(PREFIX).filter(|below| below.starts_with(b"/")).unwrap_or(path);
    let shown = api::loggable(below);
    let mut text = escaped(&path[..path.len() - below.len()], PATH_CHARS) + &escaped(shown, PATH_CHARS);
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
