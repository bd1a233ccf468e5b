//! Byte ranges: of blobs that are read (RFC 9110, 14.2), and of chunks that are uploaded.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that may be ignored (another unit, several parts, not understood).
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Nothing that is there: 416.
    Nothing,
}

/// Parses a `Range` header for something of `length` bytes.
#[must_use]
pub fn parse(text: &str, length: u64) -> Wanted {
    let Some(range) = text.trim().strip_prefix("bytes=") else {
        return Wanted::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let number = |s: &str| {
        let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| s.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => {
            if first >= length {
                return Wanted::Nothing;
            }
            Wanted::Part(first..last.saturating_add(1).min(length))
        }
        (Some(first), None) if last.is_empty() => {
            if first >= length {
                return Wanted::Nothing;
            }
            Wanted::Part(first..length)
        }
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || length == 0 {
                return Wanted::Nothing;
            }
            Wanted::Part(length.saturating_sub(suffix)..length)
        }
        _ => Wanted::Whole,
    }
}

/// A chunk's `Content-Range`, `start-end` inclusive (with or without `bytes ` and a total): where it begins, and its length.
#[must_use]
pub fn chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.trim_start_matches('=');
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (start, end) = text.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    // Where it is over is a number, too, wherever it begins.
    let over = end.checked_add(1)?;
    (start < over).then(|| (start, over - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-11", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
        ] {
            assert_eq!(parse(text, 10), wanted, "{text}");
        }
        assert_eq!(parse("bytes=-1", 0), Wanted::Nothing);
        assert_eq!(parse("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn chunks_tell_where_they_begin() {
        assert_eq!(chunk("0-9"), Some((0, 10)));
        assert_eq!(chunk("bytes 5-5/*"), Some((5, 1)));
        for bad in [
            "",
            "9-0",
            "6-5",
            "0",
            "-1",
            "a-b",
            "0-18446744073709551615",
            // Found by the property tests: the end of what it says is no number.
            "2-18446744073709551615",
        ] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
