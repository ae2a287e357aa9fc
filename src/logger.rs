//! Our own log: one line a record on standard error, with time and level.
use crate::base::time::rfc3339;
use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::time::SystemTime;

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The HTTP client's records would repeat every header, tokens among them.
        metadata.target().starts_with("simple_artifact_server")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {:5} {}\n", rfc3339(SystemTime::now()), record.level(), record.args());
            // One write a line; a closed standard error must not end the server.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the program's log to standard error, from `level` up. The first call counts.
pub fn install(level: LevelFilter) {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}
