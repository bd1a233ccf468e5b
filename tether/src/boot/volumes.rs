//! Volumes: disks with an ext4 each, found by its UUID, mounted at `/v/N`, and filled from the image while they are empty.
//!
//! What the container sees is the folder `data` of that file system, not its root: there is no `lost+found` in it, and
//! it comes into being, or is replaced while it is empty, by one rename. What was cut short counts for nothing.

use super::Fault;
use super::disk::ask_for_volumes;
use crate::container::mounts::{OVERLAY, VolumeMount};
use crate::net::uevent::Uevents;
use crate::sys::fs::{IN_ROOT, NO_MAGICLINKS, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wire::config::GuestConfig;

const STEP: &str = "volumes";
/// Where the file systems are mounted.
const VOLUMES: &str = "/v";

mod copy;
pub mod nfs;
pub mod shares;
use copy::Copy;

/// The mounts of a container's first process.
#[must_use]
pub fn planned(config: &GuestConfig) -> Vec<VolumeMount> {
    let mut all: Vec<VolumeMount> = config
        .mounts
        .iter()
        .map(|mount| {
            let remote = nfs::is_on(config, &mount.volume);
            VolumeMount {
                // It may wait for its server: nothing of it is looked at here.
                root: match remote {
                    true => top(&mount.volume),
                    false => root(&mount.volume),
                },
                subpath: mount.subpath.clone(),
                target: mount.target.clone(),
                read_only: mount.read_only || remote && config.maintenance.is_some(),
            }
        })
        .collect();
    for share in shares::planned(config) {
        // An outer one before what is in it.
        let place = all.iter().take_while(|m| m.target < share.target).count();
        all.insert(place, share);
    }
    all
}

fn top(volume: &str) -> String {
    format!("{VOLUMES}/{volume}")
}

fn data(volume: &str) -> String {
    format!("{VOLUMES}/{volume}/data")
}

/// What stands for a volume that is only read and was never written to.
fn nothing(volume: &str) -> String {
    format!("{VOLUMES}/{volume}.none")
}

fn root(volume: &str) -> String {
    let data = data(volume);
    if Path::new(&data).exists() {
        data
    } else {
        nothing(volume)
    }
}

/// Finds and mounts all volumes, and fills those that are to be.
///
/// # Errors
/// The fault of the step `volumes`; a disk is waited for for 30 s.
pub async fn mount_all(config: &GuestConfig, events: &mut Uevents) -> Result<(), Fault> {
    let mut volumes: Vec<(&str, bool)> = Vec::new();
    for mount in config
        .mounts
        .iter()
        .filter(|m| !nfs::is_on(config, &m.volume))
    {
        match volumes
            .iter_mut()
            .find(|(volume, _)| *volume == mount.volume)
        {
            Some((_, writes)) => *writes |= !mount.read_only,
            None => volumes.push((&mount.volume, !mount.read_only)),
        }
    }
    if volumes.is_empty() {
        return Ok(());
    }
    let devices = find(&volumes, events).await?;
    for (device, (volume, writes)) in devices.iter().zip(&volumes) {
        mount_one(device, volume, *writes).map_err(Fault::at(
            STEP,
            format!("mounting volume {volume} ({device})"),
        ))?;
        tokio::task::yield_now().await;
    }
    let writes = |volume: &str| volumes.iter().any(|(v, writes)| *writes && *v == volume);
    for place in config.mounts.iter().filter(|place| writes(&place.volume)) {
        if place.copy {
            fill(&place.volume, &place.target).await.map_err(Fault::at(
                STEP,
                format!("filling the volume at {} from the image", place.target),
            ))?;
        }
    }
    for (volume, _) in volumes.iter().filter(|(_, writes)| *writes) {
        match fs::create_dir(data(volume)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Fault::at(
                    STEP,
                    format!("making the root of volume {volume}"),
                )(e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn mount_one(device: &str, volume: &str, writes: bool) -> io::Result<()> {
    let target = top(volume);
    fs::create_dir(&target)?;
    fs::create_dir(nothing(volume))?;
    let (flags, options) = match writes {
        true => (MsFlags::empty(), None),
        // Not even the journal: others may have the disk, too.
        false => (MsFlags::MS_RDONLY, Some("noload")),
    };
    let device = format!("/dev/{device}");
    Ok(mount(
        Some(device.as_str()),
        target.as_str(),
        Some("ext4"),
        flags | MsFlags::MS_NODEV,
        options,
    )?)
}

/// Waits until all disks are there; their names.
async fn find(volumes: &[(&str, bool)], events: &mut Uevents) -> Result<Vec<String>, Fault> {
    ask_for_volumes(volumes.len());
    let mut known: Vec<(String, Option<[u8; 16]>)> = Vec::new();
    let names = events.wait_for(|| {
        for entry in fs::read_dir("/sys/block")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let virtual_one = name.starts_with("loop") || name.starts_with("ram");
            if virtual_one || known.iter().any(|(known, _)| *known == name) {
                continue;
            }
            // The device node can be late by a moment: it is asked again.
            if let Ok(uuid) = file_system(&name) {
                known.push((name, uuid));
            }
        }
        let mut names = Vec::new();
        for (volume, _) in volumes {
            let wanted = parse_uuid(volume);
            let mut disks = known.iter();
            match disks.find(|(_, uuid)| uuid.is_some() && *uuid == wanted) {
                Some((name, _)) => names.push(name.clone()),
                None => return Ok(None),
            }
        }
        Ok(Some(names))
    });
    let what = || format!("waiting for the disks of {} volumes", volumes.len());
    names.await.map_err(|e| Fault::at(STEP, what())(e))
}

/// The UUID in the superblock of a disk (Linux Documentation/filesystems/ext4, "The Super Block").
fn file_system(name: &str) -> io::Result<Option<[u8; 16]>> {
    let mut superblock = [0u8; 0x78];
    let disk = File::open(Path::new("/dev").join(name))?;
    match disk.read_exact_at(&mut superblock, 1024) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let is_ext4 = superblock[0x38..0x3a] == [0x53, 0xef];
    Ok(superblock[0x68..]
        .first_chunk()
        .copied()
        .filter(|_| is_ext4))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let fine = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| fine)?;
    Some(number.to_be_bytes())
}

/// Gives an empty volume what the image has at `target`.
async fn fill(volume: &str, target: &str) -> io::Result<()> {
    let (data, top) = (data(volume), top(volume));
    let fresh = format!("{top}/new");
    match fs::read_dir(&data).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let Some(source) = in_image(target)? else {
        return Ok(());
    };
    copy::delete(Path::new(&fresh))?;
    let mut copy = Copy::begin(source, PathBuf::from(&fresh))?;
    loop {
        match copy.step() {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => break,
            Err(e) => return Err(io::Error::other(format!("{}: {e}", copy.from.display()))),
        }
    }
    let top = File::open(&top)?;
    nix::unistd::syncfs(&top)?;
    fs::rename(&fresh, &data)?;
    top.sync_all()
}

/// The folder that a path means inside the container's root, as a path of the tether's; none where there is none.
fn in_image(target: &str) -> io::Result<Option<PathBuf>> {
    let root = File::open(OVERLAY)?;
    let path = CString::new(target)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match openat2(Some(root.as_fd()), &path, flags, IN_ROOT | NO_MAGICLINKS) {
        // Nothing runs in the container yet, so the path stays what it is.
        Ok(place) => fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).map(Some),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Unmounts all that are mounted, but for those on NFS servers: [`nfs::unmount`] did that as far as it can be done.
pub fn unmount(config: &GuestConfig) {
    for entry in fs::read_dir(VOLUMES).into_iter().flatten().flatten() {
        let target = entry.path();
        if nfs::is_on(config, &entry.file_name().to_string_lossy()) {
            continue;
        }
        match umount2(&target, MntFlags::empty()) {
            // Not mounted.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(error) => {
                crate::console(&format!("unmounting {}: {error}", target.display()));
                let _ = umount2(&target, MntFlags::MNT_DETACH);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_32_digits() {
        let text = "000102030405060708090a0b0c0d0eff";
        let mut want: [u8; 16] = std::array::from_fn(|n| n as u8);
        want[15] = 0xff;
        assert_eq!(parse_uuid(text), Some(want));
        for wrong in ["", "00", &format!("+{}", &text[1..]), &format!("{text}0")] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }
}
