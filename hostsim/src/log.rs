//! Which VMs are registered: a log of additions and removals, compacted at each start.
//!
//! A VM in the making is noted before its first file is made, so that what a kill leaves of it
//! can be removed at the next start.

use crate::datastore::{Datastore, Disks};
use crate::vm::files::read_vmx;
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
    lines: Mutex<Lines>,
}

/// The log's file.
#[derive(Debug)]
struct Lines {
    file: File,
    /// Bytes of the lines that count. What is behind them is left of one that could not be written.
    len: u64,
}

impl Lines {
    fn append(&mut self, line: &str, durable: bool) -> io::Result<()> {
        // Else the half of a line and this one would make one that nobody can read.
        if self.file.metadata()?.len() != self.len {
            self.file.set_len(self.len)?;
        }
        self.file.write_all(line.as_bytes())?;
        if durable {
            self.file.sync_data()?;
        }
        self.len += line.len() as u64;
        Ok(())
    }
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
        let mut lines = text
            .split_inclusive(|&b| b == b'\n')
            .filter(|l| l.ends_with(b"\n"))
            .peekable();
        while let Some(line) = lines.next() {
            let entry = match serde_json::from_slice(line) {
                Ok(entry) => entry,
                // Torn by the end of the machine in the middle of a write.
                Err(error) if lines.peek().is_none() => {
                    let line = String::from_utf8_lossy(line);
                    tracing::error!(%line, %error, "the inventory's last line is torn; it is left out");
                    break;
                }
                Err(e) => {
                    let message = format!("{}: {e}", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            };
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
            let free = |text: &str| !is_registered(store, &inventory, text);
            let files: Vec<String> = files.into_iter().filter(|file| free(file)).collect();
            undo(store, folder.as_deref().filter(|f| free(f)), &files);
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
        let len = compact.len() as u64;
        let lines = Mutex::new(Lines { file, len });
        Ok((InventoryLog { lines }, inventory))
    }

    /// Appends a line; with `durable` it is on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written; the log is as it was.
    pub fn append(&self, entry: &Entry, durable: bool) -> io::Result<()> {
        let line = line(entry)?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = lines.append(&line, durable);
        if appended.is_err() {
            // Should this fail, too, the next line makes up for it, or the next start.
            let _ = lines.file.set_len(lines.len);
        }
        appended
    }
}

fn line(entry: &Entry) -> io::Result<String> {
    let mut line = serde_json::to_string(entry).map_err(io::Error::from)?;
    line.push('\n');
    Ok(line)
}

/// Whether a path is a registered VM's: its folder, its .vmx, a disk of it; where its .vmx cannot be read, all that is
/// beside it.
fn is_registered(store: &Datastore, inventory: &Inventory, text: &str) -> bool {
    let Ok(path) = text.parse::<DatastorePath>() else {
        return false;
    };
    let vmxs = inventory.vms.values().filter_map(|vmx| vmx.parse().ok());
    vmxs.into_iter().any(|vmx: DatastorePath| {
        let folder = vmx.parent();
        if vmx == path || folder.as_ref() == Some(&path) {
            return true;
        }
        match read_vmx(store, &vmx) {
            Ok(config) => config
                .disks()
                .filter_map(|disk| disk.disk_backing()?.file_name.parse().ok())
                .any(|disk: DatastorePath| disk == path),
            Err(_) => folder == path.parent(),
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::VmConfig;
    use crate::vm::files::write_vmx;
    use vim::types::{DiskBacking, VirtualDevice};

    fn store(folder: &Path) -> Datastore {
        Datastore::open("ds", &folder.join("ds"), None).unwrap()
    }

    fn add(id: u64, vmx: &str) -> Entry {
        let vmx = vmx.to_owned();
        Entry::Add { id, vmx }
    }

    fn begin(id: u64, folder: &str, files: &[&str]) -> Entry {
        Entry::Begin {
            id,
            folder: Some(folder.to_owned()),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        }
    }

    #[test]
    fn what_a_failed_append_left_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = (folder.path().join("log"), store(folder.path()));
        let (log, _) = InventoryLog::open(&path, &store).unwrap();
        log.append(&add(1, "[ds] a.vmx"), true).unwrap();
        // As a full disk leaves it, if it cannot even be cut off again.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"op":"add","id":2,"vm"#).unwrap();
        log.append(&add(3, "[ds] c.vmx"), true).unwrap();
        log.append(&add(4, "[ds] d.vmx"), false).unwrap();
        drop(log);
        let (_, inventory) = InventoryLog::open(&path, &store).unwrap();
        assert_eq!(inventory.vms.into_keys().collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn a_torn_line_is_left_out_where_it_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = (folder.path().join("log"), store(folder.path()));
        let whole = line(&add(1, "[ds] a.vmx")).unwrap();
        let torn = "{\"op\":\"add\",\"id\":2,\"vm{\"op\":\"done\",\"id\":2}\n";
        fs::write(&path, format!("{whole}{torn}")).unwrap();
        let (log, inventory) = InventoryLog::open(&path, &store).unwrap();
        assert_eq!(inventory.vms.into_keys().collect::<Vec<_>>(), [1]);
        log.append(&add(3, "[ds] c.vmx"), true).unwrap();
        let (_, inventory) = InventoryLog::open(&path, &store).unwrap();
        assert_eq!(inventory.vms.into_keys().collect::<Vec<_>>(), [1, 3]);

        fs::write(&path, format!("{torn}{whole}")).unwrap();
        let kind = InventoryLog::open(&path, &store).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_a_registered_vm_s_by_now_is_not_undone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = (folder.path().join("log"), store(folder.path()));
        let file = |text: &str| store.resolve(&text.parse().unwrap()).unwrap();
        let write = |text: &str| fs::write(file(text), "").unwrap();
        for name in ["a", "b", "half"] {
            fs::create_dir(store.root().join(name)).unwrap();
        }
        let backing = DiskBacking::new("[ds] a/a.vmdk");
        let config = VmConfig {
            devices: vec![VirtualDevice::disk(2000, 1000, 0, backing, 1 << 20)],
            ..VmConfig::default()
        };
        let host = crate::host::Host::for_tests(folder.path());
        write_vmx(&host, &"[ds] a/a.vmx".parse().unwrap(), &config).unwrap();
        let all = [
            "[ds] a/a.vmdk",
            "[ds] a/b.vmdk",
            "[ds] b/b.vmdk",
            "[ds] half/h.vmdk",
        ];
        for text in all {
            write(text);
        }
        // This one's .vmx says nothing, so all that is beside it may be its.
        fs::write(file("[ds] b/b.vmx"), "torn").unwrap();
        let mut log = String::new();
        for entry in [
            // The end of each of the first two could not be noted; others have their places now.
            begin(
                1,
                "[ds] a",
                &["[ds] a/a.vmx", "[ds] a/a.vmdk", "[ds] a/b.vmdk"],
            ),
            begin(2, "[ds] b", &["[ds] b/b.vmx", "[ds] b/b.vmdk"]),
            begin(3, "[ds] half", &["[ds] half/h.vmx", "[ds] half/h.vmdk"]),
            add(4, "[ds] a/a.vmx"),
            add(5, "[ds] b/b.vmx"),
        ] {
            log.push_str(&line(&entry).unwrap());
        }
        fs::write(&path, log).unwrap();
        InventoryLog::open(&path, &store).unwrap();
        assert!(file("[ds] a/a.vmx").exists() && file("[ds] a/a.vmdk").exists());
        assert!(!file("[ds] a/b.vmdk").exists());
        assert!(file("[ds] b/b.vmx").exists() && file("[ds] b/b.vmdk").exists());
        assert!(!store.root().join("half").exists());
    }
}
