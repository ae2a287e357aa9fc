//! A request head: found in a buffer, parsed, and held to RFC 9112. Pure.
//!
//! Strict on purpose: what two servers could read differently is refused, so that nothing we pass on
//! can be a second request in disguise.
use super::limits::{HEADER_FIELDS, TARGET_BYTES};
use std::fmt;
use std::ops::Range;

/// The request methods this program tells apart; the bytes of any other are kept in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Other,
}

impl Method {
    fn parse(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "PATCH" => Method::Patch,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// Whether a request may be sent twice without harm (RFC 9110 section 9.2.2), as far as we know it.
    pub fn is_repeatable(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Put | Method::Delete)
    }
}

/// The HTTP version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: close-delimited bodies, no chunks.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no header that speaks of one.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The head is longer than the bound, or has too many fields: 431.
    TooLarge,
    /// The request target is longer than the bound: 414.
    TargetTooLong,
    /// Not a request RFC 9112 allows, with what is wrong: 400.
    Malformed(&'static str),
    /// A version other than HTTP/1.0 and HTTP/1.1: 505.
    Version,
    /// An `Expect` other than `100-continue`: 417.
    Expectation,
    /// `CONNECT`: 501.
    Connect,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::TooLarge => "the request head is too large",
            HeadError::TargetTooLong => "the request target is too long",
            HeadError::Malformed(what) => what,
            HeadError::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            HeadError::Expectation => "the only expectation known is 100-continue",
            HeadError::Connect => "CONNECT is not supported",
        })
    }
}

/// What a buffer holds so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// No complete head yet.
    More,
    /// A complete head of this many bytes.
    Complete(usize),
    /// Something no further byte can mend; parsing it says what.
    Broken,
}

/// Looks for the end of a head in `buffer`, of which `seen` bytes were looked at before.
///
/// A line feed without its carriage return is `Broken` at once: waiting for more would only give a
/// sender time.
pub fn scan(buffer: &[u8], seen: usize) -> Scan {
    if buffer.first().is_some_and(|&first| !is_token(first)) {
        return Scan::Broken;
    }
    let mut at = seen;
    while let Some(offset) = buffer[at..].iter().position(|&b| b == b'\n') {
        at += offset;
        if at == 0 || buffer[at - 1] != b'\r' {
            return Scan::Broken;
        }
        if at >= 3 && &buffer[at - 3..at] == b"\r\n\r" {
            return Scan::Complete(at + 1);
        }
        at += 1;
    }
    Scan::More
}

/// How many bytes of empty lines stand before a request line (RFC 9112 section 2.2 says to skip them).
pub fn leading_empty_lines(buffer: &[u8]) -> usize {
    buffer.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

/// A parsed request head, with its bytes.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
    method: Method,
    method_len: usize,
    /// The origin-form part of the target; empty for an absolute target without a path.
    target: Range<usize>,
    /// The authority of an absolute-form target, which then stands for `Host`.
    authority: Option<Range<usize>>,
    version: Version,
    fields: Vec<Field>,
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: bool,
}

impl Head {
    /// Parses one complete head, as [`scan`] found it.
    ///
    /// # Errors
    /// [`HeadError`], and the bytes back.
    pub fn parse(bytes: Vec<u8>) -> Result<Head, (HeadError, Vec<u8>)> {
        match Parsed::of(&bytes) {
            Ok(parsed) => Ok(parsed.with(bytes)),
            Err(error) => Err((error, bytes)),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent.
    pub fn method_bytes(&self) -> &[u8] {
        &self.bytes[..self.method_len]
    }

    /// The request target in origin form (`/path?query`), or `*`.
    pub fn target(&self) -> &[u8] {
        match &self.bytes[self.target.clone()] {
            b"" if self.method == Method::Options => b"*",
            b"" => b"/",
            target => target,
        }
    }

    /// The target up to its first `?`.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.split(|&b| b == b'?').next().unwrap_or(target)
    }

    /// What follows the target's first `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        target.iter().position(|&b| b == b'?').map(|at| &target[at + 1..])
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether there can be a byte of body.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether the client wants the connection kept.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn expects_continue(&self) -> bool {
        self.expect_continue
    }

    /// Whether the client asks for another protocol (`Connection: upgrade` with an `Upgrade`).
    pub fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// The host asked for: the target's authority, else the `Host` field.
    pub fn host(&self) -> Option<&[u8]> {
        match &self.authority {
            Some(authority) => Some(&self.bytes[authority.clone()]),
            None => self.get("host"),
        }
    }

    /// All fields in order, names as they were sent.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (&self.bytes[f.name.clone()], &self.bytes[f.value.clone()]))
    }

    /// Every value of a field, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The bytes of the head as they were received.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the bytes back, to be read again or their memory used anew.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The elements of a comma-separated list field, trimmed.
pub fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

struct Parsed {
    method: Method,
    method_len: usize,
    target: Range<usize>,
    authority: Option<Range<usize>>,
    version: Version,
    fields: Vec<Field>,
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: bool,
}

impl Parsed {
    fn with(self, bytes: Vec<u8>) -> Head {
        Head {
            bytes,
            method: self.method,
            method_len: self.method_len,
            target: self.target,
            authority: self.authority,
            version: self.version,
            fields: self.fields,
            framing: self.framing,
            keep_alive: self.keep_alive,
            expect_continue: self.expect_continue,
            upgrade: self.upgrade,
        }
    }

    fn of(bytes: &[u8]) -> Result<Parsed, HeadError> {
        if !line_ends_are_crlf(bytes) {
            return Err(HeadError::Malformed("a line of the head does not end with CR LF"));
        }
        let mut slots = [httparse::EMPTY_HEADER; HEADER_FIELDS];
        let mut request = httparse::Request::new(&mut slots);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(HeadError::Malformed("the head is not complete")),
            Err(error) => return Err(refusal(error)),
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
        })
    }
}

/// What the fields that steer the message say, gathered in one pass.
#[derive(Default)]
struct Meaning {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    close: bool,
    keep_alive: bool,
    expect: bool,
    upgrade: bool,
    upgrade_listed: bool,
}

impl Meaning {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
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

fn refusal(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Malformed("a header field's name is malformed"),
        httparse::Error::HeaderValue => HeadError::Malformed("a header field's value is malformed"),
        _ => HeadError::Malformed("the request line is malformed"),
    }
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

/// `uri-host [":" port]` by its characters (RFC 9110 section 7.2); empty is allowed there.
fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:%[]".contains(&b))
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
