//! Which header fields pass from one side to the other. Pure.
use crate::http::{Head, REQUEST_ID, list_elements};
use std::net::IpAddr;
use ureq::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};

/// Fields that speak of one connection only (RFC 9110 section 7.6.1), or that we set ourselves.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Fields added to a request: three `X-Forwarded-*`, `X-Request-Id` and, to a body, its framing.
const ADDED: usize = 5;

fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}

/// The names that `Connection` fields list are of this connection only, too. A map, which finds one of thousands
/// as fast as one of two.
struct Listed(HeaderMap);

impl Listed {
    fn new<'v>(connection: impl Iterator<Item = &'v [u8]>) -> Listed {
        let mut names = HeaderMap::new();
        // Those that go no further anyway, and what is no field, need no place.
        let is_known = |name: &&[u8]| is_hop_by_hop(name) || name.eq_ignore_ascii_case(b"close");
        for name in connection.flat_map(list_elements).filter(|name| !is_known(name)) {
            if let Ok(name) = HeaderName::from_bytes(name) {
                let _ = names.try_insert(name, HeaderValue::from_static(""));
            }
        }
        Listed(names)
    }

    fn has(&self, name: &[u8]) -> bool {
        !self.0.is_empty() && HeaderName::from_bytes(name).is_ok_and(|name| self.0.contains_key(name))
    }
}

/// The fields of a request as the wrapped server is to see them: those of this hop taken out, the
/// framing left to the caller, `X-Forwarded-*` added, one `X-Request-Id`.
pub(super) fn for_request(head: &Head, peer: IpAddr, id: &[u8]) -> HeaderMap {
    let listed = Listed::new(head.get_all("connection"));
    let mut forwarded_for = Vec::new();
    let (mut has_proto, mut has_host) = (false, false);
    let mut map = HeaderMap::with_capacity(head.fields().count() + ADDED);
    for (name, value) in head.fields() {
        if is_hop_by_hop(name) || name.eq_ignore_ascii_case(b"expect") || name.eq_ignore_ascii_case(b"host") {
            continue;
        }
        if listed.has(name) {
            continue;
        }
        if name.eq_ignore_ascii_case(REQUEST_ID.as_bytes()) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            forwarded_for.extend_from_slice(value);
            forwarded_for.extend_from_slice(b", ");
            continue;
        }
        has_proto |= name.eq_ignore_ascii_case(b"x-forwarded-proto");
        has_host |= name.eq_ignore_ascii_case(b"x-forwarded-host");
        append(&mut map, name, value);
    }
    forwarded_for.extend_from_slice(peer.to_canonical().to_string().as_bytes());
    append_value(&mut map, const { HeaderName::from_static("x-forwarded-for") }, &forwarded_for);
    if !has_proto {
        let name = const { HeaderName::from_static("x-forwarded-proto") };
        let _ = map.try_append(name, HeaderValue::from_static("http"));
    }
    // HTTP/1.0 may come without; the HTTP client would then make one up.
    let host = head.host().unwrap_or_default();
    if !has_host && !host.is_empty() {
        append_value(&mut map, const { HeaderName::from_static("x-forwarded-host") }, host);
    }
    append_value(&mut map, HOST, host);
    append_value(&mut map, const { HeaderName::from_static(REQUEST_ID) }, id);
    map
}

/// The HTTP client refuses an `Authorization` that is not ASCII. Puts one of the same length in its
/// place and returns the true bytes, which the transport puts back.
pub(super) fn mask_authorization(map: &mut HeaderMap) -> Option<Vec<u8>> {
    // It looks at the first of several only.
    let value = map.get_mut(AUTHORIZATION)?;
    if value.to_str().is_ok() {
        return None;
    }
    let true_bytes = value.as_bytes().to_vec();
    *value = HeaderValue::from_bytes(&vec![b'?'; true_bytes.len()]).ok()?;
    Some(true_bytes)
}

// What is appended was held to the same grammar when the head was parsed; the map's own bound (32,768
// fields) is far above the front's.

fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let Ok(name) = HeaderName::from_bytes(name) {
        append_value(map, name, value);
    }
}

fn append_value(map: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        let _ = map.try_append(name, value);
    }
}

/// The fields of a response that go on to the client, in order. `fields` is read twice: what
/// `Connection` lists is known only after a first look.
pub(super) fn for_response<'a, F, I>(fields: F) -> impl Iterator<Item = (&'a [u8], &'a [u8])>
where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let connection = fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    let listed = Listed::new(connection.map(|(_, value)| value));
    fields().filter(move |(name, _)| !is_hop_by_hop(name) && !listed.has(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> HeaderMap {
        let head = Head::parse(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()).unwrap();
        for_request(&head, "192.0.2.7".parse().unwrap(), b"id")
    }

    fn values(map: &HeaderMap, name: &str) -> Vec<String> {
        map.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn every_hop_by_hop_field_is_taken_out() {
        for name in HOP_BY_HOP.iter().filter(|n| !["transfer-encoding", "content-length"].contains(n)) {
            assert!(!request(&format!("{name}: x\r\n")).contains_key(*name), "{name}");
        }
        let map = request(
            "Connection: close, X-One\r\nconnection: x-two\r\nX-One: 1\r\nX-TWO: 2\r\nX-Three: 3\r\n",
        );
        assert!(!map.contains_key("x-one") && !map.contains_key("x-two"));
        assert_eq!(values(&map, "x-three"), ["3"]);
    }

    #[test]
    fn forwarded_fields_are_appended_or_kept() {
        let map = request(
            "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 203.0.113.2\r\nX-Forwarded-Proto: https\r\n",
        );
        assert_eq!(values(&map, "x-forwarded-for"), ["203.0.113.1, 203.0.113.2, 192.0.2.7"]);
        assert_eq!(values(&map, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&map, "x-forwarded-host"), ["h"]);
        assert_eq!(values(&map, "host"), ["h"]);
    }

    #[test]
    fn repeated_fields_stay_apart_and_in_order() {
        let map = request("Cookie: a\r\nX: 1\r\nCookie: b\r\n");
        assert_eq!(values(&map, "cookie"), ["a", "b"]);
        let fields =
            [(&b"Set-Cookie"[..], &b"a"[..]), (b"Connection", b"x"), (b"X", b"1"), (b"Set-Cookie", b"b")];
        let kept: Vec<_> = for_response(|| fields.into_iter()).map(|(_, v)| v).collect();
        assert_eq!(kept, [b"a", b"b"]);
    }

    #[test]
    fn values_are_bytes() {
        let raw = [b"GET / HTTP/1.1\r\nHost: h\r\nX: caf".as_slice(), &[0xe9], b" \xc3\xa9\r\n\r\n"].concat();
        let head = Head::parse(raw).unwrap();
        let map = for_request(&head, "127.0.0.1".parse().unwrap(), b"id");
        assert_eq!(map["x"].as_bytes(), b"caf\xe9 \xc3\xa9");
    }
}
