//! `--tmpfs` and `--mount type=tmpfs`.

use super::fields::Fields;
use super::{is_default, refused};
use crate::errors::{Error, Result};
use crate::texts;
use crate::volumes::flags as flag;
use serde_json::Value;
use wire::limits::Tmpfs;

/// tmpfs mounts of one container at most.
const MOUNTS_MAX: usize = 256;

const DEFAULT: u64 = flag::NOSUID | flag::NODEV | flag::NOEXEC;

/// All tmpfs mounts of a `HostConfig`, an outer one before what is in it.
pub(super) fn mounts(fields: &Fields<'_>) -> Result<Vec<Tmpfs>> {
    let mut all = Vec::new();
    if let Some(given) = fields.find("Tmpfs") {
        let wrong = || Error::bad("invalid HostConfig: Tmpfs must be an object of strings");
        for (path, options) in texts::by_name(given).ok_or_else(wrong)? {
            all.push(with_options(&path, &options)?);
        }
    }
    if let Some(given) = fields.find("Mounts") {
        let wrong = || Error::bad("invalid HostConfig: Mounts must be a list of objects");
        for mount in given.as_array().ok_or_else(wrong)? {
            if !mount.is_object() {
                return Err(wrong());
            }
            // The others are volumes' affair.
            if mount["Type"] == "tmpfs" {
                all.push(mounted(mount)?);
            }
        }
    }
    if all.len() > MOUNTS_MAX {
        return Err(Error::bad(format!(
            "{} tmpfs mounts are too many: at most {MOUNTS_MAX}",
            all.len()
        )));
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(twice) = all.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::bad(format!(
            "Duplicate mount point: {}",
            twice[0].path
        )));
    }
    Ok(all)
}

/// An absolute path without `.` and `..`, not `/`.
fn path(given: &str) -> Result<String> {
    if !given.starts_with('/') || given.contains('\0') {
        return Err(Error::bad(format!(
            "invalid mount path: '{given}' mount path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in given.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.first() {
        None => Err(Error::bad(
            "invalid specification: destination can't be '/'",
        )),
        Some(&("proc" | "sys")) => Err(Error::bad(format!(
            "invalid mount path: '{given}' cannot be mounted because it is inside /{}",
            parts[0]
        ))),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

fn with_options(given: &str, options: &str) -> Result<Tmpfs> {
    let mut out = Tmpfs {
        path: path(given)?,
        flags: DEFAULT,
        data: String::new(),
    };
    let mut data = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let wrong = || Error::bad(format!("Invalid tmpfs option {option:?}"));
        let (set, clear) = match flag::of(option) {
            Some(both) => both,
            None if option == "dev" => {
                return Err(refused(
                    "--tmpfs with the option dev",
                    "a device node would open the VM's own devices; leave it out",
                ));
            }
            None if matches!(option, "private" | "rprivate") => (0, 0),
            None => {
                let (name, value) = option.split_once('=').ok_or_else(wrong)?;
                let known = match name {
                    "size" | "nr_blocks" | "nr_inodes" => size(value),
                    "mode" => u32::from_str_radix(value, 8).is_ok(),
                    "uid" | "gid" => value.parse::<u32>().is_ok(),
                    _ => false,
                };
                if !known {
                    return Err(wrong());
                }
                data.push(option);
                (0, 0)
            }
        };
        out.flags = (out.flags | set) & !clear;
    }
    out.data = data.join(",");
    Ok(out)
}

/// A number with one of tmpfs's units.
fn size(text: &str) -> bool {
    let number = text
        .strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%'])
        .unwrap_or(text);
    number.parse::<u64>().is_ok()
}

/// One of `Mounts`.
fn mounted(mount: &Value) -> Result<Tmpfs> {
    let text = |field: &str| mount[field].as_str().unwrap_or("");
    if !text("Source").is_empty() {
        return Err(Error::bad(
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ));
    }
    for (field, allowed) in [("BindOptions", "bind"), ("VolumeOptions", "volume")] {
        if mount.get(field).is_some_and(|options| !is_default(options)) {
            return Err(Error::bad(format!(
                "invalid mount config for type \"tmpfs\": field {field} is for type \"{allowed}\""
            )));
        }
    }
    let options = &mount["TmpfsOptions"];
    if options.get("Options").is_some_and(|o| !is_default(o)) {
        return Err(refused(
            "TmpfsOptions.Options",
            "use --tmpfs for further options",
        ));
    }
    let number = |field: &str| {
        let value = options[field].as_i64().unwrap_or(0);
        u64::try_from(value).map_err(|_| {
            Error::bad(format!(
                "invalid mount config for type \"tmpfs\": {field} must not be negative"
            ))
        })
    };
    let (size, mode) = (number("SizeBytes")?, number("Mode")?);
    let mut data = Vec::new();
    if size > 0 {
        data.push(format!("size={size}"));
    }
    if mode > 0 {
        data.push(format!("mode={mode:o}"));
    }
    let read_only = mount["ReadOnly"].as_bool().unwrap_or(false);
    Ok(Tmpfs {
        path: path(text("Target"))?,
        flags: DEFAULT | if read_only { flag::RDONLY } else { 0 },
        data: data.join(","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Vec<Tmpfs>> {
        mounts(&Fields(value.as_object().unwrap()))
    }

    #[test]
    fn both_forms_are_mounts_with_docker_s_defaults() {
        let all = read(json!({
            "Tmpfs": {"/run//x/": "", "/a": "rw,exec,size=64k,mode=0700,uid=5,gid=6,noatime"},
            "Mounts": [{"Type": "tmpfs", "Target": "/run", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}, "ReadOnly": true}],
        }))
        .unwrap();
        let found: Vec<_> = all
            .iter()
            .map(|t| (t.path.as_str(), t.flags, t.data.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("/a", 2 + 4 + 1024, "size=64k,mode=0700,uid=5,gid=6"),
                ("/run", 1 + 2 + 4 + 8, "size=4096,mode=700"),
                ("/run/x", 2 + 4 + 8, ""),
            ]
        );
    }

    #[test]
    fn what_is_no_tmpfs_or_no_place_for_one_is_refused() {
        for (value, words) in [
            (json!({"Tmpfs": {"x": ""}}), "mount path must be absolute"),
            (json!({"Tmpfs": {"/a/..": ""}}), "destination can't be '/'"),
            (json!({"Tmpfs": {"/proc/x": ""}}), "inside /proc"),
            (
                json!({"Tmpfs": {"/x": "dev"}}),
                "option dev is not supported",
            ),
            (
                json!({"Tmpfs": {"/x": "size=1,huge=always"}}),
                "Invalid tmpfs option \"huge=always\"",
            ),
            (json!({"Tmpfs": {"/x": "mode=9"}}), "Invalid tmpfs option"),
            (
                json!({"Mounts": [{"Type": "tmpfs", "Source": "/a", "Target": "/b"}]}),
                "Source must not be specified",
            ),
            (
                json!({"Mounts": [{"Type": "tmpfs", "Target": "/b"}], "Tmpfs": {"/b/": ""}}),
                "Duplicate mount point: /b",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
