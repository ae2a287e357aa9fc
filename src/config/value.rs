//! Single values of the configuration, from their text. Pure; an error says what the text is not.
use crate::base::time::parse_seconds;
use nix::sys::signal::Signal;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// No time in the configuration is longer than this.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "is not a port (0 to 65535)".to_owned())
}

/// Whether a text is an origin as browsers send it: scheme and host, perhaps a port, in lower case.
pub(super) fn is_origin(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| plain(b) || b"+-.".contains(&b))
            && !host.is_empty()
            && host.bytes().all(|b| plain(b) || b"-._:[]".contains(&b))
    })
}

/// Whether an address takes this port where the wrapped server listens, on 127.0.0.1 or `[::1]`.
pub(super) fn takes_loopback(address: SocketAddr, port: u16) -> bool {
    let ip = address.ip().to_canonical();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    address.port() == port && (ip.is_unspecified() || loopback.contains(&ip))
}

pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(text: &str, least: T) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(n) if n >= least => Ok(n),
        _ => Err(format!("is not a whole number of {least} or more")),
    }
}

/// `10s`, `250ms`, `2m`, `1h`; a bare number is seconds.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value = parse_seconds(digits);
    let time = match (&text[digits.len()..], value) {
        ("ms", Some(value)) => Some(value / 1000),
        ("" | "s", Some(value)) => Some(value),
        ("m", Some(value)) => value.checked_mul(60),
        ("h", Some(value)) => value.checked_mul(3600),
        _ => return Err("is not a time like 10s or 250ms".to_owned()),
    };
    time.filter(|time| *time <= LONGEST).ok_or_else(|| "is longer than a year".to_owned())
}

pub(super) fn positive_time(text: &str) -> Result<Duration, String> {
    parse_time(text).and_then(|t| if t.is_zero() { Err("must be above 0".to_owned()) } else { Ok(t) })
}

/// `1048576`, `64KiB`, `10MiB`, `2GiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err("is not a size like 64KiB or 2GiB".to_owned()),
    };
    let value: u64 = digits.parse().map_err(|_| "is not a size like 64KiB or 2GiB".to_owned())?;
    value.checked_mul(unit).ok_or_else(|| "is too large".to_owned())
}

/// `INT`, `SIGINT` or `2`.
pub(super) fn parse_signal(text: &str) -> Result<Signal, String> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| "is not a signal".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    Signal::from_str(&format!("SIG{name}")).map_err(|_| "is not a signal".to_owned())
}

/// `1000` or `1000:1000`; the group defaults to the user's number.
pub(super) fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok((uid, gid)),
        _ => Err("is not UID or UID:GID in numbers".to_owned()),
    }
}

pub(super) fn ready_path(text: &str) -> Result<Option<String>, String> {
    let plain = text.bytes().all(|b| (b'!'..=b'~').contains(&b));
    if text.starts_with('/') && plain {
        Ok(Some(text.to_owned()))
    } else {
        Err("is not a path like /healthz".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_signals_and_users() {
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_signal("hup"), Ok(Signal::SIGHUP));
        assert_eq!(parse_signal("SIGUSR1"), Ok(Signal::SIGUSR1));
        assert_eq!(parse_signal("2"), Ok(Signal::SIGINT));
        assert_eq!(parse_user("7"), Ok((7, 7)));
        assert_eq!(parse_user("7:8"), Ok((7, 8)));
    }
}
