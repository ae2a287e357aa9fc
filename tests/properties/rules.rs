//! What must hold for any bytes in the five places where a stranger's bytes are first understood.
//!
//! Each function takes bytes from a fuzzer (`tests/fuzz`) or a generator (`main.rs`) and panics when
//! something does not hold. Where it can it reads the bytes a second time, by a plain reading of the RFC
//! that shares no code with the first, and compares.
#![allow(unreachable_pub)]
use simple_artifact_server::auth::{Access, AuthPolicy, Credentials, Refusal, Role, Token, authorize};
use simple_artifact_server::files::{
    MAX_DEPTH, MAX_NAME_BYTES, MAX_PATH_BYTES, RangeResult, RelativePath, parse_range,
};
use simple_artifact_server::http::limits::{CHUNK_LINE_BYTES, HEADER_FIELDS, TARGET_BYTES};
use simple_artifact_server::http::{
    Decoder, Framing, Head, HeadError, Method, Scan, Version, read_response_head, scan,
};
use std::net::Ipv6Addr;

/// One of the rules below.
pub type Rule = fn(&[u8]);

/// By name, as the fuzz targets and the folders of seeds are called.
pub const RULES: &[(&str, Rule)] = &[
    ("head", head),
    ("chunks", chunks),
    ("path", path),
    ("range", range),
    ("auth", auth),
    ("response", response),
];

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn split_once<'b>(bytes: &'b [u8], at: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let place = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..place], &bytes[place + at.len()..]))
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// A head by RFC 9112 section 2 to 5, its fields in order; `None` when it is not one we take.
pub struct Plain<'b> {
    pub method: &'b [u8],
    target: &'b [u8],
    old: bool,
    fields: Vec<(&'b [u8], &'b [u8])>,
}

impl<'b> Plain<'b> {
    pub fn read(bytes: &'b [u8]) -> Option<Plain<'b>> {
        let (lines, rest) = split_once(bytes, b"\r\n\r\n")?;
        if !rest.is_empty() {
            return None;
        }
        let mut rest = lines;
        let mut split = Vec::new();
        while let Some((line, more)) = split_once(rest, b"\r\n") {
            split.push(line);
            rest = more;
        }
        split.push(rest);
        if split.iter().any(|line| line.iter().any(|b| *b == b'\r' || *b == b'\n')) {
            return None;
        }
        let words: Vec<&[u8]> = split[0].split(|b| *b == b' ').collect();
        let [method, target, version] = words[..] else { return None };
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return None,
        };
        let fine = |b: &u8| *b > b' ' && *b != 0x7f;
        if !is_token(method) || target.is_empty() || !target.iter().all(fine) {
            return None;
        }
        std::str::from_utf8(target).ok()?;
        let mut fields = Vec::new();
        for line in &split[1..] {
            let (name, value) = split_once(line, b":")?;
            let value = trim(value);
            if !is_token(name) || !value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)) {
                return None;
            }
            fields.push((name, value));
        }
        Some(Plain { method, target, old, fields })
    }

    fn all(&self, name: &str) -> Vec<&'b [u8]> {
        let named = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.1).collect()
    }

    /// How its body is delimited; `None` when that is left to guessing.
    pub fn framing(&self) -> Option<Framing> {
        let number = |value: &[u8]| {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            digits.then(|| std::str::from_utf8(value).ok()?.parse::<u64>().ok()).flatten()
        };
        match (&self.all("transfer-encoding")[..], &self.all("content-length")[..]) {
            ([], []) => Some(Framing::None),
            ([], [length]) => number(length).map(Framing::Length),
            ([coding], []) if !self.old && coding.eq_ignore_ascii_case(b"chunked") => Some(Framing::Chunked),
            _ => None,
        }
    }

    /// The path and, from an absolute form, the host.
    pub fn target(&self) -> Option<(&'b [u8], Option<&'b [u8]>)> {
        if self.target[0] == b'/' || (self.target == b"*" && self.method == b"OPTIONS") {
            return Some((self.target, None));
        }
        let (scheme, rest) = split_once(self.target, b"://")?;
        if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
            return None;
        }
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let empty: &[u8] = if self.method == b"OPTIONS" { b"*" } else { b"/" };
        let path = if path.is_empty() { empty } else { path };
        (!host.is_empty() && is_host(host)).then_some((path, Some(host)))
    }

    /// Whether it is a request we take.
    pub fn is_taken(&self) -> bool {
        self.framing().is_some()
            && self.target().is_some()
            && self.host_is_fine()
            && self.expectation_is_fine()
            && self.method != b"CONNECT"
            && self.target.len() <= TARGET_BYTES
            && self.fields.len() <= HEADER_FIELDS
    }

    /// Whether the connection stays behind it.
    pub fn is_kept(&self) -> bool {
        let all = self.all("connection");
        let options = || all.iter().flat_map(|value| value.split(|b| *b == b',')).map(trim);
        let lists = |option: &[u8]| options().any(|listed| listed.eq_ignore_ascii_case(option));
        !lists(b"close") && (!self.old || lists(b"keep-alive"))
    }

    fn host_is_fine(&self) -> bool {
        let hosts = self.all("host");
        hosts.iter().all(|host| is_host(host)) && (hosts.len() == 1 || (hosts.is_empty() && self.old))
    }

    fn expectation_is_fine(&self) -> bool {
        self.all("expect").iter().all(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }
}

