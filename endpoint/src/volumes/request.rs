//! `docker volume create`: names, options, capacities.

use super::nfs;
use super::record::DRIVER;
use crate::errors::{Error, Result};
use crate::texts;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Bytes of the longest name: its record and its folder need some beside it.
const NAME_MAX: usize = 200;
/// Capacities that the file system can have, in bytes.
const SMALLEST: u64 = 16 << 20;
const LARGEST: u64 = 1 << 40;
/// Labels and options of a volume, in bytes of names and values.
const TEXT_MAX: usize = 256 << 10;

/// A volume that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Its name; `None`: one is made up.
    pub name: Option<String>,
    /// Bytes; `None`: the endpoint's default.
    pub capacity: Option<u64>,
    /// The store that it is to be in; `None`: the default one. Whether there is such a store is seen when it is made.
    pub store: Option<String>,
    /// It is on an NFS server, and no disk.
    pub nfs: Option<nfs::Source>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options, as given.
    pub options: BTreeMap<String, String>,
}

/// Texts by name out of a JSON object.
pub(super) fn texts(value: &Value, field: &str) -> Result<BTreeMap<String, String>> {
    let texts = texts::by_name(value)
        .ok_or_else(|| Error::bad(format!("invalid {field}: expected an object of strings")))?;
    let bytes: usize = texts.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > TEXT_MAX {
        return Err(Error::bad(format!(
            "invalid {field}: {bytes} bytes, more than {TEXT_MAX}"
        )));
    }
    Ok(texts)
}

impl VolumeRequest {
    /// Reads the body of `volumes/create`.
    ///
    /// # Errors
    /// 400 for wrong values, 404 for a driver that is not there.
    pub fn read(body: &Value) -> Result<Self> {
        let empty = Map::new();
        let body = match body {
            Value::Null => &empty,
            Value::Object(body) => body,
            _ => return Err(Error::bad("invalid JSON: expected an object")),
        };
        let field = |name: &str| body.get(name).unwrap_or(&Value::Null);
        let text = |name: &str| match field(name) {
            Value::Null => Ok(""),
            Value::String(text) => Ok(text.as_str()),
            _ => Err(Error::bad(format!("invalid {name}: expected a string"))),
        };
        let name = text("Name")?;
        let named =
            |error: Error| Error::new(error.kind, format!("create {name}: {}", error.message));
        check_driver(text("Driver")?).map_err(named)?;
        if !field("ClusterVolumeSpec").is_null() {
            return Err(Error::not_yet("a cluster volume"));
        }
        let request = Self {
            name: (!name.is_empty())
                .then(|| check_name(name).map(str::to_owned))
                .transpose()?,
            ..Self::with_options(texts(field("DriverOpts"), "DriverOpts")?).map_err(named)?
        };
        Ok(Self {
            labels: texts(field("Labels"), "Labels")?,
            ..request
        })
    }

    /// One of these driver options.
    ///
    /// # Errors
    /// 400 for an option that is not known, or has a wrong value.
    pub fn with_options(options: BTreeMap<String, String>) -> Result<Self> {
        let (mut capacity, mut store) = (None, None);
        let nfs = nfs::Source::read(&options)?;
        for (name, value) in &options {
            match name.to_ascii_lowercase().as_str() {
                // A mount; as Docker has them, in lower case.
                "type" | "o" | "device" if nfs.is_some() => {}
                "capacity" | "volumestore" if nfs.is_some() => {
                    return Err(Error::bad(format!(
                        "invalid option: {name:?}: a volume on an NFS server is no disk"
                    )));
                }
                "capacity" => capacity = Some(read_capacity(value)?),
                "volumestore" => store = Some(value.clone()),
                _ => {
                    return Err(Error::bad(format!(
                        "invalid option: {name:?}: the options are Capacity and VolumeStore, or type, o and device for NFS"
                    )));
                }
            }
        }
        Ok(Self {
            name: None,
            capacity,
            store,
            nfs,
            labels: BTreeMap::new(),
            options,
        })
    }
}

