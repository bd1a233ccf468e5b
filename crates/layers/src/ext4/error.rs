//! What can go wrong while an ext4 image is written.

use std::io;

use super::Kind;

/// Why an ext4 image could not be written, or an entry not be taken.
///
/// Apart from [`Error::Io`] and [`Error::Limit`] an error concerns one entry only: the builder
/// is as it was before the call and can go on, but a caller that converts a layer refuses the
/// layer as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target refused a write; the image is unusable.
    #[error("writing {length} bytes at offset {offset} of the ext4 image failed: {source}")]
    Io {
        /// Byte offset in the image.
        offset: u64,
        /// Length of the write in bytes.
        length: usize,
        /// What the target said.
        source: io::Error,
    },
    /// The path cannot be an entry: a component is empty, `.`, `..`, longer than 255 bytes or
    /// has a NUL or a slash in it.
    #[error("path {path:?} cannot be stored: {reason}", path = Lossy(path))]
    BadPath {
        /// The path as given.
        path: Vec<u8>,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A parent component is there already and is no directory. This is what stops a write
    /// through a symbolic link.
    #[error(
        "{path:?} cannot be created: its parent {parent:?} is a {kind}, not a directory",
        path = Lossy(path), parent = Lossy(parent)
    )]
    ParentNotDirectory {
        /// The path as given.
        path: Vec<u8>,
        /// The component that stands in the way, as a path from the root.
        parent: Vec<u8>,
        /// What it is.
        kind: Kind,
    },
    /// The root can only be a directory.
    #[error("the root of the image cannot be replaced by a {kind}")]
    RootReplaced {
        /// What was to replace it.
        kind: Kind,
    },
    /// A hard link names a target that is not there (yet).
    #[error(
        "hard link {path:?} to {target:?} cannot be made: there is no such entry",
        path = Lossy(path), target = Lossy(target)
    )]
    LinkTargetMissing {
        /// The link.
        path: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
    },
    /// A hard link names a directory.
    #[error(
        "hard link {path:?} to {target:?} cannot be made: the target is a directory",
        path = Lossy(path), target = Lossy(target)
    )]
    LinkToDirectory {
        /// The link.
        path: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
    },
    /// ext4 counts at most 65,000 links to a file.
    #[error(
        "hard link {path:?} to {target:?} cannot be made: ext4 allows 65000 links to a file",
        path = Lossy(path), target = Lossy(target)
    )]
    TooManyLinks {
        /// The link.
        path: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
    },
    /// A symbolic link's target is empty, too long (4,095 bytes at most) or has a NUL in it.
    #[error("symbolic link {path:?} cannot be stored: {reason}", path = Lossy(path))]
    BadSymlink {
        /// The link.
        path: Vec<u8>,
        /// Which rule its target breaks.
        reason: &'static str,
    },
    /// A device number that Linux cannot hold (12 bits major, 20 bits minor).
    #[error(
        "device {path:?} cannot be stored: {major}:{minor} is above Linux's 4095:1048575",
        path = Lossy(path)
    )]
    BadDevice {
        /// The device's path.
        path: Vec<u8>,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An extended attribute that ext4 or Linux cannot hold.
    #[error(
        "extended attribute {name:?} of {path:?} cannot be stored: {reason}",
        path = Lossy(path), name = Lossy(name)
    )]
    BadXattr {
        /// The entry's path.
        path: Vec<u8>,
        /// The attribute's full name.
        name: Vec<u8>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value that an attribute block cannot hold (the feature `ea_inode` is not used).
    #[error(
        "extended attribute {name:?} of {path:?} cannot be stored: its value has {length} bytes and {most} are the most that a layer's file system takes; leave the attribute out of the image or shorten it",
        path = Lossy(path), name = Lossy(name)
    )]
    XattrTooLong {
        /// The entry's path.
        path: Vec<u8>,
        /// The attribute's full name.
        name: Vec<u8>,
        /// Bytes of its value.
        length: usize,
        /// Bytes that are taken.
        most: usize,
    },
    /// The attributes do not fit in an attribute block together (4,064 bytes with 16 for each).
    #[error(
        "the extended attributes of {path:?} cannot be stored: together they fill more than one block of 4,096 bytes, which is the most that a layer's file system takes; leave some out of the image",
        path = Lossy(path)
    )]
    TooManyXattrs {
        /// The entry's path.
        path: Vec<u8>,
    },
    /// A file beyond ext4's 16 TiB less a block.
    #[error("{path:?} cannot be stored: ext4 files end at 16 TiB", path = Lossy(path))]
    FileTooLarge {
        /// The file's path.
        path: Vec<u8>,
    },
    /// More entries than a directory's two-level hash tree can index.
    #[error(
        "directory {path:?} cannot be stored: {entries} entries are more than its index holds",
        path = Lossy(path)
    )]
    DirectoryTooLarge {
        /// The directory's path.
        path: Vec<u8>,
        /// How many entries it has.
        entries: usize,
    },
    /// One of [`super::Limits`] was reached.
    #[error("the ext4 image needs more than the {limit} {what} that are allowed")]
    Limit {
        /// What ran out: `bytes of disk`, `inodes`, `bytes of memory for metadata`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An empty file system of this size cannot be laid out.
    #[error("an empty ext4 of {bytes} bytes cannot be made: {reason}")]
    BadSize {
        /// The size asked for, in bytes.
        bytes: u64,
        /// What would be right.
        reason: &'static str,
    },
}

/// Shows bytes as text for a message.
struct Lossy<'a>(&'a [u8]);

impl std::fmt::Debug for Lossy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&String::from_utf8_lossy(self.0), f)
    }
}
