//! Names to files, strictly inside the datastore's folder.

use super::file_fault;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vim::{DatastorePath, Fault, FaultKind};

/// The datastore.
#[derive(Debug)]
pub struct Datastore {
    name: String,
    root: PathBuf,
    /// Bytes that it pretends to have; `None`: as much as the file system.
    limit: Option<u64>,
}

impl Datastore {
    /// Opens the datastore of this name in a folder, which is made where it does not exist.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(name: &str, root: &Path, limit: Option<u64>) -> io::Result<Datastore> {
        fs::create_dir_all(root)?;
        Ok(Datastore {
            name: name.to_owned(),
            root: root.canonicalize()?,
            limit,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it from its text form.
    ///
    /// # Errors
    /// `InvalidDatastorePath` where it is none, or is in another datastore.
    pub fn parse(&self, text: &str) -> Result<DatastorePath, Fault> {
        let fault = |why: &str| {
            let datastore_path = text.chars().take(300).collect::<String>();
            let message = format!("Invalid datastore path '{datastore_path}': {why}");
            Fault::new(FaultKind::InvalidDatastorePath { datastore_path }, message)
        };
        let path: DatastorePath = text
            .parse()
            .map_err(|e: vim::datastore::BadDatastorePath| fault(&e.to_string()))?;
        if path.datastore != self.name {
            return Err(fault(&format!("the only datastore is '{}'", self.name)));
        }
        Ok(path)
    }

    /// The file of a path. No part of it may be a symbolic link, so that none leads outside;
    /// the last one may be missing.
    ///
    /// # Errors
    /// `FileNotFound` where a folder above it is missing, `InvalidDatastorePath` for a link.
    pub fn resolve(&self, path: &DatastorePath) -> Result<PathBuf, Fault> {
        let mut file = self.root.clone();
        if path.path.is_empty() {
            return Ok(file);
        }
        let mut parts = path.path.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") || part.contains('\0') {
                return Err(self.escape(path, "it has a part that is no name"));
            }
            file.push(part);
            match fs::symlink_metadata(&file) {
                Ok(meta) if meta.file_type().is_symlink() => {
                    return Err(self.escape(path, "it leads through a symbolic link"));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound && parts.peek().is_none() => {}
                Err(e) => return Err(file_fault(path, &e)),
            }
        }
        Ok(file)
    }

    /// The file of a path in a folder; `None` where the folder does not exist yet.
    ///
    /// # Errors
    /// As [`Datastore::resolve`].
    pub fn resolve_below(
        &self,
        folder: &DatastorePath,
        path: &DatastorePath,
    ) -> Result<Option<PathBuf>, Fault> {
        if self.resolve(folder)?.is_dir() {
            self.resolve(path).map(Some)
        } else {
            Ok(None)
        }
    }

    fn escape(&self, path: &DatastorePath, why: &str) -> Fault {
        let datastore_path = path.to_string();
        let message = format!("Invalid datastore path '{datastore_path}': {why}");
        Fault::new(FaultKind::InvalidDatastorePath { datastore_path }, message)
    }

    /// The path of a file in the datastore's folder; `None` where it is outside of it.
    pub fn path_of(&self, file: &Path) -> Option<DatastorePath> {
        let relative = file.strip_prefix(&self.root).ok()?;
        Some(DatastorePath::new(self.name.clone(), relative.to_str()?))
    }

    /// Bytes in all and bytes free.
    pub fn space(&self) -> (u64, u64) {
        let (total, free) = match nix::sys::statvfs::statvfs(&self.root) {
            Ok(stat) => {
                let unit = stat.fragment_size();
                (
                    stat.blocks().saturating_mul(unit),
                    stat.blocks_available().saturating_mul(unit),
                )
            }
            Err(_) => (0, 0),
        };
        match self.limit {
            Some(limit) => {
                let used = used(&self.root).unwrap_or(0);
                (limit, free.min(limit.saturating_sub(used)))
            }
            None => (total, free),
        }
    }

    /// Refuses what would not fit any more.
    ///
    /// # Errors
    /// `InsufficientStorageSpace`.
    pub fn reserve(&self, bytes: u64) -> Result<(), Fault> {
        let (_, free) = self.space();
        if bytes <= free {
            return Ok(());
        }
        let message = format!(
            "Insufficient disk space on datastore '{}': {bytes} bytes are needed, {free} are free",
            self.name
        );
        Err(Fault::new(FaultKind::InsufficientStorageSpace {}, message))
    }

    /// Whether it pretends to have less space than there is.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Makes a folder, with `parents` also those above it, which may exist. The folder itself must
    /// not, with `parents` neither: so it is in vSphere, and govc's `datastore.mkdir -p` passes over
    /// the fault (govmomi, `govc/datastore/mkdir.go`).
    ///
    /// # Errors
    /// `FileAlreadyExists`, `FileNotFound`; `FileFault` where something above is no folder.
    pub fn make_folder(&self, path: &DatastorePath, parents: bool) -> Result<(), Fault> {
        if parents && let Some(parent) = path.parent().filter(|p| !p.path.is_empty()) {
            match self.make_folder(&parent, true) {
                Err(fault) if matches!(fault.kind, FaultKind::FileAlreadyExists { .. }) => {}
                made => made?,
            }
        }
        let folder = self.resolve(path)?;
        match fs::create_dir(&folder) {
            Ok(()) => folder
                .parent()
                .map_or(Ok(()), sync_folder)
                .map_err(|e| file_fault(path, &e)),
            Err(e) => Err(file_fault(path, &e)),
        }
    }
}

/// Bytes that a folder's files take on disk.
fn used(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            sum += used(&entry.path()).unwrap_or(0);
        } else if meta.is_file() {
            sum += meta.blocks() * 512;
        }
    }
    Ok(sum)
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file so that it is whole or not there at all, whatever happens: write, fsync,
/// rename, fsync the folder.
pub(crate) fn write_durably(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = file
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = folder.join(format!(".{name}.new"));
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    sync_folder(folder)
}
