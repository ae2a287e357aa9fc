//! What RFC 9112 asks of a request head, and what we refuse beyond it. Pure.
//!
//! Strict on purpose: what two servers could read differently is refused, so that nothing we pass on
//! can be a second request in disguise.
use super::head::{Framing, HeadError, Method, Version, list_elements};
use super::limits::{HEADER_FIELDS, TARGET_BYTES};
use super::request_id::{REQUEST_ID, is_sane};
use std::net::Ipv6Addr;
use std::ops::Range;

/// Where a field's name and value stand in the head.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// What a head says, as places in its bytes.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) method: Method,
    pub(super) method_len: usize,
    /// The origin-form part of the target; empty for an absolute target without a path.
    pub(super) target: Range<usize>,
    /// The authority of an absolute-form target, which then stands for `Host`.
    pub(super) authority: Option<Range<usize>>,
    pub(super) version: Version,
    pub(super) fields: Vec<Field>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    pub(super) upgrade: bool,
    /// The client's id for the request, if it is a sane one and the only one.
    pub(super) request_id: Option<Range<usize>>,
}

impl Parsed {
    pub(super) fn of(bytes: &[u8]) -> Result<Parsed, HeadError> {
        if !line_ends_are_crlf(bytes) {
            return Err(HeadError::Malformed("a line of the head does not end with CR LF"));
        }
        let mut slots = [httparse::EMPTY_HEADER; HEADER_FIELDS];
        let mut request = httparse::Request::new(&mut slots);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(HeadError::Malformed("the head is not complete")),
            Err(error) => return Err(refusal(error, bytes)),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(HeadError::Malformed("the request line is not complete"));
        };
        if target.len() > TARGET_BYTES {
            return Err(HeadError::TargetTooLong);
        }
        let version = if version == 1 { Version::Http11 } else { Version::Http10 };
        let known = Method::parse(method);
        if known == Method::Connect {
            return Err(HeadError::Connect);
        }
        let mut fields = Vec::with_capacity(request.headers.len());
        let mut meaning = Meaning::default();
        for header in request.headers.iter() {
            fields.push(Field {
                name: range_in(bytes, header.name.as_bytes()),
                value: range_in(bytes, header.value),
            });
            meaning.note(header.name, header.value)?;
        }
        let request_id = meaning.request_id.filter(|id| is_sane(id)).map(|id| range_in(bytes, id));
        let (target, authority) = split_target(known, range_in(bytes, target.as_bytes()), bytes)?;
        let framing = meaning.framing(version)?;
        meaning.check_host(version)?;
        Ok(Parsed {
            method: known,
            method_len: method.len(),
            target,
            authority,
            version,
            fields,
            framing,
            keep_alive: !meaning.close && (version == Version::Http11 || meaning.keep_alive),
            expect_continue: meaning.expect
                && version == Version::Http11
                && !matches!(framing, Framing::None | Framing::Length(0)),
            upgrade: meaning.upgrade_listed && meaning.upgrade && version == Version::Http11,
            request_id,
        })
    }
}

/// What the fields that steer the message say, gathered in one pass.
#[derive(Default)]
struct Meaning<'h> {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    close: bool,
    keep_alive: bool,
    expect: bool,
    upgrade: bool,
    upgrade_listed: bool,
    /// Empty if there are several.
    request_id: Option<&'h [u8]>,
}

impl<'h> Meaning<'h> {
    fn note(&mut self, name: &str, value: &'h [u8]) -> Result<(), HeadError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                if !is_authority(value) {
                    return Err(HeadError::Malformed("Host is not a host"));
                }
            }
            14 if is("content-length") => {
                let length =
                    parse_length(value).ok_or(HeadError::Malformed("Content-Length is not a length"))?;
                if self.length.replace(length).is_some() {
                    return Err(HeadError::Malformed("Content-Length is repeated"));
                }
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Malformed("Transfer-Encoding is not exactly chunked"));
                }
                self.chunked = true;
            }
            10 if is("connection") => {
                for option in list_elements(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade_listed |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            6 if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::Expectation);
                }
                self.expect = true;
            }
            7 if is("upgrade") => self.upgrade = true,
            12 if is(REQUEST_ID) => {
                self.request_id = Some(if self.request_id.is_none() { value } else { b"" });
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                Err(HeadError::Malformed("Transfer-Encoding and Content-Length exclude each other"))
            }
            (true, None) if version == Version::Http10 => {
                Err(HeadError::Malformed("HTTP/1.0 has no Transfer-Encoding"))
            }
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }

    fn check_host(&self, version: Version) -> Result<(), HeadError> {
        match self.hosts {
            0 if version == Version::Http11 => Err(HeadError::Malformed("Host is missing")),
            0 | 1 => Ok(()),
            _ => Err(HeadError::Malformed("Host is repeated")),
        }
    }
}

fn refusal(error: httparse::Error, bytes: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version if names_a_version(bytes) => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Malformed("a header field's name is malformed"),
        httparse::Error::HeaderValue => HeadError::Malformed("a header field's value is malformed"),
        _ => HeadError::Malformed("the request line is malformed"),
    }
}

/// Whether the request line is well formed up to a version, whichever it is.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    words.next().is_none()
        && matches!(version, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Every CR is followed by LF and every LF preceded by CR.
fn line_ends_are_crlf(bytes: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in bytes {
        if (byte == b'\n') != (previous == b'\r') {
            return false;
        }
        previous = byte;
    }
    previous != b'\r'
}

/// Where `part`, a slice of `whole`, stands in it.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

/// Digits only, and they fit: no sign, no list, no space.
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `uri-host [":" port]` (RFC 9110 section 7.2); each may be empty there, and a name is known by its
/// characters. Of what may stand in brackets only addresses are in use.
fn is_authority(value: &[u8]) -> bool {
    let port = match value.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|&b| b == b']') else { return false };
            if !is_ipv6(&literal[..end]) {
                return false;
            }
            &literal[end + 1..]
        }
        None => {
            let is_in_name = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(b);
            &value[value.iter().position(|b| !is_in_name(b)).unwrap_or(value.len())..]
        }
    };
    port.is_empty() || port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit)
}

fn is_ipv6(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Splits the request target (RFC 9112 section 3.2) into its origin form and an authority.
fn split_target(
    method: Method,
    target: Range<usize>,
    bytes: &[u8],
) -> Result<(Range<usize>, Option<Range<usize>>), HeadError> {
    let text = &bytes[target.clone()];
    if text.first() == Some(&b'/') || (text == b"*" && method == Method::Options) {
        return Ok((target, None));
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|s| text.len() > s.len() && text[..s.len()].eq_ignore_ascii_case(s.as_bytes()))
        .ok_or(HeadError::Malformed("the request target is neither a path nor an http URI"))?;
    let start = target.start + scheme.len();
    let length =
        bytes[start..target.end].iter().position(|b| b"/?#".contains(b)).unwrap_or(target.end - start);
    let authority = start..start + length;
    if length == 0 || !is_authority(&bytes[authority.clone()]) {
        return Err(HeadError::Malformed("the request target's authority is malformed"));
    }
    if authority.end < target.end && bytes[authority.end] != b'/' {
        return Err(HeadError::Malformed("the request target has no path"));
    }
    Ok((authority.end..target.end, Some(authority)))
}
