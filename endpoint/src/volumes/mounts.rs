//! What a client asks to be mounted in a container: `-v`, `--mount`, `--volumes-from`, in dockerd's words
//! (moby, volume/mounts/linux_parser.go).

use super::nfs;
use super::request::{VolumeRequest, check_driver, check_name, texts};
use super::shares::WantedShare;
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
    /// It is on an NFS server, and has no disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<nfs::Source>,
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
    /// Paths of the machine.
    pub shares: Vec<WantedShare>,
    /// Where a file system in memory is: what the image has as a volume there is none.
    pub in_memory: BTreeSet<String>,
}

/// One mount.
enum Asked {
    Volume(Wanted),
    Share(WantedShare),
}

impl Requested {
    /// Reads `Binds`, `Mounts`, `VolumesFrom` and `VolumeDriver`.
    ///
    /// # Errors
    /// 400 in dockerd's words.
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
        let driver = host.get("VolumeDriver").and_then(Value::as_str);
        check_driver(driver.unwrap_or("")).map_err(no_404)?;
        let mut requested = Self::default();
        for entry in list("VolumesFrom")? {
            requested
                .from
                .push(volumes_from(&text(entry, "VolumesFrom")?)?);
        }
        let mut targets = BTreeSet::new();
        let mut add = |asked: Asked| {
            let (Asked::Volume(Wanted { target, .. }) | Asked::Share(WantedShare { target, .. })) =
                &asked;
            if !targets.insert(target.clone()) {
                return Err(Error::bad(format!("Duplicate mount point: {target}")));
            }
            match asked {
                Asked::Volume(wanted) => requested.mounts.push(wanted),
                Asked::Share(wanted) => requested.shares.push(wanted),
            }
            Ok(())
        };
        // What is wrong with them is told where they are read (`containers::options::tmpfs`).
        let tmpfs = host.get("Tmpfs").and_then(Value::as_object);
        let memory = tmpfs.into_iter().flatten().map(|(path, _)| clean(path));
        let mut in_memory: BTreeSet<String> = memory.collect();
        for entry in list("Binds")? {
            add(bind(&text(entry, "Binds")?)?)?;
        }
        for entry in list("Mounts")? {
            check_fields(entry)?;
            match entry["Target"].as_str() {
                Some(target) if entry["Type"] == "tmpfs" => drop(in_memory.insert(clean(target))),
                _ => add(mount(entry)?)?,
            }
        }
        if let Some(twice) = in_memory.intersection(&targets).next() {
            return Err(Error::bad(format!("Duplicate mount point: {twice}")));
        }
        requested.in_memory = in_memory;
        Ok(requested)
    }
}

/// At `docker create` a 404 would have the client pull the image.
pub(super) fn no_404(error: Error) -> Error {
    match error.kind {
        Kind::NotFound => Error::bad(error.message),
        _ => error,
    }
}

fn invalid_mode(mode: &str) -> Error {
    Error::bad(format!("invalid mode: {mode}"))
}

