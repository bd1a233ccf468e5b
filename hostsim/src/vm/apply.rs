//! A specification applied to a configuration.

use super::config::{NIC_KEY, PCI_KEY, SATA_KEY, SCSI_KEY, SIO_KEY, VmConfig, free_number};
use super::vmx_file::drive_key;
use std::collections::{BTreeMap, BTreeSet};
use vim::types::*;
use vim::{DateTime, Fault, FaultKind};

/// What a change asks to be done with files, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum FileWork {
    /// Make the VMDK of the disk with this key.
    CreateDisk {
        /// Key of the disk.
        key: i32,
    },
    /// Delete this VMDK.
    DeleteDisk {
        /// Datastore path.
        path: String,
    },
}

/// Applies everything but files to `config`; says what is to be done with those.
///
/// # Errors
/// `InvalidDeviceSpec`, `DeviceNotFound`, `InvalidArgument`.
pub fn apply(
    config: &mut VmConfig,
    spec: &VirtualMachineConfigSpec,
) -> Result<Vec<FileWork>, Fault> {
    let wrong = |property: &str, message: String| {
        Fault::invalid_argument(format!("configSpec.{property}"), message)
    };
    if spec
        .change_version
        .as_ref()
        .is_some_and(|v| !v.is_empty() && *v != config.changes.to_string())
    {
        return Err(Fault::new(
            FaultKind::Other {
                name: "ConcurrentAccess".into(),
            },
            "The virtual machine's configuration was changed by another client",
        ));
    }
    let set = |to: &mut String, from: &Option<String>| {
        if let Some(value) = from {
            to.clone_from(value);
        }
    };
    set(&mut config.name, &spec.name);
    set(&mut config.version, &spec.version);
    set(&mut config.guest_id, &spec.guest_id);
    set(&mut config.annotation, &spec.annotation);
    set(&mut config.firmware, &spec.firmware);
    for (to, from, property) in [
        (&mut config.uuid, &spec.uuid, "uuid"),
        (
            &mut config.instance_uuid,
            &spec.instance_uuid,
            "instanceUuid",
        ),
    ] {
        if let Some(text) = from {
            let uuid = uuid::Uuid::parse_str(text)
                .map_err(|_| wrong(property, format!("{text:?} is no UUID")))?;
            *to = uuid.hyphenated().to_string();
        }
    }
    config.cpus = spec.num_cpus.unwrap_or(config.cpus);
    config.cores_per_socket = spec.num_cores_per_socket.unwrap_or(config.cores_per_socket);
    if let Some(memory) = spec.memory_mb {
        config.memory_mb = i32::try_from(memory)
            .map_err(|_| wrong("memoryMB", format!("{memory} MB is too much")))?;
    }
    config.memory_hot_add = spec.memory_hot_add_enabled.unwrap_or(config.memory_hot_add);
    config.cpu_hot_add = spec.cpu_hot_add_enabled.unwrap_or(config.cpu_hot_add);
    if spec.cpu_allocation.is_some() {
        config.cpu_allocation.clone_from(&spec.cpu_allocation);
    }
    if spec.memory_allocation.is_some() {
        config.memory_allocation.clone_from(&spec.memory_allocation);
    }
    if let Some(options) = &spec.boot_options {
        config.boot_options = options.clone();
    }
    for (key, value) in extra_of(spec)? {
        match value {
            Some(value) => config.extra.insert(key, value),
            None => config.extra.remove(&key),
        };
    }
    let mut work = Vec::new();
    let mut new_keys = BTreeMap::new();
    for (index, change) in spec.device_change.iter().enumerate() {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        device_change(config, change, index, &mut new_keys, &mut work)?;
    }
    config.modified = DateTime::now();
    config.changes += 1;
    config.check()?;
    Ok(work)
}

/// The VM keys of a specification: a value, or `None` to remove the key.
///
/// # Errors
/// `InvalidArgument` for a key that is none.
pub fn extra_of(spec: &VirtualMachineConfigSpec) -> Result<Vec<(String, Option<String>)>, Fault> {
    spec.extra_config
        .iter()
        .map(|option| {
            let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '=' | '"' | '#');
            if option.key.is_empty() || option.key.len() > 255 || !option.key.chars().all(fine) {
                let message = format!(
                    "{:?} cannot be a key: 1 to 255 printable ASCII characters but = \" #",
                    option.key
                );
                return Err(Fault::invalid_argument("configSpec.extraConfig", message));
            }
            let value = option.as_text();
            Ok((
                option.key.clone(),
                (!value.is_empty()).then(|| value.to_owned()),
            ))
        })
        .collect()
}

