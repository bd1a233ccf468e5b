//! Entries made to files, by Docker's rules.

use super::child::{bad, failed, system};
use crate::container::users;
use crate::sys::fs::set_attribute;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::sys::time::TimeSpec;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};
use wire::files::{Decoder, Entry, Failure, Item, Kind, PIECE_MAX, Record};

/// Unpacks what comes from `input` into the folder `path`.
///
/// # Errors
/// What is wrong with the folder, or what could not be made; what was made before stays.
pub fn write(path: &[u8], keep_kinds: bool, owner: &str, input: File) -> Result<(), Failure> {
    let folder = Path::new(OsStr::from_bytes(path));
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(folder);
    let place = opened.map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTDIR) => bad("extraction point is not a directory"),
        _ => failed("lstat", folder)(e),
    })?;
    let fail = |e: nix::Error| failed("chdir", folder)(e.into());
    if fstatvfs(&place)
        .map_err(fail)?
        .flags()
        .contains(FsFlags::ST_RDONLY)
    {
        let root = fs::metadata("/").map_err(failed("stat", folder))?;
        let own = place.metadata().map_err(failed("stat", folder))?;
        return Err(bad(if root.dev() == own.dev() {
            "container rootfs is marked read-only"
        } else {
            "mounted volume is marked read-only"
        }));
    }
    nix::unistd::fchdir(&place).map_err(fail)?;
    let owner = if owner.is_empty() {
        None
    } else {
        let passwd = users::read_bounded("/etc/passwd");
        let who = users::resolve(owner, &[], &passwd, &users::read_bounded("/etc/group"))?;
        Some((who.uid, who.gid))
    };
    let unpack = Unpack {
        folder,
        keep_kinds,
        owner,
        folders: Vec::new(),
        file: None,
    };
    unpack.all(input)
}

struct Unpack<'a> {
    folder: &'a Path,
    keep_kinds: bool,
    /// In place of what the entries say.
    owner: Option<(u32, u32)>,
    /// What is made in a folder changes its time: those are set last.
    folders: Vec<(PathBuf, TimeSpec)>,
    /// A file, and bytes of it that are still to come.
    file: Option<(File, Entry, u64)>,
}

