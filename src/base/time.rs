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

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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

/// An HTTP date in any of its three forms (RFC 9110 section 5.6.7), to the second; none before 1970.
pub fn parse_http_date(text: &str) -> Option<SystemTime> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (weekday, day, month, year, time) = match words[..] {
        [weekday, day, month, year, time, "GMT"] | [weekday, month, day, time, year] => {
            (weekday, day, month, year, time)
        }
        _ => return None,
    };
    let year = match year.len() {
        2 => format!("{}{year}", if year < "70" { "20" } else { "19" }),
        _ => year.to_owned(),
    };
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let number = |text: &str| text.parse::<u16>().ok().map(i64::from);
    let month_number = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let days = days(number(&year)?, month_number, number(day)?);
    let seconds = ((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?;
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?);
    // What comes out the same was a day and a time that exist.
    let same = format!("{}, {day:0>2} {month} {year} {time} GMT", weekday.get(..3)?);
    (http_date(at) == same).then_some(at)
}

/// Days from 1970-01-01 to a proleptic Gregorian date (days-from-civil).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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

    #[test]
    fn http_dates_are_read_in_three_forms() {
        let seconds = |text| parse_http_date(text).map(|at| unix_ms(at) / 1000);
        for (text, at) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Wed Nov 16 08:49:37 1994", 784_975_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tuesday, 31-Dec-69 23:59:59 GMT", 3_155_759_999),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Thu, 31 Dec 2099 23:59:59 GMT", 4_102_444_799),
        ] {
            assert_eq!(seconds(text), Some(at), "{text}");
        }
        for day in 0..60_000 {
            let at = UNIX_EPOCH + Duration::from_secs(day * 86_400 + day);
            assert_eq!(parse_http_date(&http_date(at)), Some(at));
        }
        for bad in [
            "",
            "784111777",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Thu, 31 Nov 1994 08:49:37 GMT",
            "Thu, 29 Feb 2001 00:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
