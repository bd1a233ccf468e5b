//! File systems as a tree of records: as `layers::ext4::read` sees them, and as Linux does.

#![allow(dead_code, reason = "each test needs a part of it")]

use layers::ReadAt;
use layers::ext4::read::{Filesystem, Inode, ReadError};
use layers::ext4::{Kind, Time};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All that a container's user can see of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub inode: u32,
    pub kind: Kind,
    pub mode: u16,
    pub owner: (u32, u32),
    pub links: u32,
    /// Of a directory it is a matter of the layout.
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    pub atime: Time,
    pub device: Option<(u32, u32)>,
    pub content: Content,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A file's bytes or a link's target.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (start, _) = self.0.split_at(self.0.len().min(40));
        write!(f, "{} bytes, {start:?}", self.0.len())
    }
}

/// By path without a leading slash; the root is the empty one.
pub type Tree = BTreeMap<Vec<u8>, Record>;

fn join(at: &[u8], name: &[u8]) -> Vec<u8> {
    if at.is_empty() {
        name.to_vec()
    } else {
        [at, b"/", name].concat()
    }
}

/// Reads all of an image.
pub fn read_image<S: ReadAt>(fs: &Filesystem<S>) -> Result<Tree, ReadError> {
    let mut found = Tree::new();
    let mut todo = vec![(Vec::new(), fs.root()?)];
    while let Some((path, inode)) = todo.pop() {
        if inode.kind == Kind::Directory {
            for entry in fs.entries(&inode)? {
                let entry = entry?;
                todo.push((join(&path, &entry.name), fs.inode(entry.inode)?));
            }
        }
        found.insert(path, record(fs, &inode)?);
    }
    Ok(found)
}

fn record<S: ReadAt>(fs: &Filesystem<S>, inode: &Inode) -> Result<Record, ReadError> {
    let content = match inode.kind {
        Kind::File => {
            let mut out = Vec::new();
            let mut file = fs.file(inode)?;
            // A length that fits no block, so that reads begin and end within blocks.
            let mut buf = vec![0; 33_333];
            loop {
                let count = file.read_at(out.len() as u64, &mut buf)?;
                if count == 0 {
                    break out;
                }
                out.extend_from_slice(&buf[..count]);
            }
        }
        Kind::Symlink => fs.link(inode)?,
        _ => Vec::new(),
    };
    let directory = inode.kind == Kind::Directory;
    Ok(Record {
        inode: inode.number,
        kind: inode.kind,
        mode: inode.mode,
        owner: (inode.uid, inode.gid),
        links: inode.links,
        size: if directory { 0 } else { inode.size },
        mtime: inode.mtime,
        ctime: inode.ctime,
        atime: inode.atime,
        device: inode.device,
        content: Content(content),
        xattrs: fs.attributes(inode)?.into_iter().collect(),
    })
}

/// Reads all of a folder, as Linux shows it.
pub fn read_folder(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(OsStr::from_bytes(&path));
        // First of all: reading changes the time of access.
        let stat = full.symlink_metadata().unwrap();
        let kind = stat.file_type();
        let mut content = Vec::new();
        let kind = if kind.is_dir() {
            for entry in std::fs::read_dir(&full).unwrap() {
                todo.push(join(&path, entry.unwrap().file_name().as_bytes()));
            }
            Kind::Directory
        } else if kind.is_file() {
            content = std::fs::read(&full).unwrap();
            Kind::File
        } else if kind.is_symlink() {
            content = std::fs::read_link(&full)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            Kind::Symlink
        } else if kind.is_char_device() && stat.rdev() == 0 {
            Kind::Whiteout
        } else if kind.is_char_device() {
            Kind::CharDevice
        } else if kind.is_block_device() {
            Kind::BlockDevice
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            Kind::Socket
        };
        let device =
            matches!(kind, Kind::CharDevice | Kind::BlockDevice | Kind::Whiteout).then(|| {
                (
                    rustix::fs::major(stat.rdev()),
                    rustix::fs::minor(stat.rdev()),
                )
            });
        let time = |secs, nanos: i64| Time {
            secs,
            nanos: nanos as u32,
        };
        let record = Record {
            inode: stat.ino() as u32,
            kind,
            mode: (stat.mode() & 0o7777) as u16,
            owner: (stat.uid(), stat.gid()),
            links: stat.nlink() as u32,
            size: if kind == Kind::Directory {
                0
            } else {
                stat.size()
            },
            mtime: time(stat.mtime(), stat.mtime_nsec()),
            ctime: time(stat.ctime(), stat.ctime_nsec()),
            atime: time(stat.atime(), stat.atime_nsec()),
            device,
            content: Content(content),
            xattrs: xattrs(&full),
        };
        found.insert(path, record);
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let mut value = vec![0; 65_536];
            match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    Some((name.to_vec(), value))
                }
                // `user.…` of a link is listed but given to nobody.
                Err(rustix::io::Errno::NODATA) => None,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        })
        .collect()
}

/// Says where two trees differ, if they do.
pub fn assert_same(ours: &Tree, theirs: &Tree, what: &str) {
    for (path, record) in ours {
        let shown = String::from_utf8_lossy(path);
        let other = theirs.get(path);
        assert_eq!(Some(record), other, "{what}: {shown:?}");
    }
    for path in theirs.keys() {
        let shown = String::from_utf8_lossy(path);
        assert!(ours.contains_key(path), "{what}: {shown:?} was not read");
    }
}

/// Held by each test that mounts something or runs a program. A child that another thread starts has
/// all open files for a moment, until it becomes its program, and a mount with an open file is busy.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // What a failed test leaves is no matter of the others.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image on a loop device.
pub struct Mount(
    pub PathBuf,
    /// Goes after the mount.
    tempfile::TempDir,
);

impl Mount {
    /// Mounts it; `None`, with the reason printed, where that is not allowed.
    pub fn new(image: &Path, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let out = Command::new("mount")
            .args(["-t", "ext4", "-o", options])
            .arg(image)
            .arg(dir.path())
            .output();
        match out {
            Ok(out) if out.status.success() => Some(Self(dir.path().to_owned(), dir)),
            Ok(out) => {
                println!("not mounted: {}", String::from_utf8_lossy(&out.stderr));
                None
            }
            Err(error) => {
                println!("not mounted: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        // Not over the panic of a failed test.
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}
