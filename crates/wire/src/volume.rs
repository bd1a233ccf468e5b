//! Volumes in a guest's configuration: disks of their own, and where they are mounted.

use serde::{Deserialize, Serialize};

/// Volumes of one container, at most: three further SCSI controllers' worth, beside the container's own disk.
pub const VOLUMES_MAX: usize = 14 + 3 * 15;
/// Mounts of one container, at most.
pub const MOUNTS_MAX: usize = 256;

/// A volume, or a part of one, in the container's file tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// UUID of the volume's file system, an ext4 that fills a disk, 32 hex digits: finds the disk, whatever its name is. Or
    /// one of the configuration's [`Nfs::volume`].
    /// To a volume all of whose mounts are read-only nothing is written, not even its journal: other VMs may read it at
    /// the same time.
    pub volume: String,
    /// Where in the container: absolute, without `.` and `..`.
    pub target: String,
    /// Which part of the volume, relative to its root; empty: all of it.
    #[serde(default)]
    pub subpath: String,
    /// The container cannot write through this mount.
    #[serde(default)]
    pub read_only: bool,
    /// An empty volume gets what the image has at `target`.
    #[serde(default)]
    pub copy: bool,
}

/// A volume on an NFS server, which the guest mounts over its own network, whole. Its mounts are among the others and name
/// it by `volume`. A maintenance has no network: there an empty folder that cannot be written to stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nfs {
    /// What [`Mount::volume`] says: no disk has it as its UUID.
    pub volume: String,
    /// What mount(2) mounts, `address:/path`.
    pub source: String,
    /// Options of nfs(5), as the kernel takes them. Each is tried where the server does not have the version of the one
    /// before.
    pub data: Vec<String>,
    /// Flags of mount(2), Linux's numbers. `MS_NODEV` is always set.
    pub flags: u64,
}

/// Shares of one VM, at most.
pub const SHARES_MAX: usize = 8;

/// A folder of the machine that a container's VM runs on, or something in it, in the container's file tree. Where
/// hypervisor and containers are on one machine, hostsim's VMs have virtio-9p devices for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which share: its device's mount tag is [`share_tag`].
    pub number: u8,
    /// Which part of the folder, relative to it; empty: all of it.
    #[serde(default)]
    pub subpath: String,
    /// Where in the container: absolute, without `.` and `..`.
    pub target: String,
    /// The container cannot write through this mount.
    #[serde(default)]
    pub read_only: bool,
}

/// The mount tag of a share's virtio-9p device.
#[must_use]
pub fn share_tag(number: u8) -> String {
    format!("share{number}")
}
