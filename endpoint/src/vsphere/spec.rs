//! The VM of a container, in vSphere's words (docs/decisions/0001, "Ports of a container VM").

use super::Vsphere;
use crate::networks::attachment::Attachment;
use std::collections::BTreeMap;
use vim::types::{
    Backing, BootDevice, DeviceKind, DiskBacking, DiskMembers, EthernetMembers, FileBacking,
    NetworkBacking, ScsiMembers, ScsiSharing, SerialMembers, UriBacking, VirtualDevice,
    VirtualDeviceConfigSpec, VirtualDeviceConnectInfo, VirtualMachineBootOptions,
    VirtualMachineConfigSpec, VirtualMachineFileInfo,
};

/// Device keys; those of the controllers that every VM has are vSphere's own.
mod key {
    pub const IDE: i32 = 200;
    pub const SIO: i32 = 400;
    pub const SCSI: i32 = 1000;
    pub const DISK: i32 = 2000;
    pub const CDROM: i32 = 3000;
    pub const NIC: i32 = 4000;
    pub const CONSOLE: i32 = 9000;
    pub const LINK: i32 = 9001;
}

/// How a VM boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// From an ISO in its CD-ROM: datastore path.
    Iso(String),
    /// Directly; the VM keys say from what.
    Kernel,
}

/// The network-backed serial port of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPort {
    /// `mooring:<vch>:<container id>`.
    pub service: String,
    /// `telnets://host:port#thumbprint=…`.
    pub proxy: String,
    /// The VM has such a port already.
    pub exists: bool,
}

/// A VM that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVm {
    /// Its name.
    pub name: String,
    /// ID of its container.
    pub id: String,
    /// Memory.
    pub memory_mib: u32,
    /// CPUs.
    pub cpus: u32,
    /// The image's seal, parent of its disk.
    pub seal: String,
    /// Bytes of the seal.
    pub capacity: u64,
    /// The disks of its volumes.
    pub volumes: Vec<VolumeDisk>,
    /// Its vNICs.
    pub nics: Vec<Nic>,
    /// How it boots.
    pub boot: Boot,
    /// Its link's serial port.
    pub link: Option<LinkPort>,
    /// VM keys.
    pub keys: BTreeMap<String, String>,
}

/// The disk of a volume, which exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDisk {
    /// Datastore path.
    pub file: String,
    /// Bytes.
    pub capacity: u64,
    /// Several VMs may have it at once, none of which writes to it.
    pub read_only: bool,
}

impl VolumeDisk {
    /// As a device, the `number`-th one from 0. No snapshot of the VM takes it in.
    fn device(&self, number: i32) -> VirtualDevice {
        let (bus, unit) = place(number);
        let mode = if self.read_only {
            "independent_nonpersistent"
        } else {
            "independent_persistent"
        };
        VirtualDevice {
            key: key::DISK + bus * 16 + unit,
            controller_key: Some(key::SCSI + bus),
            unit_number: Some(unit),
            backing: Some(Backing::Disk(DiskBacking {
                file_name: self.file.clone(),
                disk_mode: mode.to_owned(),
                ..DiskBacking::default()
            })),
            kind: DeviceKind::Disk(DiskMembers {
                capacity_in_kb: i64::try_from(self.capacity / 1024).unwrap_or(i64::MAX),
                capacity_in_bytes: None,
            }),
            ..VirtualDevice::default()
        }
    }
}

/// SCSI bus and unit of a volume's disk: units 0 to 15 but for 7, which is the controller's own, and 0 of the first bus,
/// which is the container's.
fn place(number: i32) -> (i32, i32) {
    let at = number + 1;
    let unit = at % 15;
    (at / 15, if unit < 7 { unit } else { unit + 1 })
}

fn scsi(bus: i32) -> VirtualDeviceConfigSpec {
    VirtualDeviceConfigSpec::add(VirtualDevice {
        key: key::SCSI + bus,
        kind: DeviceKind::ParaVirtualScsi(ScsiMembers {
            bus_number: bus,
            shared_bus: ScsiSharing::NoSharing,
            ..ScsiMembers::default()
        }),
        ..VirtualDevice::default()
    })
}

/// A vNIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// MAC address.
    pub mac: String,
    /// Port group.
    pub port_group: String,
}

impl From<&Attachment> for Nic {
    fn from(attachment: &Attachment) -> Self {
        Self {
            mac: attachment.mac.clone(),
            port_group: attachment.port_group.clone(),
        }
    }
}

fn connected() -> Option<VirtualDeviceConnectInfo> {
    Some(VirtualDeviceConnectInfo {
        start_connected: true,
        allow_guest_control: false,
        connected: true,
        status: None,
    })
}

/// The link's port as a device.
pub(super) fn link_port(port: &LinkPort) -> VirtualDevice {
    VirtualDevice {
        key: key::LINK,
        controller_key: Some(key::SIO),
        unit_number: Some(1),
        connectable: connected(),
        backing: Some(Backing::SerialUri(UriBacking {
            service_uri: port.service.clone(),
            direction: "client".to_owned(),
            proxy_uri: Some(port.proxy.clone()),
        })),
        kind: DeviceKind::Serial(SerialMembers {
            yield_on_poll: true,
        }),
        ..VirtualDevice::default()
    }
}

