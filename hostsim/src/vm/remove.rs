//! Destroying and unregistering VMs.

use super::Vm;
use super::power::vm_that_is;
use crate::datastore::{file_fault, sync_folder};
use crate::host::{DestroyRule, Host, system_error};
use crate::log::Entry;
use std::sync::Arc;
use vim::types::*;
use vim::{DatastorePath, Fault};

fn forget(host: &Arc<Host>, vm: &Vm, kind: &str, user: &str, message: String) -> Result<(), Fault> {
    let id: u64 = vm
        .id
        .parse()
        .map_err(|_| crate::state::not_found(&vm.reference()))?;
    host.log
        .append(&Entry::Remove { id }, true)
        .map_err(|e| system_error(format!("the inventory cannot be written: {e}")))?;
    host.change(|state| {
        state.vms.remove(&id);
        state.touch_structure();
        state.event(
            kind,
            Some((&vm.reference(), &vm.config.name)),
            user,
            message,
        );
    });
    let run = host.run_folder(&vm.id);
    if let Err(error) = std::fs::remove_dir_all(&run.0)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %run.0.display(), %error, "cannot remove a VM's run folder");
    }
    Ok(())
}

/// Takes a VM out of the inventory; its files stay. Blocks on files.
///
/// # Errors
/// `InvalidPowerState`.
pub fn unregister(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOff, host, reference)?;
    let message = format!("Unregistered {}", vm.config.name);
    forget(host, &vm, "VmRemovedEvent", user, message)
}

/// Destroys a VM with its files. Its disks go too, and by [`DestroyRule::Chain`] their parents,
/// as far as no other VMDK or VM needs them. Blocks on files.
///
/// # Errors
/// `InvalidPowerState`; `FileLocked` where a disk has children or is another VM's.
pub fn destroy(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOff, host, reference)?;
    // Out of the inventory first: a kill in the middle must not leave a VM that lacks disks.
    let message = format!(
        "Removed {} from {}",
        vm.config.name,
        crate::inventory::HOST_NAME
    );
    let disks: Vec<DatastorePath> = vm
        .config
        .disks()
        .filter_map(|d| d.disk_backing()?.file_name.parse().ok())
        .collect();
    let folder = vm.folder();
    let mut doomed = Vec::new();
    for disk in &disks {
        match host.disks.chain(&host.store, disk) {
            Ok(chain) => doomed.push(chain.into_iter().map(|(path, _)| path).collect::<Vec<_>>()),
            // A disk that is gone or broken does not keep its VM alive.
            Err(fault) => tracing::debug!(%disk, %fault, "disk of a destroyed VM cannot be read"),
        }
    }
    forget(host, &vm, "VmRemovedEvent", user, message)?;
    for chain in doomed {
        let depth = match host.settings.destroy {
            DestroyRule::Chain => chain.len(),
            DestroyRule::Leaf => 1,
        };
        for path in chain.iter().take(depth) {
            let used = host.state().disk_users().contains_key(&path.to_string());
            if used || !host.disks.children(path).is_empty() {
                tracing::debug!(%path, "kept: another disk or VM needs it");
                break;
            }
            host.disks.delete(&host.store, path)?;
        }
    }
    remove_files(host, &vm, &folder).map_err(|e| file_fault(&folder, &e))
}

/// Removes the VM's own files; its folder, too, where nothing else is in it.
fn remove_files(host: &Host, vm: &Vm, folder: &DatastorePath) -> std::io::Result<()> {
    let Ok(path) = host.store.resolve(folder) else {
        return Ok(());
    };
    let stem = vm.vmx.file_name().trim_end_matches(".vmx");
    let ports: Vec<DatastorePath> = vm
        .config
        .devices
        .iter()
        .filter_map(|d| match &d.backing {
            Some(Backing::SerialFile(file)) => file.file_name.parse().ok(),
            _ => None,
        })
        .collect();
    for entry in std::fs::read_dir(&path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let own = name.strip_prefix(stem).is_some_and(|end| {
            matches!(end, ".vmx" | ".nvram" | ".vmsd" | ".vmxf") || end.starts_with(".vmx.")
        });
        let log = name.starts_with("vmware") && name.ends_with(".log");
        if own || log || name == format!(".{stem}.vmx.new") || ports.contains(&folder.join(&name)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    if !folder.path.is_empty() && std::fs::read_dir(&path)?.next().is_none() {
        std::fs::remove_dir(&path)?;
    }
    path.parent().map_or(Ok(()), sync_folder)
}
