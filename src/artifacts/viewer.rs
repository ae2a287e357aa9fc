//! Puts a payload into a viewer's page, and says which scripts of the page may run. Pure.
use crate::base::base64::base64;
use sha2::{Digest, Sha256};

/// Before this the payload's script is put; only its first occurrence counts.
const HEAD_END: &[u8] = b"</head>";

/// A viewer's `index.html`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    html: Vec<u8>,
    /// Where the script goes, if the page has such a place.
    place: Option<usize>,
    script_hashes: Vec<String>,
}

impl Page {
    /// Looks at a page, once for all payloads.
    pub fn new(html: Vec<u8>) -> Page {
        let place = find(&html, HEAD_END);
        Page { place, script_hashes: inline_hashes(&html, b"script"), html }
    }

    /// Whether a payload can be put into it. Without a `</head>` the page is served as it is.
    pub fn takes_payload(&self) -> bool {
        self.place.is_some()
    }

    /// What a policy must name so that the page's own inline scripts run: `sha256-…` each.
    pub fn script_hashes(&self) -> &[String] {
        &self.script_hashes
    }

    /// The page with the payload in `window.__AGENT_RENDER_PAYLOAD__`, set by a script with this nonce.
    pub fn with_payload(&self, payload: &str, nonce: &str) -> Vec<u8> {
        let Some(place) = self.place else { return self.html.clone() };
        let literal = literal(payload);
        let mut page = Vec::with_capacity(self.html.len() + literal.len() + 128);
        page.extend_from_slice(&self.html[..place]);
        page.extend_from_slice(b"<script nonce=\"");
        page.extend_from_slice(nonce.as_bytes());
        page.extend_from_slice(b"\">window.__AGENT_RENDER_PAYLOAD__=");
        page.extend_from_slice(literal.as_bytes());
        page.extend_from_slice(b";</script>");
        page.extend_from_slice(&self.html[place..]);
        page
    }
}

/// A text as a JavaScript string that can stand in an HTML script: it can neither end the script nor
/// begin a comment, and has no character that older JavaScript takes for a line end.
pub fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + text.len() / 8 + 2);
    literal.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(may_need_escape) {
        let (plain, from) = rest.split_at(at);
        literal.push_str(plain);
        let mut chars = from.chars();
        match chars.next() {
            Some('"') => literal.push_str("\\\""),
            Some('\\') => literal.push_str("\\\\"),
            Some('\n') => literal.push_str("\\n"),
            Some('\r') => literal.push_str("\\r"),
            Some('\t') => literal.push_str("\\t"),
            Some(c @ ('\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')) => {
                literal.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            Some(c) => literal.push(c),
            None => {}
        }
        rest = chars.as_str();
    }
    literal.push_str(rest);
    literal.push('"');
    literal
}

/// Whether a byte begins a character that cannot stand in a literal, or might: U+2028 begins with 0xE2.
fn may_need_escape(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

/// `sha256-…` of the text of every inline element of this name (`script` or `style`) in a page.
pub fn inline_hashes(html: &[u8], name: &[u8]) -> Vec<String> {
    let close = [b"</", name].concat();
    let mut hashes = Vec::new();
    let mut rest = html;
    while let Some((has_source, text_on)) = next_element(rest, name) {
        let end = find_ignoring_case(text_on, &close).unwrap_or(text_on.len());
        if !has_source {
            hashes.push(format!("sha256-{}", base64(&Sha256::digest(&text_on[..end]))));
        }
        rest = &text_on[end..];
    }
    hashes
}

/// The next start tag of this name: whether it names a source, and everything behind it.
fn next_element<'h>(mut html: &'h [u8], name: &[u8]) -> Option<(bool, &'h [u8])> {
    let open = [b"<", name].concat();
    loop {
        let after = &html[find_ignoring_case(html, &open)? + open.len()..];
        match after.first()? {
            b'>' | b'/' => {}
            space if space.is_ascii_whitespace() => {}
            // Another, longer name.
            _ => {
                html = after;
                continue;
            }
        }
        let (mut quote, mut has_source, mut at_name) = (None, false, true);
        for (i, &byte) in after.iter().enumerate() {
            match (quote, byte) {
                (None, b'>') => return Some((has_source, &after[i + 1..])),
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), byte) if open == byte => quote = None,
                (None, byte) => {
                    has_source |= at_name && is_source(&after[i..]);
                    at_name = byte.is_ascii_whitespace() || byte == b'/';
                }
                _ => {}
            }
        }
        return None;
    }
}

fn is_source(attribute: &[u8]) -> bool {
    let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/');
    attribute.len() > 3 && attribute[..3].eq_ignore_ascii_case(b"src") && ends(&attribute[3])
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn find_ignoring_case(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_back_from_the_literal() {
        let all: String =
            ('\0'..='\u{2100}').chain(['\u{d7ff}', '\u{e000}', '\u{1f600}', '\u{10ffff}']).collect();
        let literal = literal(&all);
        assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), all);
        assert!(!literal.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n', '\r']));
    }

    #[test]
    fn a_payload_is_put_before_the_first_end_of_a_head() {
        let page = Page::new(b"<html><head><title>t</title></head><body></head></body></html>".to_vec());
        let text = "A$$B$&C$`D$'E</script><!--\u{2028}";
        let html = String::from_utf8(page.with_payload(text, "N+/=")).unwrap();
        let script = "<script nonce=\"N+/=\">window.__AGENT_RENDER_PAYLOAD__=\"A$$B$\\u0026C$`D$'E\\u003c/script\\u003e\\u003c!--\\u2028\";</script>";
        assert_eq!(html, format!("<html><head><title>t</title>{script}</head><body></head></body></html>"));
        let without = Page::new(b"<html></HEAD>".to_vec());
        assert!(!without.takes_payload());
        assert_eq!(without.with_payload("x", "n"), b"<html></HEAD>");
    }

    #[test]
    fn inline_scripts_are_found_and_others_are_not() {
        let hash = |text: &str| format!("sha256-{}", base64(&Sha256::digest(text)));
        for (html, texts) in [
            ("", &[][..]),
            ("<script>a</script>", &["a"]),
            ("<SCRIPT>a</Script >", &["a"]),
            ("<script></script>", &[""]),
            ("<script type=\"module\">a</script><p><script\n>b</script>", &["a", "b"]),
            ("<script src=x></script><script>a</script>", &["a"]),
            ("<script async src=\"x\"></script>", &[]),
            ("<script\tSRC='x'>a</script>", &[]),
            ("<script data-src=x>a</script>", &["a"]),
            ("<script title=\" src=x \">a</script>", &["a"]),
            ("<script title='>'>a</script>", &["a"]),
            ("<script srcset=x>a</script>", &["a"]),
            ("<scripts>a</scripts><script>b</script>", &["b"]),
            ("<script>a<b>'</script>", &["a<b>'"]),
            ("<script>no end", &["no end"]),
            ("<script", &[]),
            ("<script title='", &[]),
        ] {
            let wanted: Vec<String> = texts.iter().map(|text| hash(text)).collect();
            assert_eq!(inline_hashes(html.as_bytes(), b"script"), wanted, "{html}");
        }
        let page = Page::new(b"<style>p{}</style><script>a</script>".to_vec());
        assert_eq!(page.script_hashes(), [hash("a")]);
        assert_eq!(inline_hashes(b"<style>p{}</style><script>a</script>", b"style"), [hash("p{}")]);
    }
}
