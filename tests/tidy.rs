//! What no compiler checks: module docs, file lengths, the direction of imports, each third-party
//! crate in its home, `unsafe` in its place, and a README that matches `--help`.
#![allow(clippy::print_stdout, reason = "a test may talk")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file may be longer than this with a reason; past [`HARD_LINES`] it may not.
const SOFT_LINES: usize = 250;
const HARD_LINES: usize = 400;

/// Each module's floor. A module imports from lower floors only; those on [`TOP`] from everywhere.
const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("client", 1),
    ("http", 1),
    ("logger", 1),
    ("metrics", 1),
    ("process", 1),
    ("artifacts", 2),
    ("auth", 2),
    ("events", 2),
    ("exec", 2),
    ("files", 2),
    ("supervisor", 2),
    ("runs", 3),
    ("workers", 3),
    ("api", 4),
    ("relay", 4),
    ("app", TOP),
    ("cli", TOP),
    ("config", TOP),
    ("lib", TOP),
    ("main", TOP),
];
const TOP: u8 = 5;

/// Where a third-party crate may be named: a file, or everything below a folder.
const HOMES: &[(&str, &[&str])] = &[
    ("argh", &["cli.rs", "client/arguments.rs"]),
    ("ctrlc", &["process/"]),
    ("httparse", &["http/", "relay/", "client/early.rs"]),
    ("json_patch", &["events/patch.rs"]),
    ("redis", &["artifacts/redis_store.rs", "artifacts/redis_store/"]),
    ("rusqlite", &["artifacts/sqlite.rs", "artifacts/sqlite/"]),
    ("rustix", &["base/random.rs"]),
    ("serde_path_to_error", &["api/workers/"]),
    ("shlex", &["config.rs", "config/"]),
    ("tungstenite", &["http/websocket.rs"]),
    ("tar", &["files/archive/", "files/tests/archives.rs", "client/pack.rs"]),
    ("ureq", &["relay/", "client/"]),
];

/// Flags of the README that a build without their feature does not have.
const FLAGS_LEFT_OUT: &[&str] = if cfg!(feature = "artifacts") {
    &[]
} else {
    &[
        "--artifacts",
        "--artifact-ttl",
        "--artifact-max-rows",
        "--artifact-max-bytes",
        "--viewer-dir",
        "--artifact-cors",
    ]
};

const ASYNC_CRATES: &[&str] = &["tokio", "hyper", "async-std", "smol", "mio", "futures-executor"];

const UNSAFE_HOMES: &[&str] = &["process/", "http/"];

