//! An untrusted path from a URL, made into a list of names below a root.
//!
//! Pure: knows nothing of the disk. What passes here may still meet symbolic links; `root` deals
//! with those when it opens.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::FileError;

/// Names that start like this are unfinished uploads: never served, listed or accepted.
pub(super) const HIDDEN_PREFIX: &[u8] = b".frag-upload-";

/// Longest single name, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest decoded path, in bytes: `PATH_MAX` less its final NUL.
pub const MAX_PATH_BYTES: usize = 4095;
/// Deepest path, in names. It bounds the directories one upload may create and the sweep's depth.
pub const MAX_DEPTH: usize = 64;

/// One to [`MAX_DEPTH`] plain names joined with `/`, or none for the root itself.
///
/// Holds no `.`, `..`, empty name, NUL or backslash, and neither starts nor ends with `/`.
/// The bytes need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath {
    joined: Vec<u8>,
}

impl RelativePath {
    /// The root itself.
    pub fn root() -> Self {
        RelativePath { joined: Vec::new() }
    }

    /// Parses what follows the route's prefix, still percent-encoded, as the path of a file.
    ///
    /// # Errors
    /// [`FileError::PathInvalid`] with the rule it breaks.
    pub fn parse_file(raw: &[u8]) -> Result<Self, FileError> {
        if raw.is_empty() {
            return Err(FileError::PathInvalid("a file name is needed"));
        }
        Self::parse(raw)
    }

    /// Like [`parse_file`](Self::parse_file), but the path may be empty (the root) and may end with
    /// one `/`.
    ///
    /// # Errors
    /// [`FileError::PathInvalid`] with the rule it breaks.
    pub fn parse_directory(raw: &[u8]) -> Result<Self, FileError> {
        match raw {
            [] => Ok(Self::root()),
            [names @ .., b'/'] => Self::parse(names),
            names => Self::parse(names),
        }
    }

    /// The path of a directory in plain text, where nothing is encoded; a name `.` and repeated slashes
    /// lead nowhere further.
    ///
    /// # Errors
    /// [`FileError::PathInvalid`] with the rule it breaks.
    pub fn of_text(text: &str) -> Result<Self, FileError> {
        let mut path = Self::root();
        path.descend(text.as_bytes(), check)?;
        Ok(path)
    }

    /// What a member of an archive that goes to `self` is called below the root; its name may be told
    /// as `./a//b/`, and keeps the rules of a name from a URL otherwise.
    ///
    /// # Errors
    /// [`FileError::PathInvalid`] with the rule it breaks.
    #[cfg(feature = "archive")]
    pub(super) fn join(&self, member: &[u8]) -> Result<Self, FileError> {
        let mut path = self.clone();
        path.descend(member, |name| check(name).and_then(|()| check_further_layers(name)))?;
        Ok(path)
    }

    /// Goes down `text`, in which nothing is encoded; a name `.` and repeated slashes lead nowhere
    /// further.
    fn descend(
        &mut self,
        text: &[u8],
        check: impl Fn(&[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        if text.first() == Some(&b'/') {
            return Err(FileError::PathInvalid("the path is absolute"));
        }
        let above = self.names().count();
        let names = text.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        for (depth, name) in names.enumerate() {
            if above + depth == MAX_DEPTH {
                return Err(FileError::PathInvalid("the path is too deep"));
            }
            check(name)?;
            self.push(OsStr::from_bytes(name));
        }
        if self.joined.len() > MAX_PATH_BYTES {
            return Err(FileError::PathInvalid("the path is too long"));
        }
        Ok(())
    }

    fn parse(raw: &[u8]) -> Result<Self, FileError> {
        if raw.first() == Some(&b'/') {
            return Err(FileError::PathInvalid("the path is absolute"));
        }
        let mut path = Self::root();
        for (depth, encoded) in raw.split(|byte| *byte == b'/').enumerate() {
            if depth == MAX_DEPTH {
                return Err(FileError::PathInvalid("the path is too deep"));
            }
            let name = decode(encoded)?;
            check(&name)?;
            check_further_layers(&name)?;
            path.push(OsStr::from_bytes(&name));
            if path.joined.len() > MAX_PATH_BYTES {
                return Err(FileError::PathInvalid("the path is too long"));
            }
        }
        Ok(path)
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.joined.is_empty()
    }

    /// For people and JSON: bytes that are not UTF-8 become U+FFFD; the root is `.`.
    pub fn display(&self) -> String {
        self.as_os_str().to_string_lossy().into_owned()
    }

    /// What `openat(2)` takes; the root is `.`.
    pub(super) fn as_os_str(&self) -> &OsStr {
        if self.is_root() { OsStr::new(".") } else { OsStr::from_bytes(&self.joined) }
    }

    /// The names from the root downwards.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.joined.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(OsStr::from_bytes)
    }

    /// The directory and the last name; none for the root.
    pub(super) fn split_last(&self) -> Option<(RelativePath, &OsStr)> {
        if self.is_root() {
            return None;
        }
        Some(match self.joined.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (
                RelativePath { joined: self.joined[..slash].to_vec() },
                OsStr::from_bytes(&self.joined[slash + 1..]),
            ),
            None => (Self::root(), OsStr::from_bytes(&self.joined)),
        })
    }

