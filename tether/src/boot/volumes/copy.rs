//! Copies a file tree in small steps: owners, modes, times, attributes, links, holes.

use crate::sys::fs::{attribute, list_attributes, set_attribute};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata, ReadDir};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Bytes of one step.
const PIECE: usize = 1 << 20;

/// A copy on its way. Nobody else changes either tree meanwhile.
#[derive(Debug)]
pub struct Copy {
    /// What is looked at: of which an error tells.
    pub from: PathBuf,
    to: PathBuf,
    found: Metadata,
    /// From and to; those before `next` were gone through.
    folders: Vec<(PathBuf, PathBuf)>,
    next: usize,
    entries: Option<ReadDir>,
    /// A file whose contents are being copied, and how far.
    file: Option<(File, File, u64)>,
    /// Files with several names: device, inode, the copy's first name.
    links: Vec<(u64, u64, PathBuf)>,
    buffer: Vec<u8>,
}

impl Copy {
    /// Of the folder `from` with all in it to `to`, which is not there yet.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(from: PathBuf, to: PathBuf) -> io::Result<Copy> {
        fs::create_dir(&to)?;
        Copy::into(from, to)
    }

    /// The same into a folder that is there, and empty.
    ///
    /// # Errors
    /// The system's.
    pub fn into(from: PathBuf, to: PathBuf) -> io::Result<Copy> {
        Ok(Copy {
            found: fs::symlink_metadata(&from)?,
            folders: vec![(from.clone(), to.clone())],
            from,
            to,
            next: 0,
            entries: None,
            file: None,
            links: Vec::new(),
            buffer: vec![0; PIECE],
        })
    }

    /// Does a little; false where all is done.
    ///
    /// # Errors
    /// The system's, about `from`.
    pub fn step(&mut self) -> io::Result<bool> {
        if self.file.is_some() {
            self.contents()?;
        } else if let Some(entries) = &mut self.entries {
            match entries.next() {
                Some(entry) => self.entry(entry?)?,
                None => self.entries = None,
            }
        } else if let Some((from, to)) = self.folders.get(self.next) {
            self.next += 1;
            (self.from, self.to) = (from.clone(), to.clone());
            self.entries = Some(fs::read_dir(from)?);
        } else if let Some((from, to)) = self.folders.pop() {
            // The lowest first: what is made in a folder changes its times.
            like(&from, &to, &fs::symlink_metadata(&from)?)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn entry(&mut self, entry: fs::DirEntry) -> io::Result<()> {
        let (_, folder) = &self.folders[self.next - 1];
        self.to = folder.join(entry.file_name());
        self.from = entry.path();
        self.found = entry.metadata()?;
        let (from, to, found) = (&self.from, &self.to, &self.found);
        let kind = SFlag::from_bits_truncate(found.mode() & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            fs::create_dir(to)?;
            self.folders.push((from.clone(), to.clone()));
            return Ok(());
        }
        if found.nlink() > 1 {
            let own = (found.dev(), found.ino());
            let first = self.links.iter().find(|(dev, ino, _)| (*dev, *ino) == own);
            if let Some((_, _, first)) = first {
                return fs::hard_link(first, to);
            }
            self.links.push((own.0, own.1, to.clone()));
        }
        if kind == SFlag::S_IFREG {
            self.file = Some((File::open(from)?, File::create_new(to)?, 0));
            return Ok(());
        }
        if kind == SFlag::S_IFLNK {
            symlink(fs::read_link(from)?, to)?;
        } else {
            mknod(to, kind, Mode::empty(), found.rdev())?;
        }
        like(from, to, found)
    }

    fn contents(&mut self) -> io::Result<()> {
        let Some((from, to, size)) = &mut self.file else {
            return Ok(());
        };
        let count = from.read(&mut self.buffer)?;
        if count > 0 {
            *size += count as u64;
            let piece = &self.buffer[..count];
            return if piece.iter().all(|b| *b == 0) {
                to.seek(SeekFrom::Start(*size)).map(drop)
            } else {
                to.write_all(piece)
            };
        }
        to.set_len(*size)?;
        self.file = None;
        like(&self.from, &self.to, &self.found)
    }
}

/// Deletes a folder with all in it, as far as it is there. Nobody else changes it meanwhile.
///
/// # Errors
/// The system's.
pub fn delete(folder: &Path) -> io::Result<()> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            delete(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Owner, attributes, mode, times: in this order, since a new owner takes capabilities and set-ID bits away.
fn like(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (source, target) = (text(from)?, text(to)?);
    let names = list_attributes(&source)?;
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if !name.to_bytes().starts_with(b"trusted.overlay.") {
            match set_attribute(&target, name, &attribute(&source, name)?) {
                // NFS has none but the user's.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                other => other?,
            }
        }
    }
    if !found.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    let (accessed, modified) = (
        TimeSpec::new(found.atime(), found.atime_nsec()),
        TimeSpec::new(found.mtime(), found.mtime_nsec()),
    );
    Ok(utimensat(
        nix::fcntl::AT_FDCWD,
        to,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_tree_is_copied_with_links_holes_modes_and_times() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/one"), "1").unwrap();
        fs::hard_link(from.join("a/one"), from.join("two")).unwrap();
        symlink("/etc/shadow", from.join("a/b/out")).unwrap();
        let holes = File::create(from.join("holes")).unwrap();
        holes.write_all_at(b"end", 8 << 20).unwrap();
        let mode = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(from.join("a"), mode).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        File::open(from.join("a"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        let user = c"user.note";
        let text = |p: &Path| CString::new(p.as_os_str().as_bytes()).unwrap();
        let has_attributes = set_attribute(&text(&from), user, b"kept").is_ok();

        let mut copy = Copy::begin(from, to.clone()).unwrap();
        while copy.step().unwrap() {}

        let stat = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!(stat("a/one").ino(), stat("two").ino());
        assert_eq!(
            fs::read_link(to.join("a/b/out")).unwrap(),
            Path::new("/etc/shadow")
        );
        assert_eq!(stat("a").mode() & 0o7777, 0o1777);
        assert_eq!(stat("a").modified().unwrap(), old);
        assert_eq!(stat("holes").len(), (8 << 20) + 3);
        assert!(stat("holes").blocks() < 2048);
        if has_attributes {
            assert_eq!(attribute(&text(&to), user).unwrap(), b"kept");
        }
        delete(&to).unwrap();
        delete(&to).unwrap();
        assert!(!to.exists());
    }
}
