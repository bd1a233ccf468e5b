//! Where a new VM goes: its name and its folder, taken while it is made.

use super::folder_of;
use crate::datastore::file_fault;
use crate::host::Host;
use std::sync::Arc;
use vim::{DatastorePath, Fault, FaultKind};

/// Bytes of a VM's name.
const NAME_MAX: usize = 255;

/// Refuses what cannot be a VM's name.
///
/// # Errors
/// `InvalidName`.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
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
pub(super) struct Reservation {
    host: Arc<Host>,
    name: String,
    folder: Option<String>,
}

impl Reservation {
    /// Of a name that is in the state's list by now.
    pub(super) fn of_name(host: &Arc<Host>, name: &str) -> Reservation {
        Reservation {
            host: host.clone(),
            name: name.to_owned(),
            folder: None,
        }
    }
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

/// Where the VM's .vmx goes, and whether its folder is new.
pub(super) fn vmx_path(
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
        let folder = folder_of(&asked_path);
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