/// The fault for a change of a device that cannot be.
pub fn invalid(index: i32, property: &str, message: String) -> Fault {
    let property = Some(format!("deviceChange[{index}].{property}"));
    Fault::new(
        FaultKind::InvalidDeviceSpec {
            property,
            device_index: index,
        },
        message,
    )
}

fn device_change(
    config: &mut VmConfig,
    change: &VirtualDeviceConfigSpec,
    index: i32,
    new_keys: &mut BTreeMap<i32, i32>,
    work: &mut Vec<FileWork>,
) -> Result<(), Fault> {
    let position = config
        .devices
        .iter()
        .position(|d| d.key == change.device.key);
    let missing = || {
        let kind = FaultKind::DeviceNotFound {
            property: Some(format!("deviceChange[{index}].device.key")),
            device_index: index,
        };
        Fault::new(
            kind,
            format!(
                "The virtual machine has no device with the key {}",
                change.device.key
            ),
        )
    };
    match change.operation {
        Some(DeviceOperation::Remove) => {
            let removed = config.devices.remove(position.ok_or_else(missing)?);
            let users = config
                .devices
                .iter()
                .any(|d| d.controller_key == Some(removed.key));
            if removed.kind.is_controller() && users {
                return Err(invalid(
                    index,
                    "device",
                    "the controller still has devices".into(),
                ));
            }
            if change.file_operation == Some(DeviceFileOperation::Destroy)
                && let Some(backing) = removed.disk_backing()
            {
                work.push(FileWork::DeleteDisk {
                    path: backing.file_name.clone(),
                });
            }
        }
        Some(DeviceOperation::Edit) => {
            let position = position.ok_or_else(missing)?;
            let old = &config.devices[position];
            if old.kind.type_name() != change.device.kind.type_name() {
                return Err(invalid(
                    index,
                    "device",
                    "a device cannot become one of another kind".into(),
                ));
            }
            let mut device = change.device.clone();
            device.controller_key = device.controller_key.or(old.controller_key);
            device.unit_number = device.unit_number.or(old.unit_number);
            device.backing = device.backing.or_else(|| old.backing.clone());
            device.connectable = device.connectable.or_else(|| old.connectable.clone());
            if let (DeviceKind::Vmxnet3(new), DeviceKind::Vmxnet3(old)) =
                (&mut device.kind, &old.kind)
                && new.mac_address.as_deref().is_none_or(str::is_empty)
            {
                new.mac_address.clone_from(&old.mac_address);
                new.address_type.clone_from(&old.address_type);
            }
            config.devices[position] = device;
        }
        // vSphere takes a change without an operation for an addition.
        Some(DeviceOperation::Add) | None => {
            let asked = change.device.key;
            let device = place(config, change.device.clone(), index, new_keys)?;
            new_keys.insert(asked, device.key);
            if let Some(backing) = device.disk_backing() {
                if change.file_operation == Some(DeviceFileOperation::Create) {
                    work.push(FileWork::CreateDisk { key: device.key });
                } else if backing.file_name.is_empty() {
                    return Err(invalid(
                        index,
                        "device.backing.fileName",
                        "an existing disk must be named".into(),
                    ));
                }
            }
            config.devices.push(device);
        }
    }
    Ok(())
}

