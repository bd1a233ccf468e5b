//! A VM's configuration, independent of how it is sent or kept.

use std::collections::{BTreeMap, BTreeSet};
use vim::types::{DeviceKind, ResourceAllocationInfo, VirtualDevice, VirtualMachineBootOptions};
use vim::{DateTime, Fault, FaultKind};

/// Bytes of one guestinfo value (vSphere's limit).
pub const GUESTINFO_VALUE_MAX: usize = 64 * 1024;
/// Bytes of all guestinfo (vSphere's limit).
pub const GUESTINFO_ALL_MAX: usize = 1 << 20;
/// Network cards of a VM (vSphere's limit).
pub const NICS_MAX: usize = 10;
/// Key of the first IDE controller, which every VM has.
pub const IDE_KEY: i32 = 200;
/// Key of the PCI controller.
pub const PCI_KEY: i32 = 100;
/// Key of the super I/O controller that serial ports are on.
pub const SIO_KEY: i32 = 400;
/// Key of the first SCSI controller.
pub const SCSI_KEY: i32 = 1000;
/// Key of the first network card.
pub const NIC_KEY: i32 = 4000;
/// Key of the first SATA controller.
pub const SATA_KEY: i32 = 15000;

/// A VM's configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VmConfig {
    /// Display name.
    pub name: String,
    /// BIOS UUID, hyphenated lower case.
    pub uuid: String,
    /// Instance UUID, hyphenated lower case.
    pub instance_uuid: String,
    /// Hardware version, `vmx-19`.
    pub version: String,
    /// Guest system.
    pub guest_id: String,
    /// Notes.
    pub annotation: String,
    /// `bios` or `efi`.
    pub firmware: String,
    /// CPUs.
    pub cpus: i32,
    /// Cores of a socket.
    pub cores_per_socket: i32,
    /// MiB.
    pub memory_mb: i32,
    /// Memory hot-add.
    pub memory_hot_add: bool,
    /// CPU hot-add.
    pub cpu_hot_add: bool,
    /// CPU limits and shares.
    pub cpu_allocation: Option<ResourceAllocationInfo>,
    /// Memory limits and shares.
    pub memory_allocation: Option<ResourceAllocationInfo>,
    /// How it boots.
    pub boot_options: VirtualMachineBootOptions,
    /// Devices in the caller's hands; those that every VM has are added by [`VmConfig::devices`].
    pub devices: Vec<VirtualDevice>,
    /// VM keys.
    pub extra: BTreeMap<String, String>,
    /// When it was made.
    pub created: DateTime,
    /// When it was changed.
    pub modified: DateTime,
    /// Counts changes.
    pub changes: u64,
}

impl VmConfig {
    /// All devices, those that every VM has first.
    pub fn devices(&self) -> Vec<VirtualDevice> {
        let mut all = vec![
            controller(IDE_KEY, DeviceKind::Ide as fn(_) -> _, 0, "IDE 0"),
            controller(IDE_KEY + 1, DeviceKind::Ide, 1, "IDE 1"),
            controller(PCI_KEY, DeviceKind::Pci, 0, "PCI controller 0"),
            controller(SIO_KEY, DeviceKind::Sio, 0, "SIO controller 0"),
        ];
        all.extend(self.devices.iter().cloned());
        let places: Vec<(i32, i32)> = all
            .iter()
            .filter_map(|d| Some((d.controller_key?, d.key)))
            .collect();
        for device in &mut all {
            let on_it = places
                .iter()
                .filter(|(c, _)| *c == device.key)
                .map(|(_, key)| *key)
                .collect();
            match &mut device.kind {
                DeviceKind::ParaVirtualScsi(m) => m.device = on_it,
                DeviceKind::Ide(m)
                | DeviceKind::Ahci(m)
                | DeviceKind::Pci(m)
                | DeviceKind::Sio(m) => {
                    m.device = on_it;
                }
                _ => {}
            }
        }
        all
    }

    /// Devices of a kind.
    pub fn of_kind<'a>(
        &'a self,
        is: impl Fn(&DeviceKind) -> bool + 'a,
    ) -> impl Iterator<Item = &'a VirtualDevice> {
        self.devices.iter().filter(move |d| is(&d.kind))
    }

    /// Datastore paths of its disks, in the order of their places.
    pub fn disks(&self) -> impl Iterator<Item = &VirtualDevice> {
        self.of_kind(|k| matches!(k, DeviceKind::Disk(_)))
    }

    /// Refuses what vSphere refuses.
    ///
    /// # Errors
    /// `InvalidArgument`, `TooManyDevices`.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |property: &str, message: String| {
            let property = format!("configSpec.{property}");
            Err(Fault::invalid_argument(property, message))
        };
        if !(1..=128).contains(&self.cpus) {
            return wrong(
                "numCPUs",
                format!("{} virtual CPUs: from 1 to 128 are possible", self.cpus),
            );
        }
        if !(4..=6_128_640).contains(&self.memory_mb) || self.memory_mb % 4 != 0 {
            let message = format!(
                "{} MB of memory: a multiple of 4 from 4 to 6128640 is possible",
                self.memory_mb
            );
            return wrong("memoryMB", message);
        }
        if !matches!(self.firmware.as_str(), "bios" | "efi") {
            return wrong(
                "firmware",
                format!("the firmware is 'bios' or 'efi', not '{}'", self.firmware),
            );
        }
        let nics = self
            .of_kind(|k| matches!(k, DeviceKind::Vmxnet3(_)))
            .count();
        if nics > NICS_MAX {
            let kind = FaultKind::TooManyDevices {
                property: Some("deviceChange".into()),
            };
            return Err(Fault::new(
                kind,
                format!("The VM has {nics} network cards; at most {NICS_MAX} are possible"),
            ));
        }
        check_extra(&self.extra)
    }
}

/// Refuses guestinfo that is too large.
///
/// # Errors
/// `InvalidArgument` for `configSpec.extraConfig`.
pub fn check_extra(extra: &BTreeMap<String, String>) -> Result<(), Fault> {
    let fault = |message: String| Err(Fault::invalid_argument("configSpec.extraConfig", message));
    let mut all = 0usize;
    for (key, value) in extra
        .iter()
        .filter(|(key, _)| key.starts_with("guestinfo."))
    {
        if value.len() > GUESTINFO_VALUE_MAX {
            return fault(format!(
                "The value of {key} has {} bytes; a guestinfo value has at most {GUESTINFO_VALUE_MAX}",
                value.len()
            ));
        }
        all = all.saturating_add(key.len() + value.len());
    }
    if all > GUESTINFO_ALL_MAX {
        return fault(format!(
            "guestinfo has {all} bytes in all; at most {GUESTINFO_ALL_MAX} are possible"
        ));
    }
    Ok(())
}

fn controller(
    key: i32,
    kind: impl Fn(vim::types::ControllerMembers) -> DeviceKind,
    bus: i32,
    label: &str,
) -> VirtualDevice {
    let members = vim::types::ControllerMembers {
        bus_number: bus,
        device: Vec::new(),
    };
    VirtualDevice {
        key,
        device_info: Some(vim::types::Description {
            label: label.to_owned(),
            summary: label.to_owned(),
        }),
        kind: kind(members),
        ..VirtualDevice::default()
    }
}

/// The least number from 0 that is not taken.
pub fn free_number(taken: &BTreeSet<i32>) -> i32 {
    (0..).find(|n| !taken.contains(n)).unwrap_or(i32::MAX)
}
