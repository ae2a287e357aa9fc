//! A request head, parsed, with its bytes. Pure; `head_rules` says what is allowed in one.
use super::head_rules::Parsed;
use std::fmt;

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
    pub(super) fn parse(name: &str) -> Method {
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

/// A parsed request head, with its bytes.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
    parsed: Parsed,
}

impl Head {
    /// Parses one complete head, as [`scan`](super::scan()) found it.
    ///
    /// # Errors
    /// [`HeadError`], and the bytes back.
    ///
    /// Not a part of its caller, whose stack is held as long as the request lasts.
    #[inline(never)]
    pub fn parse(bytes: Vec<u8>) -> Result<Head, (HeadError, Vec<u8>)> {
        match Parsed::of(&bytes) {
            Ok(parsed) => Ok(Head { bytes, parsed }),
            Err(error) => Err((error, bytes)),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.parsed.method
    }

    /// The method as it was sent.
    pub fn method_bytes(&self) -> &[u8] {
        &self.bytes[..self.parsed.method_len]
    }

    /// The request target in origin form (`/path?query`), or `*`.
    pub fn target(&self) -> &[u8] {
        match &self.bytes[self.parsed.target.clone()] {
            b"" if self.parsed.method == Method::Options => b"*",
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
        self.parsed.version
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.parsed.framing
    }

    /// Whether there can be a byte of body.
    pub fn has_body(&self) -> bool {
        !matches!(self.parsed.framing, Framing::None | Framing::Length(0))
    }

    /// Whether the client wants the connection kept.
    pub fn keep_alive(&self) -> bool {
        self.parsed.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn expects_continue(&self) -> bool {
        self.parsed.expect_continue
    }

    /// Whether the client asks for another protocol (`Connection: upgrade` with an `Upgrade`).
    pub fn is_upgrade(&self) -> bool {
        self.parsed.upgrade
    }

    /// The host asked for: the target's authority, else the `Host` field.
    pub fn host(&self) -> Option<&[u8]> {
        match &self.parsed.authority {
            Some(authority) => Some(&self.bytes[authority.clone()]),
            None => self.get("host"),
        }
    }

    /// All fields in order, names as they were sent.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parsed.fields.iter().map(|f| (&self.bytes[f.name.clone()], &self.bytes[f.value.clone()]))
    }

    /// The client's own id for the request, if it is a sane one.
    pub(super) fn request_id(&self) -> Option<&[u8]> {
        self.parsed.request_id.clone().map(|id| &self.bytes[id])
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
