//! Request targets as the HTTP client's URI type takes them. Pure.
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use std::str::FromStr;
use ureq::http::uri::{Authority, InvalidUri, PathAndQuery, Scheme, Uri};

/// What stands in a target raw and is refused or cut by the URI type: encoded, the wrapped server
/// reads the same after decoding.
const REFUSED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'#')
    .add(b'\\')
    .add(b'^')
    .add(b'{')
    .add(b'}')
    .add(b'|');

/// The URI of `target` at the wrapped server. A target the URI type keeps byte for byte is passed on
/// so; any other with the bytes it would not keep percent-encoded.
///
/// # Errors
/// When even the encoded target is refused.
pub(super) fn uri(authority: &Authority, target: &[u8]) -> Result<Uri, InvalidUri> {
    let kept = PathAndQuery::try_from(target).ok().filter(|p| p.as_str().as_bytes() == target);
    let path = match kept {
        Some(path) => path,
        None => PathAndQuery::from_str(&percent_encode(target, REFUSED).to_string())?,
    };
    let mut parts = ureq::http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(path);
    // All three parts are valid on their own, which is all this asks for.
    Ok(Uri::from_parts(parts).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(target: &[u8]) -> String {
        let authority = Authority::from_static("127.0.0.1:9090");
        uri(&authority, target).unwrap().path_and_query().unwrap().to_string()
    }

    #[test]
    fn ordinary_targets_are_kept_byte_for_byte() {
        for target in [
            "/",
            "//x",
            "/a/../b",
            "/%5Ffrag/x",
            "/a?b=c&d=%20",
            "/a??",
            "/?q=/_frag/",
            "*",
            "/a;b=c,d",
            "/é",
        ] {
            assert_eq!(sent(target.as_bytes()), target);
        }
    }

    #[test]
    fn every_byte_arrives_raw_or_encoded() {
        for byte in 0x21..=0xffu8 {
            let target = [b"/a".as_slice(), &[byte], b"z?q=", &[byte], b"z"].concat();
            let sent = sent(&target);
            let decoded: Vec<u8> = percent_encoding::percent_decode(sent.as_bytes()).collect();
            assert_eq!(decoded, target, "{byte:#x} was sent as {sent}");
        }
    }
}
