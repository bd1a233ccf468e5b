//! Entries of a file tree.

use super::child::{Output, failed, system};
use crate::container::mounts::follow;
use crate::sys::fs::{attribute, list_attributes};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::files::{ATTRIBUTES_MAX, Entry, Failure, Kind, PIECE_MAX, PathStat, Record};

/// Files with several names that are kept in mind; those beyond become files of their own.
const LINKS_MAX: usize = 65_536;

/// Tells what a path means.
///
/// # Errors
/// Where there is nothing, or nobody reads.
pub fn stat(path: &[u8], out: &mut Output) -> Result<Metadata, Failure> {
    let path = Path::new(OsStr::from_bytes(path));
    let found = fs::symlink_metadata(path).map_err(failed("lstat", path))?;
    let target = if found.is_symlink() {
        // As far as it leads somewhere.
        follow(path, &mut |_, _| Ok(())).map_err(failed("lstat", path))?
    } else {
        PathBuf::new()
    };
    let stat = PathStat {
        size: found.size(),
        mode: found.mode(),
        mtime: found.mtime(),
        mtime_ns: nanoseconds(&found),
        target: target.into_os_string().into_vec(),
    };
    out.record(&Record::Found(stat)).map_err(told)?;
    Ok(found)
}

/// Tells what a path means, and all that is there.
///
/// # Errors
/// Where there is nothing, it cannot be read, or nobody reads.
pub fn read(path: &[u8], out: &mut Output) -> Result<(), Failure> {
    let found = stat(path, out)?;
    let mut walk = Walk::new(PathBuf::from(OsString::from_vec(path.to_vec())), out);
    walk.entry(b"", &found)?;
    if found.is_dir() {
        walk.folder(b"")?;
    }
    Ok(())
}

/// Tells all that is in the root.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn export(out: &mut Output) -> Result<(), Failure> {
    Walk::new(PathBuf::from("/"), out).folder(b"")
}

/// Nobody reads any more: what is told of it is told to nobody.
pub fn told(error: io::Error) -> Failure {
    system(error.to_string())
}

/// `st_mtime`'s ns.
pub fn nanoseconds(found: &Metadata) -> u32 {
    found.mtime_nsec().unsigned_abs() as u32
}

/// Names in a folder, sorted. One that went meanwhile has none.
///
/// # Errors
/// The system's.
pub fn names(folder: &Path) -> Result<Vec<OsString>, Failure> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|e| Ok(e?.file_name()))
            .collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Ok(mut names) => {
            names.sort_unstable();
            Ok(names)
        }
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        Err(e) => Err(failed("open", folder)(e)),
    }
}

