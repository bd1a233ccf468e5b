//! The guest's configuration: what one boot of a container VM needs to know.
//!
//! The endpoint writes it (JSON, base64, in chunks of at most 48 KiB) to the VM keys
//! `guestinfo.mooring.config.0`, `.1`, … with their count in `guestinfo.mooring.config.chunks`,
//! while the VM is off. The tether reads it through the VMware backdoor (ESXi) or fw_cfg (QEMU).
//! It is a derived copy: the endpoint never reads it back as truth (design.md, "The record").

use serde::{Deserialize, Serialize};

/// The version of [`GuestConfig`] that this build writes. A tether refuses a higher one.
pub const CONFIG_VERSION: u32 = 1;
/// Bytes of one guestinfo chunk (vSphere's limit is 64 KiB for a value and for an RPC message).
pub const CONFIG_CHUNK: usize = 48 * 1024;
/// Upper bound of the whole configuration, encoded.
pub const CONFIG_MAX: usize = 512 * 1024;

/// Everything that one boot of a container VM needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// [`CONFIG_VERSION`] of the writer.
    pub version: u32,
    /// Container ID, 64 lower-case hex digits.
    pub id: String,
    /// Number of this boot of the VM, from 1; part of the link's identity.
    pub boot: u64,
    /// Host name, without domain.
    pub hostname: String,
    /// Domain name; empty for none.
    #[serde(default)]
    pub domainname: String,
    /// The disk with the image, the ephemeral partition and the journal.
    pub disk: Disk,
    /// How to reach the endpoint.
    pub link: LinkConfig,
    /// The container's own process.
    pub process: Process,
    /// Run a small init in the container's pid namespace that reaps orphans (`docker run --init`).
    #[serde(default)]
    pub init: bool,
    /// The container's interfaces, in the order of their PCI slots; empty for `--network none`.
    #[serde(default)]
    pub networks: Vec<Interface>,
    /// Name servers for /etc/resolv.conf.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Search domains for /etc/resolv.conf.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Resolver options for /etc/resolv.conf.
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// Additional lines of /etc/hosts: address, names.
    #[serde(default)]
    pub hosts: Vec<(String, Vec<String>)>,
    /// Size of /dev/shm in bytes.
    pub shm_size: u64,
    /// The signal that asks the process to end (`docker stop`, guest shutdown).
    pub stop_signal: i32,
    /// Seconds between the stop signal and SIGKILL on a guest shutdown.
    pub stop_timeout: u32,
    /// Wall clock at the time of the boot, in nanoseconds since 1970 (UTC); 0 where the RTC is good enough.
    #[serde(default)]
    pub clock: u64,
    /// 32 random bytes, hex, credited to the guest's random pool.
    #[serde(default)]
    pub seed: String,
}

/// Where the layers are. All of it is on one GPT disk (design.md, "One container's life", 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// GPT disk GUID, to find the disk whatever its name is.
    pub guid: String,
    /// Partition numbers (from 1) of the layers, lowest first. Empty: an image without layers.
    pub layers: Vec<u32>,
    /// Partition number of the ephemeral read-write ext4.
    pub ephemeral: u32,
    /// Partition number of the journal.
    pub journal: u32,
    /// Mount the root read-only (`--read-only`).
    #[serde(default)]
    pub read_only: bool,
}

/// How the tether reaches the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Which transport, and where.
    pub transport: Transport,
    /// The per-boot secret, 32 bytes in hex. Used for the first session only; never sent.
    pub secret: String,
}

/// A transport of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// AF_VSOCK: connect to CID 2 (the host) at this port.
    Vsock {
        /// Port on which the endpoint listens.
        port: u32,
    },
    /// A serial port, as a device in /dev (`ttyS1`), at 115,200 baud 8N1 raw with RTS/CTS where it works.
    Serial {
        /// Device name without /dev/.
        device: String,
    },
}

/// One process: the container's own or an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; entrypoint and command already joined. Never empty.
    pub args: Vec<String>,
    /// Environment as `NAME=value`. The tether adds PATH, HOSTNAME, HOME and (tty) TERM where missing.
    pub env: Vec<String>,
    /// Working directory; created where it does not exist. Empty: `/`.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, `uid:gid` …, looked up in the image's files. Empty: root.
    pub user: String,
    /// Additional groups by name or number.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Allocate a PTY. Then stdout and stderr are one stream (stdout).
    pub tty: bool,
    /// Keep stdin open. Otherwise the process reads from /dev/null.
    pub stdin: bool,
    /// Close stdin when the first attached client that wrote to it goes (`StdinOnce`).
    #[serde(default)]
    pub stdin_once: bool,
    /// Initial terminal size: rows, columns.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// Capability changes against Docker's default set, as `CAP_…` names.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// See `cap_add`; `ALL` drops all.
    #[serde(default)]
    pub cap_drop: Vec<String>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// MAC address `aa:bb:cc:dd:ee:ff`; finds the vNIC.
    pub mac: String,
    /// Name in the guest, `eth0`.
    pub name: String,
    /// Addresses with prefix length, `172.17.0.2/16`, IPv6 too. Empty: DHCP.
    pub addresses: Vec<String>,
    /// Default gateways (one per address family).
    #[serde(default)]
    pub gateways: Vec<String>,
    /// MTU in bytes; 0 keeps the driver's.
    #[serde(default)]
    pub mtu: u32,
}
