//! What was decided about artifacts: where they are kept, how long, how many, and what shows them.
use super::places::{destination, existing_directory, outside_root};
use super::value::{is_origin, number, parse_size, positive_time};
use super::{ConfigError, Source};
use crate::cli::Flags;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_ROWS: u64 = 100_000;
const MAX_BYTES: u64 = 1 << 30;
/// The database's name in the state directory.
const DATABASE: &str = "artifacts.db";

/// Where artifacts are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum ArtifactPlace {
    /// In memory; they end with us.
    Memory,
    /// In this file.
    Sqlite(PathBuf),
    /// At this address, which may hold a password.
    #[cfg(feature = "redis")]
    Redis(String),
}

impl std::fmt::Debug for ArtifactPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ArtifactPlace::Memory => f.write_str("Memory"),
            ArtifactPlace::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            #[cfg(feature = "redis")]
            ArtifactPlace::Redis(_) => f.write_str("Redis"),
        }
    }
}

/// The artifact store's settings.
#[derive(Clone, Debug)]
pub struct ArtifactConfig {
    /// Where they are kept.
    pub place: ArtifactPlace,
    /// How long one is kept that nobody looks at.
    pub ttl: Duration,
    /// How many at most.
    pub max_rows: u64,
    /// Bytes of all payloads at most.
    pub max_bytes: u64,
    /// The front end that shows them; none for the built-in page.
    pub viewer_dir: Option<PathBuf>,
    /// The origin whose pages may use the API, or `*`.
    pub cors: Option<String>,
}

impl ArtifactConfig {
    pub(super) fn resolve(
        from: &Source<'_>,
        flags: Flags,
        root: &Path,
        state_dir: Option<&Path>,
    ) -> Result<ArtifactConfig, ConfigError> {
        let place = match (from.text("artifacts", flags.artifacts)?, state_dir) {
            (Some(url), _) => place(url.trim(), root)?,
            (None, Some(dir)) => ArtifactPlace::Sqlite(dir.join(DATABASE)),
            (None, None) => ArtifactPlace::Memory,
        };
        let viewer_dir = match from.text("viewer-dir", flags.viewer_dir)? {
            Some(text) => {
                let dir = existing_directory("viewer-dir", &text)?;
                outside_root("viewer-dir", &dir, root)?;
                Some(dir)
            }
            None => None,
        };
        Ok(ArtifactConfig {
            place,
            ttl: from.parsed("artifact-ttl", flags.artifact_ttl, TTL, positive_time)?,
            max_rows: from
                .parsed("artifact-max-rows", flags.artifact_max_rows, MAX_ROWS, |text| number(text, 1))?,
            max_bytes: from.parsed("artifact-max-bytes", flags.artifact_max_bytes, MAX_BYTES, size)?,
            viewer_dir,
            cors: from.parsed("artifact-cors", flags.artifact_cors, None, |text| origin(text).map(Some))?,
        })
    }
}

fn place(url: &str, root: &Path) -> Result<ArtifactPlace, ConfigError> {
    // The text is not repeated: it may hold a password.
    let problem = |text: &str| Err(ConfigError::new("artifacts", text));
    if url == "memory:" {
        return Ok(ArtifactPlace::Memory);
    }
    if let Some(path) = url.strip_prefix("sqlite:") {
        if path.is_empty() || path.ends_with('/') {
            return problem("is `sqlite:` without a file");
        }
        let real = destination(path).map_err(|error| ConfigError::new("artifacts", error.to_string()))?;
        outside_root("artifacts", &real, root)?;
        // Without the slash that stands for the directory it might have been.
        return Ok(ArtifactPlace::Sqlite(real.components().collect()));
    }
    #[cfg(feature = "redis")]
    if url.starts_with("redis://") {
        return match crate::artifacts::Redis::understands(url) {
            true => Ok(ArtifactPlace::Redis(url.to_owned())),
            false => problem("is not an address like redis://:password@host:6379/0"),
        };
    }
    #[cfg(not(feature = "redis"))]
    if url.starts_with("redis://") {
        return problem("this build knows no redis://: it was made without the feature `redis`");
    }
    if url.starts_with("rediss://") {
        return problem("rediss:// is not supported: there is no TLS here, put a tunnel in front");
    }
    problem("is not sqlite:PATH, memory: or redis://HOST")
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).and_then(|bytes| if bytes == 0 { Err("must be above 0".to_owned()) } else { Ok(bytes) })
}