impl Vsphere {
    /// A vNIC as a device; a key below 0 is one that vSphere chooses.
    pub(super) fn nic(&self, key: i32, nic: &Nic) -> VirtualDevice {
        VirtualDevice {
            key,
            connectable: connected(),
            backing: Some(Backing::Network(NetworkBacking {
                device_name: nic.port_group.clone(),
                use_auto_detect: None,
                network: self.places.networks.get(&nic.port_group).cloned(),
            })),
            kind: DeviceKind::Vmxnet3(EthernetMembers {
                address_type: Some("manual".to_owned()),
                mac_address: Some(nic.mac.clone()),
                wake_on_lan_enabled: None,
            }),
            ..VirtualDevice::default()
        }
    }

    pub(super) fn config_spec(&self, vm: &NewVm) -> VirtualMachineConfigSpec {
        let folder = self.container_folder(&vm.id);
        let mut devices = vec![
            scsi(0),
            VirtualDeviceConfigSpec::create(VirtualDevice {
                key: key::DISK,
                controller_key: Some(key::SCSI),
                unit_number: Some(0),
                backing: Some(Backing::Disk(DiskBacking {
                    file_name: self.leaf(&vm.id).to_string(),
                    disk_mode: "persistent".to_owned(),
                    thin_provisioned: Some(true),
                    parent: Some(Box::new(DiskBacking {
                        file_name: vm.seal.clone(),
                        disk_mode: "persistent".to_owned(),
                        ..DiskBacking::default()
                    })),
                    ..DiskBacking::default()
                })),
                kind: DeviceKind::Disk(DiskMembers {
                    capacity_in_kb: i64::try_from(vm.capacity / 1024).unwrap_or(i64::MAX),
                    capacity_in_bytes: None,
                }),
                ..VirtualDevice::default()
            }),
            VirtualDeviceConfigSpec::add(VirtualDevice {
                key: key::CONSOLE,
                controller_key: Some(key::SIO),
                unit_number: Some(0),
                connectable: connected(),
                backing: Some(Backing::SerialFile(FileBacking {
                    file_name: folder.join("console.log").to_string(),
                    datastore: None,
                })),
                kind: DeviceKind::Serial(SerialMembers {
                    yield_on_poll: true,
                }),
                ..VirtualDevice::default()
            }),
        ];
        let volumes = (0..).zip(&vm.volumes);
        let volumes: Vec<VirtualDevice> = volumes.map(|(n, disk)| disk.device(n)).collect();
        let last = volumes.last().and_then(|disk| disk.controller_key);
        devices.extend((1..=last.unwrap_or(0) - key::SCSI).map(scsi));
        let mut add = |device| devices.push(VirtualDeviceConfigSpec::add(device));
        volumes.into_iter().for_each(&mut add);
        if let Some(port) = &vm.link {
            add(link_port(port));
        }
        for (number, nic) in (0..).zip(&vm.nics) {
            add(self.nic(key::NIC + number, nic));
        }
        if let Boot::Iso(iso) = &vm.boot {
            add(VirtualDevice {
                key: key::CDROM,
                controller_key: Some(key::IDE),
                unit_number: Some(0),
                connectable: connected(),
                backing: Some(Backing::Iso(FileBacking {
                    file_name: iso.clone(),
                    datastore: None,
                })),
                kind: DeviceKind::Cdrom,
                ..VirtualDevice::default()
            });
        }
        VirtualMachineConfigSpec {
            name: Some(vm.name.clone()),
            guest_id: Some("other5xLinux64Guest".to_owned()),
            files: Some(VirtualMachineFileInfo {
                vm_path_name: Some(folder.join("container.vmx").to_string()),
                ..VirtualMachineFileInfo::default()
            }),
            num_cpus: Some(i32::try_from(vm.cpus).unwrap_or(i32::MAX)),
            memory_mb: Some(i64::from(vm.memory_mib)),
            device_change: devices,
            // Else a firmware tries disks first, and the layers' partition table looks like a boot sector.
            boot_options: matches!(vm.boot, Boot::Iso(_)).then(|| VirtualMachineBootOptions {
                boot_order: vec![BootDevice::Cdrom],
                ..VirtualMachineBootOptions::default()
            }),
            extra_config: super::options(&vm.keys),
            ..VirtualMachineConfigSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use wire::volume::VOLUMES_MAX;

    #[test]
    fn disks_of_volumes_have_units_of_their_own_on_four_controllers() {
        assert_eq!((place(0), place(5), place(6)), ((0, 1), (0, 6), (0, 8)));
        assert_eq!((place(13), place(14)), ((0, 15), (1, 0)));
        let most = i32::try_from(VOLUMES_MAX).unwrap();
        let places: BTreeSet<_> = (0..most).map(place).collect();
        assert_eq!(places.len(), VOLUMES_MAX);
        assert!(
            places
                .iter()
                .all(|(bus, unit)| *bus < 4 && *unit != 7 && *unit < 16)
        );
        assert!(!places.contains(&(0, 0)));
        assert_eq!(place(most - 1), (3, 15));
    }
}
