//! Names here as they stand in a URL there. Pure.
use super::failure::Failure;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but letters, digits and the marks that are never encoded (RFC 3986, section 2.3).
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One name of a path.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// A path of names, joined with `/`, each encoded; empty for no names.
pub(super) fn encoded_path(path: &str) -> String {
    path.split('/').filter(|name| !name.is_empty()).map(encoded).collect::<Vec<_>>().join("/")
}

/// A directory on the server, as people write it: `a/b`, `./a/b/`, `.` for the root.
///
/// # Errors
/// A path that leads out of the root.
pub(super) fn directory(text: Option<&str>) -> Result<String, Failure> {
    let text = text.unwrap_or_default();
    if text.starts_with('/') || text.split('/').any(|name| name == "..") {
        return Err(Failure::Usage(format!("--to: `{text}` is not a directory below the server's root")));
    }
    let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
    Ok(names.collect::<Vec<_>>().join("/"))
}

/// One path below another, either of which may be empty.
pub(super) fn below(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", only) | (only, "") => only.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_paths_kept_below() {
        assert_eq!(encoded_path("a b/ü%2e~-._/?#"), "a%20b/%C3%BC%252e~-._/%3F%23");
        assert_eq!(directory(Some("./a//b/")).unwrap(), "a/b");
        assert_eq!((directory(None).unwrap(), directory(Some(".")).unwrap()), (String::new(), String::new()));
        assert!(directory(Some("/a")).is_err() && directory(Some("a/../b")).is_err());
        assert_eq!([below("", "x"), below("a", "x"), below("a", "")], ["x", "a/x", "a"]);
    }
}
