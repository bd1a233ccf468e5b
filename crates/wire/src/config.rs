//! The guest's configuration: what one boot of a container VM needs to know.
//!
//! The endpoint writes it (JSON, base64, in chunks of at most 48 KiB) to the VM keys
//! `guestinfo.mooring.config.0`, `.1`, … with their count in `guestinfo.mooring.config.chunks`,
//! while the VM is off. The tether reads it through the VMware backdoor (ESXi) or fw_cfg (QEMU).
//! It is a derived copy: the endpoint never reads it back as truth (docs/decisions/0001-boundaries.md).

use crate::health::HealthCheck;
use crate::limits::{Limits, Tmpfs};
use crate::restart::RestartPolicy;
use crate::volume::{Mount, Nfs, Share};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use thiserror::Error;

/// The version of [`GuestConfig`] that this build writes. A tether refuses a higher one.
///
/// - 1: the first one.
/// - 2: the seccomp program is in it; a tether has none of its own any more.
pub const CONFIG_VERSION: u32 = 2;
/// Bytes of one guestinfo chunk (vSphere's limit is 64 KiB for a value and for an RPC message).
pub const CONFIG_CHUNK: usize = 48 * 1024;
/// Upper bound of the whole configuration, encoded.
pub const CONFIG_MAX: usize = 512 * 1024;

/// What the kernel of every container VM is told, on the ISO and where it is booted directly: quiet on the first serial
/// port, a restart instead of a hang, and nothing done at boot that nobody needs (docs/decisions/0012-quick-boot.md):
/// - `loglevel=1`: nothing but why it panics; with 0 not even that (Linux include/linux/printk.h, `console_verbose`);
/// - `no_timer_check`: the IO-APIC's timer works; under VMware the kernel assumes that by itself;
/// - `cryptomgr.notests`: no self-test of ciphers;
/// - `scsi_mod.scan=manual`: the tether asks for the disk, the kernel would ask for 15 that are not there;
/// - `initcall_blacklist=…`: no search for drives behind AHCI: only the loader reads the boot ISO;
/// - `8250.nr_uarts=2`: the log and the link.
pub const KERNEL_CMDLINE: &str = "console=ttyS0,115200 panic=-1 quiet loglevel=1 no_timer_check cryptomgr.notests scsi_mod.scan=manual initcall_blacklist=ahci_pci_driver_init 8250.nr_uarts=2";

/// The key that holds the number of chunks, in decimal.
pub const CONFIG_CHUNKS_KEY: &str = "guestinfo.mooring.config.chunks";

/// The key of chunk `n`, from 0.
pub fn chunk_key(n: usize) -> String {
    format!("guestinfo.mooring.config.{n}")
}

/// Why a configuration could not be written to or read from its chunks.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Too large for guestinfo.
    #[error(
        "the guest configuration takes {0} bytes encoded, more than the limit of {CONFIG_MAX}; use fewer or shorter arguments and environment variables"
    )]
    TooLarge(usize),
    /// The number of chunks is none.
    #[error("{CONFIG_CHUNKS_KEY} is {0:?}, not a number from 1 to {max}", max = CONFIG_MAX.div_ceil(CONFIG_CHUNK))]
    BadCount(String),
    /// A key is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// Not base64.
    #[error("the guest configuration is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Not the JSON of a configuration.
    #[error(
        "the guest configuration is not one that this boot image knows: {0}; use the boot image of the endpoint's release"
    )]
    Json(#[from] serde_json::Error),
    /// No text of a seccomp program.
    #[error("the seccomp program is no list of instructions")]
    Seccomp,
    /// Written by a newer endpoint.
    #[error(
        "the guest configuration has version {0}, this tether knows up to {CONFIG_VERSION}; use the boot image of the endpoint's release"
    )]
    Version(u32),
}

/// The guestinfo keys and values that carry a configuration, the count first.
pub fn to_chunks(config: &GuestConfig) -> Result<Vec<(String, String)>, ConfigError> {
    let text = STANDARD.encode(serde_json::to_vec(config)?);
    if text.len() > CONFIG_MAX {
        return Err(ConfigError::TooLarge(text.len()));
    }
    let count = text.len().div_ceil(CONFIG_CHUNK);
    let mut keys = vec![(CONFIG_CHUNKS_KEY.to_owned(), count.to_string())];
    for n in 0..count {
        let end = text.len().min((n + 1) * CONFIG_CHUNK);
        keys.push((chunk_key(n), text[n * CONFIG_CHUNK..end].to_owned()));
    }
    Ok(keys)
}