fn is_host(value: &[u8]) -> bool {
    // From its end: first a port, if there is one.
    let colon = value.iter().rposition(|b| *b == b':').filter(|_| !value.ends_with(b"]"));
    let (host, port) = value.split_at(colon.unwrap_or(value.len()));
    let is_address = |text: &[u8]| String::from_utf8_lossy(text).parse::<Ipv6Addr>().is_ok();
    port.iter().skip(1).all(u8::is_ascii_digit)
        && match host {
            [b'[', address @ .., b']'] => is_address(address),
            name => name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(b)),
        }
}

/// A request head means what a plain reading of it means, or is refused; what is passed on of it is read
/// the same again; where it ends does not depend on the pieces it comes in.
pub fn head(bytes: &[u8]) {
    let whole = scan(bytes, 0);
    for seen in 0..bytes.len().min(200) {
        // What a shorter buffer said holds for the longer one.
        match scan(&bytes[..seen], 0) {
            Scan::More => {}
            told => assert_eq!(told, whole, "after {seen} bytes"),
        }
    }
    let Scan::Complete(length) = whole else { return };
    let bytes = &bytes[..length];
    let plain = Plain::read(bytes);
    let parsed = match Head::parse(bytes.to_vec()) {
        Ok(parsed) => parsed,
        Err((error, given_back)) => {
            assert_eq!(given_back, bytes);
            assert!(!plain.is_some_and(|plain| plain.is_taken()), "refused: {error}");
            assert!(error != HeadError::TooLarge || bytes.split(|b| *b == b'\n').count() > HEADER_FIELDS);
            return;
        }
    };
    let plain = plain.expect("only a proper head is taken");
    assert_eq!(parsed.method_bytes(), plain.method);
    assert_eq!(parsed.version() == Version::Http10, plain.old);
    assert_eq!(parsed.fields().collect::<Vec<_>>(), plain.fields);
    assert_eq!(Some(parsed.framing()), plain.framing(), "the framing is never guessed");
    let (path, host) = plain.target().expect("only a proper target is taken");
    assert_eq!(parsed.target(), path);
    assert_eq!(parsed.host(), host.or(plain.all("host").first().copied()));
    assert!(plain.is_taken() && parsed.method() != Method::Connect);
    assert_eq!(parsed.keep_alive(), plain.is_kept());
    assert_eq!([parsed.path(), parsed.query().unwrap_or_default()].concat().len(), {
        parsed.target().len() - usize::from(parsed.query().is_some())
    });
    assert!(!parsed.is_upgrade() || !plain.old);
    assert!(!parsed.expects_continue() || parsed.has_body());

    let mut again = [parsed.method_bytes(), b" ", parsed.target(), b" HTTP/1.1\r\n"].concat();
    for (name, value) in parsed.fields().filter(|(name, _)| !name.eq_ignore_ascii_case(b"host")) {
        again.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    again.extend_from_slice(&[b"host: ", parsed.host().unwrap_or_default(), b"\r\n\r\n"].concat());
    assert_eq!(scan(&again, 0), Scan::Complete(again.len()));
    // One field more than came: a host for HTTP/1.0.
    if plain.fields.len() < HEADER_FIELDS {
        let second = Head::parse(again).expect("what is passed on can be read");
        assert_eq!((second.target(), second.framing()), (parsed.target(), parsed.framing()));
        assert_eq!(second.host().unwrap_or_default(), parsed.host().unwrap_or_default());
    }
}

/// A chunked body by RFC 9112 section 7.1: the data and how long it was; `None` when it is not one, or not
/// yet whole.
pub fn plain_chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (whole, mut data) = (bytes.len(), Vec::new());
    let is_line = |line: &[u8]| line.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
    loop {
        let (line, rest) = split_once(bytes, b"\r\n")?;
        let digits = line.iter().position(|b| *b == b';').unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        let hexadecimal = (1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        if !hexadecimal || !is_line(extension) || extension.len() > CHUNK_LINE_BYTES + 1 {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        bytes = rest;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok().filter(|size| *size < bytes.len())?;
        data.extend_from_slice(&bytes[..size]);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
    let mut trailers = 0;
    loop {
        let (line, rest) = split_once(bytes, b"\r\n")?;
        bytes = rest;
        trailers += line.len();
        if !is_line(line) || trailers > CHUNK_LINE_BYTES {
            return None;
        }
        if line.is_empty() {
            return Some((data, whole - bytes.len()));
        }
    }
}

/// A chunked body decodes to what a plain reading of it says, in whatever pieces it comes and goes.
pub fn chunks(bytes: &[u8]) {
    let (first, body) = bytes.split_first().map_or((1, bytes), |(first, body)| (usize::from(*first), body));
    let (into, piece) = (first % 16 + 1, first / 16 * 7 + 1);
    let decoded = decode(body, piece, into);
    assert_eq!(decoded, decode(body, body.len().max(1), body.len().max(1)), "the pieces make no difference");
    assert_eq!(decoded, plain_chunks(body));
    if let Some((data, used)) = decoded {
        assert!(data.len() < used && used <= body.len());
        // It is not over any earlier.
        assert_eq!(decode(&body[..used - 1], piece, into), None);
    }
}

fn decode(body: &[u8], piece: usize, into: usize) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut data, mut used) = (Decoder::new(), Vec::new(), 0);
    let mut out = vec![0; into];
    for given in body.chunks(piece) {
        let mut rest = given;
        while !rest.is_empty() && !decoder.is_done() {
            let (took, made) = decoder.decode(rest, &mut out).ok()?;
            assert!(made <= took && took <= rest.len() && took > 0, "it gets on");
            data.extend_from_slice(&out[..made]);
            used += took;
            rest = &rest[took..];
        }
    }
    decoder.is_done().then_some((data, used))
}

/// A path stays below its root, whatever is decoded once more after us.
pub fn path(raw: &[u8]) {
    for parsed in [RelativePath::parse_file(raw), RelativePath::parse_directory(raw)].into_iter().flatten() {
        let shown = parsed.display();
        assert!(
            shown.len() <= MAX_PATH_BYTES * 3 && !shown.starts_with('/') && !shown.contains(['\0', '\\'])
        );
        if parsed.is_root() {
            assert!(raw.is_empty());
            continue;
        }
        assert!(shown.split('/').count() <= MAX_DEPTH);
        // No decoding of it, however often, climbs or splits a name.
        let mut names: Vec<Vec<u8>> = shown.split('/').map(|name| name.as_bytes().to_vec()).collect();
        loop {
            for name in &names {
                assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES * 3);
                assert!(*name != b"." && *name != b".." && !name.starts_with(b".frag-upload-"), "{shown:?}");
                assert!(!name.iter().any(|b| [b'/', b'\\', 0].contains(b)), "{shown:?}");
            }
            let further: Vec<Vec<u8>> =
                names.iter().map(|name| percent_encoding::percent_decode(name).collect()).collect();
            if further == names {
                break;
            }
            names = further;
        }
        let normal = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        assert!(std::path::Path::new(&shown).components().all(normal));
        // Encoded again in full it is the same path.
        if !shown.contains('\u{fffd}') {
            let encode = |name: &str| name.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
            let encoded = shown.split('/').map(encode).collect::<Vec<_>>().join("/");
            assert_eq!(RelativePath::parse_file(encoded.as_bytes()).ok(), Some(parsed));
        }
    }
}

