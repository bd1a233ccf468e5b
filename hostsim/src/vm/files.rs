//! A VM's files on the datastore: its .vmx and its disks.

use super::apply::FileWork;
use super::{VmConfig, folder_of, vmx_file};
use crate::datastore::{Datastore, file_fault, write_durably};
use crate::host::Host;
use std::io::Read;
use std::sync::Arc;
use vim::types::*;
use vim::{DatastorePath, Fault, FaultKind};

/// Writes a VM's .vmx durably; returns the configuration as it will be read from there.
///
/// # Errors
/// `NoDiskSpace`, …
pub fn write_vmx(host: &Host, vmx: &DatastorePath, config: &VmConfig) -> Result<VmConfig, Fault> {
    let file = host.store.resolve(vmx)?;
    let folder = folder_of(vmx);
    let text = vmx_file::encode(config, &folder);
    let canonical = vmx_file::decode(&text, &folder)?;
    write_durably(&file, text.as_bytes(), 0o600).map_err(|e| file_fault(vmx, &e))?;
    Ok(canonical)
}

/// Reads a .vmx.
///
/// # Errors
/// `FileNotFound`, `GenericVmConfigFault`.
pub fn read_vmx(store: &Datastore, vmx: &DatastorePath) -> Result<VmConfig, Fault> {
    let file = std::fs::File::open(store.resolve(vmx)?).map_err(|e| file_fault(vmx, &e))?;
    let mut text = String::new();
    let limit = u64::try_from(vmx_file::SIZE_MAX).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(|e| file_fault(vmx, &e))?;
    vmx_file::decode(&text, &folder_of(vmx))
}

/// Gives the disks that are to be made a name where they have none yet; returns all their names.
///
/// # Errors
/// `InvalidDatastorePath`.
pub(super) fn name_disks(
    host: &Host,
    config: &mut VmConfig,
    vmx: &DatastorePath,
    work: &[FileWork],
) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for item in work {
        let FileWork::CreateDisk { key } = item else {
            continue;
        };
        let device = config.devices.iter_mut().find(|d| d.key == *key);
        if let Some(Backing::Disk(backing)) = device.and_then(|d| d.backing.as_mut()) {
            name_disk(host, backing, vmx, *key)?;
            names.push(backing.file_name.clone());
        }
    }
    Ok(names)
}

fn name_disk(
    host: &Host,
    backing: &mut DiskBacking,
    vmx: &DatastorePath,
    key: i32,
) -> Result<(), Fault> {
    if !backing.file_name.trim().is_empty() {
        let path = host.store.parse(&backing.file_name)?;
        if !path.path.is_empty() {
            backing.file_name = path.to_string();
            return Ok(());
        }
    }
    let stem = vmx.file_name().trim_end_matches(".vmx");
    let number = key - 2000;
    let name = if number == 0 {
        format!("{stem}.vmdk")
    } else {
        format!("{stem}_{number}.vmdk")
    };
    backing.file_name = folder_of(vmx).join(name).to_string();
    Ok(())
}

/// What is in the way of a file that is to be made must not be taken for its half-made self later.
///
/// # Errors
/// `FileAlreadyExists`.
pub(super) fn refuse_existing(host: &Host, file: &str, in_new_folder: bool) -> Result<(), Fault> {
    let path = host.store.parse(file)?;
    match host.store.resolve(&path) {
        Ok(file) if file.exists() => {
            Err(file_fault(&path, &std::io::ErrorKind::AlreadyExists.into()))
        }
        Ok(_) => Ok(()),
        // Its folder is yet to be made.
        Err(fault) if in_new_folder && fault.is_not_found() => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Makes the disks that a specification asks for; checks those that exist already.
///
/// # Errors
/// `InvalidDeviceBacking`, `FileNotFound`, `InsufficientStorageSpace`, …; `made` then says what there is.
pub(super) fn do_file_work(
    host: &Arc<Host>,
    config: &VmConfig,
    work: &[FileWork],
    made: &mut Vec<String>,
) -> Result<(), Fault> {
    for device in config.disks() {
        let Some(backing) = device.disk_backing() else {
            continue;
        };
        let path = host.store.parse(&backing.file_name)?;
        if !path.path.ends_with(".vmdk") {
            let kind = FaultKind::InvalidDeviceBacking {
                property: Some("deviceChange.device.backing.fileName".into()),
                device_index: 0,
            };
            return Err(Fault::new(kind, format!("{path} is no .vmdk")));
        }
        if work.contains(&FileWork::CreateDisk { key: device.key }) {
            let parent = backing
                .parent
                .as_ref()
                .map(|p| host.store.parse(&p.file_name))
                .transpose()?;
            let capacity = match &device.kind {
                DeviceKind::Disk(m) => m
                    .capacity_in_bytes
                    .unwrap_or(m.capacity_in_kb.saturating_mul(1024)),
                _ => 0,
            };
            let capacity = u64::try_from(capacity).unwrap_or(0);
            if parent.is_none() && capacity == 0 {
                return Err(Fault::invalid_argument(
                    "capacityInKB",
                    "a new disk without a parent needs a capacity",
                ));
            }
            host.store.reserve(64 * 1024)?;
            host.disks
                .create(&host.store, &path, parent.as_ref(), capacity)?;
            made.push(path.to_string());
        } else {
            host.disks.open(&host.store, &path)?;
        }
    }
    for item in work {
        if let FileWork::DeleteDisk { path } = item {
            host.disks.delete(&host.store, &host.store.parse(path)?)?;
        }
    }
    Ok(())
}
