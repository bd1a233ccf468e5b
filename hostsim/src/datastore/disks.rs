//! The VMDKs of the datastore: capacity, parent, and who has whom as parent.

use super::{Datastore, file_fault, locked};
use layers::vmdk::{Identity, Parent, SparseFile, create_child};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vim::{DatastorePath, Fault, FaultKind};

/// VMDKs of a chain, before it is taken for a loop.
const CHAIN_MAX: usize = 128;

/// What a VMDK says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Bytes of the virtual disk.
    pub capacity: u64,
    /// Content ID.
    pub cid: u32,
    /// The VMDK below it.
    pub parent: Option<DatastorePath>,
}

/// Index of the VMDKs. Kept by every operation that makes, moves or deletes one.
#[derive(Debug, Default)]
pub struct Disks {
    known: Mutex<HashMap<DatastorePath, DiskFile>>,
}

impl Disks {
    /// Reads all VMDKs of the datastore.
    pub fn scan(store: &Datastore) -> Disks {
        let disks = Disks::default();
        disks.scan_folder(store, store.root());
        disks
    }

    fn scan_folder(&self, store: &Datastore, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let file = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.scan_folder(store, &file),
                Ok(kind) if kind.is_file() => {
                    if let Some(path) = store.path_of(&file) {
                        self.refresh(store, &path);
                    }
                }
                _ => {}
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DatastorePath, DiskFile>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a file that was made, replaced or deleted.
    pub fn refresh(&self, store: &Datastore, path: &DatastorePath) {
        if !path.path.ends_with(".vmdk") {
            return;
        }
        match read(store, path) {
            Ok(disk) => self.lock().insert(path.clone(), disk),
            Err(_) => self.lock().remove(path),
        };
    }

    /// Takes note of a folder that was moved or deleted.
    pub fn refresh_folder(&self, store: &Datastore, path: &DatastorePath) {
        let below = format!("{}/", path.path);
        self.lock()
            .retain(|known, _| !known.path.starts_with(&below) && known != path);
        if let Ok(folder) = store.resolve(path) {
            if folder.is_dir() {
                self.scan_folder(store, &folder);
            } else {
                self.refresh(store, path);
            }
        }
    }

    /// What a VMDK says of itself, read anew.
    ///
    /// # Errors
    /// `FileNotFound`, or `FileFault` where it is no VMDK.
    pub fn open(&self, store: &Datastore, path: &DatastorePath) -> Result<DiskFile, Fault> {
        if let Some(disk) = self.lock().get(path) {
            return Ok(disk.clone());
        }
        let disk = read(store, path)?;
        self.lock().insert(path.clone(), disk.clone());
        Ok(disk)
    }

    /// The chain of a VMDK, itself first.
    ///
    /// # Errors
    /// As [`Disks::open`], for any of them.
    pub fn chain(
        &self,
        store: &Datastore,
        path: &DatastorePath,
    ) -> Result<Vec<(DatastorePath, DiskFile)>, Fault> {
        let mut chain = Vec::new();
        let mut next = Some(path.clone());
        while let Some(path) = next {
            if chain.len() == CHAIN_MAX {
                let file = path.to_string();
                let message = format!("The chain of {file} has more than {CHAIN_MAX} disks");
                return Err(Fault::new(FaultKind::FileFault { file }, message));
            }
            let disk = self.open(store, &path)?;
            next = disk.parent.clone();
            chain.push((path, disk));
        }
        Ok(chain)
    }

    /// The VMDKs that have this one as parent.
    pub fn children(&self, path: &DatastorePath) -> Vec<DatastorePath> {
        self.lock()
            .iter()
            .filter(|(_, d)| d.parent.as_ref() == Some(path))
            .map(|(p, _)| p.clone())
            .collect()
    }

    /// Every child with its parent.
    pub fn parents(&self) -> Vec<(DatastorePath, DatastorePath)> {
        self.lock()
            .iter()
            .filter_map(|(path, d)| Some((path.clone(), d.parent.clone()?)))
            .collect()
    }

    /// Makes an empty VMDK: a child of `parent` with its capacity, or one of `capacity` bytes.
    ///
    /// # Errors
    /// `FileAlreadyExists`, `FileNotFound` for the parent, `NoDiskSpace`.
    pub fn create(
        &self,
        store: &Datastore,
        path: &DatastorePath,
        parent: Option<&DatastorePath>,
        capacity: u64,
    ) -> Result<(), Fault> {
        let file = store.resolve(path)?;
        let (capacity, parent) = match parent {
            Some(parent) => {
                let disk = self.open(store, parent)?;
                let hint = hint(&file, &store.resolve(parent)?);
                (
                    disk.capacity,
                    Some(Parent {
                        hint,
                        cid: disk.cid,
                    }),
                )
            }
            None => (capacity.next_multiple_of(1 << 20), None),
        };
        let mut random = [0u8; 4];
        getrandom::fill(&mut random)
            .map_err(|e| file_fault(path, &io::Error::other(format!("no random bytes: {e}"))))?;
        let cid = u32::from_le_bytes(random).clamp(1, 0xFFFF_FFFD);
        let identity = Identity {
            name: path.file_name().to_owned(),
            capacity,
            cid,
            parent,
        };
        create_child(&file, &identity).map_err(|e| match e {
            layers::vmdk::VmdkError::Io(e) => file_fault(path, &e),
            other => Fault::invalid_argument("capacityInKB", format!("{path}: {other}")),
        })?;
        self.refresh(store, path);
        Ok(())
    }

    /// Deletes a VMDK that has no children.
    ///
    /// # Errors
    /// `FileNotFound`; `FileLocked` where another VMDK has it as parent.
    pub fn delete(&self, store: &Datastore, path: &DatastorePath) -> Result<(), Fault> {
        if let Some(child) = self.children(path).first() {
            return Err(locked(path, &format!("{child} is a child of it")));
        }
        let file = store.resolve(path)?;
        fs::remove_file(&file).map_err(|e| file_fault(path, &e))?;
        self.lock().remove(path);
        if let Some(folder) = file.parent() {
            super::path::sync_folder(folder).map_err(|e| file_fault(path, &e))?;
        }
        Ok(())
    }
}

fn read(store: &Datastore, path: &DatastorePath) -> Result<DiskFile, Fault> {
    let file = store.resolve(path)?;
    let source = File::open(&file).map_err(|e| file_fault(path, &e))?;
    let sparse = SparseFile::open(source).map_err(|e| {
        let text = path.to_string();
        let message = format!("The file {text} is no virtual disk: {e}");
        Fault::new(FaultKind::FileFault { file: text }, message)
    })?;
    let parent = match sparse.parent() {
        Some(parent) => Some(parent_path(store, &file, &parent.hint).ok_or_else(|| {
            let text = path.to_string();
            let message = format!(
                "The parent of {text}, {:?}, is not on the datastore",
                parent.hint
            );
            Fault::new(FaultKind::FileFault { file: text }, message)
        })?),
        None => None,
    };
    Ok(DiskFile {
        capacity: sparse.capacity(),
        cid: sparse.cid(),
        parent,
    })
}

/// The parent that a hint names, by name only: no link is followed.
fn parent_path(store: &Datastore, child: &Path, hint: &str) -> Option<DatastorePath> {
    let start = if Path::new(hint).is_absolute() {
        PathBuf::new()
    } else {
        child.parent()?.to_path_buf()
    };
    let mut file = PathBuf::new();
    for part in start.join(hint).components() {
        match part {
            Component::ParentDir => {
                file.pop();
            }
            Component::CurDir => {}
            other => file.push(other),
        }
    }
    store.path_of(&file)
}

/// How a child names its parent: relative to its own folder, so that the datastore can be moved.
fn hint(child: &Path, parent: &Path) -> String {
    let from: Vec<Component<'_>> = child
        .parent()
        .map(|p| p.components().collect())
        .unwrap_or_default();
    let to: Vec<Component<'_>> = parent.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut hint = PathBuf::new();
    for _ in common..from.len() {
        hint.push("..");
    }
    hint.extend(&to[common..]);
    hint.to_string_lossy().into_owned()
}

/// UUID of a VMDK in VMware's form, `60 00 C2 9a …-…`; follows from its path and content ID.
pub fn disk_uuid(path: &DatastorePath, disk: &DiskFile) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(format!("{path}/{:08x}", disk.cid).as_bytes());
    let mut bytes = [0x60, 0x00, 0xC2, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&hash[..12]);
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}", pairs[..8].join(" "), pairs[8..].join(" "))
}