/// What a path is, itself; none where it went meanwhile.
///
/// # Errors
/// The system's.
pub fn look(path: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(failed("lstat", path)(e)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// A path below another one, both relative to the job's place.
pub fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    [folder, b"/", name].concat()
}

/// A tree that is being told.
pub struct Walk<'a> {
    place: PathBuf,
    /// Where records go.
    pub out: &'a mut Output,
    /// Files with several names: device and inode, and the first name; sorted.
    links: Vec<((u64, u64), Vec<u8>)>,
    piece: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// Of the tree at `place`.
    pub fn new(place: PathBuf, out: &'a mut Output) -> Walk<'a> {
        Walk {
            place,
            out,
            links: Vec::new(),
            piece: vec![0; PIECE_MAX],
        }
    }

    /// Where an entry is.
    pub fn at(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.place.clone()
        } else {
            self.place.join(OsStr::from_bytes(path))
        }
    }

    /// Tells all that is in a folder.
    fn folder(&mut self, path: &[u8]) -> Result<(), Failure> {
        for name in names(&self.at(path))? {
            let own = below(path, name.as_bytes());
            let Some(found) = look(&self.at(&own))? else {
                continue;
            };
            self.entry(&own, &found)?;
            if found.is_dir() {
                self.folder(&own)?;
            }
        }
        Ok(())
    }

    /// Tells one entry, with its contents.
    ///
    /// # Errors
    /// Where it cannot be read, or nobody reads.
    pub fn entry(&mut self, path: &[u8], found: &Metadata) -> Result<(), Failure> {
        let at = self.at(path);
        let kind = found.file_type();
        let device = || {
            let device = found.rdev();
            (libc::major(device), libc::minor(device))
        };
        let kind = if kind.is_dir() {
            Kind::Folder
        } else if let Some(first) = self.first_name(path, found) {
            Kind::HardLink(first)
        } else if kind.is_symlink() {
            match fs::read_link(&at) {
                Ok(target) => Kind::Symlink(target.into_os_string().into_vec()),
                Err(e) if is_gone(&e) => return Ok(()),
                Err(e) => return Err(failed("readlink", &at)(e)),
            }
        } else if kind.is_char_device() {
            let (major, minor) = device();
            Kind::Char(major, minor)
        } else if kind.is_block_device() {
            let (major, minor) = device();
            Kind::Block(major, minor)
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_file() {
            return self.file(path, &at, found);
        } else {
            // A socket is its server's.
            return Ok(());
        };
        let entry = describe(path, kind, found, &at)?;
        self.out.record(&Record::Entry(entry)).map_err(told)
    }

    fn first_name(&mut self, path: &[u8], found: &Metadata) -> Option<Vec<u8>> {
        let own = (found.dev(), found.ino());
        if found.nlink() < 2 || path.is_empty() {
            return None;
        }
        match self.links.binary_search_by_key(&own, |(own, _)| *own) {
            Ok(at) => return Some(self.links[at].1.clone()),
            Err(at) if self.links.len() < LINKS_MAX => self.links.insert(at, (own, path.to_vec())),
            Err(_) => {}
        }
        None
    }

    /// A file, as large as it is when it is opened: what it lacks in the end is zeros, as tar has it.
    fn file(&mut self, path: &[u8], at: &Path, found: &Metadata) -> Result<(), Failure> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(at);
        let mut file = match opened {
            Ok(file) => file,
            Err(e) if is_gone(&e) => {
                self.links
                    .retain(|(own, _)| *own != (found.dev(), found.ino()));
                return Ok(());
            }
            Err(e) => return Err(failed("open", at)(e)),
        };
        let found = file.metadata().map_err(failed("stat", at))?;
        if !found.is_file() {
            return Err(system(format!("{} was replaced meanwhile", at.display())));
        }
        let entry = describe(path, Kind::File(found.size()), &found, at)?;
        self.out.record(&Record::Entry(entry)).map_err(told)?;
        let mut left = found.size();
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE_MAX).min(PIECE_MAX);
            let mut count = file
                .read(&mut self.piece[..most])
                .map_err(failed("read", at))?;
            if count == 0 {
                self.piece[..most].fill(0);
                count = most;
            }
            self.out.piece(&self.piece[..count]).map_err(told)?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// An entry with the attributes that go with it: not those of the overlay itself.
///
/// # Errors
/// The system's.
pub fn describe(path: &[u8], kind: Kind, found: &Metadata, at: &Path) -> Result<Entry, Failure> {
    let mut attributes = Vec::new();
    let mut size = 0;
    if !matches!(kind, Kind::HardLink(_) | Kind::Symlink(_)) {
        let text = CString::new(at.as_os_str().as_bytes()).unwrap_or_default();
        let listed = list_attributes(&text).unwrap_or_default();
        for name in listed.split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let bytes = name.to_bytes();
            if !(bytes.starts_with(b"user.") || bytes == b"security.capability") {
                continue;
            }
            // One that went meanwhile is none.
            let Ok(value) = attribute(&text, name) else {
                continue;
            };
            size += bytes.len() + value.len();
            if size > ATTRIBUTES_MAX {
                return Err(system(format!(
                    "{}: more than {ATTRIBUTES_MAX} bytes of extended attributes",
                    at.display()
                )));
            }
            attributes.push((bytes.to_vec(), value));
        }
    }
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: found.mtime(),
        mtime_ns: nanoseconds(found),
        attributes,
    })
}
