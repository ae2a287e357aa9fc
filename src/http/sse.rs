//! The text of server-sent events (WHATWG HTML, section 9.2). Pure.
use std::fmt::Display;

/// Appends one event. `data` is one line: JSON escapes its line ends.
pub fn write_event(out: &mut Vec<u8>, id: impl Display, name: Option<&str>, data: &[u8]) {
    out.extend_from_slice(format!("id: {id}\n").as_bytes());
    if let Some(name) = name {
        out.extend_from_slice(format!("event: {name}\n").as_bytes());
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// Appends one event with its lines in the order in which some clients of ours expect them.
#[cfg(feature = "runs")]
pub fn write_event_with_id_last(out: &mut Vec<u8>, name: &str, data: &[u8], id: u64) {
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(format!("\nid: {id}\n\n").as_bytes());
}

/// A comment that keeps idle connections open; clients ignore it.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_lines_and_an_empty_one() {
        let mut out = Vec::new();
        write_event(&mut out, 7, None, b"{}");
        write_event(&mut out, 8, Some("gap"), b"1");
        assert_eq!(out, b"id: 7\ndata: {}\n\nid: 8\nevent: gap\ndata: 1\n\n");
    }
}
