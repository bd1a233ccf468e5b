//! Writes ext4: a layer's files in one pass ([`Builder`]), and an empty file system ([`format_empty`]);
//! and reads what these and others wrote ([`read`]).
//!
//! Nothing is mounted and no other program is run; the target needs `write_at` only and must read
//! as zeros where nothing was written. An image does not depend on its place on a disk.
//!
//! Layout of a layer's image (Linux Documentation/filesystems/ext4): block 0 holds the superblock,
//! blocks 1 to 64 are kept for group descriptors (32 bytes each: up to 1 TiB), file data follows
//! from block 65 in the order of the entries; after the last entry come directories, attribute
//! blocks, long symbolic links and extent nodes, then bitmaps and inode tables, and at the very
//! end descriptors and superblock. There is no journal: layers are only read. There is no
//! `lost+found` either: it would show in every container, and `e2fsck -n` does not ask for it.

mod bitmap;
mod builder;
mod checksum;
mod dirs;
mod empty;
mod error;
mod extents;
mod file;
mod finish;
mod hash;
mod inode;
mod layout;
mod metadata;
pub mod read;
mod superblock;
mod target;
mod tree;
mod xattr;

pub use builder::{Builder, Limits, Options, Summary};
pub use empty::{EmptyOptions, format_empty};
pub use error::Error;
pub use file::{FileExtent, FileWriter};
pub use metadata::{DeviceKind, Kind, Metadata, Time};
pub use target::{BlockTarget, Recording};

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = BLOCK as usize;
/// Blocks of a group: as many as one bitmap block has bits.
const GROUP_BLOCKS: u64 = BLOCK * 8;
/// First block of file data; those before it are for the superblock and group descriptors.
const FIRST_DATA: u64 = 65;
/// Bytes of a group's descriptor: without the feature 64bit, which nothing here needs.
const GROUP_BYTES: u64 = layout::group::BYTES as u64;
/// Most groups that 64 blocks of 32-byte descriptors describe.
const MAX_GROUPS: u64 = 64 * (BLOCK / GROUP_BYTES);
const INODE_BYTES: usize = 256;
/// The first inode number that is not reserved.
const FIRST_INODE: u32 = 11;
/// lost+found's, where there is one.
const LOST_AND_FOUND: u32 = FIRST_INODE;
const ROOT: u32 = 2;
