//! What a client asks to be mounted in a container: `-v`, `--mount`, `--volumes-from`, in dockerd's words
//! (moby, volume/mounts/linux_parser.go).

use super::request::{VolumeRequest, check_driver, check_name, texts};
use crate::errors::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use wire::volume::MOUNTS_MAX;

/// A volume in a container's file tree, as it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Name of the volume.
    pub volume: String,
    /// UUID of its file system.
    pub uuid: String,
    /// Bytes of its disk.
    pub capacity: u64,
    /// Where: absolute and clean.
    pub target: String,
    /// Which part of the volume; empty: all.
    #[serde(default)]
    pub subpath: String,
    /// The container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
    /// An empty volume gets what the image has there.
    #[serde(default)]
    pub copy: bool,
    /// The volume was made for this mount, without a name.
    #[serde(default)]
    pub anonymous: bool,
    /// The mode, as given.
    #[serde(default)]
    pub mode: String,
}

/// A mount that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The volume; without a name: an anonymous one.
    pub volume: VolumeRequest,
    /// Where.
    pub target: String,
    /// Which part.
    pub subpath: String,
    /// Only to read.
    pub read_only: bool,
    /// Fill it from the image.
    pub copy: bool,
    /// The mode, as given.
    pub mode: String,
}

/// All mounts that a `HostConfig` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// Containers whose volumes are mounted, too, and whether only to read.
    pub from: Vec<(String, bool)>,
    /// Volumes.
    pub mounts: Vec<Wanted>,
}

impl Requested {
    /// Reads `Binds`, `Mounts`, `VolumesFrom` and `VolumeDriver`.
    ///
    /// # Errors
    /// 400 in dockerd's words, 501 for a path of the host.
    pub fn read(host: &Map<String, Value>) -> Result<Self> {
        let list = |field: &str| match host.get(field) {
            None | Some(Value::Null) => Ok(&[][..]),
            Some(Value::Array(list)) if list.len() <= MOUNTS_MAX => Ok(list.as_slice()),
            Some(Value::Array(list)) => Err(Error::bad(format!(
                "invalid {field}: {} entries; {MOUNTS_MAX} are possible",
                list.len()
            ))),
            Some(_) => Err(Error::bad(format!("invalid {field}: expected a list"))),
        };
        let text = |value: &Value, field: &str| {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| Error::bad(format!("invalid {field}: expected strings")))
        };
        check_driver(
            host.get("VolumeDriver")
                .and_then(Value::as_str)
                .unwrap_or(""),
        )?;
        let mut requested = Self::default();
        for entry in list("VolumesFrom")? {
            requested
                .from
                .push(volumes_from(&text(entry, "VolumesFrom")?)?);
        }
        let mut targets = BTreeSet::new();
        let mut add = |wanted: Wanted| {
            if !targets.insert(wanted.target.clone()) {
                return Err(Error::bad(format!(
                    "Duplicate mount point: {}",
                    wanted.target
                )));
            }
            requested.mounts.push(wanted);
            Ok(())
        };
        for entry in list("Binds")? {
            add(bind(&text(entry, "Binds")?)?)?;
        }
        for entry in list("Mounts")? {
            // A file system in memory is no volume (`containers::options::tmpfs`).
            if entry["Type"] != "tmpfs" {
                add(mount(entry)?)?;
            }
        }
        Ok(requested)
    }
}

/// A path of the host cannot be had.
fn host_path(option: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!(
            "{option} is not supported by Mooring: a container is a VM of its own, and has no files of the host that the client or the endpoint runs on; use a volume (--volume NAME:/path) and fill it with docker cp, or put the files into the image"
        ),
    )
}

fn invalid_mode(mode: &str) -> Error {
    Error::bad(format!("invalid mode: {mode}"))
}

/// `NAME:/path[:mode]` (a path alone is not sent this way by clients, but may be).
fn bind(raw: &str) -> Result<Wanted> {
    let invalid = || Error::bad(format!("invalid volume specification: '{raw}'"));
    let parts: Vec<&str> = raw.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] if !target.is_empty() => ("", target, ""),
        [source, target] if !source.is_empty() && read_mode(target).is_err() => {
            (source, target, "")
        }
        [source, target, mode] if !source.is_empty() => (source, target, mode),
        _ => return Err(invalid()),
    };
    if source.starts_with('/') {
        return Err(host_path(&format!("--volume {raw}")));
    }
    let (read_only, copy) = read_mode(mode)?;
    let within = |error: Error| {
        Error::new(
            error.kind,
            format!("{}: {}", invalid().message, error.message),
        )
    };
    let target = clean_target("volume", target).map_err(within)?;
    Ok(Wanted {
        volume: VolumeRequest {
            name: name(source)?,
            ..VolumeRequest::default()
        },
        target,
        subpath: String::new(),
        read_only,
        copy,
        mode: mode.to_owned(),
    })
}

fn name(source: &str) -> Result<Option<String>> {
    (!source.is_empty())
        .then(|| check_name(source).map(str::to_owned))
        .transpose()
}

/// Read-only, and whether an empty volume is filled, out of `ro,nocopy`.
fn read_mode(mode: &str) -> Result<(bool, bool)> {
    let (mut access, mut labels, mut copies) = (None, 0, 0);
    for part in mode.split(',').filter(|_| !mode.is_empty()) {
        match part {
            "ro" | "rw" if access.is_none() => access = Some(part),
            // SELinux's: there is none in the guest.
            "z" | "Z" if labels == 0 => labels += 1,
            "nocopy" if copies == 0 => copies += 1,
            _ => return Err(invalid_mode(mode)),
        }
    }
    Ok((access == Some("ro"), copies == 0))
}

