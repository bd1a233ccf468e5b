//! Which VMs are registered: a log of additions and removals, compacted at each start.
//!
//! A VM in the making is noted before its first file is made, so that what a kill leaves of it
//! can be removed at the next start.

use crate::datastore::{Datastore, Disks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vim::DatastorePath;

/// One line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Entry {
    /// A VM is registered.
    Add {
        /// Its ID.
        id: u64,
        /// Its .vmx.
        vmx: String,
    },
    /// A VM is no longer registered.
    Remove {
        /// Its ID.
        id: u64,
    },
    /// Files are about to be made for a VM; undone unless an addition of this ID (or `Done`) follows.
    Begin {
        /// ID of the VM.
        id: u64,
        /// Its folder, where it is made for it.
        folder: Option<String>,
        /// Files that are made.
        files: Vec<String>,
    },
    /// What was begun has ended, one way or the other.
    Done {
        /// ID of the VM.
        id: u64,
    },
}

/// The log.
#[derive(Debug)]
pub struct InventoryLog {
    file: Mutex<File>,
}

/// What a log says.
#[derive(Debug, Default)]
pub struct Inventory {
    /// .vmx by ID.
    pub vms: BTreeMap<u64, String>,
    /// Highest ID ever given.
    pub last: u64,
}

impl InventoryLog {
    /// Reads and compacts the log, and removes what was begun and not ended.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub fn open(path: &Path, store: &Datastore) -> io::Result<(InventoryLog, Inventory)> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let mut inventory = Inventory::default();
        let mut begun: BTreeMap<u64, (Option<String>, Vec<String>)> = BTreeMap::new();
        // A last line without its newline was cut short by a kill and never counted.
        for line in text
            .split_inclusive(|&b| b == b'\n')
            .filter(|l| l.ends_with(b"\n"))
        {
            let entry = serde_json::from_slice(line).map_err(|e| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: {e}", path.display()),
                )
            })?;
            match entry {
                Entry::Add { id, vmx } => {
                    inventory.last = inventory.last.max(id);
                    begun.remove(&id);
                    inventory.vms.insert(id, vmx);
                }
                Entry::Remove { id } => {
                    inventory.last = inventory.last.max(id);
                    inventory.vms.remove(&id);
                }
                Entry::Begin { id, folder, files } => {
                    inventory.last = inventory.last.max(id);
                    begun.insert(id, (folder, files));
                }
                Entry::Done { id } => {
                    begun.remove(&id);
                }
            }
        }
        for (id, (folder, files)) in begun {
            tracing::info!(id, "removing what is left of a VM that was being made");
            undo(store, folder.as_deref(), &files);
        }
        let mut compact = String::new();
        for (id, vmx) in &inventory.vms {
            compact.push_str(&line(&Entry::Add {
                id: *id,
                vmx: vmx.clone(),
            })?);
        }
        // Keeps the highest ID known even if its VM is gone.
        compact.push_str(&line(&Entry::Done { id: inventory.last })?);
        if inventory.last > 0 && !inventory.vms.contains_key(&inventory.last) {
            compact.push_str(&line(&Entry::Remove { id: inventory.last })?);
        }
        crate::datastore::write_durably(path, compact.as_bytes(), 0o600)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok((
            InventoryLog {
                file: Mutex::new(file),
            },
            inventory,
        ))
    }

    /// Appends a line; with `durable` it is on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&self, entry: &Entry, durable: bool) -> io::Result<()> {
        let line = line(entry)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())?;
        if durable {
            file.sync_data()?;
        }
        Ok(())
    }
}

fn line(entry: &Entry) -> io::Result<String> {
    let mut line = serde_json::to_string(entry).map_err(io::Error::from)?;
    line.push('\n');
    Ok(line)
}

/// Removes files that were made for a VM, and its folder where it was made for it.
pub fn undo(store: &Datastore, folder: Option<&str>, files: &[String]) {
    let resolve = |text: &str| -> Option<PathBuf> {
        let path: DatastorePath = text.parse().ok()?;
        store.resolve(&path).ok()
    };
    for file in files.iter().filter_map(|f| resolve(f)) {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "cannot remove a half-made file");
        }
    }
    if let Some(folder) = folder.and_then(resolve) {
        // Only what was made for the VM is in it: the .vmx in the making, too.
        let _ = fs::read_dir(&folder).map(|entries| {
            for entry in entries.flatten() {
                let name = entry.file_name();
                if name.to_string_lossy().starts_with('.') {
                    let _ = fs::remove_file(entry.path());
                }
            }
        });
        let _ = fs::remove_dir(&folder);
    }
}

/// As [`undo`], and takes note of it in the index of disks.
pub fn undo_and_note(store: &Datastore, disks: &Disks, folder: Option<&str>, files: &[String]) {
    undo(store, folder, files);
    for path in files.iter().filter_map(|f| f.parse().ok()) {
        disks.refresh(store, &path);
    }
}