/// Reads a configuration through `get`, which gives the value of a guestinfo key.
pub fn from_chunks<E>(
    mut get: impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<GuestConfig, E>
where
    E: From<ConfigError>,
{
    let count_text = get(CONFIG_CHUNKS_KEY)?
        .ok_or_else(|| ConfigError::Missing(CONFIG_CHUNKS_KEY.to_owned()))?;
    let count: usize = match count_text.trim().parse() {
        Ok(count) if (1..=CONFIG_MAX.div_ceil(CONFIG_CHUNK)).contains(&count) => count,
        _ => return Err(ConfigError::BadCount(count_text.chars().take(32).collect()).into()),
    };
    let mut text = String::new();
    for n in 0..count {
        let key = chunk_key(n);
        text.push_str(get(&key)?.ok_or(ConfigError::Missing(key))?.trim());
        if text.len() > CONFIG_MAX {
            return Err(ConfigError::TooLarge(text.len()).into());
        }
    }
    let json = STANDARD.decode(text).map_err(ConfigError::from)?;
    // The version first, so that a newer form is named as such and not as broken.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned = serde_json::from_slice(&json).map_err(ConfigError::from)?;
    if versioned.version > CONFIG_VERSION {
        return Err(ConfigError::Version(versioned.version).into());
    }
    Ok(serde_json::from_slice(&json).map_err(ConfigError::from)?)
}

/// The bytes of a seccomp program (`struct sock_filter`, 8 each, little endian) out of a configuration's text.
///
/// # Errors
/// If they are none, or none are there.
pub fn seccomp_program(text: &str) -> Result<Vec<u8>, ConfigError> {
    let bytes = STANDARD.decode(text)?;
    match bytes.len() {
        length if length > 0 && length % 8 == 0 => Ok(bytes),
        _ => Err(ConfigError::Seccomp),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Everything that one boot of a container VM needs to know. A tether refuses what it does not know, rather than start a
/// container without its volumes: a field that is added is left out where it has its default, so that a boot image from
/// before it starts the containers that do without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// It serves SCTP (RFC 9260): the kernel's part of it is loaded where it is a module.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sctp: bool,
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
    /// When the process is started again after its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// How its health is checked; `None`: not at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Option<HealthCheck>,
    /// The seccomp filter of its processes: base64 of instructions of classic BPF, see [`seccomp_program`].
    pub seccomp: String,
    /// Bytes of the journal that are used, from its beginning; 0: all. The same at each boot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_size: u64,
    /// The output is not recorded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_log: bool,
    /// What bounds its processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// File systems in memory, an outer one before what is in it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tmpfs: Vec<Tmpfs>,
    /// Its volumes, sorted by path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Those of its volumes that are on NFS servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nfs: Vec<Nfs>,
    /// What it has of the machine's files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shares: Vec<Share>,
    /// What the guest's packet filter lets through at each interface, as [`Guard::line`]s; empty: there is no filter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guards: Vec<String>,
    /// This boot is for the container's files only: no process, no network, no journal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub maintenance: Option<Maintenance>,
}

/// A boot that is not a start: the container's files are read or written while its process does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Random; the tether tells it, so that the endpoint knows its own request.
    pub nonce: String,
    /// The request does not count after this: ns since 1970.
    pub until: u64,
}

/// Seconds without a link after which a VM that is up for its container's files ends by itself.
pub const MAINTENANCE_IDLE: u64 = 30;

/// The restart policy of a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// The policy.
    pub policy: RestartPolicy,
    /// Restarts before this boot, since the last start by a client.
    pub count: u32,
}

/// Where the layers are. All of it is on one GPT disk (docs/decisions/0001-boundaries.md, "Disks").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// GPT disk GUID, to find the disk whatever its name is.
    pub guid: String,
    /// Partition numbers (from 1) of the layers, lowest first. Empty: an image without layers.
    pub layers: Vec<u32>,
    /// Partition number of the ephemeral read-write ext4.
    pub ephemeral: u32,
    /// Partition number of the journal.
    pub journal: u32,
    /// Layers that are ext4 images in files, above those of `layers`, lowest first.
    #[serde(default)]
    pub layer_files: Vec<LayerFile>,
    /// Mount the root read-only (`--read-only`).
    #[serde(default)]
    pub read_only: bool,
}

