//! Server-sent events, read one by one from a body (WHATWG HTML, section 9.2.6): the fields that our server
//! sends, each event bounded.
use std::io::{self, BufRead, BufReader, Read};

/// Bytes of a line: more than any event of the server has.
const LINE_BYTES: u64 = 8 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) data: String,
}

/// Events as they come.
pub(super) struct Events<R> {
    body: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> Events<R> {
    pub(super) fn of(body: R) -> Self {
        Events { body: BufReader::with_capacity(64 * 1024, body), line: Vec::new() }
    }

    /// The next event; none at the end of the stream. A last one without its empty line does not count.
    ///
    /// # Errors
    /// Those of the body, and a line that is too long or no UTF-8.
    pub(super) fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        let mut has_data = false;
        loop {
            self.line.clear();
            (&mut self.body).take(LINE_BYTES).read_until(b'\n', &mut self.line)?;
            if self.line.pop() != Some(b'\n') {
                return match self.line.len() as u64 + 1 >= LINE_BYTES {
                    true => Err(io::Error::other("a line of the stream is too long")),
                    false => Ok(None),
                };
            }
            let line = std::str::from_utf8(&self.line).map_err(io::Error::other)?;
            let line = line.strip_suffix('\r').unwrap_or(line);
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                _ if line.is_empty() && has_data => return Ok(Some(event)),
                _ if line.is_empty() => event = Event::default(),
                "id" => event.id = Some(value.to_owned()),
                "event" => event.name = Some(value.to_owned()),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    has_data = true;
                    event.data.push_str(value);
                }
                // A comment, which only says that somebody is there, or a field of the future.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whole_or_not_at_all() {
        let text = ": hello\n\nid: 1\nevent: a\ndata: x\ndata:y\n\nid: 2\n\r\ndata:\r\n\ndata: cut\n";
        let mut events = Events::of(text.as_bytes());
        let mut next = || events.next().unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(next(), Some(Event { id: some("1"), name: some("a"), data: "x\ny".to_owned() }));
        assert_eq!(next(), Some(Event::default()));
        assert_eq!(next(), None);
        let endless = io::repeat(b'x');
        assert!(Events::of(endless).next().is_err());
    }
}
