//! The options of `vch up`, as they are remembered.

use crate::Error;
use crate::external::ContainerNetworks;
use crate::registries::Registries;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which transport joins the VMs to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// vsock where the hypervisor announces it, else serial.
    #[default]
    Auto,
    /// vsock; an error where it is not announced.
    Vsock,
    /// A serial port through the endpoint's concentrator, as on ESXi.
    Serial,
}

impl Link {
    /// As the programs' options spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Link::Auto => "auto",
            Link::Vsock => "vsock",
            Link::Serial => "serial",
        }
    }
}

/// How a container VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// The kernel directly where the hypervisor announces it, else the ISO.
    #[default]
    Auto,
    /// From the ISO in the VM's CD-ROM, as on ESXi.
    Iso,
}

/// Which network the containers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Bridges where this machine and account allow it, else user-mode.
    #[default]
    Auto,
    /// Bridges in a network namespace of their own; without root, in a user namespace.
    Bridge,
    /// A network of QEMU's for each container: containers do not reach each other.
    User,
}

/// Networks beside the default one.
pub const NETWORKS: u16 = 16;

fn networks() -> u16 {
    NETWORKS
}

/// What hostsim withholds of that which ESXi does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strict {
    /// Everything: the link, the boot and the upload of images. No image can be placed yet then.
    All,
    /// vsock and the direct boot. Images are uploaded.
    Link,
}

impl Strict {
    /// As hostsim's option spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Strict::All => "all",
            Strict::Link => "link",
        }
    }
}

/// Reads it; what an earlier version wrote was a boolean.
fn strict<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Strict>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Was(bool),
        Is(Option<Strict>),
    }
    Ok(match Form::deserialize(from)? {
        Form::Was(strict) => strict.then_some(Strict::Link),
        Form::Is(strict) => strict,
    })
}

/// Files (PEM) for the Docker API on TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The endpoint's certificate, with its chain.
    pub cert: PathBuf,
    /// The key of that.
    pub key: PathBuf,
    /// The authority of the clients' certificates.
    pub ca: PathBuf,
}

/// What `vch up` was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Where the Docker API listens: `unix://PATH` or `tcp://HOST:PORT`.
    pub docker: Vec<String>,
    /// The link's transport.
    pub link: Link,
    /// How VMs boot.
    pub boot_from: Boot,
    /// Memory of a container VM without `--memory` of its own, in MiB.
    pub memory_mib: u64,
    /// Folder with the boot files.
    pub boot: PathBuf,
    /// Folder with the programs hostsim, endpoint and registry.
    pub programs: PathBuf,
    /// What hostsim announces of that which ESXi does not have.
    #[serde(default, deserialize_with = "strict")]
    pub strict: Option<Strict>,
    /// What `tcp://` needs.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Which network the containers have.
    #[serde(default)]
    pub network: Network,
    /// Networks that can be created beside the default one.
    #[serde(default = "networks")]
    pub networks: u16,
    /// Networks with a router of their own.
    #[serde(default)]
    pub container_networks: ContainerNetworks,
    /// Folders of this machine of which containers may have parts, `PATH[:ro]`.
    #[serde(default)]
    pub shares: Vec<String>,
    /// The port of a registry of its own on loopback; 0: a free one.
    #[serde(default)]
    pub registry: Option<u16>,
    /// Folders on NFS servers for volumes, as the endpoint reads them.
    #[serde(default)]
    pub volume_stores: Vec<String>,
    /// Registries.
    #[serde(default)]
    pub registries: Registries,
    /// Further arguments for hostsim.
    #[serde(default)]
    pub hostsim_args: Vec<String>,
    /// Further arguments for the endpoint.
    #[serde(default)]
    pub endpoint_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            docker: Vec::new(),
            link: Link::default(),
            boot_from: Boot::default(),
            memory_mib: 0,
            boot: PathBuf::new(),
            programs: PathBuf::new(),
            strict: None,
            tls: None,
            network: Network::default(),
            networks: NETWORKS,
            container_networks: ContainerNetworks::default(),
            shares: Vec::new(),
            registry: None,
            volume_stores: Vec::new(),
            registries: Registries::default(),
            hostsim_args: Vec::new(),
            endpoint_args: Vec::new(),
        }
    }
}

/// Parses a memory size as Docker writes it: a number with an optional b, k, m or g (powers of 1,024). Returns MiB.
///
/// # Errors
/// [`Error::Option`] for anything else, and below 64 MiB (the kernel and the tether need that much).
pub fn memory_mib(text: &str) -> Result<u64, Error> {
    let bad = || {
        Error::Option(format!(
            "--memory {text}: not a size; write a number with m or g, such as 256m"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let mib = number.checked_mul(1 << shift).ok_or_else(bad)? >> 20;
    if mib < 64 {
        return Err(Error::Option(format!(
            "--memory {text}: a container VM needs 64m at least"
        )));
    }
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_remembered_of_strict_is_read() {
        let of = |text: &str| {
            let mut options = serde_json::to_value(Options::default()).unwrap();
            options["strict"] = serde_json::from_str(text).unwrap();
            serde_json::from_value::<Options>(options).unwrap().strict
        };
        assert_eq!(
            [of("true"), of("false"), of("null"), of("\"all\"")],
            [Some(Strict::Link), None, None, Some(Strict::All)]
        );
    }

    #[test]
    fn memory_sizes_are_docker_s() {
        assert_eq!(memory_mib("256m").unwrap(), 256);
        assert_eq!(memory_mib("1g").unwrap(), 1024);
        assert_eq!(memory_mib("512MB").unwrap(), 512);
        assert_eq!(memory_mib("134217728").unwrap(), 128);
        for bad in [
            "",
            "m",
            "-1g",
            "12x",
            "10m",
            "99999999999999999999g",
            "18446744073709551615g",
        ] {
            assert!(memory_mib(bad).is_err(), "{bad}");
        }
    }
}
