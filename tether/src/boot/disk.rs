//! The container's disk: found by its GPT GUID, whatever its name is.

use super::Fault;
use crate::net::uevent::Uevents;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wire::config::Disk;

const STEP: &str = "disk";
/// How the kernel looks for what a SCSI host has (`scsi_mod.scan=`).
const SCAN_MODE: &str = "/sys/module/scsi_mod/parameters/scan";
const SCSI_HOSTS: &str = "/sys/class/scsi_host";

/// A disk whose partitions are all there.
#[derive(Debug, Clone)]
pub struct Found {
    /// Kernel's name, `sda`.
    name: String,
}

impl Found {
    /// The device of a partition.
    #[must_use]
    pub fn partition(&self, number: u32) -> PathBuf {
        Path::new("/dev").join(partition_name(&self.name, number))
    }
}

/// `sda1`, but `nvme0n1p1`.
fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{separator}{number}")
}

/// Waits until the disk and all its partitions that the configuration names are there. The hosts were asked for it.
///
/// # Errors
/// The fault of the step `disk`, after 30 s.
pub async fn find(disk: &Disk, mut scan: Scan, events: &mut Uevents) -> Result<Found, Fault> {
    let wanted = parse_guid(&disk.guid).ok_or_else(|| Fault {
        step: STEP,
        message: format!("{:?} is no GUID of a disk", disk.guid),
    })?;
    let mut others: HashSet<String> = HashSet::new();
    let mut seen: Option<String> = None;
    let result = events
        .wait_for(|| {
            if seen.is_none() {
                seen = search(&wanted, &mut others)?;
            }
            if seen.is_none() && !others.is_empty() {
                // The first disk is another one.
                scan.all();
            }
            let Some(name) = &seen else { return Ok(None) };
            let files = disk.layer_files.iter().map(|file| &file.partition);
            let mut partitions = disk
                .layers
                .iter()
                .chain(files)
                .chain([&disk.ephemeral, &disk.journal]);
            let there =
                partitions.all(|n| Path::new("/dev").join(partition_name(name, *n)).exists());
            Ok(there.then(|| Found { name: name.clone() }))
        })
        .await;
    result.map_err(|e| {
        let what = match &seen {
            Some(name) => format!(
                "waiting for the partitions of disk {name} (layers {:?}, ephemeral {}, journal {})",
                disk.layers, disk.ephemeral, disk.journal
            ),
            None => format!(
                "waiting for the disk with GUID {} (there are: {others:?})",
                disk.guid
            ),
        };
        Fault::at(STEP, what)(e)
    })
}

/// Asks the SCSI hosts what they have, where the kernel was told not to: it would ask each target that an adapter can
/// have in turn, while the container's disk is target 0 of the first one.
#[derive(Debug)]
pub struct Scan {
    /// All targets are still to be asked.
    pending: bool,
}

impl Scan {
    /// Asks for target 0 of each host; for all of them where there is none. The kernel looks at what there is beside all
    /// else.
    pub fn begin() -> Scan {
        let mode = fs::read_to_string(SCAN_MODE).unwrap_or_default();
        let mut scan = Scan {
            pending: mode.trim_end() == "manual",
        };
        if scan.pending {
            ask("0 0 0");
            if !has_device() {
                scan.all();
            }
        }
        scan
    }

    fn all(&mut self) {
        if std::mem::take(&mut self.pending) {
            ask("- - -");
        }
    }
}

/// Has each SCSI host ask a channel, a target and a unit of it; `-` stands for all.
fn ask(which: &str) {
    for host in fs::read_dir(SCSI_HOSTS).into_iter().flatten().flatten() {
        let file = host.path().join("scan");
        if let Err(error) = fs::write(&file, which) {
            // The step fails by itself if the disk was there.
            crate::console(&format!("{}: {error}", file.display()));
        }
    }
}

/// Has the SCSI hosts ask for the disks of so many volumes, where the kernel was told not to.
pub(super) fn ask_for_volumes(count: usize) {
    let mode = fs::read_to_string(SCAN_MODE).unwrap_or_default();
    if mode.trim_end() == "manual" {
        // The units are given in their order, the adapter's own left out; from the 15th disk on there are more adapters.
        let last = if count > 14 { 15 } else { count + 1 };
        for target in (0..=last).filter(|target| *target != 7) {
            ask(&format!("0 {target} 0"));
        }
    }
}

fn has_device() -> bool {
    fs::read_dir("/sys/class/scsi_device").is_ok_and(|mut devices| devices.next().is_some())
}

/// Looks at each whole disk that was not looked at before.
fn search(wanted: &[u8; 16], others: &mut HashSet<String>) -> io::Result<Option<String>> {
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") || name.starts_with("ram") || others.contains(&name) {
            continue;
        }
        // The device node can be late by a moment, a drive can be empty: both are asked again.
        match disk_guid(&name) {
            Ok(Some(guid)) if guid == *wanted => return Ok(Some(name)),
            Ok(_) => drop(others.insert(name)),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The GUID in a disk's GPT header (UEFI 2.10, 5.3.2), which is in block 1.
fn disk_guid(name: &str) -> io::Result<Option<[u8; 16]>> {
    let block = fs::read_to_string(format!("/sys/block/{name}/queue/logical_block_size"))?;
    let block: u64 = block.trim().parse().unwrap_or(512);
    let mut header = [0u8; 92];
    File::open(Path::new("/dev").join(name))?.read_exact_at(&mut header, block)?;
    let guid = header[56..72].first_chunk::<16>().copied();
    Ok(if header.starts_with(b"EFI PART") {
        guid
    } else {
        None
    })
}

/// A GUID's text as its bytes on disk: the first three parts are little-endian (UEFI 2.10, appendix A).
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.iter().map(|p| p.len()).ne([8, 4, 4, 4, 12]) || !text.is_ascii() {
        return None;
    }
    let mut out = [0u8; 16];
    let mut at = 0;
    for (i, part) in parts.iter().enumerate() {
        let mut bytes: Vec<u8> = (0..part.len())
            .step_by(2)
            .map(|n| u8::from_str_radix(&part[n..n + 2], 16).ok())
            .collect::<Option<_>>()?;
        if i < 3 {
            bytes.reverse();
        }
        out[at..at + bytes.len()].copy_from_slice(&bytes);
        at += bytes.len();
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_as_on_disk() {
        assert_eq!(
            parse_guid("00112233-4455-6677-8899-AABBCCDDEEFF"),
            Some([
                0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff
            ])
        );
        assert_eq!(parse_guid("00112233-4455-6677-8899"), None);
        assert_eq!(parse_guid(""), None);
    }

    #[test]
    fn names_of_partitions() {
        assert_eq!(partition_name("sda", 3), "sda3");
        assert_eq!(partition_name("nvme0n1", 12), "nvme0n1p12");
    }
}