/// `NAME:/path[:mode]` (a path alone is not sent this way by clients, but may be).
fn bind(raw: &str) -> Result<Asked> {
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
    let within = |error: Error| {
        Error::new(
            error.kind,
            format!("{}: {}", invalid().message, error.message),
        )
    };
    if source.starts_with('/') {
        return Ok(Asked::Share(WantedShare {
            option: format!("--volume {raw}"),
            source: clean(source),
            read_only: read_share_mode(mode)?,
            target: clean_target("bind", target).map_err(within)?,
            create: true,
            mode: mode.to_owned(),
        }));
    }
    let (read_only, copy) = read_mode(mode)?;
    let target = clean_target("volume", target).map_err(within)?;
    Ok(Asked::Volume(Wanted {
        volume: VolumeRequest {
            name: name(source)?,
            ..VolumeRequest::default()
        },
        target,
        subpath: String::new(),
        read_only,
        copy,
        mode: mode.to_owned(),
    }))
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

/// Read-only, out of the mode of a path of the machine.
fn read_share_mode(mode: &str) -> Result<bool> {
    let mut seen = BTreeSet::new();
    for part in mode.split(',').filter(|_| !mode.is_empty()) {
        let group = match part {
            "ro" | "rw" => "access",
            "z" | "Z" => "label",
            // Docker Desktop's: what one side writes the other sees at once here.
            "consistent" | "cached" | "delegated" => "consistency",
            "private" | "rprivate" => "propagation",
            "shared" | "rshared" | "slave" | "rslave" => return Err(no_propagation(part)),
            _ => return Err(invalid_mode(mode)),
        };
        if !seen.insert(group) {
            return Err(invalid_mode(mode));
        }
    }
    Ok(mode.split(',').any(|part| part == "ro"))
}

fn no_propagation(word: &str) -> Error {
    Error::bad(format!(
        "invalid mount propagation {word}: what is mounted on the machine later does not come into a VM; use rprivate, or nothing"
    ))
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
fn mount(entry: &Value) -> Result<Asked> {
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
        "volume" | "bind" => {}
        "image" | "npipe" | "cluster" => {
            return Err(Error::not_yet(&format!("--mount type={kind}")));
        }
        _ => return Err(config_error(kind, "mount type unknown")),
    }
    let target = clean_target(kind, text("Target")?)?;
    let own = if kind == "bind" {
        "BindOptions"
    } else {
        "VolumeOptions"
    };
    let fields = [
        "BindOptions",
        "VolumeOptions",
        "TmpfsOptions",
        "ImageOptions",
    ];
    for field in fields.into_iter().filter(|field| *field != own) {
        if object.get(field).is_some_and(|value| !value.is_null()) {
            return Err(config_error(
                kind,
                &format!("field {field} must not be specified"),
            ));
        }
    }
    let options = object.get(own).unwrap_or(&Value::Null);
    if kind == "bind" {
        let source = text("Source")?;
        if source.is_empty() {
            return Err(config_error(kind, "field Source must not be empty"));
        }
        if !source.starts_with('/') {
            return Err(config_error(
                kind,
                &format!("invalid mount path: '{source}' mount path must be absolute"),
            ));
        }
        match options["Propagation"].as_str().unwrap_or("") {
            "" | "private" | "rprivate" => {}
            word => return Err(no_propagation(word)),
        }
        check_recursion(options)?;
        return Ok(Asked::Share(WantedShare {
            option: format!("--mount type=bind,source={source}"),
            source: clean(source),
            target,
            read_only: flag(entry, "ReadOnly")?,
            create: flag(options, "CreateMountpoint")?,
            mode: String::new(),
        }));
    }
    let driver = &options["DriverConfig"];
    check_driver(driver["Name"].as_str().unwrap_or("")).map_err(no_404)?;
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
    Ok(Asked::Volume(Wanted {
        volume,
        target,
        // As dockerd: a part of a volume is as it is.
        copy: !flag(options, "NoCopy")? && subpath.is_empty(),
        subpath,
        read_only,
        mode: String::new(),
    }))
}

/// Fields of an entry of `Mounts`, and of the objects in it: nothing is ignored.
const FIELDS: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "Type",
            "Source",
            "Target",
            "ReadOnly",
            "Consistency",
            "BindOptions",
            "VolumeOptions",
            "TmpfsOptions",
            "ImageOptions",
            "ClusterOptions",
        ],
    ),
    (
        "BindOptions",
        &[
            "Propagation",
            "NonRecursive",
            "CreateMountpoint",
            "ReadOnlyNonRecursive",
            "ReadOnlyForceRecursive",
        ],
    ),
    (
        "VolumeOptions",
        &["NoCopy", "Labels", "DriverConfig", "Subpath"],
    ),
    ("TmpfsOptions", &["SizeBytes", "Mode", "Options"]),
    ("ImageOptions", &["Subpath"]),
    ("ClusterOptions", &[]),
];

/// Refuses what is not known of an entry of `Mounts`, whatever its type.
fn check_fields(entry: &Value) -> Result<()> {
    for (name, known) in FIELDS {
        let part = match name {
            "" => Some(entry),
            name => entry.get(name),
        };
        for (field, value) in part.and_then(Value::as_object).into_iter().flatten() {
            if !known.contains(&field.as_str()) && !value.is_null() {
                return Err(Error::not_yet(&format!("Mounts: the field {name}.{field}")));
            }
        }
    }
    // What one side writes the other sees at once, so each of them holds.
    match entry["Consistency"].as_str().unwrap_or("") {
        "" | "default" | "consistent" | "cached" | "delegated" => Ok(()),
        word => Err(Error::bad(format!(
            "invalid mount config: consistency {word:?} is not known; it may be consistent, cached or delegated"
        ))),
    }
}

/// Refuses what a path of the machine cannot be: what is mounted below it on the machine is seen with it, and a read-only
/// mount is so for all of it.
fn check_recursion(options: &Value) -> Result<()> {
    for (field, option, why) in [
        (
            "NonRecursive",
            "bind-recursive=disabled",
            "what is mounted below the folder is a part of what the VM gets",
        ),
        (
            "ReadOnlyNonRecursive",
            "bind-recursive=writable",
            "a read-only folder is so with all that is in it",
        ),
    ] {
        if options[field] == true {
            return Err(Error::new(
                Kind::NotImplemented,
                format!("--mount with {option} is not supported by Mooring: {why}; leave it out"),
            ));
        }
    }
    Ok(())
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

/// Those of these mounts' volumes that are on NFS servers, each once.
pub fn remote(mounts: &[MountPoint]) -> Vec<(&MountPoint, &nfs::Source)> {
    let all = mounts.iter().filter_map(|m| Some((m, m.nfs.as_ref()?)));
    let each: BTreeMap<&str, _> = all.map(|both| (both.0.volume.as_str(), both)).collect();
    each.into_values().collect()
}

/// The disks of these mounts, each once, and whether one of them is written to.
pub fn disks(mounts: &[MountPoint]) -> Vec<(&MountPoint, bool)> {
    let mut order: Vec<(&MountPoint, bool)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| mount.nfs.is_none()) {
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
