//! `--log-driver` and `--log-opt`, as far as the container's journal can be what they ask for
//! (moby, daemon/logger/jsonfilelog and daemon/logger/local).

use super::refused;
use crate::errors::{Error, Result};
use crate::texts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of the smallest journal, without [`STARTS`].
const SMALLEST: u64 = 1 << 20;

/// Bytes that a bounded journal has beside what was asked for. Each boot begins a segment of 256 KiB, however little is in
/// the one before: with four segments in all, the fourth start overwrote the first one's line.
const STARTS: u64 = 16 * (256 << 10);

/// Files that the driver `local` keeps where nobody says (moby, daemon/logger/local).
const LOCAL_FILES: u64 = 5;

/// How a container's output is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Bytes that the journal takes at most, whole MiB; 0: as the image store has it.
    pub size: u64,
    /// Not at all.
    pub none: bool,
    /// More was asked for than the smallest journal bounds: bytes.
    asked: u64,
}

impl Log {
    /// What a client should know of it.
    pub fn warnings(&self) -> Vec<String> {
        let small = self.asked > 0 && self.asked < 1_000_000;
        Vec::from_iter(small.then(|| {
            format!(
                "the container's log takes up to {} MiB: it is a journal on its disk, which cannot be smaller",
                (SMALLEST + STARTS) >> 20
            )
        }))
    }
}

/// Reads `LogConfig`.
pub(super) fn read(host: &Map<String, Value>) -> Result<Log> {
    let mut out = Log::default();
    let Some(log) = host.get("LogConfig").filter(|log| !log.is_null()) else {
        return Ok(out);
    };
    let driver = log["Type"].as_str().unwrap_or("");
    match driver {
        "" | "json-file" | "local" => {}
        // dockerd reads no options of it either.
        "none" => {
            return Ok(Log { none: true, ..out });
        }
        other => {
            return Err(refused(
                &format!("--log-driver {other}"),
                "the container's log is its journal; leave it out",
            ));
        }
    }
    let wrong = || Error::bad("invalid HostConfig: LogConfig.Config must be an object of strings");
    let options = match log.get("Config") {
        None | Some(Value::Null) => return Ok(out),
        Some(options) => texts::by_name(options).ok_or_else(wrong)?,
    };
    let driver = if driver.is_empty() {
        "json-file"
    } else {
        driver
    };
    // How that one stores the output is its own affair.
    let local = driver == "local";
    let (mut size, mut files) = (None, if local { LOCAL_FILES } else { 1 });
    for (name, value) in &options {
        let value = value.as_str();
        match name.as_str() {
            "max-size" if value == "-1" => {}
            "max-size" => size = Some(bytes(value)?),
            "max-file" => {
                files = value
                    .parse::<u64>()
                    .map_err(|_| Error::bad(format!("invalid value for max-file: {value}")))?;
                if files == 0 {
                    return Err(Error::bad("max-file cannot be less than 1"));
                }
            }
            // The journal is as it is, and blocks nobody.
            "compress" if value == "false" || local => {}
            "mode" if matches!(value, "blocking" | "non-blocking") => {}
            "max-buffer-size" => drop(bytes(value)?),
            "compress" | "labels" | "labels-regex" | "env" | "env-regex" | "tag" | "mode" => {
                if !value.is_empty() {
                    return Err(refused(
                        &format!("--log-opt {name}={value}"),
                        "the container's log is its journal, which has the output, its times and nothing else; leave it out",
                    ));
                }
            }
            _ => {
                return Err(Error::bad(format!(
                    "unknown log opt '{name}' for {driver} log driver"
                )));
            }
        }
    }
    if let Some(size) = size {
        out.asked = size.saturating_mul(files);
        // More than 2^40 is no bound: no disk is larger.
        let whole = out.asked.clamp(SMALLEST, 1 << 40);
        out.size = whole.next_multiple_of(SMALLEST) + STARTS;
    }
    Ok(out)
}

/// Bytes out of `10m`, `1.5g` (go-units, `FromHumanSize`: powers of 1,000).
fn bytes(text: &str) -> Result<u64> {
    let wrong = || Error::bad(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match lower[digits.len()..]
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.trim_end().parse().map_err(|_| wrong())?;
    let bytes = number * unit;
    // Neither a negative number, nor what is none, nor what no disk has.
    if !(1.0..1e15).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Kind;
    use serde_json::json;

    fn of(log: Value) -> Result<Log> {
        read(json!({ "LogConfig": log }).as_object().unwrap())
    }

    #[test]
    fn a_log_is_as_large_as_docker_would_have_it() {
        let whole = of(json!({"Type": "", "Config": {}})).unwrap();
        assert_eq!((whole, read(&Map::new()).unwrap()), Default::default());
        for (config, mib) in [
            (json!({"max-size": "10m"}), 14),
            (json!({"max-size": "10m", "max-file": "3"}), 33),
            (json!({"max-size": "1.5g", "mode": "non-blocking"}), 1435),
            (json!({"max-size": "1k"}), 5),
            (json!({"max-size": "-1", "max-file": "5"}), 0),
            (
                json!({"max-size": "900t", "max-file": "99999999"}),
                (1 << 20) + 4,
            ),
        ] {
            let log = of(json!({"Type": "json-file", "Config": config})).unwrap();
            assert_eq!(log.size >> 20, mib, "{config}");
            assert_eq!(log.warnings().len(), usize::from(mib == 5), "{config}");
        }
        let local = json!({"Type": "local", "Config": {"max-size": "10m", "compress": "true"}});
        assert_eq!(of(local).unwrap().size, 52 << 20);
        let none = of(json!({"Type": "none", "Config": {"any": "thing"}})).unwrap();
        assert!(none.none);
    }

    #[test]
    fn options_that_a_journal_has_not_are_refused_by_name() {
        for (config, kind, words) in [
            (
                json!({"what": "1"}),
                Kind::BadParameter,
                "unknown log opt 'what' for json-file log driver",
            ),
            (
                json!({"max-size": "x"}),
                Kind::BadParameter,
                "invalid size: 'x'",
            ),
            (
                json!({"max-size": "-5m"}),
                Kind::BadParameter,
                "invalid size",
            ),
            (
                json!({"max-size": "nan"}),
                Kind::BadParameter,
                "invalid size",
            ),
            (json!({"max-file": "0"}), Kind::BadParameter, "less than 1"),
            (json!({"max-file": "x"}), Kind::BadParameter, "max-file"),
            (
                json!({"labels": "a"}),
                Kind::NotImplemented,
                "--log-opt labels=a",
            ),
            (
                json!({"compress": "true"}),
                Kind::NotImplemented,
                "--log-opt compress",
            ),
            (json!({"max-size": 1}), Kind::BadParameter, "strings"),
        ] {
            let error = of(json!({"Type": "json-file", "Config": config})).unwrap_err();
            assert_eq!(error.kind, kind, "{config}");
            assert!(error.message.contains(words), "{}", error.message);
        }
        let error = of(json!({"Type": "local", "Config": {"what": "1"}})).unwrap_err();
        assert!(
            error.message.contains("for local log driver"),
            "{}",
            error.message
        );
        let error = of(json!({"Type": "syslog"})).unwrap_err();
        assert!(error.message.starts_with("--log-driver syslog is not"));
    }
}
