//! Making, registering, changing and renaming VMs.

use super::apply::{FileWork, apply, extra_of};
use super::config::{VmConfig, check_extra};
use super::{Vm, vmx_file};
use crate::datastore::{file_fault, locked, write_durably};
use crate::host::{Host, system_error};
use crate::log::{Entry, undo_and_note};
use std::sync::Arc;
use vim::types::*;
use vim::{Any, DatastorePath, DateTime, Fault, FaultKind};

/// Bytes of a VM's name.
const NAME_MAX: usize = 255;

fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
        let kind = FaultKind::InvalidName {
            name: name.chars().take(80).collect(),
        };
        return Err(Fault::new(
            kind,
            format!("A name has 1 to {NAME_MAX} bytes"),
        ));
    }
    Ok(())
}

/// A name or folder that is taken while a VM is made; given back when dropped.
struct Reservation {
    host: Arc<Host>,
    name: String,
    folder: Option<String>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.host.state();
        state.names.remove(&self.name);
        if let Some(folder) = &self.folder {
            state.folders.remove(folder);
        }
    }
}

/// Makes a VM. Blocks on files.
///
/// # Errors
/// `DuplicateName`, `InvalidArgument`, `FileAlreadyExists`, `InsufficientStorageSpace`, …
pub fn create(host: &Arc<Host>, spec: &VirtualMachineConfigSpec, user: &str) -> Result<Any, Fault> {
    let name = spec.name.clone().unwrap_or_default();
    check_name(&name)?;
    let id = host.change(|state| {
        state.check_name(&name)?;
        state.names.insert(name.clone());
        state.last_vm += 1;
        Ok::<u64, Fault>(state.last_vm)
    })?;
    let mut reservation = Reservation {
        host: host.clone(),
        name: name.clone(),
        folder: None,
    };
    let now = DateTime::now();
    let mut config = VmConfig {
        uuid: uuid::Uuid::new_v4().hyphenated().to_string(),
        instance_uuid: uuid::Uuid::new_v4().hyphenated().to_string(),
        version: "vmx-20".into(),
        guest_id: "otherGuest64".into(),
        firmware: "bios".into(),
        cpus: 1,
        cores_per_socket: 1,
        memory_mb: 128,
        created: now,
        ..VmConfig::default()
    };
    let work = apply(&mut config, spec)?;
    let asked = spec
        .files
        .as_ref()
        .and_then(|f| f.vm_path_name.as_deref())
        .unwrap_or_default();
    let (vmx, new_folder) = vmx_path(host, &mut reservation, &name, asked)?;
    let folder = vmx.parent().unwrap_or_else(|| vmx.clone());
    host.store.reserve(64 * 1024)?;

    // From here on a kill leaves files: say so first.
    let mut files = vec![vmx.to_string()];
    for item in &work {
        if let FileWork::CreateDisk { key } = item {
            let device = config.devices.iter_mut().find(|d| d.key == *key);
            if let Some(Backing::Disk(backing)) = device.and_then(|d| d.backing.as_mut()) {
                name_disk(host, backing, &folder, &vmx, *key)?;
                refuse_existing(host, &backing.file_name, new_folder)?;
                files.push(backing.file_name.clone());
            }
        }
    }
    let made_folder = new_folder.then(|| folder.to_string());
    let begin = Entry::Begin {
        id,
        folder: made_folder.clone(),
        files: files.clone(),
    };
    host.log
        .append(&begin, false)
        .map_err(|e| system_error(e.to_string()))?;
    let mut made = Vec::new();
    let done =
        make_files(host, &config, &vmx, &folder, new_folder, &work, &mut made).and_then(|config| {
            host.log
                .append(
                    &Entry::Add {
                        id,
                        vmx: vmx.to_string(),
                    },
                    true,
                )
                .map_err(|e| system_error(format!("the inventory cannot be written: {e}")))?;
            Ok(config)
        });
    let config = match done {
        Ok(config) => config,
        Err(failure) => {
            undo_and_note(&host.store, &host.disks, made_folder.as_deref(), &made);
            // Without this line the next start would clean up once more, and find nothing.
            let _ = host.log.append(&Entry::Done { id }, false);
            return Err(failure);
        }
    };
    let reference = host.change(|state| {
        let vm = Vm::new(id.to_string(), vmx, config);
        let reference = vm.reference();
        state.vms.insert(id, vm);
        state.touch_structure();
        state.event(
            "VmCreatedEvent",
            Some((&reference, &name)),
            user,
            format!("Created virtual machine {name}"),
        );
        reference
    });
    drop(reservation);
    Ok(Any::of(&reference))
}