    /// Goes one directory deeper, to a name taken from a checked path.
    pub(super) fn push(&mut self, name: &OsStr) {
        if !self.is_root() {
            self.joined.push(b'/');
        }
        self.joined.extend_from_slice(name.as_bytes());
    }
}

/// A name that would be refused if it were decoded once more (`%252e%252e`) is refused as it stands:
/// whatever serves the file next may do just that.
fn check_further_layers(name: &[u8]) -> Result<(), FileError> {
    let mut layer = name.to_vec();
    while layer.contains(&b'%') {
        let decoded: Vec<u8> = percent_encoding::percent_decode(&layer).collect();
        if decoded == layer {
            break;
        }
        check(&decoded).map_err(|_| FileError::PathInvalid("the path is encoded more than once"))?;
        layer = decoded;
    }
    Ok(())
}

/// Decodes once: `%2520` is the name `%20`, not a space.
fn decode(encoded: &[u8]) -> Result<Vec<u8>, FileError> {
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            name.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Err(FileError::PathInvalid("a percent escape is cut short"));
        };
        let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) else {
            return Err(FileError::PathInvalid("a percent escape is not hexadecimal"));
        };
        name.push((high << 4 | low) as u8);
        rest = tail;
    }
    Ok(name)
}

/// Checks one decoded name.
fn check(name: &[u8]) -> Result<(), FileError> {
    let broken = match name {
        [] => "a name is empty",
        b"." | b".." => "a name is . or ..",
        _ if name.contains(&0) => "a name holds NUL",
        _ if name.contains(&b'/') => "a name holds an encoded slash",
        _ if name.contains(&b'\\') => "a name holds a backslash",
        _ if name.len() > MAX_NAME_BYTES => "a name is too long",
        _ if name.starts_with(HIDDEN_PREFIX) => "the name is kept for unfinished uploads",
        _ => return Ok(()),
    };
    Err(FileError::PathInvalid(broken))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// Paths that neither parser may let through, nor any operation may act on.
    pub(in crate::files) const HOSTILE: &[&[u8]] = &[
        b"/",
        b"//",
        b"/etc/passwd",
        b"//etc/passwd",
        b".",
        b"..",
        b"./",
        b"../",
        b"../outside",
        b"./a",
        b"a/.",
        b"a/..",
        b"a/./b",
        b"a/../b",
        b"a/../../outside/secret",
        b"a/../../../../../../../../etc/passwd",
        b"%2e",
        b"%2e%2e",
        b"%2E%2E/outside",
        b".%2e/outside",
        b"%2e./outside",
        b"a/%2e%2e/%2e%2e/outside",
        b"a//b",
        b"a///b",
        b"a//",
        b"%2fetc%2fpasswd",
        b"%2Fetc/passwd",
        b"a%2fb",
        b"a%2F..%2F..%2Foutside",
        b"..%2foutside%2fsecret",
        b"..%5coutside",
        b"..\\outside",
        b"a\\b",
        b"a%5Cb",
        b"C:\\x",
        b"\0",
        b"a\0b",
        b"%00",
        b"a%00.txt",
        b"a/%00",
        b"%",
        b"a%",
        b"a%2",
        b"%zz",
        b"a%g0",
        b"%-1",
        b"%+1",
        b"% 1",
        b"a/%u002e",
        b"%252e%252e",
        b"%252e%252e%252fx",
        b"..%252foutside",
        b"a/%25252e%25252E/b",
        b"a%255cb",
        b"a%2500",
        b".frag-upload-1-1-0",
        b"a/.frag-upload-",
        b"%2efrag-upload-1-1-0",
        b".frag%2dupload-1/x",
    ];

    #[test]
    fn refuses_hostile_paths() {
        for raw in HOSTILE {
            for parsed in [RelativePath::parse_file(raw), RelativePath::parse_directory(raw)] {
                assert!(
                    matches!(parsed, Err(FileError::PathInvalid(_))),
                    "{:?} became {parsed:?}",
                    raw.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn names_are_decoded_once() {
        let table: &[(&[u8], &[u8])] = &[
            (b"a", b"a"),
            (b"a/b/c.txt", b"a/b/c.txt"),
            (b"%61%2Eb", b"a.b"),
            (b"a%2520b", b"a%20b"),
            (b"100%25", b"100%"),
            (b"...", b"..."),
            (b"..a/a..", b"..a/a.."),
            (b".hidden", b".hidden"),
            (b".frag-upload", b".frag-upload"),
            (b"a+b c~%20d", b"a+b c~ d"),
            (b"\xff\xfe/%80", b"\xff\xfe/\x80"),
            (b"%e2%82%ac", "€".as_bytes()),
            ("ü/日本".as_bytes(), "ü/日本".as_bytes()),
            (b"a%0Ab", b"a\nb"),
            (b"c:/%3F%23", b"c:/?#"),
            (b"-rf/*", b"-rf/*"),
        ];
        for (raw, expected) in table {
            let path = RelativePath::parse_file(raw).unwrap();
            assert_eq!(path.joined, *expected);
            assert_eq!(RelativePath::parse_directory(raw).unwrap(), path);
        }
    }

    #[test]
    fn a_directory_may_be_the_root_or_end_with_one_slash() {
        assert!(RelativePath::parse_directory(b"").unwrap().is_root());
        assert_eq!(RelativePath::parse_directory(b"").unwrap().display(), ".");
        assert_eq!(RelativePath::parse_directory(b"a/b/").unwrap().display(), "a/b");
        assert!(RelativePath::parse_file(b"").is_err());
        assert!(RelativePath::parse_file(b"a/").is_err());
    }

    #[test]
    fn every_length_limit_holds_on_both_sides() {
        let names = |count: usize, length: usize| vec!["x".repeat(length); count].join("/").into_bytes();
        assert!(RelativePath::parse_file(&names(1, MAX_NAME_BYTES)).is_ok());
        assert!(RelativePath::parse_file(&names(1, MAX_NAME_BYTES + 1)).is_err());
        assert!(RelativePath::parse_file(&names(MAX_DEPTH, 1)).is_ok());
        assert!(RelativePath::parse_file(&names(MAX_DEPTH + 1, 1)).is_err());
        assert!(RelativePath::parse_file(&names(16, 255)).is_ok(), "4095 bytes");
        assert!(RelativePath::parse_file(&names(17, 255)).is_err());
        let encoded = "%78".repeat(MAX_NAME_BYTES);
        assert!(RelativePath::parse_file(encoded.as_bytes()).is_ok(), "limits count decoded bytes");
    }

    #[test]
    fn splits_into_directory_and_name() {
        let path = RelativePath::parse_file(b"a/b/c").unwrap();
        let (directory, name) = path.split_last().unwrap();
        assert_eq!((directory.display().as_str(), name), ("a/b", OsStr::new("c")));
        assert_eq!(path.names().count(), 3);
        let top = RelativePath::parse_file(b"c").unwrap();
        assert!(top.split_last().unwrap().0.is_root());
        assert!(RelativePath::root().split_last().is_none());
    }
}
