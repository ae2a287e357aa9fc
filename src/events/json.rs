//! JSON as JavaScript has it: numbers are doubles, keys keep their order but those that look like array
//! indices come first, and text is written as `JSON.stringify` writes it. Pure.
//!
//! What is hashed must read the same for everybody who recomputes it; the reference is ECMA-262
//! (`JSON.stringify`, `Number::toString`, `OrdinaryOwnPropertyKeys`).
mod convert;
mod text;

pub use text::write_string;

use std::collections::HashMap;
use text::write_number;

/// Whole numbers up to here are exact in a double, and in what JSON parsers make of them.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Objects with more keys than this look their keys up in a table while they are read.
const FEW_KEYS: usize = 8;
/// How deep others' values may be nested. What holds them as a part, such as a line of the journal, is
/// deeper by some and must be parsed again.
pub const DEPTH: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; its keys differ and stand in JavaScript's order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a text; of a key that is there twice the last value counts, as in JavaScript.
    ///
    /// # Errors
    /// What is wrong with the text: also a nesting deeper than 128, a number beyond a double, half of a
    /// surrogate pair.
    pub fn parse(text: &[u8]) -> Result<Json, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Whether it is nested no deeper than [`DEPTH`], so that it may become a part of other values.
    pub fn is_shallow(&self) -> bool {
        self.fits(DEPTH)
    }

    fn fits(&self, depth: usize) -> bool {
        match self {
            Json::Array(items) => depth > 0 && items.iter().all(|item| item.fits(depth - 1)),
            Json::Object(entries) => depth > 0 && entries.iter().all(|(_, value)| value.fits(depth - 1)),
            _ => true,
        }
    }

    /// An object of these entries; of a repeated key the last value counts.
    pub fn object(entries: impl IntoIterator<Item = (String, Json)>) -> Json {
        let mut object = Entries::default();
        for (key, value) in entries {
            object.insert(key, value);
        }
        object.finish()
    }

    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number from 0 to 2^53.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Json::Number(n) if *n >= 0.0 && *n <= EXACT && n.fract() == 0.0 => Some(*n as u64),
            _ => None,
        }
    }

    /// Appends the text that `JSON.stringify` gives.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Number(n) => write_number(*n, out),
            Json::String(text) => write_string(text, out),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(entries) => {
                out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The text that `JSON.stringify` gives.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// The entries of an object while they come, in the order of their first coming.
#[derive(Default)]
struct Entries {
    list: Vec<(String, Json)>,
    places: HashMap<String, usize>,
}

impl Entries {
    fn insert(&mut self, key: String, value: Json) {
        let place = if self.list.len() > FEW_KEYS {
            if self.places.is_empty() {
                self.places = self.list.iter().enumerate().map(|(i, (k, _))| (k.clone(), i)).collect();
            }
            self.places.get(&key).copied()
        } else {
            self.list.iter().position(|(k, _)| *k == key)
        };
        match place {
            Some(place) => self.list[place].1 = value,
            None => {
                if !self.places.is_empty() {
                    self.places.insert(key.clone(), self.list.len());
                }
                self.list.push((key, value));
            }
        }
    }

    fn finish(self) -> Json {
        let mut list = self.list;
        // Stable: what is no index keeps its order.
        list.sort_by_key(|(key, _)| array_index(key).map_or(u64::from(u32::MAX), u64::from));
        Json::Object(list)
    }
}

/// The number, if the key is an array index: 0 to 2^32 - 2 without leading zeros.
fn array_index(key: &str) -> Option<u32> {
    let digits = key.bytes().all(|b| b.is_ascii_digit());
    if !digits || key.len() > 1 && key.starts_with('0') {
        return None;
    }
    key.parse().ok().filter(|n| *n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn through(text: &str) -> String {
        Json::parse(text.as_bytes()).unwrap().text()
    }

    #[test]
    fn numbers_read_as_javascript_writes_them() {
        for (text, written) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("123456789012345680000", "123456789012345680000"),
            ("1e-7", "1e-7"),
            ("1.5e-7", "1.5e-7"),
            ("0.000001", "0.000001"),
            ("0.00001234", "0.00001234"),
            ("-1.25", "-1.25"),
            ("100", "100"),
            ("12345678901234567890", "12345678901234567000"),
            ("9007199254740993", "9007199254740992"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.1", "0.1"),
            ("1234.5678", "1234.5678"),
        ] {
            assert_eq!(through(text), written, "{text}");
        }
        assert!(Json::parse(b"1e999").is_err());
    }

    #[test]
    fn keys_stand_as_in_javascript() {
        for (text, written) in [
            (r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
            (r#"{"b":1,"10":2,"9":3,"a":4,"01":5,"-1":6}"#, r#"{"9":3,"10":2,"b":1,"a":4,"01":5,"-1":6}"#),
            (r#"{"4294967295":1,"4294967294":2}"#, r#"{"4294967294":2,"4294967295":1}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"":1,"__proto__":2}"#, r#"{"":1,"__proto__":2}"#),
        ] {
            assert_eq!(through(text), written, "{text}");
        }
        let many: Vec<String> = (0..50).map(|i| format!("\"k{}\":{i}", i % 20)).collect();
        let Json::Object(entries) = Json::parse(format!("{{{}}}", many.join(",")).as_bytes()).unwrap() else {
            panic!("an object");
        };
        assert_eq!(entries.len(), 20);
        assert_eq!(entries[0], ("k0".to_owned(), Json::Number(40.0)));
        assert_eq!(entries[19], ("k19".to_owned(), Json::Number(39.0)));
    }

    #[test]
    fn strings_escape_what_must_be_and_nothing_else() {
        assert_eq!(
            through(r#""\u00e9\u2028\"\\\n\u0001\/\u007f""#),
            "\"\u{e9}\u{2028}\\\"\\\\\\n\\u0001/\u{7f}\""
        );
        assert_eq!(through(r#""\b\t\f\r\u001f""#), r#""\b\t\f\r\u001f""#);
        assert!(Json::parse(br#""\ud800""#).is_err(), "half a pair");
        assert!(Json::parse("[".repeat(200).as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn nesting_is_counted() {
        for open in ["[", "{\"a\":"] {
            let nested = |depth: usize| {
                let close = if open == "[" { "]" } else { "}" };
                let text = format!("{}{}", open.repeat(depth - 1), if open == "[" { "[]" } else { "{}" });
                Json::parse(format!("{text}{}", close.repeat(depth - 1)).as_bytes()).unwrap()
            };
            assert!(nested(1).is_shallow() && nested(DEPTH).is_shallow());
            assert!(!nested(DEPTH + 1).is_shallow() && !nested(127).is_shallow());
        }
        assert!(Json::Null.is_shallow());
    }

    #[test]
    fn values_there_and_back() {
        let text = r#"{"a":[1,2.5,-3,true,null,"x"],"b":{"c":1e+300}}"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(Json::from(&Value::from(&json)), json);
        assert_eq!(serde_json::to_string(&json).unwrap().parse::<Value>().unwrap(), Value::from(&json));
        assert_eq!(json.get("a").and_then(Json::as_str), None);
    }
}