fn make_files(
    host: &Arc<Host>,
    config: &VmConfig,
    vmx: &DatastorePath,
    folder: &DatastorePath,
    new_folder: bool,
    work: &[FileWork],
    made: &mut Vec<String>,
) -> Result<VmConfig, Fault> {
    if new_folder {
        host.store.make_folder(folder, false)?;
    }
    do_file_work(host, config, work, made)?;
    made.push(vmx.to_string());
    write_vmx(host, vmx, folder, config)
}

/// Writes a VM's .vmx durably; returns the configuration as it will be read from there.
///
/// # Errors
/// `NoDiskSpace`, …
pub fn write_vmx(
    host: &Host,
    vmx: &DatastorePath,
    folder: &DatastorePath,
    config: &VmConfig,
) -> Result<VmConfig, Fault> {
    let file = host.store.resolve(vmx)?;
    let text = vmx_file::encode(config, folder);
    let canonical = vmx_file::decode(&text, folder)?;
    write_durably(&file, text.as_bytes(), 0o600).map_err(|e| file_fault(vmx, &e))?;
    Ok(canonical)
}

/// Where the VM's .vmx goes, and whether its folder is new.
fn vmx_path(
    host: &Arc<Host>,
    reservation: &mut Reservation,
    name: &str,
    asked: &str,
) -> Result<(DatastorePath, bool), Fault> {
    let safe: String = name
        .chars()
        .map(|c| {
            if matches!(c, '/' | '\\' | '%') || c.is_control() {
                '_'
            } else {
                c
            }
        })
        .collect();
    let safe = safe.trim_start_matches('.').trim().to_owned();
    let safe = if safe.is_empty() {
        "vm".to_owned()
    } else {
        safe
    };
    let asked_path = if asked.trim().is_empty() {
        DatastorePath::new(host.store.name(), "")
    } else {
        host.store.parse(asked)?
    };
    if asked_path.path.ends_with(".vmx") {
        let folder = asked_path.parent().unwrap_or_else(|| asked_path.clone());
        return claim(host, reservation, &folder, asked_path, false);
    }
    if !asked_path.path.is_empty() {
        let vmx = asked_path.join(format!("{safe}.vmx"));
        return claim(host, reservation, &asked_path, vmx, false);
    }
    // A folder of its own, numbered where the name is taken.
    let mut number = 0;
    loop {
        let folder_name = if number == 0 {
            safe.clone()
        } else {
            format!("{safe}_{number}")
        };
        let folder = asked_path.join(&folder_name);
        let vmx = folder.join(format!("{safe}.vmx"));
        match claim(host, reservation, &folder, vmx, true) {
            Err(fault) if matches!(fault.kind, FaultKind::FileAlreadyExists { .. }) => number += 1,
            other => return other,
        }
    }
}

fn claim(
    host: &Arc<Host>,
    reservation: &mut Reservation,
    folder: &DatastorePath,
    vmx: DatastorePath,
    must_be_new: bool,
) -> Result<(DatastorePath, bool), Fault> {
    let exists = host.store.resolve(folder)?.exists();
    let taken = |path: &DatastorePath| file_fault(path, &std::io::ErrorKind::AlreadyExists.into());
    if (exists && must_be_new)
        || host
            .store
            .resolve_below(folder, &vmx)?
            .is_some_and(|f| f.exists())
    {
        return Err(taken(if must_be_new { folder } else { &vmx }));
    }
    if !host.state().folders.insert(folder.path.clone()) {
        return Err(taken(folder));
    }
    reservation.folder = Some(folder.path.clone());
    Ok((vmx, !exists))
}

