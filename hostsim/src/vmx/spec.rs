//! What one powered-on VM is made of, as hostsim hands it to the shim.
//!
//! A [`VmxSpec`] is complete: the shim looks at nothing else, so that it can go on when hostsim
//! is killed. It is kept in the VM's run folder as `spec.json` (mode 0600: guestinfo carries the
//! link's secret).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// SCSI unit number that the controller itself has on a vSphere VM; no disk can have it.
pub const CONTROLLER_UNIT: u32 = 7;
/// vNICs that a VM can have at most (vSphere's limit).
pub const NICS_MAX: usize = 10;
/// SCSI controllers that a VM can have at most (vSphere's limit).
pub const CONTROLLERS_MAX: u32 = 4;
/// Places for disks on them.
pub const DISKS_MAX: u32 = CONTROLLERS_MAX * 15;
/// Serial ports that a VM can have at most: what one ISA bus gives (vSphere allows more).
pub const SERIALS_MAX: usize = 4;
/// Longest guestinfo key: fw_cfg file names have 56 bytes with their NUL, `opt/` takes four.
pub const GUESTINFO_KEY_MAX: usize = 51;

/// One VM to run. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmxSpec {
    /// The VM's BIOS UUID; the guest's DMI product UUID, and what the serial port tells a concentrator.
    pub uuid: uuid::Uuid,
    /// vCenter's instance UUID; what the serial port tells a concentrator as VM_VC_UUID.
    pub instance_uuid: uuid::Uuid,
    /// The VM's display name (serial port's VM_NAME, QEMU's process name).
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// How the guest's instructions are run. Ask [`super::host::HostFacts::detect`] once, not per VM.
    pub accelerator: Accelerator,
    /// The host's TSC frequency in kHz ([`super::host::HostFacts`]), for a direct boot under TCG.
    /// `None` leaves the guest to calibrate, which is slow, and on a busy host can be wrong by far:
    /// the guest's clock then runs many times too fast until its kernel finds out.
    #[serde(default)]
    pub tsc_khz: Option<u64>,
    /// Firmware for a boot from disk or CD-ROM. A direct boot takes the quickest one that fits.
    #[serde(default)]
    pub firmware: Firmware,
    /// Boot this kernel directly, without a boot medium.
    #[serde(default)]
    pub boot: Option<DirectBoot>,
    /// The disks.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// The vNICs (all vmxnet3), in the order of their PCI slots.
    #[serde(default)]
    pub nics: Vec<NicSpec>,
    /// ISO image in the CD-ROM drive. `None`: the VM has no drive (ATA probing costs time at boot).
    #[serde(default)]
    pub cdrom: Option<PathBuf>,
    /// The firmware tries the CD-ROM before the disks.
    #[serde(default)]
    pub cdrom_first: bool,
    /// The serial ports: `ttyS0`, `ttyS1`, …
    #[serde(default)]
    pub serials: Vec<SerialSpec>,
    /// `guestinfo.*` keys with their values; the guest sees each as fw_cfg file `opt/<key>`.
    /// A key is at most [`GUESTINFO_KEY_MAX`] bytes long.
    #[serde(default)]
    pub guestinfo: BTreeMap<String, String>,
    /// A vsock device.
    #[serde(default)]
    pub vsock: Option<VsockSpec>,
    /// Folders of this machine that the guest mounts by 9p, by their numbers.
    #[serde(default)]
    pub shares: BTreeMap<u8, ShareSpec>,
}

/// A folder of this machine, as a virtio-9p device with the mount tag `share<number>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSpec {
    /// The folder, without a link in its path.
    pub folder: PathBuf,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// Hardware virtualisation through /dev/kvm.
    Kvm,
    /// QEMU's software emulation; works everywhere.
    Tcg,
}

/// The VM's firmware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// A PC BIOS (SeaBIOS).
    #[default]
    Bios,
    /// UEFI (OVMF), with fresh variables at each power-on.
    Efi,
}

/// A kernel that is booted without a boot medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectBoot {
    /// A bzImage, or an uncompressed ELF vmlinux with a PVH entry (quicker).
    pub kernel: PathBuf,
    /// The initramfs.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line. Under TCG the shim appends what makes the boot quick
    /// (`nolapic_timer no_timer_check tsc_early_khz=…`).
    #[serde(default)]
    pub cmdline: String,
}

