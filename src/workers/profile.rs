//! Profiles by their selectors. Pure.
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which profile a worker runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ProfileSelector {
    /// The runtime's own.
    RuntimeDefault,
    /// One that comes with the runtime; by convention the value begins with `builtin:`.
    Builtin(String),
    /// One that a config bundle declares.
    Named(String),
}

impl ProfileSelector {
    /// The selector as one word, as `--worker` takes it: `runtime_default`, `builtin:x`, `named:x`.
    pub fn parse(text: &str) -> Option<ProfileSelector> {
        match text.split_once(':') {
            None if text == "runtime_default" => Some(ProfileSelector::RuntimeDefault),
            Some(("builtin", value)) if !value.trim().is_empty() => {
                Some(ProfileSelector::Builtin(format!("builtin:{value}")))
            }
            Some(("named", value)) if !value.trim().is_empty() => {
                Some(ProfileSelector::Named(value.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether both mean the same profile: the prefix of a builtin's value is a convention only.
    pub fn means(&self, other: &ProfileSelector) -> bool {
        match (self, other) {
            (ProfileSelector::Builtin(one), ProfileSelector::Builtin(other)) => {
                let bare = |value: &str| value.strip_prefix("builtin:").unwrap_or(value).to_owned();
                bare(one) == bare(other)
            }
            (one, other) => one == other,
        }
    }

    /// Whether there is nothing in it but white space.
    pub fn is_blank(&self) -> bool {
        match self {
            ProfileSelector::RuntimeDefault => false,
            ProfileSelector::Builtin(value) | ProfileSelector::Named(value) => value.trim().is_empty(),
        }
    }
}

impl fmt::Display for ProfileSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProfileSelector::RuntimeDefault => f.write_str("runtime_default"),
            ProfileSelector::Builtin(value) if value.starts_with("builtin:") => f.write_str(value),
            ProfileSelector::Builtin(value) => write!(f, "builtin:{value}"),
            ProfileSelector::Named(value) => write!(f, "named:{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_words() {
        for word in ["runtime_default", "builtin:coder", "named:night-shift", "named:a:b"] {
            assert_eq!(ProfileSelector::parse(word).unwrap().to_string(), word);
        }
        for word in ["", "default", "named", "named:", "builtin: ", "other:x", "runtime_default:x"] {
            assert_eq!(ProfileSelector::parse(word), None, "{word}");
        }
        let builtin = |value: &str| ProfileSelector::Builtin(value.to_owned());
        assert!(builtin("builtin:coder").means(&builtin("coder")));
        assert!(!builtin("coder").means(&ProfileSelector::Named("coder".to_owned())));
        assert!(!builtin("coder").means(&builtin("Coder")));
    }
}
