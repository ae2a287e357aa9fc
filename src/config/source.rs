//! Where settings come from, and what is wrong with one: it names the flag and its variable.
use std::ffi::OsString;
use std::fmt;

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        ConfigError { setting, problem: problem.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} ({}): {}", self.setting, variable(self.setting), self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// The variable of a flag: `subprocess-port` is `FRAG_SUBPROCESS_PORT`.
fn variable(setting: &str) -> String {
    format!("FRAG_{}", setting.replace('-', "_").to_ascii_uppercase())
}

/// Where settings come from: a flag, else its variable.
pub(super) struct Source<'e> {
    pub(super) environment: &'e dyn Fn(&str) -> Option<OsString>,
}

impl Source<'_> {
    // Once, not in each of its callers.
    #[inline(never)]
    pub(super) fn text(
        &self,
        setting: &'static str,
        flag: Option<String>,
    ) -> Result<Option<String>, ConfigError> {
        match (flag, (self.environment)(&variable(setting))) {
            (Some(text), _) => Ok(Some(text)),
            (None, Some(value)) if value.is_empty() => Ok(None),
            (None, Some(value)) => {
                value.into_string().map(Some).map_err(|_| ConfigError::new(setting, "is not UTF-8"))
            }
            (None, None) => Ok(None),
        }
    }

    pub(super) fn parsed<T>(
        &self,
        setting: &'static str,
        flag: Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.text(setting, flag)? {
            Some(text) => parse(text.trim()).map_err(|why| senseless(setting, &text, &why)),
            None => Ok(default),
        }
    }

    pub(super) fn switch(&self, setting: &'static str, flag: bool) -> Result<bool, ConfigError> {
        self.parsed(setting, flag.then(|| "true".to_owned()), false, |text| match text {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        })
    }

    pub(super) fn list(&self, setting: &'static str, flags: Vec<String>) -> Result<Vec<String>, ConfigError> {
        if !flags.is_empty() {
            return Ok(flags);
        }
        let text = self.text(setting, None)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }
}

#[cold]
#[inline(never)]
pub(super) fn senseless(setting: &'static str, text: &str, why: &str) -> ConfigError {
    ConfigError::new(setting, format!("`{text}` {why}"))
}
