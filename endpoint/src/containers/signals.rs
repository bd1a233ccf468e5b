//! Signals by name and number, as Docker reads them.

use crate::errors::{Error, Result};

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// SIGKILL.
pub const KILL: i32 = 9;
/// SIGTERM.
pub const TERM: i32 = 15;
/// glibc's SIGRTMIN.
const RTMIN: i32 = 34;
/// SIGRTMAX.
const RTMAX: i32 = 64;

/// A signal's number: `9`, `KILL`, `SIGKILL`, `RTMIN+3`, `SIGRTMAX-1`, in any case.
///
/// # Errors
/// 400 in Docker's words for anything else.
pub fn parse(text: &str) -> Result<i32> {
    let wrong = || Error::bad(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX)
            .contains(&number)
            .then_some(number)
            .ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (base, rest) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RTMIN, rest)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        (RTMAX, rest)
    } else {
        let alias = match name {
            "CLD" => "CHLD",
            "IOT" => "ABRT",
            "POLL" => "IO",
            other => other,
        };
        let at = NAMES.iter().position(|n| *n == alias).ok_or_else(wrong)?;
        return i32::try_from(at + 1).map_err(|_| wrong());
    };
    if rest.is_empty() {
        return Ok(base);
    }
    let offset: i32 = rest.parse().map_err(|_| wrong())?;
    let number = base.checked_add(offset).ok_or_else(wrong)?;
    (RTMIN..=RTMAX)
        .contains(&number)
        .then_some(number)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (text, want) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("RTMAX-14", 50),
            ("SIGPOLL", 29),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in ["", "0", "65", "-1", "FOO", "RTMIN+31", "RTMAX+1", "RTMIN3x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
