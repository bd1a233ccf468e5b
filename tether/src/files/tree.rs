//! The kernel's file tree, to be told.

use super::child::{failed, system};
use crate::sys::fs::{NO_MAGICLINKS, attribute, list_attributes, openat2};
use filetree::{Found, Tree};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::files::Failure;

/// `RESOLVE_NO_SYMLINKS` and `RESOLVE_BENEATH` of openat2(2).
const BENEATH: u64 = 0x04 | 0x08;

/// The tree at a path of this process's root.
#[derive(Debug)]
pub struct Kernel {
    place: PathBuf,
}

impl Kernel {
    /// What is at `place`.
    pub fn at(place: impl Into<PathBuf>) -> Self {
        Self {
            place: place.into(),
        }
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.place.clone()
        } else {
            self.place.join(OsStr::from_bytes(path))
        }
    }

    fn text(&self, path: &[u8]) -> CString {
        // No path has a NUL: each is made of names that the kernel gave.
        CString::new(self.path(path).into_os_string().into_vec()).unwrap_or_default()
    }
}

impl Tree for Kernel {
    type File = File;

    fn names(&mut self, folder: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let folder = self.path(folder);
        let listed = fs::read_dir(&folder).and_then(|entries| {
            entries
                .map(|e| Ok(e?.file_name().into_vec()))
                .collect::<io::Result<Vec<_>>>()
        });
        let names = there(listed, "open", &folder)?;
        let mut names = names.unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }

    fn look(&mut self, path: &[u8]) -> Result<Option<Found>, Failure> {
        let path = self.path(path);
        let found = there(fs::symlink_metadata(&path), "lstat", &path)?;
        Ok(found.map(|found| described(&found)))
    }

    fn link(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(path);
        let target = there(fs::read_link(&path), "readlink", &path)?;
        Ok(target.map(|target| target.into_os_string().into_vec()))
    }

    fn attribute_names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let listed = list_attributes(&self.text(path)).unwrap_or_default();
        let names = listed.split(|b| *b == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn attribute(&mut self, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let name = CString::new(name).unwrap_or_default();
        Ok(attribute(&self.text(path), &name).ok())
    }

    fn open(&mut self, path: &[u8]) -> Result<Option<(File, Found)>, Failure> {
        let path = self.path(path);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path);
        let Some(file) = there(opened, "open", &path)? else {
            return Ok(None);
        };
        let found = file.metadata().map_err(failed("stat", &path))?;
        Ok(Some((file, described(&found))))
    }

    fn next(&mut self, path: &[u8], file: &mut File, buf: &mut [u8]) -> Result<usize, Failure> {
        file.read(buf)
            .map_err(|e| failed("read", &self.path(path))(e))
    }

    fn shown(&self, path: &[u8]) -> String {
        self.path(path).display().to_string()
    }
}

/// What came, or nothing where that went.
fn there<T>(result: io::Result<T>, what: &str, path: &Path) -> Result<Option<T>, Failure> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(failed(what, path)(e)),
    }
}

/// What the kernel says of a file.
pub fn described(found: &Metadata) -> Found {
    let device = found.rdev();
    Found {
        mode: found.mode(),
        uid: found.uid(),
        gid: found.gid(),
        size: found.size(),
        mtime: (found.mtime(), found.mtime_nsec().unsigned_abs() as u32),
        links: found.nlink(),
        id: (found.dev(), found.ino()),
        device: (libc::major(device), libc::minor(device)),
    }
}

/// What a path is in the image, itself.
///
/// # Errors
/// The system's.
pub fn in_image(image: &File, path: &[u8]) -> Result<Option<Found>, Failure> {
    let fail = |e: io::Error| system(format!("{}: {e}", String::from_utf8_lossy(path)));
    let text = CString::new(path).map_err(|e| fail(e.into()))?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match openat2(Some(image.as_fd()), &text, flags, BENEATH | NO_MAGICLINKS) {
        Ok(found) => {
            let found = File::from(found).metadata().map_err(fail)?;
            Ok(Some(described(&found)))
        }
        // A link on the way: then it is another one in the image.
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
            _ => Err(fail(e)),
        },
    }
}
