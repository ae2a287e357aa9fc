//! The request for a WebSocket (RFC 6455 section 4.2.1). Pure.
use super::head::{Head, Method, list_elements};

/// Why a request is no WebSocket handshake (RFC 6455 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHandshake {
    /// It is no GET.
    Method,
    /// `Connection` does not list `upgrade`.
    Connection,
    /// `Upgrade` is not `websocket`.
    Upgrade,
    /// The version is not 13.
    Version,
    /// There is no key, or not one.
    Key,
    /// It has a body.
    Body,
}

/// The key of a request for a WebSocket.
///
/// # Errors
/// The request is none.
pub fn handshake_key(head: &Head) -> Result<Vec<u8>, NoHandshake> {
    if head.method() != Method::Get {
        return Err(NoHandshake::Method);
    }
    let lists = |name: &str, element: &[u8]| {
        head.get_all(name).flat_map(list_elements).any(|found| found.eq_ignore_ascii_case(element))
    };
    if !lists("connection", b"upgrade") {
        return Err(NoHandshake::Connection);
    }
    if !lists("upgrade", b"websocket") {
        return Err(NoHandshake::Upgrade);
    }
    if head.get("sec-websocket-version") != Some(b"13") {
        return Err(NoHandshake::Version);
    }
    if head.has_body() {
        return Err(NoHandshake::Body);
    }
    let mut keys = head.get_all("sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if !key.is_empty() => Ok(key.to_vec()),
        _ => Err(NoHandshake::Key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Head {
        Head::parse(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()).unwrap()
    }

    #[test]
    fn handshakes_are_told_from_other_requests() {
        let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
        let version = "Sec-WebSocket-Version: 13\r\n";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(
            handshake_key(&head(&format!("{upgrade}{version}{key}"))).unwrap(),
            b"dGhlIHNhbXBsZSBub25jZQ=="
        );
        for (fields, why) in [
            (String::new(), NoHandshake::Connection),
            (format!("Upgrade: websocket\r\n{version}{key}"), NoHandshake::Connection),
            (format!("Connection: Upgrade\r\nUpgrade: echo\r\n{version}{key}"), NoHandshake::Upgrade),
            (format!("{upgrade}{key}"), NoHandshake::Version),
            (format!("{upgrade}Sec-WebSocket-Version: 8\r\n{key}"), NoHandshake::Version),
            (format!("{upgrade}{version}"), NoHandshake::Key),
            (format!("{upgrade}{version}{key}{key}"), NoHandshake::Key),
            (format!("{upgrade}{version}{key}Content-Length: 1\r\n"), NoHandshake::Body),
        ] {
            assert_eq!(handshake_key(&head(&fields)), Err(why), "{fields}");
        }
        let bytes = format!("HEAD / HTTP/1.1\r\nHost: h\r\n{upgrade}{version}{key}\r\n").into_bytes();
        assert_eq!(handshake_key(&Head::parse(bytes).unwrap()), Err(NoHandshake::Method));
    }
}
