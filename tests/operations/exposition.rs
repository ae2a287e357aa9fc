//! The text format of Prometheus 0.0.4, read strictly: what is not in its grammar is a failure.
#![allow(unreachable_pub)]
use std::collections::{BTreeMap, BTreeSet};

/// A sample's name and labels, in their order on the page.
pub type Series = (String, Labels);
/// Names and values.
pub type Labels = Vec<(String, String)>;

/// A page, checked.
#[derive(Debug)]
pub struct Page {
    pub samples: BTreeMap<Series, f64>,
    /// Families by name, with their type.
    pub types: BTreeMap<String, String>,
}

fn is_name(text: &str, colon: bool) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || colon && c == ':')
}

/// `{name="value",…}`, whose values have no escapes as long as they are words of ours.
fn labels(text: &str) -> Vec<(String, String)> {
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(text);
    let labels = inner.split(',').map(|label| {
        let (name, value) = label.split_once('=').expect(label);
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect(label);
        assert!(is_name(name, false) && !name.starts_with("__"), "{label}");
        assert!(!value.contains(['"', '\\']), "{label}");
        (name.to_owned(), value.to_owned())
    });
    let labels: Vec<_> = labels.collect();
    assert_eq!(labels.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), labels.len(), "{text}");
    labels
}

impl Page {
    pub fn parse(text: &str) -> Page {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut family: Option<(String, String)> = None;
        let mut help: Option<String> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, sentence) = rest.split_once(' ').expect(line);
                assert!(is_name(name, true) && sentence.ends_with('.'), "{line}");
                help = Some(name.to_owned());
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(help.take().as_deref(), Some(name), "help comes first: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let known = types.insert(name.to_owned(), kind.to_owned());
                assert!(known.is_none(), "twice: {line}");
                family = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let (series, value) = line.rsplit_once(' ').expect(line);
            let start = series.find('{').unwrap_or(series.len());
            let (name, labelled) = series.split_at(start);
            let labels = if labelled.is_empty() { Vec::new() } else { labels(labelled) };
            let (of, kind) = family.as_ref().expect(line);
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{of}{suffix}")), "{line} in {of}");
            assert_eq!(kind == "counter", of.ends_with("_total"), "{of} is a {kind}");
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let known = samples.insert((name.to_owned(), labels), value);
            assert!(known.is_none(), "twice: {line}");
        }
        let page = Page { samples, types };
        page.check_histograms();
        page
    }

    /// Buckets grow with their bounds, and the last has everything.
    fn check_histograms(&self) {
        for name in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            let of = format!("{name}_bucket");
            for ((_, labels), value) in self.samples.iter().filter(|((sample, _), _)| *sample == of) {
                let (bound, rest): (Vec<_>, Vec<_>) =
                    labels.iter().cloned().partition(|(label, _)| label == "le");
                let bound = if bound[0].1 == "+Inf" { f64::INFINITY } else { bound[0].1.parse().unwrap() };
                buckets.entry(rest).or_default().push((bound, *value));
            }
            assert!(!buckets.is_empty(), "{name} has no buckets");
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
                    "{name} {labels:?} {buckets:?}"
                );
                let last = buckets.last().unwrap();
                let count = self.samples[&(format!("{name}_count"), labels.clone())];
                assert_eq!(*last, (f64::INFINITY, count), "{name} {labels:?}");
                assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)));
            }
        }
    }

    /// The value of a sample; labels as `name=value`.
    pub fn get(&self, name: &str, labels: &[&str]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    pub fn find(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let split = |label: &&str| label.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
        self.samples.get(&(name.to_owned(), labels.iter().map(split).collect())).copied()
    }

    /// All samples of a name together.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((sample, _), _)| sample == name).map(|(_, value)| value).sum()
    }
}

#[test]
fn the_parser_takes_the_format_and_nothing_else() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"y\"} 1\n\
        # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n";
    let page = Page::parse(good);
    assert_eq!((page.get("a_total", &["x=y"]), page.get("h_count", &[])), (1.0, 2.0));
    for (from, to) in [
        ("a_total{x=\"y\"} 1\n", "a_total{x=\"y\"} 1\na_total{x=\"y\"} 1\n"),
        ("a_total{", "b_total{"),
        ("{x=", "{1x="),
        ("} 1\n# H", "} one\n# H"),
        ("# HELP h H.\n", ""),
        ("le=\"+Inf\"} 2", "le=\"+Inf\"} 3"),
        ("le=\"1\"} 1", "le=\"1\"} 5"),
        ("TYPE a_total counter", "TYPE a_total gauge"),
        ("TYPE h histogram", "TYPE h summary"),
        ("h_count 2\n", "h_count 2"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(std::panic::catch_unwind(|| Page::parse(&bad)).is_err(), "{bad}");
    }
}
