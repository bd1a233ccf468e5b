//! Layers and the ephemeral partition, joined as one overlay.

use super::Fault;
use super::disk::Found;
use super::volumes::nfs;
use crate::container::mounts::OVERLAY;
use crate::reaper::Reaper;
use crate::sys::fs::{IN_ROOT, NO_MAGICLINKS, attach_loop, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::CString;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use wire::config::{Disk, GuestConfig};

/// Mounts every layer read-only at `/l/N` (N from 1, lowest first).
///
/// # Errors
/// The fault of the step `layers`.
pub fn layers(disk: &Disk, found: &Found) -> Result<(), Fault> {
    const STEP: &str = "layers";
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    // A tree of its own, so that one call detaches them all.
    mount(
        Some("tmpfs"),
        "/l",
        Some("tmpfs"),
        MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some("mode=700"),
    )
    .map_err(Fault::at(STEP, "mounting a tmpfs"))?;
    for (number, partition) in (1..).zip(&disk.layers) {
        let (device, target) = (found.partition(*partition), format!("/l/{number}"));
        let what = || {
            format!(
                "layer {number}, partition {partition} ({})",
                device.display()
            )
        };
        fs::create_dir(&target).map_err(Fault::at(STEP, what()))?;
        mount(
            Some(&device),
            target.as_str(),
            Some("ext4"),
            flags,
            None::<&str>,
        )
        .map_err(Fault::at(STEP, format!("mounting {}", what())))?;
    }
    for (number, file) in (disk.layers.len() + 1..).zip(&disk.layer_files) {
        file_layer(number, file, found)?;
    }
    Ok(())
}

/// A layer that is a file in the root of an ext4 partition, by a loop device.
fn file_layer(number: usize, file: &wire::config::LayerFile, found: &Found) -> Result<(), Fault> {
    const STEP: &str = "layers";
    let device = found.partition(file.partition);
    let what = || {
        format!(
            "layer {number}, file {:?} on partition {}",
            file.path, file.partition
        )
    };
    let holder = format!("/l/p{}", file.partition);
    if fs::create_dir(&holder).is_ok() {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some(&device),
            holder.as_str(),
            Some("ext4"),
            flags,
            None::<&str>,
        )
        .map_err(Fault::at(STEP, format!("mounting {}", what())))?;
    }
    let path = CString::new(file.path.as_str()).map_err(Fault::at(STEP, what()))?;
    let root = File::open(&holder).map_err(Fault::at(STEP, what()))?;
    let backing = openat2(
        Some(root.as_fd()),
        &path,
        libc::O_RDONLY,
        IN_ROOT | NO_MAGICLINKS,
    )
    .map_err(Fault::at(STEP, what()))?;
    let (number_of_loop, _device) = attach_loop(backing.as_fd()).map_err(Fault::at(
        STEP,
        format!("attaching a loop device to {}", what()),
    ))?;
    let target = format!("/l/{number}");
    fs::create_dir(&target).map_err(Fault::at(STEP, what()))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(
        Some(format!("/dev/loop{number_of_loop}").as_str()),
        target.as_str(),
        Some("ext4"),
        flags,
        None::<&str>,
    )
    .map_err(Fault::at(STEP, format!("mounting {}", what())))
}

/// Mounts the ephemeral partition at `/e` and makes the overlay's folders on it.
///
/// # Errors
/// The fault of the step `ephemeral`.
pub fn ephemeral(disk: &Disk, found: &Found) -> Result<(), Fault> {
    const STEP: &str = "ephemeral";
    let device = found.partition(disk.ephemeral);
    mount(
        Some(&device),
        "/e",
        Some("ext4"),
        MsFlags::MS_NODEV,
        None::<&str>,
    )
    .map_err(Fault::at(
        STEP,
        format!(
            "mounting partition {} ({})",
            disk.ephemeral,
            device.display()
        ),
    ))?;
    make("/e/work").map_err(Fault::at(STEP, "making /e/work"))?;
    let top = disk.layers.len() + disk.layer_files.len();
    upper(top).map_err(Fault::at(STEP, format!("making {UPPER}")))
}

/// The overlay's upper folder.
pub const UPPER: &str = "/e/upper";

/// Makes the upper folder, once. Its look is that of the container's `/`, so it begins as the
/// topmost layer's root; what the container makes of it later stays.
fn upper(top_layer: usize) -> io::Result<()> {
    // Renamed when it is ready: a VM that is killed in between makes it anew.
    const FRESH: &str = "/e/upper.new";
    if fs::exists(UPPER)? {
        return Ok(());
    }
    make(FRESH)?;
    if top_layer > 0 {
        let like = fs::metadata(format!("/l/{top_layer}"))?;
        chown(FRESH, Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions(FRESH, like.permissions())?;
        let times = FileTimes::new().set_accessed(like.accessed()?);
        File::open(FRESH)?.set_times(times.set_modified(like.modified()?))?;
    }
    fs::rename(FRESH, UPPER)
}

/// Makes a folder that may be there already.
fn make(folder: &str) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// The layers' folders below `/l`, the topmost first, as the overlay takes them.
#[must_use]
pub fn lower(disk: &Disk) -> String {
    let count = disk.layers.len() + disk.layer_files.len();
    let names: Vec<_> = (1..=count).rev().map(|n| n.to_string()).collect();
    names.join(":")
}

/// The layer that Docker puts on the image's, too: programs look for /.dockerenv in it. What is in it is no change of the
/// container's.
const INIT: &str = "i";

fn init_layer() -> io::Result<()> {
    fs::create_dir(INIT)?;
    File::create(format!("{INIT}/.dockerenv"))?.set_permissions(fs::Permissions::from_mode(0o755))
}

/// Mounts the overlay at [`OVERLAY`]. The layers have no other place afterwards.
///
/// # Errors
/// The fault of the step `overlay`.
pub fn overlay(disk: &Disk) -> Result<(), Fault> {
    const STEP: &str = "overlay";
    let count = disk.layers.len() + disk.layer_files.len();
    let at = |what: &'static str| Fault::at::<nix::Error>(STEP, what);
    // Short names relative to here: the option string has to fit into a page.
    nix::unistd::chdir("/l").map_err(at("chdir to the layers"))?;
    init_layer().map_err(Fault::at(STEP, "making the layer of /.dockerenv"))?;
    let colon = if count == 0 { "" } else { ":" };
    let lower = lower(disk);
    let options = format!("lowerdir={INIT}{colon}{lower},upperdir={UPPER},workdir=/e/work");
    mount(
        Some("overlay"),
        OVERLAY,
        Some("overlay"),
        MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(Fault::at(STEP, format!("mounting {count} layers as one")))?;
    nix::unistd::chdir("/").map_err(at("chdir to /"))?;
    umount2("/l", MntFlags::MNT_DETACH).map_err(at("detaching the layers"))?;
    Ok(())
}

/// Unmounts overlay, ephemeral partition and volumes, so that all are clean. False: a server of NFS does not answer, and
/// nothing may wait for it any more.
pub async fn unmount(config: &GuestConfig, reaper: &Reaper) -> bool {
    let clean = nfs::unmount(config, reaper).await;
    for target in [OVERLAY, "/e"] {
        if let Err(error) = umount2(target, MntFlags::empty()) {
            crate::console(&format!("unmounting {target}: {error}"));
            let _ = umount2(target, MntFlags::MNT_DETACH);
        }
    }
    super::volumes::unmount(config);
    if clean {
        nix::unistd::sync();
    }
    clean
}
