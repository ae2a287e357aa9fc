//! Floor 1: the text format of Prometheus (0.0.4), and what the kernel says of this process. Knows no other
//! metric, and no HTTP.
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use std::fmt::Write;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The media type of a [`Page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric's value may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until we start again.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of values by size: the caller adds `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Seconds, to the microsecond.
    Time(Duration),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Whole(number as u64)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Value::Whole(u64::from(yes))
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Value::Time(time)
    }
}

/// A label. Both are words of this program: no client makes a label, so their number is bounded.
pub type Label = (&'static str, &'static str);

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// The family that samples are added to.
    name: &'static str,
}

impl Page {
    /// Begins a metric: its name, what it does, and a sentence on it. All of its samples follow.
    #[inline(never)]
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.text.push_str(part);
        }
    }

    /// Adds a sample.
    pub fn sample(&mut self, labels: &[Label], value: impl Into<Value>) {
        self.add("", labels, value.into());
    }

    /// Adds a sample of a histogram: `_bucket`, `_sum` or `_count`.
    pub fn sample_of(&mut self, suffix: &str, labels: &[Label], value: impl Into<Value>) {
        self.add(suffix, labels, value.into());
    }

    // Not a part of its many callers: there is no hurry here.
    #[inline(never)]
    fn add(&mut self, suffix: &str, labels: &[Label], value: Value) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (n, (name, word)) in labels.iter().enumerate() {
            for part in [if n == 0 { "{" } else { "," }, name, "=\"", word, "\""] {
                self.text.push_str(part);
            }
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string does not fail.
        let _ = match value {
            Value::Whole(number) => writeln!(self.text, " {number}"),
            Value::Time(time) => writeln!(self.text, " {}.{:06}", time.as_secs(), time.subsec_micros()),
        };
    }

    /// A metric with one sample and no label.
    pub fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Value>) {
        self.alone(name, kind, help, value.into());
    }

    #[inline(never)]
    fn alone(&mut self, name: &'static str, kind: Kind, help: &str, value: Value) {
        self.family(name, kind, help);
        self.add("", &[], value);
    }

    /// What every program's metrics have, by their usual names. What the kernel does not tell (without
    /// `/proc`) is left out.
    pub fn process(&mut self, started: SystemTime) {
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.one("process_start_time_seconds", Kind::Gauge, "When we started, since 1970.", since);
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = [usage.user_time(), usage.system_time()]
                .map(|time| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0));
            let time = Duration::from_micros(micros.iter().sum());
            self.one("process_cpu_seconds_total", Kind::Counter, "Processor time we used.", time);
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.one("process_max_fds", Kind::Gauge, "Descriptors we may have.", soft);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory's.
            let count = open.count().saturating_sub(1);
            self.one("process_open_fds", Kind::Gauge, "Descriptors we have.", count);
        }
        let Ok(status) = fs::read_to_string("/proc/self/status") else { return };
        for (field, unit, name, help) in [
            ("VmSize:", 1024, "process_virtual_memory_bytes", "Address space we have."),
            ("VmRSS:", 1024, "process_resident_memory_bytes", "Memory we use."),
            ("Threads:", 1, "process_threads", "Threads we have."),
        ] {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            if let Some(Ok(number)) =
                line.and_then(|line| line.split_whitespace().next()).map(str::parse::<u64>)
            {
                self.one(name, Kind::Gauge, help, number * unit);
            }
        }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_look_as_the_format_asks() {
        let mut page = Page::default();
        page.one("a_total", Kind::Counter, "A thing.", 7_u64);
        page.family("b_seconds", Kind::Histogram, "B.");
        page.sample_of("_bucket", &[("class", "x"), ("le", "0.5")], 1_usize);
        page.sample_of("_sum", &[], Duration::from_micros(1_000_050));
        assert_eq!(
            page.into_text(),
            "# HELP a_total A thing.\n# TYPE a_total counter\na_total 7\n\
             # HELP b_seconds B.\n# TYPE b_seconds histogram\n\
             b_seconds_bucket{class=\"x\",le=\"0.5\"} 1\nb_seconds_sum 1.000050\n"
        );
    }

    #[test]
    fn this_process_has_memory_descriptors_and_a_start() {
        let mut page = Page::default();
        page.process(SystemTime::now());
        let text = page.into_text();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
            assert!(value.parse::<f64>().unwrap() >= 0.0 && value != "0", "{name} {value}");
        }
    }
}
