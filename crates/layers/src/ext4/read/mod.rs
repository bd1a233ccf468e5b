//! Reads an ext4 that is not mounted: a layer's, an ephemeral one that a container wrote to, or a
//! volume. Nothing is ever written; a journal that holds more than the disk lies over it in memory.
//!
//! The disk is hostile: whoever was root in the VM could write any byte of it. So no number is
//! believed before it is checked, everything that is kept in memory has a bound, and each step
//! reads a bounded number of blocks. Two things are left to the caller: a directory may contain
//! itself (depth), and names, sizes and targets are what the guest chose them to be.
//!
//! Inodes that were deleted while they were open (the list of orphans) need nothing here: a mount
//! would free them, but they have no name, so no reader gets to them; and one that was being cut
//! short has its new size already, beyond which nothing is read.

mod blockmap;
mod blocks;
mod bytes;
mod dirblock;
mod dirs;
mod error;
mod extents;
mod file;
mod inode;
mod journal;
mod lookup;
mod superblock;
mod xattr;

pub use dirblock::Entry;
pub use dirs::Entries;
pub use error::ReadError;
pub use file::File;
pub use inode::Inode;

use super::{Kind, ROOT};
use crate::ReadAt;
use blocks::Blocks;
use error::damaged;
use superblock::Superblock;

/// Longest target of a symbolic link that Linux reads, in bytes.
const LONGEST_LINK: u64 = 4096;

/// An extended attribute: full name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// A file system that is read where it lies.
#[derive(Debug)]
pub struct Filesystem<S> {
    blocks: Blocks<S>,
    sb: Superblock,
}

impl<S: ReadAt> Filesystem<S> {
    /// Opens the ext4 at the start of `source`, and reads its journal if it was cut off.
    ///
    /// # Errors
    /// [`ReadError::Unsupported`] for a feature that is not read here, [`ReadError::Damaged`], [`ReadError::Io`].
    pub fn open(source: S) -> Result<Self, ReadError> {
        let sb = Superblock::read(&source)?;
        let mut fs = Self {
            blocks: Blocks::new(source, sb.block_size, sb.blocks),
            sb,
        };
        if fs.sb.needs_recovery() {
            let logged = journal::replay(&fs)?;
            fs.blocks.lay_over(logged);
            fs.sb = fs.sb.again(&fs.blocks)?;
            fs.blocks.count = fs.sb.blocks;
        }
        Ok(fs)
    }

    /// Where it is read from.
    #[must_use]
    pub fn source(&self) -> &S {
        self.blocks.source()
    }

    /// The root directory.
    ///
    /// # Errors
    /// [`ReadError::Damaged`], [`ReadError::Io`].
    pub fn root(&self) -> Result<Inode, ReadError> {
        let root = self.inode(ROOT)?;
        if root.kind != Kind::Directory {
            return Err(damaged("the root", "is no directory"));
        }
        Ok(root)
    }

    /// The inode that an [`Entry`] names.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] also for numbers that no entry can have; [`ReadError::Io`].
    pub fn inode(&self, number: u32) -> Result<Inode, ReadError> {
        if number != ROOT && number < self.sb.first_inode {
            return Err(damaged(format!("inode {number}"), "is not for names"));
        }
        Inode::read(&self.sb, &self.blocks, number)
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// [`ReadError::WrongKind`] for what is none; [`ReadError::Unsupported`], [`ReadError::Damaged`].
    pub fn entries(&self, directory: &Inode) -> Result<Entries<'_, S>, ReadError> {
        Entries::new(self, directory)
    }

    /// The entry of that name in a directory.
    ///
    /// # Errors
    /// As [`Filesystem::entries`]; [`ReadError::Io`].
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        lookup::lookup(self, directory, name)
    }

    /// Opens a regular file, for many reads.
    ///
    /// # Errors
    /// [`ReadError::WrongKind`] for anything else; [`ReadError::Unsupported`], [`ReadError::Damaged`].
    pub fn file(&self, inode: &Inode) -> Result<File<'_, S>, ReadError> {
        if inode.kind != Kind::File {
            return Err(ReadError::WrongKind {
                inode: inode.number,
                wanted: "regular file",
            });
        }
        File::new(self, inode)
    }

    /// One read of a regular file: see [`File::read_at`].
    ///
    /// # Errors
    /// As [`Filesystem::file`]; [`ReadError::Io`].
    pub fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.file(inode)?.read_at(offset, buf)
    }

    /// The target of a symbolic link: 1 to 4,096 bytes without NUL.
    ///
    /// # Errors
    /// [`ReadError::WrongKind`] for anything else; [`ReadError::Damaged`], [`ReadError::Io`].
    pub fn link(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        if inode.kind != Kind::Symlink {
            return Err(ReadError::WrongKind {
                inode: inode.number,
                wanted: "symbolic link",
            });
        }
        let bad = |reason| damaged(format!("symbolic link {}", inode.number), reason);
        if inode.size == 0 || inode.size > LONGEST_LINK {
            return Err(bad("has a target of an impossible length"));
        }
        let mut target = vec![0; inode.size as usize];
        if !inode.has_extents() && !inode.has_inline_data() && target.len() < inode.block.len() {
            target.copy_from_slice(&inode.block[..inode.size as usize]);
        } else {
            File::new(self, inode)?.read_at(0, &mut target)?;
        }
        if target.contains(&0) {
            return Err(bad("has a NUL in its target"));
        }
        Ok(target)
    }

    /// Extended attributes: full names (`user.…`, `trusted.…`, `security.…`, `system.…`) and values,
    /// POSIX ACLs in the form that `getxattr` gives.
    ///
    /// # Errors
    /// [`ReadError::Damaged`], [`ReadError::Io`], [`ReadError::Unsupported`] for values in inodes of their own.
    pub fn attributes(&self, inode: &Inode) -> Result<Vec<Attribute>, ReadError> {
        xattr::attributes(self, inode)
    }
}