/// A layer that is a file: an ext4 image in an ext4 partition, mounted through a loop device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFile {
    /// Number of the partition (of the same disk) that holds the file.
    pub partition: u32,
    /// Path in that partition.
    pub path: String,
}

/// How the tether reaches the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
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
    /// Close stdin when the first client that attached to it goes (`StdinOnce`). A terminal stays open.
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

/// A gateway that is not known yet: the router of the interface's DHCP lease.
pub const FROM_LEASE: &str = "0.0.0.0";

/// What passes at one interface. It crosses as a line of words, since every type that is read takes room in the tether:
/// `eth1 6 10.0.0.1-10.0.0.9 6:80` is the interface, the set `passes`, and any number of `peers` and `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Name of the interface in the guest.
    pub interface: String,
    /// Set of [`Guard::ALL`], [`Guard::OUT`] and [`Guard::PING`].
    pub passes: u32,
    /// Addresses that everything may come from: the first and the last one.
    pub peers: Vec<(IpAddr, IpAddr)>,
    /// IP protocol and port to which everything may come.
    pub ports: Vec<(u8, u16)>,
}

impl Guard {
    /// Everything passes.
    pub const ALL: u32 = 1;
    /// Connections out, and what belongs to them; what IPv6 needs to find its neighbours.
    pub const OUT: u32 = 2;
    /// Pings come in.
    pub const PING: u32 = 4;

    /// The line.
    pub fn line(&self) -> String {
        let mut line = format!("{} {}", self.interface, self.passes);
        for (first, last) in &self.peers {
            line += &format!(" {first}-{last}");
        }
        for (protocol, port) in &self.ports {
            line += &format!(" {protocol}:{port}");
        }
        line
    }

    /// Reads a line; `None` where it is none.
    pub fn read(line: &str) -> Option<Guard> {
        let mut words = line.split(' ');
        let mut guard = Guard {
            interface: words.next()?.to_owned(),
            passes: words.next()?.parse().ok()?,
            peers: Vec::new(),
            ports: Vec::new(),
        };
        for word in words {
            if let Some((first, last)) = word.split_once('-') {
                let range: (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
                (range.0.is_ipv4() == range.1.is_ipv4()).then_some(())?;
                guard.peers.push(range);
            } else {
                let (protocol, port) = word.split_once(':')?;
                let port = (protocol.parse().ok()?, port.parse().ok()?);
                guard.ports.push(port);
            }
        }
        Some(guard)
    }
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// MAC address `aa:bb:cc:dd:ee:ff`; finds the vNIC.
    pub mac: String,
    /// Name in the guest, `eth0`.
    pub name: String,
    /// Addresses with prefix length, `172.17.0.2/16`, IPv6 too. Empty: DHCP, and what IPv6 routers announce.
    pub addresses: Vec<String>,
    /// Default gateways (one per address family); [`FROM_LEASE`] stands for the one that DHCP names.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// MTU in bytes; 0 keeps the driver's.
    #[serde(default)]
    pub mtu: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_a_line_and_a_line_that_is_none_is_refused() {
        let guard = Guard {
            interface: "eth1".into(),
            passes: Guard::OUT | Guard::PING,
            peers: vec![
                ([10, 0, 0, 1].into(), [10, 0, 0, 9].into()),
                (
                    [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
                    [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
                ),
            ],
            ports: vec![(6, 80), (17, 53)],
        };
        assert_eq!(
            guard.line(),
            "eth1 6 10.0.0.1-10.0.0.9 fd00::1-fd00::9 6:80 17:53"
        );
        assert_eq!(Guard::read(&guard.line()), Some(guard));
        for wrong in [
            "",
            "eth1",
            "eth1 x",
            "eth1 1 10.0.0.1-fd00::1",
            "eth1 1 6:99999",
            "eth1 1 x",
        ] {
            assert_eq!(Guard::read(wrong), None, "{wrong}");
        }
    }
}
