//! The child's way into the file tree of its job.

use super::child::{failed, system};
use crate::boot::disk::Found;
use crate::boot::{root, volumes};
use crate::container::StartError;
use crate::container::mounts::{self, FILES, OVERLAY};
use crate::sys::mount::{attach_tree, clone_tree};
use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use wire::config::GuestConfig;
use wire::files::{Failure, Job};

const NONE: Option<&str> = None;

/// Makes the file tree of a job the root of this process, which has a mount namespace of its own. Where changes are
/// looked for, that is the overlay's upper folder, and the image's root is returned.
///
/// # Errors
/// What could not be mounted.
pub fn enter(job: &Job, config: &GuestConfig, disk: &Found) -> Result<Option<File>, Failure> {
    let here = |e: nix::Error| failed("mount", Path::new("/"))(e.into());
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(here)?;
    match job {
        Job::Stat { .. } | Job::Read { .. } | Job::Write { .. } => {
            container(config, !job.writes() || config.disk.read_only)?;
            Ok(None)
        }
        Job::Export => {
            chroot(OVERLAY)?;
            read_only()?;
            Ok(None)
        }
        Job::Changes | Job::Layer => {
            let lower = image(config, disk)?;
            chroot(root::UPPER)?;
            Ok(Some(lower))
        }
    }
}

/// The overlay with volumes and the files that the tether makes, as the container sees them.
fn container(config: &GuestConfig, protected: bool) -> Result<(), Failure> {
    let path = |text: &str| CString::new(text).map_err(|_| system("a path with NUL"));
    let mut files = Vec::new();
    for (source, target) in FILES {
        // Of a VM that is only up for its files there are none.
        if let Ok(tree) = clone_tree(&path(source)?) {
            files.push((tree, target));
        }
    }
    let planned = volumes::planned(config);
    let volumes = planned
        .iter()
        .map(|mount| Ok((mounts::volume_tree(mount)?, mount)))
        .collect::<Result<Vec<_>, StartError>>()?;
    chroot(OVERLAY)?;
    for ((tree, folder), mount) in &volumes {
        mounts::attach_volume(tree, *folder, &mount.target)?;
    }
    for (tree, target) in &files {
        if fs::metadata(target).is_ok_and(|m| m.is_file()) {
            attach_tree(tree.as_fd(), &path(target)?)
                .map_err(failed("bind on", Path::new(target)))?;
        }
    }
    if protected { read_only() } else { Ok(()) }
}

fn chroot(to: &str) -> Result<(), Failure> {
    let fail = |e: nix::Error| failed("chroot to", Path::new(to))(e.into());
    nix::unistd::chdir(to).map_err(fail)?;
    nix::unistd::chroot(".").map_err(fail)
}

fn read_only() -> Result<(), Failure> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(NONE, "/", NONE, flags, NONE)
        .map_err(|e| failed("remount read-only", Path::new("/"))(e.into()))
}

/// The image's layers as one, without what the container has on top of them.
fn image(config: &GuestConfig, disk: &Found) -> Result<File, Failure> {
    const EMPTY: &str = "/l/0";
    const IMAGE: &str = "/l/i";
    root::layers(&config.disk, disk).map_err(|fault| system(fault.message))?;
    for folder in [EMPTY, IMAGE] {
        fs::create_dir(folder).map_err(failed("mkdir", Path::new(folder)))?;
    }
    // An overlay without an upper folder has two lower ones at least.
    let options = format!("lowerdir={}:0", root::lower(&config.disk));
    let fail = |e: nix::Error| failed("mount the layers at", Path::new(IMAGE))(e.into());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    nix::unistd::chdir("/l").map_err(fail)?;
    if config.disk.layers.len() + config.disk.layer_files.len() > 0 {
        mount(
            Some("overlay"),
            IMAGE,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )
        .map_err(fail)?;
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(IMAGE)
        .map_err(failed("open", Path::new(IMAGE)))
}