/// Gives a new device its key and place.
fn place(
    config: &VmConfig,
    mut device: VirtualDevice,
    index: i32,
    new_keys: &BTreeMap<i32, i32>,
) -> Result<VirtualDevice, Fault> {
    let controller = device
        .controller_key
        .map(|key| new_keys.get(&key).copied().unwrap_or(key));
    let taken = |on: i32| -> BTreeSet<i32> {
        config
            .devices
            .iter()
            .filter(|d| d.controller_key == Some(on))
            .filter_map(|d| d.unit_number)
            .collect()
    };
    let keys = |from: i32, to: i32| -> BTreeSet<i32> {
        config
            .devices
            .iter()
            .map(|d| d.key)
            .filter(|k| (from..to).contains(k))
            .map(|k| k - from)
            .collect()
    };
    match (&mut device.kind, &device.backing) {
        (DeviceKind::ParaVirtualScsi(members), _) => {
            let bus = free_number(&keys(SCSI_KEY, SCSI_KEY + 4));
            if bus > 3 {
                return Err(invalid(
                    index,
                    "device",
                    "a VM has at most 4 SCSI controllers".into(),
                ));
            }
            members.bus_number = bus;
            members.scsi_ctlr_unit_number = Some(7);
            members.hot_add_remove = Some(true);
            device.key = SCSI_KEY + bus;
            device.controller_key = Some(PCI_KEY);
        }
        (DeviceKind::Ahci(members), _) => {
            let bus = free_number(&keys(SATA_KEY, SATA_KEY + 4));
            if bus > 3 {
                return Err(invalid(
                    index,
                    "device",
                    "a VM has at most 4 SATA controllers".into(),
                ));
            }
            members.bus_number = bus;
            device.key = SATA_KEY + bus;
            device.controller_key = Some(PCI_KEY);
        }
        // Every VM has its two IDE controllers: a new one is one of them.
        (DeviceKind::Ide(members), _) => {
            device.key = 200 + members.bus_number.clamp(0, 1);
            device.controller_key = None;
            return Err(invalid(
                index,
                "device",
                format!("the IDE controller {} is there already", device.key),
            ));
        }
        (DeviceKind::Disk(_), Some(Backing::Disk(_)))
        | (DeviceKind::Cdrom, Some(Backing::Iso(_))) => {
            let disk = matches!(device.kind, DeviceKind::Disk(_));
            let on = controller.unwrap_or(if disk { SCSI_KEY } else { 200 });
            let built_in = !disk && (200..202).contains(&on);
            if !built_in
                && !config
                    .devices
                    .iter()
                    .any(|d| d.key == on && d.kind.is_controller())
            {
                let message = format!("the controller with the key {on} does not exist");
                return Err(invalid(index, "device.controllerKey", message));
            }
            if disk && !(SCSI_KEY..SCSI_KEY + 4).contains(&on) {
                return Err(invalid(
                    index,
                    "device.controllerKey",
                    "disks are on a SCSI controller here".into(),
                ));
            }
            let mut used = taken(on);
            let units = if on < SCSI_KEY {
                2
            } else if on < SATA_KEY {
                16
            } else {
                30
            };
            if disk {
                // The controller's own.
                used.insert(7);
            }
            let unit = device
                .unit_number
                .filter(|&u| u >= 0)
                .unwrap_or_else(|| free_number(&used));
            if used.contains(&unit) || unit >= units {
                let message =
                    format!("the unit {unit} of the controller {on} is taken or does not exist");
                return Err(invalid(index, "device.unitNumber", message));
            }
            device.controller_key = Some(on);
            device.unit_number = Some(unit);
            device.key = drive_key(on, unit);
        }
        (DeviceKind::Vmxnet3(members), Some(Backing::Network(_))) => {
            let number = free_number(&keys(NIC_KEY, NIC_KEY + 100));
            if members.mac_address.as_deref().is_none_or(str::is_empty) {
                members.mac_address = Some(new_mac(&config.uuid, &config.devices, number));
                members.address_type = Some("generated".into());
            } else if members.address_type.is_none() {
                members.address_type = Some("manual".into());
            }
            device.key = NIC_KEY + number;
            device.controller_key = Some(PCI_KEY);
            device.unit_number = Some(7 + number);
        }
        (DeviceKind::Serial(_), Some(Backing::SerialFile(_) | Backing::SerialUri(_))) => {
            let number = free_number(&keys(9000, 9100));
            if number >= 4 {
                return Err(invalid(
                    index,
                    "device",
                    "a VM has at most 4 serial ports here".into(),
                ));
            }
            device.key = 9000 + number;
            device.controller_key = Some(SIO_KEY);
            device.unit_number = Some(number);
        }
        (kind, _) => {
            let message = format!(
                "a {} with this backing is not supported here",
                kind.type_name()
            );
            return Err(invalid(index, "device", message));
        }
    }
    Ok(device)
}

/// A MAC address in VMware's range for those made by a host, from the VM's UUID.
fn new_mac(uuid: &str, devices: &[VirtualDevice], number: i32) -> String {
    use sha2::{Digest, Sha256};
    let mut round = 0u32;
    loop {
        let hash = Sha256::digest(format!("{uuid}/{number}/{round}").as_bytes());
        let mac = format!(
            "00:50:56:{:02x}:{:02x}:{:02x}",
            hash[0] & 0x3f,
            hash[1],
            hash[2]
        );
        if devices
            .iter()
            .all(|d| d.mac_address() != Some(mac.as_str()))
        {
            return mac;
        }
        round += 1;
    }
}
