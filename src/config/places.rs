//! What the configuration names on the host: directories and the token's file, looked at before the
//! start. The state directory is the one thing made here.
use super::{ConfigError, Source};
use crate::base::hex::hex;
use crate::base::random;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Bytes of a token file.
const TOKEN_BYTES: u64 = 4096;
/// Random bytes in a token we make.
const TOKEN_RANDOM_BYTES: usize = 32;

pub(super) fn existing_directory(setting: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    match Path::new(text).canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => Err(ConfigError::new(setting, format!("`{text}` is not a directory"))),
        Err(error) => Err(ConfigError::new(setting, format!("`{text}`: {error}"))),
    }
}

/// The workload can read and overwrite whatever is below the root.
pub(super) fn outside_root(setting: &'static str, path: &Path, root: &Path) -> Result<(), ConfigError> {
    if path.starts_with(root) {
        return Err(ConfigError::new(
            setting,
            format!("`{}` is inside --root, where the workload could overwrite it", path.display()),
        ));
    }
    Ok(())
}

/// Makes the directory if need be, but nothing inside the root: where it would be is known before.
pub(super) fn outside_directory(
    setting: &'static str,
    text: &str,
    root: &Path,
) -> Result<PathBuf, ConfigError> {
    let problem = |what: &dyn std::fmt::Display| ConfigError::new(setting, format!("`{text}`: {what}"));
    outside_root(setting, &destination(text).map_err(|error| problem(&error))?, root)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(text);
    made.map_err(|error| problem(&error))?;
    let path = existing_directory(setting, text)?;
    // Once more: a link may have come between.
    outside_root(setting, &path, root)?;
    Ok(path)
}

/// Where a path leads whose last directories may not exist yet.
pub(super) fn destination(text: &str) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(text)?;
    for above in path.ancestors() {
        let real = match above.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let missing = path.strip_prefix(above).unwrap_or(Path::new(""));
        if missing.components().any(|part| part == Component::ParentDir) {
            let text = "`..` in a directory that does not exist";
            return Err(std::io::Error::new(ErrorKind::InvalidInput, text));
        }
        return Ok(real.join(missing));
    }
    Err(ErrorKind::NotFound.into())
}