/// A virtual disk on a pvscsi controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The VMDK (its descriptor or a monolithicSparse file). Its parents are found by its `parentFileNameHint`.
    pub path: PathBuf,
    /// Number of the pvscsi controller, from 0, below [`CONTROLLERS_MAX`].
    pub controller: u32,
    /// SCSI target on it, 0 to 15 but for [`CONTROLLER_UNIT`].
    pub unit: u32,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// A vmxnet3 vNIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
    /// Its place, from 0, below [`NICS_MAX`]: the guest finds the vNICs in this order.
    pub slot: u8,
    /// MAC address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Name of the port group, for messages.
    pub port_group: String,
    /// The cable is plugged in. Where it is not, nothing gets in or out; the guest sees a carrier
    /// all the same, since QEMU's vmxnet3 cannot start without one. On the switch that can change
    /// while the VM runs.
    pub connected: bool,
    /// What is at the other end of the cable.
    pub backend: NicBackend,
}

/// What is at the other end of a vNIC's cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicBackend {
    /// QEMU's user-mode network: a NAT of this VM's own, which needs no root. The guest may use
    /// any address of the subnet but the two named here; VMs do not see each other.
    User(UserNet),
    /// A port of the virtual switch, which the shim makes.
    Port(SwitchPort),
}

/// A place on the virtual switch ([`super::switch::Switch`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPort {
    /// The switch's network namespace.
    pub netns: PathBuf,
    /// The port group's VLAN.
    pub vlan: u16,
}

/// Addresses of a user-mode network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserNet {
    /// The subnet's network address.
    pub network: Ipv4Addr,
    /// Its prefix length, 8 to 29.
    pub prefix: u8,
    /// The gateway, which also answers as the host.
    pub gateway: Ipv4Addr,
    /// The name server: forwards to the host's resolver.
    pub dns: Ipv4Addr,
}

impl UserNet {
    /// The user-mode network for a subnet: the gateway on its first address, the name server on
    /// its last one but one, so that the addresses that are given out from the bottom stay free.
    /// `None` where the prefix is not 8 to 29.
    pub fn of_subnet(address: Ipv4Addr, prefix: u8) -> Option<UserNet> {
        if !(8..=29).contains(&prefix) {
            return None;
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        let network = u32::from(address) & mask;
        let broadcast = network | !mask;
        Some(UserNet {
            network: network.into(),
            prefix,
            gateway: (network + 1).into(),
            dns: (broadcast - 2).into(),
        })
    }
}

/// What a serial port is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SerialSpec {
    /// Output goes to a file; there is no input.
    File {
        /// The file; created where it does not exist.
        path: PathBuf,
        /// Append to an existing file (`answer.msg.serial.file.open = Append`) rather than empty it.
        append: bool,
    },
    /// A network-backed port that speaks telnet with VMware's extensions to a proxy (vSPC).
    Uri(SerialUri),
    /// Nothing is connected; the port exists.
    Disconnected,
}

/// A network-backed serial port (vSphere's VirtualSerialPortURIBackingInfo with a proxy).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialUri {
    /// What the proxy is asked to connect to; opaque to the host (`mooring:<vch>:<container id>`).
    pub service_uri: String,
    /// The proxy: `telnet://host:port` or `telnets://host:port#thumbprint=<SHA-256, colons>`.
    pub proxy_uri: String,
    /// Which side the VM takes towards the service.
    pub direction: SerialDirection,
    /// Faults on the line, for tests.
    #[serde(default)]
    pub faults: SerialFaults,
}

/// Which side a VM takes towards its serial port's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SerialDirection {
    /// The VM connects.
    Client,
    /// The VM listens.
    Server,
}

/// Faults that are put on a serial line in both directions, for tests (VM keys
/// `hostsim.serial.corrupt`, `hostsim.serial.drop`, `hostsim.serial.seed`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialFaults {
    /// One byte in so many is changed; 0: none.
    #[serde(default)]
    pub corrupt: u32,
    /// One byte in so many is dropped; 0: none.
    #[serde(default)]
    pub drop: u32,
    /// Seed of the choice.
    #[serde(default)]
    pub seed: u64,
}

/// A vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VsockSpec {
    /// The shim's own vhost-user device: a guest's connect to CID 2 port P arrives at the unix
    /// socket `<folder>/port-P`, and is reset at once where nothing listens there.
    Uds {
        /// Folder of the sockets; may come and go while the VM runs.
        folder: PathBuf,
    },
    /// The kernel's vhost-vsock.
    Kernel {
        /// The guest's context ID, 3 or higher, unique on this host.
        cid: u32,
    },
}