const UNFINISHED: &[&str] = &["todo", "dbg", "unimplemented"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: where it stands below `src`, its text, and its text without comments and literals.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The first part of the module path: `http` for `http/body.rs`, `auth` for `auth.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// True for `auth.rs` and `http/mod.rs`, whose `super` is the crate root.
    fn is_module_root(&self) -> bool {
        !self.path.contains('/') || self.path == format!("{}/mod.rs", self.module())
    }

    fn lives_in(&self, homes: &[&str]) -> bool {
        homes.iter().any(|home| self.path == *home || home.ends_with('/') && self.path.starts_with(home))
    }

    /// The lines before a trailing `#[cfg(test)] mod tests`.
    fn lines_without_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).rposition(|pair| pair[0] == "#[cfg(test)]" && pair[1] == "mod tests {");
        tests.unwrap_or(lines.len())
    }

    /// The part of the code that `lines_without_tests` counts.
    fn code_without_tests(&self) -> String {
        self.code.lines().take(self.lines_without_tests()).collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = code_only(&text);
                found.push(Source {
                    path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(),
                    text,
                    code,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 1, "no sources below {}", src.display());
    found
}

/// Blanks comments and the insides of string and character literals; keeps every line break.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let starts = |i: usize, word: &str| word.chars().enumerate().all(|(n, c)| at(i + n) == c);
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = if starts(i, "//") {
            (i..chars.len()).find(|&n| at(n) == '\n').unwrap_or(chars.len())
        } else if starts(i, "/*") {
            end_of_block_comment(&chars, i)
        } else if let Some(end) = end_of_raw_string(&chars, i) {
            end
        } else if at(i) == '"' {
            end_of_quoted(&chars, i, '"')
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // Not a lifetime: those have no closing quote right behind one character.
            end_of_quoted(&chars, i, '\'')
        } else {
            out.push(at(i));
            i += 1;
            continue;
        };
        out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    out
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#` and their byte forms, unless the `r` ends a longer word.
fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let in_word = start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    if chars[start] != 'r' || in_word && chars[start - 1] != 'b' {
        return None;
    }
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let body = start + 1 + hashes;
    if chars.get(body) != Some(&'"') {
        return None;
    }
    let close = |i: usize| {
        chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (body + 1..chars.len()).find(|&i| close(i)).map(|i| i + 1 + hashes)
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The words of a piece of code with what follows each.
fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = code;
    std::iter::from_fn(move || {
        let start = rest.find(is_word)?;
        let tail = &rest[start..];
        let end = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        rest = after;
        Some((word, after))
    })
}

/// The first names of what follows `crate::`: one, or each of a `{…}` group.
fn imported(after: &str) -> Vec<String> {
    let Some(path) = after.trim_start().strip_prefix("::") else { return Vec::new() };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return words(path).take(1).map(|(word, _)| word.to_owned()).collect();
    };
    let mut names = Vec::new();
    let mut depth = 1;
    let mut item = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            names.extend(words(&item).take(1).map(|(word, _)| word.to_owned()));
            item.clear();
        } else {
            item.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Fails with every fault at once.
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_file_starts_with_its_doc() {
    let missing = sources().into_iter().filter(|s| !s.text.starts_with("//!"));
    none(&missing.map(|s| format!("src/{}: line 1 is no `//!` doc", s.path)).collect::<Vec<_>>());
}

#[test]
fn files_stay_short() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !s.path.ends_with("tests.rs")) {
        let lines = source.lines_without_tests();
        if lines > HARD_LINES {
            faults.push(format!("src/{}: {lines} lines without tests, {HARD_LINES} allowed", source.path));
        } else if lines > SOFT_LINES {
            println!("src/{}: {lines} lines without tests", source.path);
        }
    }
    none(&faults);
}

#[test]
fn imports_only_point_down() {
    let mut faults = Vec::new();
    for source in &sources() {
        let module = source.module();
        let Some(own) = floor(module) else {
            faults.push(format!("src/{}: give `{module}` a floor in tests/tidy.rs", source.path));
            continue;
        };
        for name in
            words(&source.code).filter(|(word, _)| *word == "crate").flat_map(|(_, after)| imported(after))
        {
            match floor(&name) {
                _ if own == TOP || name == module => {}
                Some(other) if other < own => {}
                Some(_) => faults.push(format!("src/{}: `{module}` may not import `{name}`", source.path)),
                None => faults.push(format!("src/{}: `crate::{name}` is on no floor", source.path)),
            }
        }
        // The other way to the crate root. A test module is one deeper, so it is left alone.
        let climbs = |from: &str| source.code_without_tests().contains(from);
        if own < TOP && (climbs("super::super::") || source.is_module_root() && climbs("super::")) {
            faults.push(format!("src/{}: write `crate::` instead of climbing with `super::`", source.path));
        }
    }
    none(&faults);
}

#[test]
fn third_party_crates_stay_at_home() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (name, homes) in HOMES.iter().filter(|(_, homes)| !source.lives_in(homes)) {
            if words(&source.code).any(|(word, _)| word == *name) {
                faults.push(format!("src/{}: `{name}` belongs to {}", source.path, homes.join(", ")));
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_async_is_locked() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let locked: BTreeSet<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(locked.contains("simple-artifact-server"), "Cargo.lock is not as expected");
    let found = ASYNC_CRATES.iter().filter(|name| locked.contains(*name));
    none(&found.map(|name| format!("Cargo.lock: {name}")).collect::<Vec<_>>());
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let reasons = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let mut names = BTreeSet::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") {
            names.extend(line.split_once(" = ").map(|(name, _)| name));
        }
    }
    assert!(names.contains("ureq"), "Cargo.toml is not as expected");
    let missing = names.iter().filter(|name| !reasons.contains(&format!("\n| `{name}` |")));
    none(&missing.map(|name| format!("docs/dependencies.md: no row for {name}")).collect::<Vec<_>>());
}

