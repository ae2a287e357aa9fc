//! What a run sees of our own environment: names on a list, nothing else. Pure.
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What programs cannot do without, or what makes their output what its reader expects.
const ALWAYS: &[&str] = &["PATH", "HOME", "LANG", "TZ", "TERM", "USER"];
/// Every variable of this kind.
const LOCALE_PREFIX: &[u8] = b"LC_";
/// Ours are never handed on, whatever the list says: one of them is the token.
const OURS_PREFIX: &[u8] = b"FRAG_";

/// Those of `ours` that a run gets: the ones every program may have, and those named in `further`.
pub fn inherited(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    further: &[String],
) -> Vec<(OsString, OsString)> {
    let kept = |name: &OsStr| {
        let listed =
            ALWAYS.iter().any(|known| name == *known) || further.iter().any(|known| name == &**known);
        let bytes = name.as_bytes();
        (listed || bytes.starts_with(LOCALE_PREFIX)) && !bytes.starts_with(OURS_PREFIX)
    };
    ours.into_iter().filter(|(name, _)| kept(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_are_inherited() {
        let ours =
            ["PATH", "HOME", "LC_ALL", "LC_", "AWS_SECRET", "FRAG_TOKEN", "MINE", "path", "LCX", "USERS"];
        let ours = || ours.iter().map(|name| (OsString::from(name), OsString::from("v")));
        let names = |further: &[&str]| -> Vec<String> {
            let further: Vec<String> = further.iter().map(ToString::to_string).collect();
            inherited(ours(), &further).into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
        };
        assert_eq!(names(&[]), ["PATH", "HOME", "LC_ALL", "LC_"]);
        assert_eq!(names(&["MINE", "FRAG_TOKEN", "ABSENT"]), ["PATH", "HOME", "LC_ALL", "LC_", "MINE"]);
    }
}