/// `CONTAINER[:ro|rw]`.
fn volumes_from(text: &str) -> Result<(String, bool)> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    if container.is_empty() {
        return Err(Error::bad(
            "volumes-from specification cannot be an empty string",
        ));
    }
    match read_mode(mode) {
        Ok((read_only, true)) => Ok((container.to_owned(), read_only)),
        _ => Err(invalid_mode(mode)),
    }
}

/// The path without `.`, `..` and doubled slashes, as Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn config_error(kind: &str, why: &str) -> Error {
    Error::bad(format!("invalid mount config for type {kind:?}: {why}"))
}

/// A target that can be mounted at.
fn clean_target(kind: &str, target: &str) -> Result<String> {
    if target.is_empty() {
        return Err(config_error(kind, "field Target must not be empty"));
    }
    if !target.starts_with('/') || target.contains('\0') {
        return Err(config_error(
            kind,
            &format!("invalid mount path: '{target}' mount path must be absolute"),
        ));
    }
    let target = clean(target);
    refuse_system(&target).map_err(|why| config_error(kind, &why))?;
    Ok(target)
}

/// Refuses what the container needs for itself.
fn refuse_system(target: &str) -> Result<(), String> {
    if target == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    if target.len() > 4000 {
        return Err("invalid specification: the destination is too long".to_owned());
    }
    if matches!(target, "/dev" | "/sys" | "/proc") || target.starts_with("/proc/") {
        return Err(format!(
            "{target:?} cannot be mounted because it is inside of what the container's kernel shows there"
        ));
    }
    Ok(())
}

/// Where an image's `VOLUME` or `-v /path` is mounted.
///
/// # Errors
/// 400 for what cannot be mounted at.
pub fn anonymous_at(path: &str) -> Result<Wanted> {
    // As dockerd: what is relative is so to the root.
    let target = clean_target("volume", &format!("/{path}"))?;
    Ok(Wanted {
        volume: VolumeRequest::default(),
        target,
        subpath: String::new(),
        read_only: false,
        copy: true,
        mode: String::new(),
    })
}

/// An entry of `Mounts`.
fn mount(entry: &Value) -> Result<Wanted> {
    let object = entry
        .as_object()
        .ok_or_else(|| Error::bad("invalid Mounts: expected objects"))?;
    let text = |field: &str| match object.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(Error::bad(format!(
            "invalid Mounts: {field} must be a string"
        ))),
    };
    let flag = |value: &Value, field: &str| match &value[field] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(Error::bad(format!(
            "invalid Mounts: {field} must be a boolean"
        ))),
    };
    let kind = text("Type")?;
    match kind {
        "volume" => {}
        "bind" => return Err(host_path("--mount type=bind")),
        "image" | "npipe" | "cluster" => {
            return Err(Error::not_yet(&format!("--mount type={kind}")));
        }
        _ => return Err(config_error(kind, "mount type unknown")),
    }
    let target = clean_target(kind, text("Target")?)?;
    for field in ["BindOptions", "TmpfsOptions", "ImageOptions"] {
        if object.get(field).is_some_and(|value| !value.is_null()) {
            return Err(config_error(
                kind,
                &format!("field {field} must not be specified"),
            ));
        }
    }
    let options = object.get("VolumeOptions").unwrap_or(&Value::Null);
    let driver = &options["DriverConfig"];
    check_driver(driver["Name"].as_str().unwrap_or(""))?;
    let read_only = flag(entry, "ReadOnly")?;
    let source = name(text("Source")?)?;
    let subpath = options["Subpath"].as_str().unwrap_or("").to_owned();
    if source.is_none() && !subpath.is_empty() {
        return Err(config_error(
            kind,
            "must not set Subpath when using anonymous volumes",
        ));
    }
    if source.is_none() && read_only {
        return Err(config_error(
            kind,
            "must not set ReadOnly mode when using anonymous volumes",
        ));
    }
    if !is_local(&subpath) {
        return Err(config_error(
            kind,
            "subpath must be a relative path within the volume",
        ));
    }
    let mut volume = VolumeRequest::with_options(texts(&driver["Options"], "DriverConfig")?)?;
    volume.name = source;
    volume.labels = texts(&options["Labels"], "Labels")?;
    Ok(Wanted {
        volume,
        target,
        // As dockerd: a part of a volume is as it is.
        copy: !flag(options, "NoCopy")? && subpath.is_empty(),
        subpath,
        read_only,
        mode: String::new(),
    })
}

/// Go's `filepath.IsLocal`, with the empty path for "all of it".
fn is_local(path: &str) -> bool {
    let mut depth = 0i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !path.starts_with('/') && !path.contains('\0') && path.len() < 4000
}

/// The disks of these mounts, each once, and whether one of them is written to.
pub fn disks(mounts: &[MountPoint]) -> Vec<(&MountPoint, bool)> {
    let mut order: Vec<(&MountPoint, bool)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for mount in mounts {
        let place = *places.entry(&mount.volume).or_insert_with(|| {
            order.push((mount, false));
            order.len() - 1
        });
        order[place].1 |= !mount.read_only;
    }
    order
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