/// A range lies within the file and is the one a plain reading of RFC 9110 section 14.1.2 gives.
pub fn range(bytes: &[u8]) {
    let (size, header) = bytes.split_at(bytes.len().min(8));
    // Small sizes are where ranges touch the end.
    let mut size = size.iter().fold(0, |size: u64, b| size << 8 | u64::from(*b));
    if size % 2 == 0 {
        size %= 64;
    }
    let result = parse_range(header, size);
    if let RangeResult::Part { start, end_inclusive } = result {
        assert!(start <= end_inclusive && end_inclusive < size);
    }
    let plain = std::str::from_utf8(header).ok().and_then(|text| plain_range(text, u128::from(size)));
    assert_eq!(plain.unwrap_or(RangeResult::Whole), result);
}

fn plain_range(text: &str, size: u128) -> Option<RangeResult> {
    let blank = |c: char| c.is_ascii_whitespace();
    let (unit, set) = text.trim_matches(blank).split_once('=')?;
    let (first, last) = set.trim_matches(blank).split_once('-')?;
    // More digits than u128 has are more than any file has bytes.
    let number = |digits: &str| {
        let proper = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        proper.then(|| digits.parse::<u128>().unwrap_or(u128::MAX).min(u128::from(u64::MAX)))
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (start, end) = match (number(first), number(last)) {
        (None, Some(0)) if first.is_empty() => return Some(RangeResult::Unsatisfiable),
        (None, Some(count)) if first.is_empty() && size > 0 => (size.saturating_sub(count), size - 1),
        (Some(start), None) if last.is_empty() => (start, u128::MAX),
        (Some(start), Some(end)) if start <= end => (start, end),
        _ => return None,
    };
    if start >= size {
        return Some(RangeResult::Unsatisfiable);
    }
    let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end.min(size - 1)).ok()?);
    Some(RangeResult::Part { start, end_inclusive: end })
}

