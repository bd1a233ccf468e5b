//! The file manager's and the virtual disk manager's work.

use crate::datastore::{file_fault, locked, part_of, sync_folder};
use crate::host::{Host, system_error};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use vim::{DatastorePath, Fault, FaultKind};

/// Refuses to touch what is in a registered VM's use: its .vmx, its disks and their parents' folders.
fn free(host: &Host, path: &DatastorePath) -> Result<(), Fault> {
    let state = host.state();
    let below = format!("{}/", path.path);
    let covers = |other: &DatastorePath| other == path || other.path.starts_with(&below);
    for vm in state.vms.values() {
        let disks = vm
            .config
            .disks()
            .filter_map(|d| d.disk_backing()?.file_name.parse::<DatastorePath>().ok());
        if covers(&vm.vmx) || disks.into_iter().any(|disk| covers(&disk)) {
            return Err(locked(
                path,
                &format!("the virtual machine '{}' has it", vm.config.name),
            ));
        }
    }
    Ok(())
}

/// Deletes a file.
///
/// # Errors
/// `FileNotFound`, `FileLocked`.
pub fn delete_file(host: &Arc<Host>, path: &DatastorePath) -> Result<(), Fault> {
    free(host, path)?;
    let file = host.store.resolve(path)?;
    if file.is_dir() {
        return delete(host, path);
    }
    if path.path.ends_with(".vmdk") {
        return host.disks.delete(&host.store, path);
    }
    fs::remove_file(&file).map_err(|e| file_fault(path, &e))?;
    file.parent()
        .map_or(Ok(()), sync_folder)
        .map_err(|e| file_fault(path, &e))
}

/// Deletes a file, or a folder with all in it.
///
/// # Errors
/// `FileNotFound`; `FileLocked` where a VM has something of it, or a VMDK elsewhere is built on one of it.
pub fn delete(host: &Arc<Host>, path: &DatastorePath) -> Result<(), Fault> {
    let file = host.store.resolve(path)?;
    if path.path.is_empty() {
        return Err(locked(path, "the datastore's root cannot be deleted"));
    }
    if !file.is_dir() {
        return delete_file(host, path);
    }
    free(host, path)?;
    children_elsewhere(host, path)?;
    // File by file, as on VMFS: where the host fails in the middle, the rest is there afterwards.
    let deleted = fs::remove_dir_all(&file);
    host.disks.refresh_folder(&host.store, path);
    let synced = deleted.and_then(|()| file.parent().map_or(Ok(()), sync_folder));
    synced.map_err(|e| file_fault(path, &e))
}

fn children_elsewhere(host: &Host, folder: &DatastorePath) -> Result<(), Fault> {
    let below = format!("{}/", folder.path);
    for (child, parent) in host.disks.parents() {
        if parent.path.starts_with(&below) && !child.path.starts_with(&below) {
            return Err(locked(&parent, &format!("{child} is a child of it")));
        }
    }
    Ok(())
}

/// Moves a file or folder.
///
/// # Errors
/// `FileNotFound`, `FileAlreadyExists` (not with `force` for a file), `FileLocked`.
pub fn move_to(
    host: &Arc<Host>,
    from: &DatastorePath,
    to: &DatastorePath,
    force: bool,
) -> Result<(), Fault> {
    free(host, from)?;
    let source = host.store.resolve(from)?;
    let target = host.store.resolve(to)?;
    let meta = fs::symlink_metadata(&source).map_err(|e| file_fault(from, &e))?;
    if from.path.is_empty()
        || to.path.is_empty()
        || format!("{}/", to.path).starts_with(&format!("{}/", from.path))
    {
        return Err(Fault::invalid_argument(
            "destinationName",
            format!("{from} cannot be moved to {to}"),
        ));
    }
    if target.exists() {
        if !force || target.is_dir() || meta.is_dir() {
            return Err(file_fault(to, &std::io::ErrorKind::AlreadyExists.into()));
        }
        free(host, to)?;
        if let Some(child) = host.disks.children(to).first() {
            return Err(locked(to, &format!("{child} is a child of it")));
        }
    }
    if meta.is_dir() {
        children_elsewhere(host, from)?;
    } else if let Some(child) = host.disks.children(from).first() {
        return Err(locked(from, &format!("{child} is a child of it")));
    }
    // A child names its parent relative to its own folder: moved alone, it would lose it.
    let alone = !meta.is_dir() && from.parent() != to.parent();
    if alone
        && host
            .disks
            .open(&host.store, from)
            .is_ok_and(|d| d.parent.is_some())
    {
        let kind = FaultKind::NotSupported {};
        return Err(Fault::new(
            kind,
            format!("{from} is a child disk; it cannot be moved away from its folder"),
        ));
    }
    fs::rename(&source, &target).map_err(|e| file_fault(to, &e))?;
    for folder in [source.parent(), target.parent()].into_iter().flatten() {
        sync_folder(folder).map_err(|e| file_fault(to, &e))?;
    }
    host.disks.refresh_folder(&host.store, from);
    host.disks.refresh_folder(&host.store, to);
    Ok(())
}

/// Copies a VMDK with its parents folded in, by qemu-img.
///
/// # Errors
/// `FileNotFound`, `FileAlreadyExists`, `SystemError` with what qemu-img says.
pub fn copy_disk(host: &Arc<Host>, from: &DatastorePath, to: &DatastorePath) -> Result<(), Fault> {
    host.disks.chain(&host.store, from)?;
    let source = host.store.resolve(from)?;
    let target = host.store.resolve(to)?;
    if target.exists() {
        return Err(file_fault(to, &std::io::ErrorKind::AlreadyExists.into()));
    }
    let part = part_of(&target);
    let made = convert(&source, &part).and_then(|()| fs::File::open(&part)?.sync_all());
    if let Err(error) = made.and_then(|()| fs::rename(&part, &target)) {
        let _ = fs::remove_file(&part);
        return Err(system_error(format!("cannot copy {from} to {to}: {error}")));
    }
    target
        .parent()
        .map_or(Ok(()), sync_folder)
        .map_err(|e| file_fault(to, &e))?;
    host.disks.refresh(&host.store, to);
    Ok(())
}

fn convert(source: &Path, target: &Path) -> std::io::Result<()> {
    let output = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "vmdk", "-O", "vmdk"])
        .arg(source)
        .arg(target)
        .stdin(std::process::Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(std::io::Error::other(format!("qemu-img convert: {words}")))
}
