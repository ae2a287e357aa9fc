//! What a command prints: for people, or the server's JSON, one document a line.
use super::failure::Failure;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// A result: the server's own words with `--json`, else what `people` makes of them.
    pub(super) fn result(self, json: &Value, people: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        if self.json { self.line(json) } else { self.text(&people(json)) }
    }

    /// A line for whoever asked.
    pub(super) fn line(self, text: impl Display) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::printing)
    }

    /// Text from the server for people. A terminal gets none of its control characters.
    pub(super) fn text(self, text: &str) -> Result<(), Failure> {
        if io::stdout().is_terminal() { self.line(printable(text)) } else { self.line(text) }
    }

    /// Bytes as they are.
    pub(super) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::printing)
    }
}

/// A word beside the results, on standard error.
pub(super) fn note(text: impl Display) {
    let text = printable(&text.to_string());
    let _ = writeln!(io::stderr().lock(), "{}: {text}", super::NAME);
}

/// Text without what would move a terminal's cursor or more.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\t' | '\n') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// A text field of the server's JSON; a dash if it is not there.
pub(super) fn field(json: &Value, name: &str) -> String {
    match &json[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows below their headings, each column as wide as need be.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64 / 1024.0;
    if value < 1.0 {
        return format!("{count} B");
    }
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_no_control_characters_and_straight_columns() {
        assert_eq!(printable("a\x1b[31mb\tc\n\r\u{9b}"), "a\u{fffd}[31mb\tc\n\u{fffd}\u{fffd}");
        let rows = [vec!["1".to_owned(), "ü".to_owned()], vec!["22".to_owned(), String::new()]];
        assert_eq!(table(&["A", "LONG"], &rows), "A   LONG\n1   ü\n22");
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(3 << 40)],
            ["0 B", "1023 B", "1.5 KiB", "3.0 TiB"]
        );
    }
}
