//! Points in time as Docker writes and reads them.
//!
//! Inside, a time is nanoseconds since 1970 (UTC) as `u64`; 0 stands for Docker's zero time.

use crate::errors::{Error, Result};
use std::time::{SystemTime, UNIX_EPOCH};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339};

/// Docker's zero time, as in `FinishedAt` of a container that never ran.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// Now, in ns since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn at(ns: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Go's RFC3339Nano in UTC, as in `Created` and `StartedAt`; 0 is Docker's zero time.
pub fn rfc3339(ns: u64) -> String {
    if ns == 0 {
        return ZERO.to_owned();
    }
    at(ns).format(&Rfc3339).unwrap_or_else(|_| ZERO.to_owned())
}

/// The form in front of a log line with `--timestamps`: always nine digits.
pub fn log_stamp(ns: u64) -> String {
    let t = at(ns);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.nanosecond()
    )
}

/// Reads `since`, `until` and the like: seconds since 1970 with or without a fraction, RFC 3339
/// with or without zone and seconds, a date, or a Go duration (`10m`, `1h30m`) back from `now`.
/// Empty and `0` are 0: no limit.
///
/// # Errors
/// 400 for any other text.
pub fn parse(text: &str, now: u64) -> Result<u64> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(0);
    }
    unix_seconds(text)
        .or_else(|| date_time(text))
        .or_else(|| duration(text).map(|d| now.saturating_sub(d)))
        .ok_or_else(|| {
            Error::bad(format!(
                "invalid value for time: {text:?}: expected Unix seconds, RFC 3339 or a duration like 10m"
            ))
        })
}

/// `1700000000` or `1700000000.000000001`; at most nine digits of fraction count. Negative is 0.
fn unix_seconds(text: &str) -> Option<u64> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let seconds: u64 = whole.parse().ok()?;
    let mut nanos = 0u64;
    for place in 0..9 {
        let digit = fraction
            .as_bytes()
            .get(place)
            .map_or(0, |b| u64::from(b - b'0'));
        nanos = nanos * 10 + digit;
    }
    if negative {
        return Some(0);
    }
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn date_time(text: &str) -> Option<u64> {
    let from = |t: OffsetDateTime| u64::try_from(t.unix_timestamp_nanos()).unwrap_or(0);
    if let Ok(t) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(from(t));
    }
    // Docker's other forms: parts from the right may be missing, the zone too (then UTC).
    let text = text.strip_suffix('Z').unwrap_or(text);
    let fill = "0000-01-01T00:00:00";
    if text.len() < 10 || text.len() > 29 || !text.is_ascii() {
        return None;
    }
    let mut full = text.to_owned();
    if full.len() < fill.len() {
        full.push_str(&fill[full.len()..]);
    }
    let format = time::macros::format_description!(
        version = 2,
        "[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]]"
    );
    PrimitiveDateTime::parse(&full, format)
        .ok()
        .map(|t| from(t.assume_utc()))
}

/// A Go duration in ns: a sequence of decimal numbers with a unit, as in `1h30m`, `1.5s`, `300ms`.
pub fn duration(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    // A duration beyond 500 years is not one; the cast below is then exact enough.
    (total < 1.6e19).then_some(total as u64)
}

/// How long ago, in the words of `docker ps` (go-units' HumanDuration).
pub fn human(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn reads_every_form_that_clients_send() {
        for (text, want) in [
            ("", 0),
            ("0", 0),
            ("1700000000", NOW),
            ("1700000000.5", NOW + 500_000_000),
            ("1700000000.000000001", NOW + 1),
            ("-5", 0),
            ("2023-11-14T22:13:20Z", NOW),
            ("2023-11-14T23:13:20+01:00", NOW),
            ("2023-11-14T22:13:20.25Z", NOW + 250_000_000),
            ("2023-11-14T22:13:20", NOW),
            ("2023-11-14T22:13", NOW - 20_000_000_000),
            (
                "2023-11-14",
                NOW - (22 * 3600 + 13 * 60 + 20) * 1_000_000_000,
            ),
            ("10m", NOW - 600_000_000_000),
            ("1h30m", NOW - 5_400_000_000_000),
            ("1.5s", NOW - 1_500_000_000),
        ] {
            assert_eq!(parse(text, NOW).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["soon", "m", "10x", "1.2.3", "2023-13-01", "é2023-11-14"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_what_docker_writes() {
        assert_eq!(rfc3339(0), ZERO);
        assert_eq!(rfc3339(NOW), "2023-11-14T22:13:20Z");
        assert_eq!(log_stamp(NOW + 1_000), "2023-11-14T22:13:20.000001000Z");
        assert_eq!(human(90_000_000_000), "About a minute");
        assert_eq!(human(3 * 3600 * 1_000_000_000), "3 hours");
    }
}