/// `*`, or an origin of the web.
fn origin(text: &str) -> Result<String, String> {
    let is_web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    if text == "*" || is_web && is_origin(text) {
        Ok(text.to_owned())
    } else {
        Err("is neither * nor an origin like https://example.org".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::ffi::OsString;

    fn resolve(flags: Flags, environment: &[(&str, &str)]) -> Result<ArtifactConfig, String> {
        let flags = Flags { command: Some("sleep 1".to_owned()), ..flags };
        let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Config::resolve(flags, &find).map(|config| config.artifacts).map_err(|error| error.to_string())
    }

    #[test]
    fn a_state_directory_makes_artifacts_last_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let state = |artifacts: Option<&str>| Flags {
            root: Some("/proc/self/fdinfo".to_owned()),
            state_dir: Some(dir.path().to_str().unwrap().to_owned()),
            artifacts: artifacts.map(str::to_owned),
            ..Flags::default()
        };
        let real = dir.path().canonicalize().unwrap();
        let place = |artifacts| resolve(state(artifacts), &[]).unwrap().place;
        assert_eq!(place(None), ArtifactPlace::Sqlite(real.join("artifacts.db")));
        assert_eq!(place(Some("memory:")), ArtifactPlace::Memory);
        let other = format!("sqlite:{}/new/other.db", dir.path().display());
        assert_eq!(place(Some(&other)), ArtifactPlace::Sqlite(real.join("new/other.db")));
        let defaults = resolve(Flags::default(), &[]).unwrap();
        assert_eq!((defaults.place, defaults.ttl), (ArtifactPlace::Memory, TTL));
        assert_eq!((defaults.max_rows, defaults.max_bytes), (100_000, 1 << 30));
        assert_eq!((defaults.viewer_dir, defaults.cors), (None, None));
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("view");
        std::fs::create_dir(&inside).unwrap();
        let (inside, database) = (inside.to_str().unwrap(), format!("sqlite:{}/a.db", root.path().display()));
        for (variable, value) in [
            ("FRAG_ARTIFACTS", "sqlite:"),
            ("FRAG_ARTIFACTS", "sqlite:/tmp/"),
            ("FRAG_ARTIFACTS", "memory"),
            ("FRAG_ARTIFACTS", "/tmp/a.db"),
            ("FRAG_ARTIFACTS", "rediss://h"),
            ("FRAG_ARTIFACTS", "redis:h"),
            ("FRAG_ARTIFACTS", &database),
            ("FRAG_ARTIFACT_TTL", "0"),
            ("FRAG_ARTIFACT_TTL", "1d"),
            ("FRAG_ARTIFACT_TTL", "99999h"),
            ("FRAG_ARTIFACT_MAX_ROWS", "0"),
            ("FRAG_ARTIFACT_MAX_ROWS", "many"),
            ("FRAG_ARTIFACT_MAX_BYTES", "0"),
            ("FRAG_ARTIFACT_MAX_BYTES", "1TB"),
            ("FRAG_VIEWER_DIR", "/nonexistent"),
            ("FRAG_VIEWER_DIR", "/dev/null"),
            ("FRAG_VIEWER_DIR", inside),
            ("FRAG_ARTIFACT_CORS", "example.org"),
            ("FRAG_ARTIFACT_CORS", "https://example.org/"),
            ("FRAG_ARTIFACT_CORS", "https://Example.org"),
            ("FRAG_ARTIFACT_CORS", "https://"),
            ("FRAG_ARTIFACT_CORS", "null"),
            ("FRAG_ARTIFACT_CORS", "https://a, https://b"),
        ] {
            let flags = Flags { root: root.path().to_str().map(str::to_owned), ..Flags::default() };
            let error = resolve(flags, &[(variable, value)]).unwrap_err();
            let flag = variable[5..].to_ascii_lowercase().replace('_', "-");
            assert!(error.contains(&format!("--{flag} ({variable})")), "{variable}={value}: {error}");
        }
        let secret = resolve(Flags::default(), &[("FRAG_ARTIFACTS", "rediss://:hush@h")]).unwrap_err();
        assert!(!secret.contains("hush"), "{secret}");
        for origin in ["*", "https://example.org", "http://localhost:3000", "http://[::1]:80"] {
            let config = resolve(Flags::default(), &[("FRAG_ARTIFACT_CORS", origin)]).unwrap();
            assert_eq!(config.cors.as_deref(), Some(origin));
        }
    }
}
