//! From one value of a slice to the next: a JSON Patch (RFC 6902), or the value where that is safer or
//! shorter. Pure.
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::sync::Arc;

/// How a slice became another.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// By these operations.
    Patches(Patches),
    /// It is this now.
    Value(Arc<Value>),
}

/// Operations of a JSON Patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patches(json_patch::Patch);

/// What makes `after` of `before`; `None` when they are equal.
pub fn change(before: &Value, after: &Arc<Value>) -> Option<Change> {
    if before == after.as_ref() {
        return None;
    }
    let whole = || Some(Change::Value(Arc::clone(after)));
    let alike = before.is_object() && after.is_object() || before.is_array() && after.is_array();
    if !alike {
        // A patch of a whole document by itself is something client libraries disagree on.
        return whole();
    }
    let patch = json_patch::diff(before, after);
    if patch.0.iter().any(|operation| is_unsafe(operation.path().as_str()))
        || length(&patch) > length(after.as_ref())
    {
        return whole();
    }
    Some(Change::Patches(Patches(patch)))
}

/// Client libraries refuse paths that lead into a prototype.
fn is_unsafe(path: &str) -> bool {
    let mut before = "";
    path.split('/').any(|part| {
        let found = part == "__proto__" || part == "prototype" && before == "constructor";
        before = part;
        found
    })
}

/// Bytes of a value's text.
fn length(value: &(impl Serialize + ?Sized)) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// What a client makes of a patch's text.
#[cfg(test)]
pub(super) fn apply(value: &mut Value, patch: &str) {
    let patch: json_patch::Patch = serde_json::from_str(patch).unwrap();
    json_patch::patch(value, &patch).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a client makes of a change.
    fn changed(before: &Value, change: Option<Change>) -> Value {
        match change {
            None => before.clone(),
            Some(Change::Value(value)) => value.as_ref().clone(),
            Some(Change::Patches(patches)) => {
                let mut value = before.clone();
                apply(&mut value, &serde_json::to_string(&patches).unwrap());
                value
            }
        }
    }

    fn is_patch(before: Value, after: Value) -> bool {
        let after = Arc::new(after);
        let change = change(&before, &after);
        assert_eq!(&changed(&before, change.clone()), after.as_ref(), "{before} to {after}");
        matches!(change, Some(Change::Patches(_)))
    }

    #[test]
    fn equal_values_are_no_change() {
        assert_eq!(change(&json!({"a": [1]}), &Arc::new(json!({"a": [1]}))), None);
    }

    #[test]
    fn the_value_is_sent_where_a_patch_would_be_unsafe_or_longer() {
        let long = "x".repeat(100);
        assert!(is_patch(json!({"a": 1, "b": long}), json!({"a": 2, "b": long})));
        assert!(is_patch(json!({"a~/b": 1, "": long}), json!({"a~/b": 2, "": long})));
        assert!(!is_patch(json!({"a": 1}), json!({"b": 1})), "longer");
        assert!(!is_patch(json!({"a": 1}), json!([])), "another kind");
        assert!(!is_patch(json!(1), json!({})), "a primitive");
        assert!(!is_patch(json!({"__proto__": 1, "b": long}), json!({"__proto__": 2, "b": long})));
        let constructor = |n: i32| json!({"constructor": {"prototype": {"a": n}}, "b": "x".repeat(100)});
        assert!(!is_patch(constructor(1), constructor(2)));
    }

    #[test]
    fn every_shape_becomes_every_other() {
        let shapes = r#"[null, true, 0, 1.5, "", "a", [], [1], [1, 2, 3], [3, 1], [[1], [2]], [[1], [2, 3]],
            [{"x": 1}, {"x": 2}], [{"x": 2}], {}, {"a": 1}, {"a": 1.0}, {"a": null}, {"a": []}, {"a": {}},
            {"b": 1, "a": 2}, {"a": {"b": {"c": 1}}}, {"a": {"b": {}}}, {"a": [{"b": [1, 2, {"c": 3}]}]},
            {"a/b": 1, "m~n": 2, "": 3}, {"a/b": 2, "": 4}, {"9": 1, "10": 1, "b": 1}, {"0": 1},
            {"t": "\u00e9 \"\\\u0001"}]"#;
        let shapes: Vec<Value> = serde_json::from_str(shapes).unwrap();
        for before in &shapes {
            for after in &shapes {
                is_patch(before.clone(), after.clone());
                // And somewhere inside, where a patch is shorter than the value.
                let inside = |value: &Value| json!({"here": value, "more": ["x".repeat(200)]});
                assert!(is_patch(inside(before), inside(after)) || before == after, "{before} {after}");
            }
        }
    }

    /// A small generator of nonsense (xorshift64*), so that a failure can be repeated.
    struct Nonsense(u64);

    impl Nonsense {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
        }

        fn key(&mut self) -> String {
            const KEYS: [&str; 12] =
                ["a", "b", "c", "", "0", "10", "a/b", "m~n", "~1", "\u{e9}", "__proto__", "constructor"];
            KEYS[self.below(12) as usize].to_owned()
        }

        fn value(&mut self, depth: u64) -> Value {
            let length = self.below(4);
            match self.below(if depth == 0 { 5 } else { 9 }) {
                0 => Value::Null,
                1 => json!(self.below(2) == 0),
                2 => json!(self.below(4)),
                3 => json!(self.below(100) as f64 / 7.0),
                4 => json!("x".repeat(self.below(20) as usize)),
                5 | 6 => (0..length).map(|_| self.value(depth - 1)).collect(),
                _ => Value::Object((0..length).map(|_| (self.key(), self.value(depth - 1))).collect()),
            }
        }

        /// Changes something somewhere.
        fn disturb(&mut self, value: &mut Value) {
            let deeper = self.below(3) > 0;
            match value {
                Value::Object(map) if deeper && !map.is_empty() => {
                    let n = self.below(map.len() as u64) as usize;
                    if let Some(inner) = map.values_mut().nth(n) {
                        self.disturb(inner);
                    }
                }
                Value::Object(map) => {
                    let key = self.key();
                    if self.below(2) == 0 {
                        map.remove(&key);
                    } else {
                        map.insert(key, self.value(2));
                    }
                }
                Value::Array(items) if deeper && !items.is_empty() => {
                    let n = self.below(items.len() as u64) as usize;
                    self.disturb(&mut items[n]);
                }
                Value::Array(items) => {
                    let at = self.below(items.len() as u64 + 1) as usize;
                    if self.below(2) == 0 && at < items.len() {
                        items.remove(at);
                    } else {
                        items.insert(at, self.value(2));
                    }
                }
                other => *other = self.value(3),
            }
        }
    }

    #[test]
    fn ten_thousand_changes_arrive() {
        let mut nonsense = Nonsense(0x5eed);
        let (mut value, mut patches) = (nonsense.value(4), 0);
        for n in 0..10_000 {
            let before = value.clone();
            for _ in 0..=nonsense.below(3) {
                nonsense.disturb(&mut value);
            }
            patches += usize::from(is_patch(before, value.clone()));
            if n % 100 == 0 {
                value = json!({"list": nonsense.value(4), "map": nonsense.value(4)});
            }
        }
        assert!(patches > 1000, "{patches} patches");
    }
}