impl VmxSpec {
    /// Check what QEMU would not check, or would complain of in words that help nobody.
    ///
    /// # Errors
    /// A sentence that says which part is wrong and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if self.memory_mib < 16 {
            return Err(format!(
                "memory of {} MiB is too little: at least 16 MiB",
                self.memory_mib
            ));
        }
        if !(1..=128).contains(&self.cpus) {
            return Err(format!("{} CPUs: from 1 to 128 are possible", self.cpus));
        }
        if self.nics.len() > NICS_MAX {
            return Err(format!(
                "{} vNICs: a VM has at most {NICS_MAX}",
                self.nics.len()
            ));
        }
        if self.serials.len() > SERIALS_MAX {
            return Err(format!(
                "{} serial ports: at most {SERIALS_MAX}",
                self.serials.len()
            ));
        }
        for (n, disk) in self.disks.iter().enumerate() {
            if disk.controller >= CONTROLLERS_MAX || disk.unit > 15 || disk.unit == CONTROLLER_UNIT
            {
                return Err(format!(
                    "disk {}: controller {}, unit {} does not exist (controllers 0 to {}, units 0 to 15 but {CONTROLLER_UNIT})",
                    disk.path.display(),
                    disk.controller,
                    disk.unit,
                    CONTROLLERS_MAX - 1
                ));
            }
            let place = (disk.controller, disk.unit);
            if self
                .disks
                .iter()
                .take(n)
                .any(|d| (d.controller, d.unit) == place)
            {
                return Err(format!(
                    "two disks on controller {}, unit {}",
                    disk.controller, disk.unit
                ));
            }
        }
        for (n, nic) in self.nics.iter().enumerate() {
            nic.validate()?;
            if self.nics.iter().take(n).any(|other| other.slot == nic.slot) {
                return Err(format!("two vNICs in slot {}", nic.slot));
            }
        }
        for key in self.guestinfo.keys() {
            let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if key.is_empty() || key.len() > GUESTINFO_KEY_MAX || !key.bytes().all(fine) {
                return Err(format!(
                    "guestinfo key {key:?}: 1 to {GUESTINFO_KEY_MAX} of the characters a-z A-Z 0-9 . _ - are possible"
                ));
            }
        }
        if let Some(VsockSpec::Kernel { cid: cid @ 0..=2 }) = self.vsock {
            return Err(format!("vsock context ID {cid} is reserved: 3 or higher"));
        }
        Ok(())
    }
}

impl NicSpec {
    /// Check what QEMU would not check, or would complain of in words that help nobody.
    ///
    /// # Errors
    /// A sentence that says which part is wrong and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if usize::from(self.slot) >= NICS_MAX {
            return Err(format!(
                "vNIC: slot {} does not exist (0 to {})",
                self.slot,
                NICS_MAX - 1
            ));
        }
        if !is_mac(&self.mac) {
            return Err(format!(
                "vNIC: {:?} is no MAC address (aa:bb:cc:dd:ee:ff)",
                self.mac
            ));
        }
        Ok(())
    }
}

fn is_mac(text: &str) -> bool {
    let mut parts = 0;
    text.split(':').all(|part| {
        parts += 1;
        part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit())
    }) && parts == 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_network_leaves_the_low_addresses_to_the_guests() {
        let net = UserNet::of_subnet("172.17.3.4".parse().unwrap(), 16).unwrap();
        assert_eq!(net.network, "172.17.0.0".parse::<Ipv4Addr>().unwrap());
        assert_eq!(net.gateway, "172.17.0.1".parse::<Ipv4Addr>().unwrap());
        assert_eq!(net.dns, "172.17.255.253".parse::<Ipv4Addr>().unwrap());
        assert_eq!(UserNet::of_subnet("10.0.0.1".parse().unwrap(), 30), None);
        assert_eq!(UserNet::of_subnet("10.0.0.1".parse().unwrap(), 0), None);
    }

    #[test]
    fn mac_addresses_are_six_pairs_of_hex_digits() {
        assert!(is_mac("00:50:56:Ab:cd:0f"));
        assert!(!is_mac("00:50:56:ab:cd"));
        assert!(!is_mac("00:50:56:ab:cd:0g"));
        assert!(!is_mac("0:50:56:ab:cd:001"));
        assert!(!is_mac("00:50:56:ab:cd:0f,romfile=x"));
    }
}
