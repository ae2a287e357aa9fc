//! JSON as JavaScript has it: numbers are doubles, keys keep their order but those that look like array
//! indices come first, and text is written as `JSON.stringify` writes it. Pure.
//!
//! What is hashed must read the same for everybody who recomputes it; the reference is ECMA-262
//! (`JSON.stringify`, `Number::toString`, `OrdinaryOwnPropertyKeys`).
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// Whole numbers up to here are exact in a double, and in what JSON parsers make of them.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Objects with more keys than this look their keys up in a table while they are read.
const FEW_KEYS: usize = 8;

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

/// `Number::toString`, radix 10.
fn write_number(n: f64, out: &mut String) {
    if n == 0.0 {
        return out.push('0');
    }
    if n < 0.0 {
        out.push('-');
    }
    // Rust gives the shortest digits that read back as the same number, as ECMA-262 asks.
    let scientific = format!("{:e}", n.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let count = digits.len() as i32;
    // The value is 0.digits × 10^point.
    let point = exponent.parse().unwrap_or(0) + 1;
    match point {
        _ if count <= point && point <= 21 => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', (point - count) as usize));
        }
        1..=21 => {
            out.push_str(&digits[..point as usize]);
            out.push('.');
            out.push_str(&digits[point as usize..]);
        }
        -5..=0 => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', (-point) as usize));
            out.push_str(&digits);
        }
        _ => {
            out.push_str(&digits[..1]);
            if count > 1 {
                out.push('.');
                out.push_str(&digits[1..]);
            }
            out.push('e');
            out.push(if point > 0 { '+' } else { '-' });
            out.push_str(&(point - 1).abs().to_string());
        }
    }
}

/// Appends a string with its quotes.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct JsonVisitor;

        impl<'de> Visitor<'de> for JsonVisitor {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::String(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Json, E> {
                Ok(Json::String(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Entries::default();
                while let Some((key, value)) = map.next_entry()? {
                    entries.insert(key, value);
                }
                Ok(entries.finish())
            }
        }

        deserializer.deserialize_any(JsonVisitor)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(n) if n.fract() == 0.0 && n.abs() <= EXACT => serializer.serialize_i64(*n as i64),
            Json::Number(n) => serializer.serialize_f64(*n),
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(items) => serializer.collect_seq(items),
            Json::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(n) if n.fract() == 0.0 && n.abs() <= EXACT => Value::from(*n as i64),
            Json::Number(n) => Value::from(*n),
            Json::String(text) => Value::String(text.clone()),
            Json::Array(items) => Value::Array(items.iter().map(Value::from).collect()),
            Json::Object(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(n) => Json::Number(n.as_f64().unwrap_or(0.0)),
            Value::String(text) => Json::String(text.clone()),
            Value::Array(items) => Json::Array(items.iter().map(Json::from).collect()),
            Value::Object(map) => Json::object(map.iter().map(|(key, value)| (key.clone(), value.into()))),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json::from(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn values_there_and_back() {
        let text = r#"{"a":[1,2.5,-3,true,null,"x"],"b":{"c":1e+300}}"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(Json::from(&Value::from(&json)), json);
        assert_eq!(serde_json::to_string(&json).unwrap().parse::<Value>().unwrap(), Value::from(&json));
        assert_eq!(json.get("a").and_then(Json::as_str), None);
    }
}
