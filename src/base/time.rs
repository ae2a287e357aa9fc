//! Wall-clock time as it stands on wires: milliseconds since the epoch, RFC 3339 and HTTP dates.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z; 0 if the clock stands before that.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number of seconds as text, digits and perhaps a fraction: `10`, `0.25`. Of the fraction nine digits count.
pub fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// A duration in whole microseconds, saturating.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    weekday: usize,
}

/// Splits seconds since the epoch into a proleptic Gregorian UTC date (days-from-civil, inverted).
fn civil(unix_seconds: u64) -> Civil {
    let days = i64::try_from(unix_seconds / 86_400).unwrap_or(i64::MAX / 2);
    let rest = (unix_seconds % 86_400) as u32;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: month as u32,
        day: (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
        weekday: ((days + 4) % 7) as usize,
    }
}

/// `2026-03-27T10:00:00.123Z` (RFC 3339, UTC, milliseconds).
pub fn rfc3339(at: SystemTime) -> String {
    let ms = unix_ms(at);
    let c = civil(ms / 1000);
    let mut text = format!("{:04}", c.year);
    let rest = [
        ('-', c.month, 100),
        ('-', c.day, 100),
        ('T', c.hour, 100),
        (':', c.minute, 100),
        (':', c.second, 100),
        ('.', (ms % 1000) as u32, 1000),
    ];
    // By hand: with `format!` the times of an artifact were a twentieth of what storing it costs us.
    text.reserve_exact("-mm-ddThh:mm:ss.mmmZ".len());
    for (separator, number, mut power) in rest {
        text.push(separator);
        while power > 1 {
            power /= 10;
            text.push(char::from(b'0' + (number / power % 10) as u8));
        }
    }
    text.push('Z');
    text
}

/// `Fri, 27 Mar 2026 10:00:00 GMT` (IMF-fixdate, RFC 9110 section 5.6.7).
pub fn http_date(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let c = civil(unix_ms(at) / 1000);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[c.weekday],
        c.day,
        MONTHS[c.month as usize - 1],
        c.year,
        c.hour,
        c.minute,
        c.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_digits_with_a_fraction() {
        let time = |text| parse_seconds(text).map(|time| time.as_nanos());
        assert_eq!(time("10"), Some(10_000_000_000));
        assert_eq!(time("0.25"), Some(250_000_000));
        assert_eq!(time("1.0000000019"), Some(1_000_000_001));
        for bad in ["", ".5", "5.", "-1", "+1", "1e3", "NaN", "inf", "1.2.3", "1 ", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_match_known_instants() {
        let at = |s| UNIX_EPOCH + Duration::from_millis(s);
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(at(951_782_400_123)), "2000-02-29T00:00:00.123Z");
        assert_eq!(http_date(at(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(at(4_102_444_799_000)), "Thu, 31 Dec 2099 23:59:59 GMT");
    }
}
