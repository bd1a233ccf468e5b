//! Making and registering VMs.

use super::apply::{FileWork, apply};
use super::files::{do_file_work, name_disks, read_vmx, refuse_existing, write_vmx};
use super::placing::{Reservation, check_name, vmx_path};
use super::{Vm, VmConfig, folder_of};
use crate::datastore::file_fault;
use crate::host::{Host, system_error};
use crate::log::{Entry, undo_and_note};
use std::sync::Arc;
use vim::types::*;
use vim::{Any, DatastorePath, DateTime, Fault, FaultKind};

/// VM key: a named pipe on the datastore that a creation waits for once its folder is made; see [`hold`].
const HOLD: &str = "hostsim.create.hold";

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
    let mut reservation = Reservation::of_name(host, &name);
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
    host.store.reserve(64 * 1024)?;

    // From here on a kill leaves files: say so first.
    let mut files = name_disks(host, &mut config, &vmx, &work)?;
    for file in &files {
        refuse_existing(host, file, new_folder)?;
    }
    files.insert(0, vmx.to_string());
    let made_folder = new_folder.then(|| folder_of(&vmx));
    let begin = Entry::Begin {
        id,
        folder: made_folder.as_ref().map(ToString::to_string),
        files,
    };
    host.log
        .append(&begin, false)
        .map_err(|e| system_error(e.to_string()))?;
    let mut made = Vec::new();
    let done = make_files(host, &config, &vmx, made_folder.as_ref(), &work, &mut made)
        .and_then(|config| host.note_registered(id, &vmx).map(|()| config));
    let config = match done {
        Ok(config) => config,
        Err(failure) => {
            let folder = made_folder.map(|folder| folder.to_string());
            undo_and_note(&host.store, &host.disks, folder.as_deref(), &made);
            // Without this line the next start would clean up once more, and find nothing.
            let _ = host.log.append(&Entry::Done { id }, false);
            return Err(failure);
        }
    };
    let message = format!("Created virtual machine {name}");
    let made = enter(host, id, vmx, config, ("VmCreatedEvent", message), user);
    drop(reservation);
    Ok(made)
}

fn make_files(
    host: &Arc<Host>,
    config: &VmConfig,
    vmx: &DatastorePath,
    new_folder: Option<&DatastorePath>,
    work: &[FileWork],
    made: &mut Vec<String>,
) -> Result<VmConfig, Fault> {
    if let Some(folder) = new_folder {
        host.store.make_folder(folder, false)?;
    }
    if let Some(path) = config.extra.get(HOLD) {
        hold(host, path)?;
    }
    do_file_work(host, config, work, made)?;
    made.push(vmx.to_string());
    write_vmx(host, vmx, config)
}

/// Waits while a named pipe on the datastore has no writer: a creation that takes long, for tests. Without the file
/// nothing is waited for.
fn hold(host: &Host, path: &str) -> Result<(), Fault> {
    let path = host.store.parse(path)?;
    match std::fs::File::open(host.store.resolve(&path)?) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_fault(&path, &e)),
        _ => Ok(()),
    }
}

/// Puts a VM whose files are made into the inventory, with the event that tells of it.
fn enter(
    host: &Host,
    id: u64,
    vmx: DatastorePath,
    config: VmConfig,
    (event, message): (&str, String),
    user: &str,
) -> Any {
    let vm = Vm::new(id.to_string(), vmx, config);
    let reference = vm.reference();
    host.change(|state| {
        let name = vm.config.name.clone();
        state.vms.insert(id, vm);
        state.touch_structure();
        state.event(event, Some((&reference, &name)), user, message);
    });
    Any::of(&reference)
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
    let mut config = read_vmx(&host.store, &vmx)?;
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
    let _reservation = Reservation::of_name(host, &name);
    let config = write_vmx(host, &vmx, &config)?;
    host.note_registered(id, &vmx)?;
    let event = ("VmRegisteredEvent", format!("Registered {name}"));
    Ok(enter(host, id, vmx, config, event, user))
}
