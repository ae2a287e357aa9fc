//! Names that are left out: what is never meant, and what the command line says. Pure.

/// Histories, what package managers and compilers make, and what editors leave lying about for a moment.
const ALWAYS: [&str; 8] =
    [".git", "node_modules", "__pycache__", "*.swp", "*.swx", "*~", ".#*", ".frag-upload-*"];

/// Patterns of names; `*` stands for any characters. One with a slash is about the path from the top.
#[derive(Clone, Debug)]
pub(super) struct Exclude(Vec<String>);

impl Exclude {
    pub(super) fn new(further: &[String]) -> Exclude {
        let further = further.iter().map(|pattern| pattern.trim_matches('/').to_owned());
        Exclude(ALWAYS.iter().map(|&pattern| pattern.to_owned()).chain(further).collect())
    }

    /// Whether what has this path is left out, one of the directories above it not being.
    pub(super) fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.0.iter().any(|pattern| match pattern.contains('/') {
            true => fits(pattern.as_bytes(), path.as_bytes()),
            false => fits(pattern.as_bytes(), name.as_bytes()),
        })
    }

    /// Whether it, or a directory above it, is left out.
    pub(super) fn matches_any_part(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.matches(&path[..end]))
    }

    /// The patterns that are plain names, for a server that need not look there.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|pattern| !pattern.contains(['*', '/', ','])).collect()
    }
}

/// Whether the whole text fits the pattern. The work is bounded by the product of their lengths: only the
/// last `*` is ever tried again.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_and_paths() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*.log", "x.log", true),
            ("*.log", ".log", true),
            ("*.log", "x.logs", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let exclude = Exclude::new(&["build/out*".to_owned(), "data/".to_owned()]);
        for path in [".git", "a/node_modules", "x/.app.py.swp", "f~", "build/out2", "deep/data"] {
            assert!(exclude.matches(path), "{path}");
        }
        for path in ["git", "x/build/out2", "app.py", "database"] {
            assert!(!exclude.matches(path), "{path}");
        }
        assert!(exclude.matches_any_part("a/.git/b/c") && !exclude.matches_any_part("a/b"));
        assert_eq!(exclude.names(), [".git", "node_modules", "__pycache__", "data"]);
    }
}
