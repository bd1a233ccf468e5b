//! Superblock and group descriptors (Documentation/filesystems/ext4/super.rst, group_descr.rst).

use super::inode::EXTRA;
use super::layout::superblock as at;
use super::layout::{group, inode, journal};
use super::{BLOCK_BYTES, FIRST_INODE, GROUP_BLOCKS, INODE_BYTES, Time, checksum};

pub(super) const COMPAT_LAYER: u32 = 0x8 | 0x20 | 0x200; // ext_attr, dir_index, sparse_super2
const INCOMPAT: u32 = at::INCOMPAT_FILETYPE | at::INCOMPAT_EXTENTS | at::INCOMPAT_FLEX_BG;
// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | at::RO_COMPAT_METADATA_CSUM;

/// What differs from one file system to the next.
pub(super) struct Superblock<'a> {
    pub uuid: [u8; 16],
    pub label: &'a str,
    pub time: Time,
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub free_inodes: u32,
    pub inodes_per_group: u32,
    pub compat: u32,
    /// `i_block` and size of the journal's inode, where there is one.
    pub journal: Option<([u8; inode::BLOCK_BYTES], u64)>,
}

/// The seed of directory hashes; fixed by the UUID.
pub(super) fn hash_seed(uuid: &[u8; 16]) -> [u32; 4] {
    let mut out = [0u32; 4];
    for (word, bytes) in out.iter_mut().zip(uuid.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) ^ 0x4d6f_6f72;
    }
    out
}

impl Superblock<'_> {
    /// Block 0: 1,024 bytes of zeros, then the superblock.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK_BYTES];
        let out = &mut block[at::AT..at::AT + at::BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let time = (self.time.secs as u32).to_le_bytes();
        put(at::INODES, &self.inodes.to_le_bytes());
        put(at::BLOCKS, &(self.blocks as u32).to_le_bytes());
        put(at::FREE_BLOCKS, &(self.free_blocks as u32).to_le_bytes());
        put(at::FREE_INODES, &self.free_inodes.to_le_bytes());
        put(at::LOG_BLOCK_SIZE, &2u32.to_le_bytes()); // 4,096-byte blocks
        put(at::LOG_CLUSTER_SIZE, &2u32.to_le_bytes()); // ... and clusters
        put(at::BLOCKS_PER_GROUP, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(at::CLUSTERS_PER_GROUP, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(at::INODES_PER_GROUP, &self.inodes_per_group.to_le_bytes());
        put(at::WRITE_TIME, &time);
        put(at::MOST_MOUNTS, &0xffffu16.to_le_bytes()); // never counts mounts
        put(at::MAGIC, &at::MAGIC_NUMBER.to_le_bytes());
        put(at::STATE, &1u16.to_le_bytes()); // clean
        put(at::ON_ERRORS, &1u16.to_le_bytes()); // on errors: go on
        put(at::CHECK_TIME, &time);
        put(at::REVISION, &at::DYNAMIC.to_le_bytes());
        put(at::FIRST_INODE, &FIRST_INODE.to_le_bytes());
        put(at::INODE_SIZE, &(INODE_BYTES as u16).to_le_bytes());
        put(at::COMPAT, &self.compat.to_le_bytes());
        put(at::INCOMPAT, &INCOMPAT.to_le_bytes());
        put(at::RO_COMPAT, &RO_COMPAT.to_le_bytes());
        put(at::UUID, &self.uuid);
        let label = self.label.as_bytes();
        put(at::LABEL, &label[..label.len().min(16)]);
        for (i, word) in hash_seed(&self.uuid).into_iter().enumerate() {
            put(at::HASH_SEED + 4 * i, &word.to_le_bytes());
        }
        put(at::HASH_VERSION, &[at::HALF_MD4]);
        if let Some((blocks, size)) = &self.journal {
            put(at::JOURNAL_INODE, &journal::INODE.to_le_bytes());
            put(at::JOURNAL_BACKUP, &[1]); // a copy of the journal's inode follows
            put(at::JOURNAL_BLOCKS, blocks);
            put(
                at::JOURNAL_BLOCKS + inode::BLOCK_BYTES,
                &((size >> 32) as u32).to_le_bytes(),
            );
            put(
                at::JOURNAL_BLOCKS + inode::BLOCK_BYTES + 4,
                &(*size as u32).to_le_bytes(),
            );
        }
        put(at::MAKE_TIME, &time);
        put(at::LEAST_EXTRA, &(EXTRA as u16).to_le_bytes());
        put(at::WANTED_EXTRA, &(EXTRA as u16).to_le_bytes());
        put(at::FLAGS, &at::UNSIGNED_HASH.to_le_bytes());
        put(at::LOG_FLEX, &[4]); // 16 groups share a flex group
        put(at::CHECKSUM_TYPE, &[at::CRC32C]);
        let sum = checksum::update(!0, &out[..at::CHECKSUM]);
        out[at::CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        block
    }
}

/// Flags of a group.
pub(super) const INODE_UNINIT: u16 = 1;
pub(super) const BLOCK_UNINIT: u16 = 2;
pub(super) const INODE_ZEROED: u16 = 4;

/// One group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub directories: u32,
    pub unused_inodes: u32,
    pub flags: u16,
    pub block_bitmap_sum: u32,
    pub inode_bitmap_sum: u32,
}

impl Group {
    /// The 32-byte descriptor of group `number`.
    pub fn encode(&self, number: u32, seed: u32) -> [u8; group::BYTES] {
        let mut out = [0u8; group::BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(
            group::BLOCK_BITMAP,
            &(self.block_bitmap as u32).to_le_bytes(),
        );
        put(
            group::INODE_BITMAP,
            &(self.inode_bitmap as u32).to_le_bytes(),
        );
        put(group::INODE_TABLE, &(self.inode_table as u32).to_le_bytes());
        put(group::FREE_BLOCKS, &(self.free_blocks as u16).to_le_bytes());
        put(group::FREE_INODES, &(self.free_inodes as u16).to_le_bytes());
        put(group::DIRECTORIES, &(self.directories as u16).to_le_bytes());
        put(group::FLAGS, &self.flags.to_le_bytes());
        put(
            group::BLOCK_BITMAP_SUM,
            &(self.block_bitmap_sum as u16).to_le_bytes(),
        );
        put(
            group::INODE_BITMAP_SUM,
            &(self.inode_bitmap_sum as u16).to_le_bytes(),
        );
        put(
            group::UNUSED_INODES,
            &(self.unused_inodes as u16).to_le_bytes(),
        );
        // Over the number, then the descriptor with two zero bytes in place of the sum, its last two.
        let sum = checksum::update(checksum::update(seed, &number.to_le_bytes()), &out);
        out[group::CHECKSUM..group::CHECKSUM + 2].copy_from_slice(&(sum as u16).to_le_bytes());
        out
    }
}

/// All descriptors, padded to whole blocks.
pub(super) fn descriptors(groups: &[Group], seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(groups.len() * group::BYTES);
    for (number, group) in groups.iter().enumerate() {
        out.extend(group.encode(number as u32, seed));
    }
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    out
}
