//! The head of a response, read from a raw socket: for the one case where the HTTP client of the relay
//! has to be left, a response that arrives while the request is still being sent.
use super::head::list_elements;
use super::head_rules::parse_length;
use super::limits::{HEAD_BYTES, HEADER_FIELDS};

/// How the body of such a response is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This many bytes.
    Bytes(u64),
    /// Chunks.
    Chunks,
    /// Until the connection ends.
    Close,
}

/// A parsed response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The fields, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How the body is delimited.
    pub length: Length,
    /// Bytes of the head.
    pub bytes: usize,
}

/// Parses the head at the start of `buffer`: `Ok(None)` when it is not complete yet.
///
/// # Errors
/// What is wrong, when it is not a response we could pass on without guessing.
pub fn read_response_head(buffer: &[u8]) -> Result<Option<ResponseHead>, &'static str> {
    let mut slots = [httparse::EMPTY_HEADER; HEADER_FIELDS];
    let mut response = httparse::Response::new(&mut slots);
    let bytes = match response.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() <= HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("the response head is too large"),
        Err(_) => return Err("the response head is malformed"),
    };
    let status = response.code.unwrap_or(0);
    if !(100..=999).contains(&status) {
        return Err("the response status is malformed");
    }
    let fields = response.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
    let length = body_length(response.headers.iter().map(|h| (h.name, h.value)))?;
    Ok(Some(ResponseHead { status, fields, length, bytes }))
}

/// Status and length of the head at the start of `buffer`, past empty lines, if it is whole and well-formed.
/// Whether a body could follow it is not looked at.
pub fn response_head_length(buffer: &[u8]) -> Option<(u16, usize)> {
    let mut slots = [httparse::EMPTY_HEADER; HEADER_FIELDS];
    let mut response = httparse::Response::new(&mut slots);
    match response.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => Some((response.code?, bytes)),
        _ => None,
    }
}

/// How the fields of a response delimit its body (RFC 9112 section 6.3), for one that may have one.
///
/// # Errors
/// What is wrong, when the fields leave it to guessing.
pub fn body_length<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Length, &'static str> {
    let (mut length, mut chunked) = (None, false);
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("content-length") {
            let this = parse_length(value).ok_or("the response has a malformed Content-Length")?;
            if length.replace(this).is_some_and(|other| other != this) {
                return Err("the response has two Content-Lengths");
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let mut codings = list_elements(value);
            let known = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            chunked = known && codings.next().is_none() && !chunked;
            if !chunked {
                return Err("the response has an unknown Transfer-Encoding");
            }
        }
    }
    Ok(match (chunked, length) {
        (true, _) => Length::Chunks,
        (false, Some(n)) => Length::Bytes(n),
        (false, None) => Length::Close,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_complete_heads_only() {
        let whole = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
        let head = read_response_head(whole).unwrap().unwrap();
        assert_eq!((head.status, head.length, head.bytes), (413, Length::Bytes(2), whole.len() - 2));
        for end in 0..head.bytes {
            assert_eq!(read_response_head(&whole[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn refuses_what_needs_guessing() {
        for head in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"hello\r\n\r\n",
        ] {
            assert!(read_response_head(head).is_err(), "{}", String::from_utf8_lossy(head));
        }
        let both = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read_response_head(both).unwrap().unwrap().length, Length::Chunks);
    }
}
