//! The bounds of the front that users set.
use super::source::{ConfigError, Source};
use super::value::{number, parse_size, positive_time};
use crate::cli::Flags;
use crate::http::Limits;

pub(super) fn limits(from: &Source<'_>, flags: Flags) -> Result<Limits, ConfigError> {
    let defaults = Limits::default();
    let count = |setting, flag, default| from.parsed(setting, flag, default, |text| number(text, 1));
    let time = |setting, flag, default| from.parsed(setting, flag, default, positive_time);
    let limits = Limits {
        max_connections: count("max-connections", flags.max_connections, defaults.max_connections)?,
        max_streams: count("max-streams", flags.max_streams, defaults.max_streams)?,
        threads_min: count("threads-min", flags.threads_min, defaults.threads_min)?,
        threads_max: count("threads-max", flags.threads_max, defaults.threads_max)?,
        head_timeout: time("head-timeout", flags.head_timeout, defaults.head_timeout)?,
        idle_timeout: time("idle-timeout", flags.idle_timeout, defaults.idle_timeout)?,
        min_rate: from.parsed("min-rate", flags.min_rate, defaults.min_rate, parse_size)?,
        max_body: from.parsed("max-body", flags.max_body, defaults.max_body, parse_size)?,
    };
    if limits.threads_min > limits.threads_max {
        return Err(ConfigError::new("threads-min", "is above --threads-max"));
    }
    Ok(limits)
}