/// Names a new disk that has no name yet.
fn name_disk(
    host: &Host,
    backing: &mut DiskBacking,
    folder: &DatastorePath,
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
    backing.file_name = folder.join(name).to_string();
    Ok(())
}

/// What is in the way of a file that is to be made must not be taken for its half-made self later.
fn refuse_existing(host: &Host, file: &str, in_new_folder: bool) -> Result<(), Fault> {
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
fn do_file_work(
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
                let kind = FaultKind::InvalidArgument {
                    invalid_property: Some("capacityInKB".into()),
                };
                return Err(Fault::new(
                    kind,
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

/// Registers a VM whose files exist. Blocks on files.
///
/// # Errors
/// `FileNotFound`, `AlreadyExists`, `DuplicateName`.
pub fn register(
    host: &Arc<Host>,
    path: &str,
    name: Option<&str>,
    user: &str,
) -> Result<Any, Fault> {
    let vmx = host.store.parse(path)?;
    let mut config = read_vmx(host, &vmx)?;
    if let Some(name) = name {
        config.name = name.to_owned();
    }
    check_name(&config.name)?;
    config.check()?;
    let name = config.name.clone();
    let id = host.change(|state| {
        if let Some(other) = state.vms.values().find(|vm| vm.vmx == vmx) {
            let kind = FaultKind::AlreadyExists {
                name: Some(other.config.name.clone()),
            };
            return Err(Fault::new(kind, format!("{vmx} is registered already")));
        }
        state.check_name(&name)?;
        state.names.insert(name.clone());
        state.last_vm += 1;
        Ok(state.last_vm)
    })?;
    let _reservation = Reservation {
        host: host.clone(),
        name: name.clone(),
        folder: None,
    };
    let config = write_vmx(
        host,
        &vmx,
        &vmx.parent().unwrap_or_else(|| vmx.clone()),
        &config,
    )?;
    host.log
        .append(
            &Entry::Add {
                id,
                vmx: vmx.to_string(),
            },
            true,
        )
        .map_err(|e| system_error(format!("the inventory cannot be written: {e}")))?;
    let reference = host.change(|state| {
        let vm = Vm::new(id.to_string(), vmx, config);
        let reference = vm.reference();
        state.vms.insert(id, vm);
        state.touch_structure();
        state.event(
            "VmRegisteredEvent",
            Some((&reference, &name)),
            user,
            format!("Registered {name}"),
        );
        reference
    });
    Ok(Any::of(&reference))
}

/// Reads a .vmx.
///
/// # Errors
/// `FileNotFound`, `GenericVmConfigFault`.
pub fn read_vmx(host: &Host, vmx: &DatastorePath) -> Result<VmConfig, Fault> {
    use std::io::Read as _;
    let file = std::fs::File::open(host.store.resolve(vmx)?).map_err(|e| file_fault(vmx, &e))?;
    let mut text = String::new();
    let limit = u64::try_from(vmx_file::SIZE_MAX).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(|e| file_fault(vmx, &e))?;
    vmx_file::decode(&text, &vmx.parent().unwrap_or_else(|| vmx.clone()))
}

/// Changes a VM. Blocks on files.
///
/// # Errors
/// `InvalidPowerState` for what can only be changed while it is off, else as [`create`].
pub fn reconfigure(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    spec: &VirtualMachineConfigSpec,
    user: &str,
) -> Result<(), Fault> {
    let vm = host.state().vm(reference)?.clone();
    if let Some(name) = spec.name.as_deref().filter(|n| *n != vm.config.name) {
        check_name(name)?;
        host.state().check_name(name)?;
    }
    if vm.power == PowerState::PoweredOn {
        reconfigure_running(host, &vm, spec)?;
    } else {
        let mut config = vm.config.clone();
        let work = apply(&mut config, spec)?;
        let folder = vm.folder();
        for item in &work {
            if let FileWork::CreateDisk { key } = item {
                let device = config.devices.iter_mut().find(|d| d.key == *key);
                if let Some(Backing::Disk(backing)) = device.and_then(|d| d.backing.as_mut()) {
                    name_disk(host, backing, &folder, &vm.vmx, *key)?;
                }
            }
        }
        // A disk that is to be deleted must not be another VM's.
        for item in &work {
            if let FileWork::DeleteDisk { path } = item {
                let users = host.state().disk_users();
                if users
                    .get(path)
                    .is_some_and(|vms| vms.iter().any(|vm| vm != reference))
                {
                    return Err(locked(
                        &host.store.parse(path)?,
                        "another virtual machine has it",
                    ));
                }
            }
        }
        let mut made = Vec::new();
        let done = do_file_work(host, &config, &work, &mut made)
            .and_then(|()| write_vmx(host, &vm.vmx, &folder, &config));
        let config = done.inspect_err(|_| undo_and_note(&host.store, &host.disks, None, &made))?;
        host.change(|state| state.vm_mut(reference).map(|vm| vm.config = config))?;
    }
    host.change(|state| {
        let message = format!("Reconfigured {}", vm.config.name);
        state.event(
            "VmReconfiguredEvent",
            Some((reference, &vm.config.name)),
            user,
            message,
        );
    });
    Ok(())
}

/// While a VM is on, only its keys and notes change; the keys are gone at power-off.
fn reconfigure_running(
    host: &Arc<Host>,
    vm: &Vm,
    spec: &VirtualMachineConfigSpec,
) -> Result<(), Fault> {
    let allowed = VirtualMachineConfigSpec {
        extra_config: spec.extra_config.clone(),
        annotation: spec.annotation.clone(),
        name: spec.name.clone(),
        change_version: spec.change_version.clone(),
        ..VirtualMachineConfigSpec::default()
    };
    if allowed != *spec {
        return Err(super::power::wrong_state(
            vm.power,
            Some(PowerState::PoweredOff),
        ));
    }
    let mut runtime = vm.runtime.clone();
    for (key, value) in extra_of(spec)? {
        runtime.insert(key, value);
    }
    let with = Vm {
        runtime: runtime.clone(),
        ..vm.clone()
    };
    check_extra(&with.extra())?;
    if runtime != vm.runtime {
        let file = host.run_folder(&vm.id).overlay();
        let text = serde_json::to_vec(&runtime).map_err(|e| system_error(e.to_string()))?;
        write_durably(&file, &text, 0o600)
            .map_err(|e| system_error(format!("cannot write {}: {e}", file.display())))?;
    }
    let mut config = vm.config.clone();
    if spec.annotation.is_some() || spec.name.is_some() {
        let durable = VirtualMachineConfigSpec {
            extra_config: Vec::new(),
            ..allowed
        };
        apply(&mut config, &durable)?;
        config = write_vmx(host, &vm.vmx, &vm.folder(), &config)?;
    }
    host.change(|state| {
        state.vm_mut(&vm.reference()).map(|vm| {
            vm.runtime = runtime;
            vm.config = config;
        })
    })
}

/// Renames a VM, on or off; its files keep their names. Blocks on files.
///
/// # Errors
/// `DuplicateName`, `InvalidName`.
pub fn rename(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    name: &str,
    user: &str,
) -> Result<(), Fault> {
    check_name(name)?;
    let vm = host.change(|state| {
        let vm = state.vm(reference)?.clone();
        if vm.config.name != name {
            state.check_name(name)?;
            state.names.insert(name.to_owned());
        }
        Ok::<Vm, Fault>(vm)
    })?;
    let _reservation = Reservation {
        host: host.clone(),
        name: name.to_owned(),
        folder: None,
    };
    let mut config = vm.config.clone();
    config.name = name.to_owned();
    config.changes += 1;
    config.modified = DateTime::now();
    let config = write_vmx(host, &vm.vmx, &vm.folder(), &config)?;
    host.change(|state| {
        state.vm_mut(reference)?.config = config;
        let message = format!("Renamed {} to {name}", vm.config.name);
        state.event("VmRenamedEvent", Some((reference, name)), user, message);
        Ok(())
    })
}
