//! Superblock and group descriptors (Documentation/filesystems/ext4/super.rst, group_descr.rst).

use super::{BLOCK_BYTES, FIRST_INODE, GROUP_BLOCKS, Time, checksum};

pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
pub(super) const COMPAT_LAYER: u32 = 0x8 | 0x20 | 0x200; // ext_attr, dir_index, sparse_super2
const INCOMPAT: u32 = 0x2 | 0x40 | 0x200; // filetype, extents, flex_bg
// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

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
    pub journal: Option<([u8; 60], u64)>,
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
        let out = &mut block[1024..2048];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let time = (self.time.secs as u32).to_le_bytes();
        put(0x00, &self.inodes.to_le_bytes());
        put(0x04, &(self.blocks as u32).to_le_bytes());
        put(0x0c, &(self.free_blocks as u32).to_le_bytes());
        put(0x10, &self.free_inodes.to_le_bytes());
        put(0x18, &2u32.to_le_bytes()); // 4,096-byte blocks
        put(0x1c, &2u32.to_le_bytes()); // ... and clusters
        put(0x20, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(0x24, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(0x28, &self.inodes_per_group.to_le_bytes());
        put(0x30, &time);
        put(0x36, &0xffffu16.to_le_bytes()); // never counts mounts
        put(0x38, &0xef53u16.to_le_bytes());
        put(0x3a, &1u16.to_le_bytes()); // clean
        put(0x3c, &1u16.to_le_bytes()); // on errors: go on
        put(0x40, &time);
        put(0x4c, &1u32.to_le_bytes()); // dynamic revision
        put(0x54, &FIRST_INODE.to_le_bytes());
        put(0x58, &256u16.to_le_bytes());
        put(0x5c, &self.compat.to_le_bytes());
        put(0x60, &INCOMPAT.to_le_bytes());
        put(0x64, &RO_COMPAT.to_le_bytes());
        put(0x68, &self.uuid);
        let label = self.label.as_bytes();
        put(0x78, &label[..label.len().min(16)]);
        for (i, word) in hash_seed(&self.uuid).into_iter().enumerate() {
            put(0xec + 4 * i, &word.to_le_bytes());
        }
        put(0xfc, &[1]); // half MD4
        if let Some((inode, size)) = &self.journal {
            put(0xe0, &8u32.to_le_bytes());
            put(0xfd, &[1]); // a copy of the journal's inode follows
            put(0x10c, inode);
            put(0x10c + 60, &((size >> 32) as u32).to_le_bytes());
            put(0x10c + 64, &(*size as u32).to_le_bytes());
        }
        put(0x108, &time);
        put(0x15c, &32u16.to_le_bytes());
        put(0x15e, &32u16.to_le_bytes());
        put(0x160, &2u32.to_le_bytes()); // names are hashed as unsigned characters
        put(0x174, &[4]); // 16 groups share a flex group
        put(0x175, &[1]); // crc32c
        let sum = checksum::update(!0, &out[..0x3fc]);
        out[0x3fc..0x400].copy_from_slice(&sum.to_le_bytes());
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
    pub fn encode(&self, number: u32, seed: u32) -> [u8; 32] {
        let mut out = [0u8; 32];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &(self.block_bitmap as u32).to_le_bytes());
        put(0x04, &(self.inode_bitmap as u32).to_le_bytes());
        put(0x08, &(self.inode_table as u32).to_le_bytes());
        put(0x0c, &(self.free_blocks as u16).to_le_bytes());
        put(0x0e, &(self.free_inodes as u16).to_le_bytes());
        put(0x10, &(self.directories as u16).to_le_bytes());
        put(0x12, &self.flags.to_le_bytes());
        put(0x18, &(self.block_bitmap_sum as u16).to_le_bytes());
        put(0x1a, &(self.inode_bitmap_sum as u16).to_le_bytes());
        put(0x1c, &(self.unused_inodes as u16).to_le_bytes());
        // Over the number, then the descriptor with two zero bytes in place of the sum, its last two.
        let sum = checksum::update(checksum::update(seed, &number.to_le_bytes()), &out);
        out[0x1e..0x20].copy_from_slice(&(sum as u16).to_le_bytes());
        out
    }
}

/// All descriptors, padded to whole blocks.
pub(super) fn descriptors(groups: &[Group], seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(groups.len() * 32);
    for (number, group) in groups.iter().enumerate() {
        out.extend(group.encode(number as u32, seed));
    }
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    out
}
