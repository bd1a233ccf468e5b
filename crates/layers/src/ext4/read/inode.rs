//! One inode.

use super::blocks::Blocks;
use super::bytes::{Fields, wide};
use super::error::{ReadError, damaged};
use super::superblock::Superblock;
use crate::ReadAt;
use crate::ext4::layout::inode as at;
use crate::ext4::{Kind, Time, checksum};

/// What an inode says, checked.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Its number. Names of one file have the same.
    pub number: u32,
    /// What it is. A character device 0:0 is [`Kind::Whiteout`].
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file's data, a link's target, a directory's entries.
    pub size: u64,
    /// Names that it has. A directory with more than 65,000 says 1.
    pub links: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Major and minor number, of a device only.
    pub device: Option<(u32, u32)>,
    /// `i_flags`: 0x10 immutable, 0x20 append only, … (`EXT4_*_FL` of the kernel).
    pub flags: u32,
    /// `i_block`: extents, a short link's target, inline data.
    pub(super) block: [u8; at::BLOCK_BYTES],
    /// Seed of the checksums of what belongs to it, where there are any.
    pub(super) seed: Option<u32>,
    /// Block of attributes; 0 for none.
    pub(super) acl: u64,
    /// What is behind its fields: attributes.
    pub(super) body: Vec<u8>,
}

impl Inode {
    /// Reads inode `number`, whatever it is.
    pub(super) fn read<S: ReadAt>(
        sb: &Superblock,
        blocks: &Blocks<S>,
        number: u32,
    ) -> Result<Self, ReadError> {
        let bad = |reason| damaged(format!("inode {number}"), reason);
        if number == 0 || number > sb.inodes {
            return Err(bad("does not exist"));
        }
        let (group, index) = (
            (number - 1) / sb.inodes_per_group,
            ((number - 1) % sb.inodes_per_group) as usize,
        );
        let per_block = sb.block_size / sb.inode_size;
        let block = sb
            .inode_table(blocks, group)?
            .checked_add((index / per_block) as u64)
            .ok_or_else(|| bad("is outside of the disk"))?;
        let from = index % per_block * sb.inode_size;
        let block = blocks.block(block)?;
        Self::parse(sb, number, &block[from..from + sb.inode_size])
    }

    /// `raw` is as long as the file system's inodes, 128 bytes at least.
    fn parse(sb: &Superblock, number: u32, raw: &[u8]) -> Result<Self, ReadError> {
        let bad = |reason| damaged(format!("inode {number}"), reason);
        let extra = if raw.len() > at::LEAST_BYTES {
            usize::from(raw.le16(at::EXTRA))
        } else {
            0
        };
        let fields = at::LEAST_BYTES + extra;
        if fields > raw.len() || !extra.is_multiple_of(4) {
            return Err(bad("has no possible length"));
        }
        // A later field is there only if those behind the first 128 bytes reach so far.
        let has = |field: usize, bytes: usize| field + bytes <= fields;
        let mode = raw.le16(at::MODE);
        let links = u32::from(raw.le16(at::LINKS));
        if mode == 0 || links == 0 {
            return Err(bad("has a name although it is free"));
        }
        let generation = raw.le32(at::GENERATION);
        let seed = sb
            .seed
            .map(|fs| checksum::owned_seed(fs, number, generation));
        if let Some(seed) = seed {
            let mut copy = raw.to_vec();
            copy[at::CHECKSUM..at::CHECKSUM + 2].fill(0);
            let mut sum = u32::from(raw.le16(at::CHECKSUM));
            let mut bits = 0xffff;
            if has(at::CHECKSUM_HIGH, 2) {
                copy[at::CHECKSUM_HIGH..at::CHECKSUM_HIGH + 2].fill(0);
                sum |= u32::from(raw.le16(at::CHECKSUM_HIGH)) << 16;
                bits = u32::MAX;
            }
            if checksum::update(seed, &copy) & bits != sum {
                return Err(bad("does not have its checksum"));
            }
        }
        let mut kind = Kind::of_mode(mode).ok_or_else(|| bad("is of no known kind"))?;
        let mut block = [0; at::BLOCK_BYTES];
        block.copy_from_slice(&raw[at::BLOCK..at::BLOCK + at::BLOCK_BYTES]);
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice)
            .then(|| crate::ext4::inode::device_of(&block));
        if kind == Kind::CharDevice && device == Some((0, 0)) {
            kind = Kind::Whiteout;
        }
        let high = if kind == Kind::File || (kind == Kind::Directory && sb.large_directories()) {
            raw.le32(at::SIZE_HIGH)
        } else {
            0
        };
        let size = wide(high, raw.le32(at::SIZE));
        // As many blocks as their numbers in a file can count (fs/ext4/super.c, ext4_max_size).
        if size > u64::from(u32::MAX) * sb.block_size as u64 {
            return Err(bad("is larger than a file can be"));
        }
        let time = |low: usize, extra: usize| {
            let extra = if has(extra, 4) { raw.le32(extra) } else { 0 };
            Time::decode(raw.le32(low), extra)
        };
        let half =
            |high: usize, low: usize| u32::from(raw.le16(high)) << 16 | u32::from(raw.le16(low));
        Ok(Self {
            number,
            kind,
            mode: mode & 0o7777,
            uid: half(at::UID_HIGH, at::UID),
            gid: half(at::GID_HIGH, at::GID),
            size,
            links,
            atime: time(at::ATIME, at::ATIME_EXTRA),
            ctime: time(at::CTIME, at::CTIME_EXTRA),
            mtime: time(at::MTIME, at::MTIME_EXTRA),
            device,
            flags: raw.le32(at::FLAGS),
            block,
            seed,
            acl: wide(u32::from(raw.le16(at::ACL_HIGH)), raw.le32(at::ACL)),
            body: raw[fields..].to_vec(),
        })
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & at::FLAG_EXTENTS != 0
    }

    pub(super) fn has_inline_data(&self) -> bool {
        self.flags & at::FLAG_INLINE_DATA != 0
    }

    pub(super) fn has_index(&self) -> bool {
        self.flags & at::FLAG_INDEX != 0
    }
}