/// The token: in the file that the flag names, else FRAG_TOKEN, else in the file that the variable names,
/// else in `token` in the state directory if it is there. One that is set but cannot be used is an error:
/// nobody who sets one wants to run without.
pub(super) fn token(
    from: &Source<'_>,
    file: Option<String>,
    state_dir: Option<&Path>,
    root: &Path,
) -> Result<Option<Vec<u8>>, ConfigError> {
    if file.is_none()
        && let Some(token) = (from.environment)("FRAG_TOKEN")
    {
        let problem = |text| ConfigError::new("token-file", format!("the token in FRAG_TOKEN {text}"));
        return usable(&token.into_vec()).map(Some).map_err(problem);
    }
    let named = from.text("token-file", file)?;
    let path = match (named, state_dir.map(|dir| dir.join("token"))) {
        (Some(file), _) => PathBuf::from(file),
        (None, Some(file)) if file.symlink_metadata().is_ok() => file,
        (None, _) => return Ok(None),
    };
    let problem = |text: String| ConfigError::new("token-file", format!("`{}` {text}", path.display()));
    let unreadable = |error: std::io::Error| problem(format!("cannot be read: {error}"));
    let real = path.canonicalize().map_err(unreadable)?;
    outside_root("token-file", &real, root)?;
    let mut bytes = Vec::new();
    File::open(&real)
        .and_then(|file| file.take(TOKEN_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > TOKEN_BYTES {
        return Err(problem(format!("is larger than {TOKEN_BYTES} bytes")));
    }
    usable(&bytes).map(Some).map_err(|text| problem(text.to_owned()))
}

/// The token at `token` in the state directory, made if none is set: 32 random bytes in hex, readable
/// for us alone. `needed_by` names the flag that lets callers run programs, which nobody may do without a
/// credential.
pub(super) fn ensure_token(
    token: Option<Vec<u8>>,
    needed_by: Option<&'static str>,
    state_dir: Option<&Path>,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let (None, Some(flag)) = (&token, needed_by) else { return Ok(token) };
    let Some(dir) = state_dir else {
        let text = "lets callers run programs: set FRAG_TOKEN or --token-file, or give a --state-dir for a token to be made in";
        return Err(ConfigError::new(flag, text));
    };
    let path = dir.join("token");
    make_token(&path).map(Some).map_err(|error| {
        ConfigError::new("state-dir", format!("a token cannot be made at `{}`: {error}", path.display()))
    })
}

fn make_token(path: &Path) -> std::io::Result<Vec<u8>> {
    let token = hex(&random::bytes::<TOKEN_RANDOM_BYTES>()?).into_bytes();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&token)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(token)
}

/// The token without the white space around it, if a header can carry it.
fn usable(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    match bytes.trim_ascii() {
        [] => Err("is empty"),
        token if token.iter().all(u8::is_ascii_graphic) => Ok(token.to_vec()),
        _ => Err("is not one line of printable ASCII"),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Flags;
    use crate::config::Config;
    use std::ffi::OsString;
    use std::path::Path;

    fn resolve(flags: Flags, environment: &[(&str, &str)]) -> Result<Config, String> {
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Config::resolve(flags, &find).map_err(|error| error.to_string())
    }

    fn with_command() -> Flags {
        Flags { command: Some("sleep 1".to_owned()), ..Flags::default() }
    }

    #[test]
    fn what_must_stay_ours_stays_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let flags = |state: &Path, token: Option<&Path>| Flags {
            root: Some(text(root.path())),
            state_dir: Some(text(state)),
            token_file: token.map(text),
            ..with_command()
        };
        let inside = root.path().join("state");
        let deep = outside.path().join("new/state");
        assert!(resolve(flags(&inside, None), &[]).unwrap_err().contains("inside --root"));
        assert!(!inside.exists(), "made before it was refused");
        let token = root.path().join("token");
        std::fs::write(&token, "t").unwrap();
        assert!(resolve(flags(outside.path(), Some(&token)), &[]).unwrap_err().contains("inside --root"));
        let link = outside.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert!(resolve(flags(&link, None), &[]).unwrap_err().contains("inside --root"));
        assert!(resolve(flags(&link.join("a/b"), None), &[]).unwrap_err().contains("inside --root"));
        let climbing = outside.path().join("gone/../link/a");
        assert!(resolve(flags(&climbing, None), &[]).unwrap_err().contains("--state-dir"));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "only the token");
        assert_eq!(resolve(flags(&deep, None), &[]).unwrap().state_dir, Some(deep.canonicalize().unwrap()));
        std::fs::write(outside.path().join("token"), " secret\n").unwrap();
        let config = resolve(flags(outside.path(), None), &[]).unwrap();
        assert_eq!(config.token.as_deref(), Some(&b"secret"[..]));
        assert_eq!(
            resolve(with_command(), &[("FRAG_TOKEN", "env")]).unwrap().token.as_deref(),
            Some(&b"env"[..])
        );
    }

    #[test]
    fn a_flag_goes_before_the_variables_and_the_token_itself_before_its_file() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let file = |name: &str| outside.path().join(name).to_str().unwrap().to_owned();
        for name in ["flag", "variable", "token"] {
            std::fs::write(file(name), name).unwrap();
        }
        let variable = file("variable");
        let both = [("FRAG_TOKEN", "itself"), ("FRAG_TOKEN_FILE", variable.as_str())];
        let token = |flag: Option<String>, environment: &[(&str, &str)]| {
            let flags = Flags {
                root: root.path().to_str().map(str::to_owned),
                state_dir: outside.path().to_str().map(str::to_owned),
                token_file: flag,
                ..with_command()
            };
            String::from_utf8(resolve(flags, environment).unwrap().token.unwrap()).unwrap()
        };
        assert_eq!(token(Some(file("flag")), &both), "flag");
        assert_eq!(token(None, &both), "itself");
        assert_eq!(token(None, &both[1..]), "variable");
        assert_eq!(token(None, &[]), "token");
    }

    #[test]
    fn a_token_that_cannot_be_used_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("token");
        let flags = || Flags {
            root: Some("/proc/self/fdinfo".to_owned()),
            state_dir: Some(outside.path().to_str().unwrap().to_owned()),
            ..with_command()
        };
        for token in ["", " ", "\n", "two lines\nof it", "with space", "h\u{fc}"] {
            let error = resolve(flags(), &[("FRAG_TOKEN", token)]).unwrap_err();
            assert!(error.contains("FRAG_TOKEN "), "{token:?}: {error}");
            std::fs::write(&file, token).unwrap();
            assert!(resolve(flags(), &[]).unwrap_err().contains("--token-file"), "{token:?} in a file");
        }
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert!(resolve(flags(), &[]).unwrap_err().contains("larger"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert!(resolve(flags(), &[]).unwrap_err().contains("cannot be read"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(resolve(flags(), &[]).unwrap().token, None);
    }

    #[test]
    fn a_token_is_made_once_where_it_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let made = super::ensure_token(None, Some("exec"), Some(dir.path())).unwrap().unwrap();
        assert!(made.len() == 64 && made.iter().all(u8::is_ascii_hexdigit));
        let file = dir.path().join("token");
        let written = std::fs::read(&file).unwrap();
        assert_eq!(written.trim_ascii(), made);
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert!(super::ensure_token(None, Some("exec"), Some(dir.path())).is_err(), "never written over");
        let error = super::ensure_token(None, Some("exec"), None).unwrap_err().to_string();
        assert!(error.contains("--exec (FRAG_EXEC)") && error.contains("--state-dir"), "{error}");
        assert_eq!(super::ensure_token(None, None, Some(dir.path())).unwrap(), None);
        let given = super::ensure_token(Some(b"t".to_vec()), Some("exec"), None).unwrap();
        assert_eq!(given.as_deref(), Some(&b"t"[..]));
    }
}
