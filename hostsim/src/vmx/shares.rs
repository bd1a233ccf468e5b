//! Folders of this machine that a guest is given.

use super::spec::ShareSpec;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Opens them for QEMU. Their paths were looked at when the VM was powered on, and had no link in them: one that has
/// come since is not followed.
///
/// # Errors
/// A sentence that names the folder.
pub(super) fn open(shares: &BTreeMap<u8, ShareSpec>) -> Result<BTreeMap<u8, OwnedFd>, String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let open = |(number, share): (&u8, &ShareSpec)| {
        let fd = openat2(nix::fcntl::AT_FDCWD, &share.folder, how)
            .map_err(|e| format!("share {}: {e}", share.folder.display()))?;
        Ok((*number, fd))
    };
    shares.iter().map(open).collect()
}
