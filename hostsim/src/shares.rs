//! Folders of this machine of which VMs may have parts (docs/decisions/0020-shared-folders.md). ESXi has nothing like it.
//!
//! A VM names what it has in its keys `hostsim.share.<N>`, as `rw:/path` or `ro:/path`; it is looked at when the VM is
//! powered on.

use crate::host::Host;
use crate::vm::Vm;
use crate::vmx::ShareSpec;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use vim::{Fault, FaultKind};

/// Shares that a VM can have at most.
pub const SHARES_MAX: u8 = 8;
const KEY: &str = "hostsim.share.";

/// A folder that may be shared, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// Its path, resolved.
    pub path: PathBuf,
    /// Nobody may write to it.
    pub read_only: bool,
}

/// As it is announced: `rw:/path` or `ro:/path`.
impl fmt::Display for SharedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "ro" } else { "rw" };
        write!(f, "{access}:{}", self.path.display())
    }
}

impl SharedFolder {
    /// Reads `PATH[:ro]`.
    ///
    /// # Errors
    /// Where there is no such folder.
    pub fn resolve(text: &str) -> io::Result<Self> {
        let (path, read_only) = match text.strip_suffix(":ro") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let path = Path::new(path).canonicalize()?;
        if !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(SharedFolder { path, read_only })
    }
}

/// What a VM that is powered on gets.
///
/// # Errors
/// `GenericVmConfigFault` for what is not to be had.
pub fn of(host: &Host, vm: &Vm) -> Result<BTreeMap<u8, ShareSpec>, Fault> {
    let mut shares = BTreeMap::new();
    for (key, value) in &vm.config.extra {
        if let Some(number) = key.strip_prefix(KEY) {
            let number = number.parse().ok().filter(|n| *n < SHARES_MAX);
            let number = number.ok_or_else(|| {
                refused(format!(
                    "{key}: shares have the numbers 0 to {}",
                    SHARES_MAX - 1
                ))
            })?;
            let share = share(&host.settings.shares, value)
                .map_err(|why| refused(format!("{key} = {value:?}: {why}")))?;
            shares.insert(number, share);
        }
    }
    Ok(shares)
}

fn refused(reason: String) -> Fault {
    let message = format!("The virtual machine cannot be run: {reason}");
    Fault::new(FaultKind::GenericVmConfigFault { reason }, message)
}

fn share(allowed: &[SharedFolder], value: &str) -> Result<ShareSpec, String> {
    let (read_only, path) = match value.split_once(':') {
        Some(("ro", path)) => (true, path),
        Some(("rw", path)) => (false, path),
        _ => return Err("it begins with neither ro: nor rw:".to_owned()),
    };
    let folder = Path::new(path).canonicalize().map_err(|e| e.to_string())?;
    if !folder.is_dir() {
        return Err("it is no folder".to_owned());
    }
    let found = allowed
        .iter()
        .filter(|share| folder.starts_with(&share.path))
        .max_by_key(|share| share.path.as_os_str().len())
        .ok_or("it is below no folder that this host shares (hostsim serve --share)")?;
    let closed = |share: &&SharedFolder| share.read_only && share.path.starts_with(&folder);
    if !read_only {
        if found.read_only {
            return Err("it is shared to be read only".to_owned());
        }
        if let Some(inner) = allowed.iter().find(closed) {
            return Err(format!(
                "{} in it is shared to be read only",
                inner.path.display()
            ));
        }
    }
    Ok(ShareSpec { folder, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_a_shared_folder_is_had_and_no_link_leads_out() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        for folder in ["open/in", "open/closed", "other"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::os::unix::fs::symlink(at("other"), at("open/out")).unwrap();
        std::os::unix::fs::symlink(at("open/in"), at("open/link")).unwrap();
        let allowed = [
            SharedFolder::resolve(at("open").to_str().unwrap()).unwrap(),
            SharedFolder::resolve(&format!("{}:ro", at("open/closed").display())).unwrap(),
        ];
        let get =
            |access: &str, name: &str| share(&allowed, &format!("{access}:{}", at(name).display()));
        assert_eq!(
            get("rw", "open/in").unwrap().folder,
            at("open/in").canonicalize().unwrap()
        );
        assert_eq!(
            get("ro", "open/link").unwrap().folder,
            at("open/in").canonicalize().unwrap()
        );
        assert!(get("ro", "open/closed").unwrap().read_only);
        for (access, name, why) in [
            ("rw", "other", "below no folder"),
            ("rw", "open/out", "below no folder"),
            ("rw", "open/in/../../other", "below no folder"),
            ("rw", "open/closed", "read only"),
            ("rw", "open", "in it is shared to be read only"),
            ("rw", "open/missing", "No such file"),
            ("xx", "open/in", "neither"),
        ] {
            let e = get(access, name).unwrap_err();
            assert!(e.contains(why), "{name}: {e}");
        }
        assert!(SharedFolder::resolve(at("missing").to_str().unwrap()).is_err());
    }
}
