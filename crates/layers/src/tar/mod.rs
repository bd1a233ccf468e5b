//! A tar reader for container layers: v7, ustar, PAX, GNU and star archives, read once from a stream.
//!
//! Every byte goes either to the caller's buffer (an entry's data) or, as it is, to a [`RawSink`] (headers, extended
//! headers, padding, what follows the end), so that the archive can be written again byte for byte. PAX records are
//! cut by their length, so that values may hold any byte. Sources: POSIX.1-2017 `pax`, "ustar Interchange Format" and
//! "pax Extended Header"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".

mod header;
pub mod path;
mod pax;
mod reader;
mod sparse;

pub use reader::{Reader, TarLimits};

use std::io;

use crate::ext4::Time;

/// Extended attributes: full names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Another name, for what [`Entry::link`] names.
    HardLink,
    /// Symbolic link to [`Entry::link`].
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
}

/// An entry, with everything that its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it is in the archive; see [`path::clean`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data.
    pub mtime: Time,
    /// Last access, where it is told.
    pub atime: Option<Time>,
    /// Last change of the inode, where it is told.
    pub ctime: Option<Time>,
    /// Target of a link, as it is in the archive.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes: full names and values.
    pub xattrs: Xattrs,
    /// Bytes of data that follow in the archive.
    pub data: u64,
    /// Size of the file in bytes.
    pub size: u64,
    /// For a sparse file, where its data belongs: (offset, length), ascending, without overlaps, of `data` bytes in all.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// Takes the bytes of an archive that are no entry's data.
pub trait RawSink {
    /// Takes the next bytes.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl RawSink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream could not be read, or what it holds not be stored.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The stream ends inside a header, an entry's data or its padding.
    #[error("the tar is truncated: it ends {0}")]
    Truncated(&'static str),
    /// A header is not one.
    #[error("the tar is malformed after {after} entries: {reason}")]
    Malformed {
        /// Entries before it.
        after: u64,
        /// What is wrong.
        reason: String,
    },
    /// A limit was reached.
    #[error("the tar holds more than the {limit} {what} that are allowed")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
