//! Folders of the machine that hostsim runs on: virtio-9p devices, mounted at `/v/share<N>`
//! (Linux Documentation/filesystems/9p).

use super::{Fault, STEP, VOLUMES};
use crate::container::mounts::VolumeMount;
use nix::mount::{MsFlags, mount};
use std::{fs, io};
use wire::config::GuestConfig;
use wire::volume::share_tag;

/// Nothing is kept in the guest but what is mapped for writing: the machine's own programs change the files, too.
const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=262144,cache=mmap";

fn top(number: u8) -> String {
    format!("{VOLUMES}/{}", share_tag(number))
}

pub(super) fn planned(config: &GuestConfig) -> impl Iterator<Item = VolumeMount> {
    config.shares.iter().map(|share| VolumeMount {
        root: top(share.number),
        subpath: share.subpath.clone(),
        target: share.target.clone(),
        read_only: share.read_only,
    })
}

/// Mounts all that the container has; their devices were there at power-on.
///
/// # Errors
/// The fault of the step `volumes`.
pub fn mount_all(config: &GuestConfig) -> Result<(), Fault> {
    for share in &config.shares {
        let target = top(share.number);
        match fs::create_dir(&target) {
            // A part of it is mounted elsewhere, too.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made,
        }
        .and_then(|()| {
            Ok(mount(
                Some(share_tag(share.number).as_str()),
                target.as_str(),
                Some("9p"),
                MsFlags::MS_NODEV,
                Some(OPTIONS),
            )?)
        })
        .map_err(Fault::at(
            STEP,
            format!(
                "mounting the share for {} by 9p (the trimmed kernel has it)",
                share.target
            ),
        ))?;
    }
    Ok(())
}