#[test]
fn unsafe_stays_with_sockets_and_processes() {
    let strays = sources()
        .into_iter()
        .filter(|s| !s.lives_in(UNSAFE_HOMES) && words(&s.code).any(|(word, _)| word == "unsafe"));
    none(&strays.map(|s| format!("src/{}: `unsafe`", s.path)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (word, after) in words(&source.code) {
            if UNFINISHED.contains(&word) && after.starts_with('!') {
                faults.push(format!("src/{}: `{word}!`", source.path));
            }
        }
    }
    none(&faults);
}

/// The `--flag` at the start of a piece of text, if there is one.
fn flag(text: &str) -> Option<String> {
    let name = text.strip_prefix("--")?;
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
    (end > 0).then(|| format!("--{}", &name[..end]))
}

/// The flags that `--help` lists: two spaces, perhaps a short form, then the flag. (Wrapped lines of
/// a description stand further right and may begin with a flag they mention.)
fn flags_in_help(help: &str) -> BTreeSet<String> {
    let options =
        help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with('-'));
    options.filter_map(|line| line.split_whitespace().take(2).find_map(flag)).collect()
}

/// The README's flag tables, each with whether its flags are in this build.
const FLAG_TABLES: &[(&str, bool)] = &[
    ("flags", true),
    ("flags of archive", cfg!(feature = "archive")),
    ("flags of runs", cfg!(feature = "runs")),
    ("flags of workers", cfg!(feature = "workers")),
];

/// The rows of the README's flag tables as cells without backquotes.
fn flag_rows(readme: &str) -> Vec<Vec<String>> {
    let table = |name: &str| {
        let (_, rest) = readme.split_once(&format!("<!-- {name} -->"))?;
        rest.split_once(&format!("<!-- /{name} -->")).map(|(table, _)| table)
    };
    let tables = FLAG_TABLES.iter().filter(|(_, built)| *built);
    let tables =
        tables.map(|(name, _)| table(name).expect("README.md lacks a flag table between its markers"));
    let rows = tables.flat_map(str::lines).filter(|line| line.starts_with("| `-"));
    rows.map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    })
    .collect()
}

#[test]
fn readme_lists_the_flags_that_help_lists() {
    let output = Command::new(env!("CARGO_BIN_EXE_simple-artifact-server")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let real = flags_in_help(&help);
    if real.is_empty() {
        println!("--help prints no options: nothing to compare");
        return;
    }
    assert!(output.status.success(), "--help ended with {}", output.status);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let told: BTreeSet<String> = flag_rows(&readme)
        .iter()
        .filter_map(|row| row[0].split(", ").find_map(flag))
        .filter(|flag| !FLAGS_LEFT_OUT.contains(&&**flag))
        .collect();
    let mut difference = String::new();
    for name in real.difference(&told) {
        writeln!(difference, "{name} is in --help and not in README.md").unwrap();
    }
    for name in told.difference(&real) {
        writeln!(difference, "{name} is in README.md and not in --help").unwrap();
    }
    assert!(difference.is_empty(), "\n{difference}");
}

#[test]
fn every_flag_has_its_variable() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = flag_rows(&readme);
    assert!(!rows.is_empty());
    for row in rows {
        let name = row[0].split(", ").find_map(flag).unwrap();
        let variable = match name.as_str() {
            "--help" | "--version" => String::new(),
            _ => name.replacen("--", "FRAG_", 1).replace('-', "_").to_uppercase(),
        };
        assert_eq!(row[1], variable, "README.md: the variable of {name}");
    }
}

#[test]
fn code_only_keeps_code_alone() {
    let text =
        "a // use crate::x\n\"unsafe \\\" b\" 'c' '\\'' 'd r#\"todo!() \" e\"# /* f /* g */ h */ br\"i\" j";
    let kept = code_only(text);
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a", "'d", "b", "j"]);
    assert_eq!(kept.lines().count(), 2);
}

#[test]
fn imported_reads_single_paths_and_groups() {
    assert_eq!(imported("::http::Body;"), ["http"]);
    assert_eq!(imported("::{auth, files::{self, path}, http::Body};"), ["auth", "files", "http"]);
    assert!(imported(" fn").is_empty());
}

#[test]
fn flags_in_help_ignores_what_descriptions_mention() {
    let help = "Options:\n  -c, --command     what to run, see\n                    --port\n  --help, help      this\n";
    assert_eq!(flags_in_help(help).into_iter().collect::<Vec<_>>(), ["--command", "--help"]);
}