/// Refuses drivers that are not there.
///
/// # Errors
/// 404 in Docker's words.
pub fn check_driver(driver: &str) -> Result<()> {
    if matches!(driver, "" | DRIVER) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "error looking up volume plugin {driver}: plugin {driver:?} not found"
    )))
}

/// A name that a volume can have.
///
/// # Errors
/// 400 in Docker's words.
pub fn check_name(name: &str) -> Result<&str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.len() == 1 {
        return Err(Error::bad(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if !name
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric)
        || !name.bytes().all(fine)
    {
        return Err(Error::bad(format!(
            "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.len() > NAME_MAX {
        return Err(Error::bad(format!(
            "create {name}: the name has {} characters; {NAME_MAX} are possible",
            name.len()
        )));
    }
    Ok(name)
}

/// Bytes out of `10G`, `512MiB`, `1t` or a plain number; to whole MiB, upwards.
///
/// # Errors
/// 400 for anything else, and for what the file system cannot be.
pub fn read_capacity(text: &str) -> Result<u64> {
    let wrong = |why: &str| {
        Error::bad(format!(
            "invalid option: Capacity={text}: {why}; write a size from 16M to 1T, such as 10G"
        ))
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .trim_end()
        .parse()
        .map_err(|_| wrong("it is no whole number with a unit"))?;
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong("its unit is not known")),
    };
    let bytes = number.checked_mul(1 << shift).filter(|b| *b <= LARGEST);
    let bytes = bytes.ok_or_else(|| wrong("it is too large"))?;
    if bytes < SMALLEST {
        return Err(wrong("it is too small"));
    }
    Ok(bytes.next_multiple_of(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Kind;
    use serde_json::json;

    #[test]
    fn capacities_are_bounded_and_whole() {
        for (text, want) in [
            ("10G", 10 << 30),
            ("16MiB", 16 << 20),
            ("1t", 1 << 40),
            ("20000000", 20 << 20),
            (" 32 m ", 32 << 20),
        ] {
            assert_eq!(read_capacity(text).unwrap(), want, "{text}");
        }
        for wrong in [
            "",
            "G",
            "-1G",
            "1.5G",
            "10X",
            "15M",
            "2T",
            "99999999999T",
            "1Gé",
        ] {
            assert!(read_capacity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "a.b-c_d", "0x", &"a".repeat(200)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for wrong in [
            "a",
            ".a",
            "-a",
            "a/b",
            "a b",
            "../x",
            "é1",
            &"a".repeat(201),
        ] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_is_read_whole_or_refused_by_name() {
        let request = VolumeRequest::read(&json!({
            "Name": "data", "Driver": "local", "Labels": {"a": "b"},
            "DriverOpts": {"Capacity": "1G", "VolumeStore": "default"},
        }))
        .unwrap();
        assert_eq!(request.name.as_deref(), Some("data"));
        assert_eq!(request.capacity, Some(1 << 30));
        assert_eq!(request.labels["a"], "b");
        assert_eq!(request.options.len(), 2);
        for (body, kind, part) in [
            (json!({"Driver": "nfs"}), Kind::NotFound, "plugin \"nfs\""),
            (
                json!({"DriverOpts": {"size": "1G"}}),
                Kind::BadParameter,
                "size",
            ),
            (
                json!({"DriverOpts": {"type": "nfs", "device": ":/x", "o": "addr=nas", "Capacity": "1G"}}),
                Kind::BadParameter,
                "is no disk",
            ),
            (json!({"Labels": 1}), Kind::BadParameter, "Labels"),
            (json!([]), Kind::BadParameter, "object"),
        ] {
            let error = VolumeRequest::read(&body).unwrap_err();
            assert_eq!(error.kind, kind, "{body}");
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
