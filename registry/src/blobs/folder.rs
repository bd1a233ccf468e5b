//! A store in a local folder: `uploads/<key>` while it is staged, `blobs/<first two hex digits>/<key>` after.
//!
//! A blob counts once the metadata name its key. The file and its entry in `uploads/` are synced before that; the rename
//! comes after, needs no sync, and is done again by the next start if a crash undid it. So a crash at any moment leaves no
//! file without an owner outside of `uploads/`, and no start has to walk over `blobs/`.

use super::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder {
    uploads: PathBuf,
    blobs: PathBuf,
}

impl Folder {
    /// Makes the folder's folders, once.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(root: &Path) -> Result<(), Error> {
        let make = |path: &Path| fs::create_dir_all(path).map_err(Error::file("create", path));
        make(&root.join("uploads"))?;
        let blobs = root.join("blobs");
        for n in 0..=255u8 {
            make(&blobs.join(format!("{n:02x}")))?;
        }
        for path in [&blobs, root] {
            sync_folder(path)?;
        }
        Ok(())
    }

    /// Opens a folder that was created.
    ///
    /// # Errors
    /// When there is none.
    pub fn open_at(root: &Path) -> Result<Self, Error> {
        let folder = Folder {
            uploads: root.join("uploads"),
            blobs: root.join("blobs"),
        };
        for path in [&folder.uploads, &folder.blobs] {
            fs::metadata(path).map_err(Error::file("open", path))?;
        }
        Ok(folder)
    }

    fn staged(&self, key: &str) -> PathBuf {
        self.uploads.join(safe(key))
    }

    fn settled(&self, key: &str) -> PathBuf {
        let key = safe(key);
        self.blobs.join(&key[..2]).join(key)
    }

    /// Makes an empty staged file.
    ///
    /// # Errors
    /// When it cannot be made, or is there already.
    pub fn stage(&self, key: &str) -> Result<File, Error> {
        let path = self.staged(key);
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::file("create", path))
    }

    /// Opens a staged file and cuts it to what is known of it.
    ///
    /// # Errors
    /// When it is not there, is shorter, or cannot be cut.
    pub fn reopen(&self, key: &str, length: u64) -> Result<File, Error> {
        let path = self.staged(key);
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        let have = file
            .metadata()
            .map_err(Error::file("look at", &path))?
            .len();
        if have < length {
            let source = io::Error::other(format!("it has {have} bytes, {length} were recorded"));
            return Err(Error::file("resume", path)(source));
        }
        if have > length {
            file.set_len(length).map_err(Error::file("cut", path))?;
        }
        Ok(file)
    }

    /// Makes the entries of the staging folder durable.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn sync_staging(&self) -> Result<(), Error> {
        sync_folder(&self.uploads)
    }

    /// Keys of the staged files.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn staged_keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        let list = fs::read_dir(&self.uploads).map_err(Error::file("list", &self.uploads))?;
        for entry in list {
            let entry = entry.map_err(Error::file("list", &self.uploads))?;
            if let Ok(name) = entry.file_name().into_string() {
                keys.push(name);
            }
        }
        Ok(keys)
    }

    /// Removes a staged file; one that is not there is no error.
    ///
    /// # Errors
    /// When it is still there.
    pub fn discard(&self, key: &str) -> Result<(), Error> {
        remove(self.staged(key))
    }

    pub(super) fn settle(&self, key: &str) -> Result<(), Error> {
        let (from, to) = (self.staged(key), self.settled(key));
        match fs::rename(&from, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
            done => done.map_err(Error::file("rename", from)),
        }
    }

    pub(super) fn open(&self, key: &str) -> Result<File, Error> {
        let settled = self.settled(key);
        // Three looks: between the first and the second the file may just have been moved.
        for path in [&settled, &self.staged(key), &settled] {
            match File::open(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => return done.map_err(Error::file("open", path)),
            }
        }
        Err(Error::file("open", settled)(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
        remove(self.staged(key))?;
        remove(self.settled(key))
    }
}

/// Keys come from the metadata and from the staging folder's names, and are made of hex digits; anything else stays inside
/// of the folder all the same.
fn safe(key: &str) -> &str {
    if key.len() >= 2 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        key
    } else {
        "invalid-key"
    }
}

fn remove(path: PathBuf) -> Result<(), Error> {
    match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(Error::file("remove", path)),
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::file("sync", path))
}
