//! Query parameters. Pure. What we do not know is ignored; what we know must make sense.
use crate::base::time::parse_seconds;
use crate::http::HttpError;
use percent_encoding::percent_decode;
use std::time::Duration;

/// The parameters of one request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&[u8]>) -> Query {
        let decode = |part: &[u8]| {
            let spaced: Vec<u8> = part.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
            percent_decode(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.unwrap_or_default().split(|&b| b == b'&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| match pair.iter().position(|&b| b == b'=') {
                    Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
                    None => (decode(pair), String::new()),
                })
                .collect(),
        )
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// When it is there twice: which of them counts is not ours to guess.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, HttpError> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(bad(name, "is repeated")),
        }
    }

    /// A yes or no; the bare name is a yes.
    pub(super) fn flag(&self, name: &str) -> Result<bool, HttpError> {
        match self.get(name)? {
            None => Ok(false),
            Some("" | "1" | "true" | "yes") => Ok(true),
            Some("0" | "false" | "no") => Ok(false),
            Some(_) => Err(bad(name, "is neither true nor false")),
        }
    }

    /// A time in seconds, at most `most`.
    pub(super) fn seconds(
        &self,
        name: &str,
        default: Duration,
        most: Duration,
    ) -> Result<Duration, HttpError> {
        let Some(text) = self.get(name)? else { return Ok(default) };
        match parse_seconds(text) {
            Some(time) if time <= most => Ok(time),
            _ => Err(bad(name, &format!("is not a number of seconds from 0 to {}", most.as_secs()))),
        }
    }

    /// Permission bits in octal, `644` or `0755`.
    pub(super) fn mode(&self, name: &str) -> Result<Option<u32>, HttpError> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if digits && mode <= 0o777 => Ok(Some(mode)),
            _ => Err(bad(name, "is not permission bits like 644")),
        }
    }
}

fn bad(name: &str, problem: &str) -> HttpError {
    HttpError::new(400, "bad_parameter", format!("parameter `{name}` {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_make_sense_or_are_refused() {
        let query = |text: &str| Query::parse(Some(text.as_bytes()));
        assert_eq!(query("restart=true&x").flag("restart"), Ok(true));
        assert_eq!(query("x&restart").flag("restart"), Ok(true));
        assert_eq!(query("restart=0").flag("restart"), Ok(false));
        assert_eq!(query("").flag("restart"), Ok(false));
        assert!(query("restart=maybe").flag("restart").is_err());
        assert!(query("restart=1&restart=0").flag("restart").is_err());
        assert_eq!(query("%72estart=%31").flag("restart"), Ok(true));
        assert_eq!(query("mode=755").mode("mode"), Ok(Some(0o755)));
        for bad in ["mode=", "mode=8", "mode=+644", "mode=1777", "mode=07777", "mode=rw"] {
            assert!(query(bad).mode("mode").is_err(), "{bad}");
        }
        let most = Duration::from_secs(300);
        assert_eq!(query("t=0.5").seconds("t", most, most), Ok(Duration::from_millis(500)));
        for bad in ["t=-1", "t=301", "t=NaN", "t=inf", "t="] {
            assert!(query(bad).seconds("t", most, most).is_err(), "{bad}");
        }
    }
}