const TOKEN: &[u8] = b"secret";

/// Nested deeper than it goes, a number or half a character it has no room for: JSON all the same, and
/// nothing to compare with.
fn is_beyond_this_reading(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    ["recursion limit", "number out of range", "surrogate", "hex escape"]
        .iter()
        .any(|what| text.contains(what))
}

/// Nobody gets more than the headers can give: the first byte is the policy, the second what is asked
/// for, each line after them a header's value, the first character of which says which header.
pub fn auth(bytes: &[u8]) {
    let [flags, asked, lines @ ..] = bytes else { return };
    let policy = AuthPolicy {
        token: if flags & 1 != 0 { Token::new(TOKEN) } else { None },
        require_user: flags & 2 != 0,
        trust_identity_header: flags & 4 != 0,
        open_control: flags & 8 != 0,
    };
    let access = [Access::Open, Access::Link, Access::Writer, Access::Admin][usize::from(asked % 4)];
    let mut credentials = Credentials::default();
    for line in lines.split(|b| *b == b'\n') {
        match line {
            [b'i', value @ ..] => credentials.identity.push(value),
            [b'a', value @ ..] => credentials.authorization.push(value),
            _ => {}
        }
    }
    let claims: Option<serde_json::Map<String, serde_json::Value>> = match credentials.identity[..] {
        [value] => match std::str::from_utf8(value).ok().map(serde_json::from_str) {
            Some(Ok(claims)) => Some(claims),
            Some(Err(error)) if is_beyond_this_reading(&error) => return,
            _ => None,
        },
        _ => None,
    };
    let says = |key: &str| claims.as_ref().and_then(|claims| claims.get(key)).cloned();
    let is_reader = [says("readOnly"), says("read_only")].contains(&Some(true.into()));
    let is_claimed_admin = policy.trust_identity_header && says("role") == Some("admin".into());
    let is_bearer = matches!(credentials.authorization[..], [value]
        if value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ") && value[7..].trim_ascii() == TOKEN);
    match authorize(&policy, &credentials, access) {
        Ok(role) => {
            assert!(credentials.identity.is_empty() || claims.is_some(), "what cannot be read is refused");
            if access == Access::Open {
                assert_eq!(role == Role::Reader, is_reader);
                return;
            }
            assert!(!is_reader && role >= Role::Writer, "a reader stays one");
            assert!(!policy.require_user || claims.is_some());
            let needs_token = policy.token.is_some() && !policy.open_control && access != Access::Link;
            assert!(!needs_token || is_bearer);
            let may_be_admin = policy.open_control || is_claimed_admin || (needs_token && is_bearer);
            assert!(role != Role::Admin || may_be_admin);
            assert!(access != Access::Admin || role == Role::Admin);
        }
        Err(Refusal::ReadOnly) => assert!(is_reader),
        Err(Refusal::IdentityRequired) => assert!(policy.require_user && credentials.identity.is_empty()),
        Err(Refusal::TokenRequired) => assert!(policy.token.is_some() && !is_bearer),
        Err(Refusal::AdminRequired) => {
            assert!(access == Access::Admin && !is_claimed_admin && !policy.open_control);
        }
        Err(Refusal::IdentityMalformed(_)) => assert!(!credentials.identity.is_empty()),
        Err(Refusal::TicketInvalid) => panic!("there is no ticket"),
    }
}

/// The head of an answer that comes early is whole or not yet there, whatever follows it.
pub fn response(bytes: &[u8]) {
    let whole = read_response_head(bytes);
    let Ok(Some(head)) = &whole else { return };
    assert!(head.bytes <= bytes.len() && (100..=999).contains(&head.status));
    assert_eq!(read_response_head(&bytes[..head.bytes]), whole, "what follows makes no difference");
    for end in head.bytes.saturating_sub(64)..head.bytes {
        assert_eq!(
            read_response_head(&bytes[..end]).map(|head| head.is_some()),
            Ok(false),
            "after {end} bytes"
        );
    }
}