impl Unpack<'_> {
    fn all(mut self, mut input: File) -> Result<(), Failure> {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; PIECE_MAX];
        loop {
            while let Some(item) = decoder.next_item().map_err(|e| system(e.to_string()))? {
                match item {
                    Item::Record(Record::Entry(entry)) => self.entry(entry)?,
                    Item::Bytes(bytes) => self.bytes(&bytes)?,
                    Item::Record(Record::End) => return self.finish(),
                    Item::Record(_) => return Err(system("a record that has no place here")),
                }
            }
            match input.read(&mut buffer) {
                Ok(0) => return Err(system("the archive broke off")),
                Ok(count) => decoder.push(&buffer[..count]),
                Err(e) => return Err(system(e.to_string())),
            }
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Failure> {
        // The folder itself is as it is.
        if entry.path.is_empty() {
            return Ok(());
        }
        let path = PathBuf::from(OsStr::from_bytes(&entry.path));
        let at = self.folder.join(&path);
        if let Some(parent) = path.parent()
            && fs::symlink_metadata(self.folder.join(parent)).is_err()
        {
            let mut missing = DirBuilder::new();
            missing.recursive(true).mode(0o755);
            missing.create(parent).map_err(failed("mkdir", &at))?;
        }
        let mut there = false;
        if let Ok(found) = fs::symlink_metadata(&path) {
            let folder = entry.kind == Kind::Folder;
            if self.keep_kinds && found.is_dir() && !folder {
                return Err(bad(format!(
                    "cannot overwrite directory {:?} with non-directory {:?}",
                    at, self.folder
                )));
            }
            if self.keep_kinds && !found.is_dir() && folder {
                return Err(bad(format!(
                    "cannot overwrite non-directory {:?} with directory {:?}",
                    at, self.folder
                )));
            }
            there = found.is_dir() && folder;
            if found.is_dir() && !folder {
                fs::remove_dir_all(&path).map_err(failed("remove", &at))?;
            } else if !there {
                fs::remove_file(&path).map_err(failed("remove", &at))?;
            }
        }
        let node = |kind: SFlag, major, minor| {
            mknod(&path, kind, Mode::empty(), makedev(major, minor)).map_err(io::Error::from)
        };
        let made = match &entry.kind {
            Kind::File(size) => {
                let mut open = OpenOptions::new();
                let file = open.write(true).create_new(true).mode(0o600).open(&path);
                let file = file.map_err(failed("open", &at))?;
                let size = *size;
                self.file = Some((file, entry, size));
                return self.bytes(&[]);
            }
            Kind::HardLink(first) => fs::hard_link(OsStr::from_bytes(first), &path),
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path),
            Kind::Folder if there => Ok(()),
            Kind::Folder => DirBuilder::new().mode(0o700).create(&path),
            Kind::Char(major, minor) => node(SFlag::S_IFCHR, (*major).into(), (*minor).into()),
            Kind::Block(major, minor) => node(SFlag::S_IFBLK, (*major).into(), (*minor).into()),
            Kind::Fifo => node(SFlag::S_IFIFO, 0, 0),
        };
        made.map_err(failed("create", &at))?;
        if matches!(entry.kind, Kind::HardLink(_)) {
            return Ok(());
        }
        self.dress(&path, &entry).map_err(failed("change", &at))?;
        if entry.kind == Kind::Folder {
            self.folders.push((path, time(&entry)));
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some((file, entry, left)) = &mut self.file else {
            return Err(system("bytes without a file"));
        };
        let at = || self.folder.join(OsStr::from_bytes(&entry.path));
        file.write_all(bytes)
            .map_err(|e| failed("write", &at())(e))?;
        // The decoder has counted them.
        *left = left.saturating_sub(bytes.len() as u64);
        if *left == 0
            && let Some((_, entry, _)) = self.file.take()
        {
            let path = PathBuf::from(OsStr::from_bytes(&entry.path));
            self.dress(&path, &entry)
                .map_err(failed("change", &self.folder.join(&path)))?;
        }
        Ok(())
    }

    /// Owner, attributes, mode, time: in this order, since a new owner takes capabilities and set-ID bits away.
    fn dress(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        lchown(path, Some(uid), Some(gid))?;
        if matches!(entry.kind, Kind::Symlink(_)) {
            return set_time(path, &time(entry));
        }
        let text = CString::new(path.as_os_str().as_bytes())?;
        for (name, value) in &entry.attributes {
            // What is trusted steers the overlay.
            if !(name.starts_with(b"user.") || name == b"security.capability") {
                continue;
            }
            match set_attribute(&text, &CString::new(name.as_slice())?, value) {
                Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(e),
                _ => {}
            }
        }
        if !fs::symlink_metadata(path)?.is_symlink() {
            fs::set_permissions(path, Permissions::from_mode(entry.mode & 0o7777))?;
        }
        set_time(path, &time(entry))
    }

    /// Folders' times, and all of it on the disk: a VM that is only up for its files is not always ended gently.
    fn finish(self) -> Result<(), Failure> {
        for (path, time) in self.folders.iter().rev() {
            match set_time(path, time) {
                // Replaced by a later entry, or removed by the container.
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                    return Err(failed("change", &self.folder.join(path))(e));
                }
                _ => {}
            }
        }
        let place = File::open(".").map_err(failed("sync", self.folder))?;
        nix::unistd::syncfs(&place).map_err(|e| failed("sync", self.folder)(e.into()))
    }
}

fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime, entry.mtime_ns.min(999_999_999).into())
}

fn set_time(path: &Path, time: &TimeSpec) -> io::Result<()> {
    let (here, flags) = (nix::fcntl::AT_FDCWD, UtimensatFlags::NoFollowSymlink);
    Ok(utimensat(here, path, time, time, flags)?)
}
