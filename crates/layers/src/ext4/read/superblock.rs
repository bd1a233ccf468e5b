//! The superblock, as far as a reader needs it, and the group descriptors.

use super::blocks::{Blocks, read_source, source_size};
use super::bytes::{Fields, wide};
use super::error::{ReadError, damaged, unsupported};
use crate::ReadAt;
use crate::ext4::layout::superblock as at;
use crate::ext4::layout::{group, inode};
use crate::ext4::{ROOT, checksum};

/// Features without which this cannot be read, by the names that e2fsprogs gives them.
const FEATURES: [(u32, &str); 19] = [
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
    (0x20, "feature incompat 0x20"),
    (0x800, "feature incompat 0x800"),
    (0xfffc_0000, "a feature that is newer than this reader"),
];
/// Those that are read here.
const KNOWN: u32 = at::INCOMPAT_FILETYPE
    | at::INCOMPAT_RECOVER
    | at::INCOMPAT_EXTENTS
    | at::INCOMPAT_64BIT
    | at::INCOMPAT_FLEX_BG
    | at::INCOMPAT_CSUM_SEED
    | at::INCOMPAT_LARGEDIR
    | at::INCOMPAT_INLINE_DATA;
/// Linux reads no larger ones on x86.
const MAX_BLOCK: usize = 4096;

/// What a reader needs of it, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// Bytes of a block.
    pub block_size: usize,
    pub blocks: u64,
    pub inodes: u32,
    pub inodes_per_group: u32,
    pub inode_size: usize,
    pub first_inode: u32,
    pub descriptor_size: usize,
    pub incompat: u32,
    /// 0 where there is none.
    pub journal_inode: u32,
    /// Seed of all checksums, where there are any.
    pub seed: Option<u32>,
    /// Seed of the hashes of names, if they are half MD4 of unsigned characters.
    pub hash_seed: Option<[u32; 4]>,
}

impl Superblock {
    /// Reads it from where it always is.
    pub fn read<S: ReadAt>(source: &S) -> Result<Self, ReadError> {
        let mut raw = [0; at::BYTES];
        read_source(source, at::AT as u64, &mut raw)?;
        Self::parse(&raw, source_size(source)?)
    }

    /// Reads it through the journal.
    pub fn again<S: ReadAt>(&self, blocks: &Blocks<S>) -> Result<Self, ReadError> {
        let mut raw = [0; at::BYTES];
        let (block, within) = (at::AT / self.block_size, at::AT % self.block_size);
        blocks.read(block as u64, within, &mut raw)?;
        let new = Self::parse(&raw, source_size(blocks.source())?)?;
        if new.block_size != self.block_size {
            return Err(damaged(
                "the superblock in the journal",
                "has another size of blocks",
            ));
        }
        Ok(new)
    }

    /// `source` is the number of bytes that there are.
    fn parse(raw: &[u8; at::BYTES], source: u64) -> Result<Self, ReadError> {
        let bad = |reason| damaged("the superblock", reason);
        let raw = &raw[..];
        if raw.le16(at::MAGIC) != at::MAGIC_NUMBER {
            return Err(bad("has not the magic number"));
        }
        if raw.le32(at::REVISION) != at::DYNAMIC {
            return Err(unsupported("a superblock of another revision than 1"));
        }
        let incompat = raw.le32(at::INCOMPAT);
        if let Some((_, name)) = FEATURES
            .iter()
            .find(|(bit, _)| incompat & bit & !KNOWN != 0)
        {
            return Err(unsupported(*name));
        }
        let seed = if raw.le32(at::RO_COMPAT) & at::RO_COMPAT_METADATA_CSUM == 0 {
            None
        } else if raw[at::CHECKSUM_TYPE] != at::CRC32C {
            return Err(unsupported("checksums other than crc32c"));
        } else if checksum::update(!0, &raw[..at::CHECKSUM]) != raw.le32(at::CHECKSUM) {
            return Err(bad("does not have its checksum"));
        } else if incompat & at::INCOMPAT_CSUM_SEED != 0 {
            Some(raw.le32(at::CHECKSUM_SEED))
        } else {
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&raw[at::UUID..at::UUID + 16]);
            Some(checksum::seed(&uuid))
        };
        let block_size = match raw.le32(at::LOG_BLOCK_SIZE) {
            log @ 0..=2 => 1024usize << log,
            3..=6 => {
                return Err(unsupported(format!(
                    "blocks of more than {MAX_BLOCK} bytes"
                )));
            }
            _ => return Err(bad("has no possible size of blocks")),
        };
        let wide64 = incompat & at::INCOMPAT_64BIT != 0;
        let high = if wide64 { raw.le32(at::BLOCKS_HIGH) } else { 0 };
        let blocks = wide(high, raw.le32(at::BLOCKS));
        if blocks
            .checked_mul(block_size as u64)
            .is_none_or(|bytes| bytes > source)
        {
            return Err(bad("says that it is larger than the disk is"));
        }
        let first_data_block = u64::from(raw.le32(at::FIRST_DATA_BLOCK));
        if first_data_block > 1 || first_data_block >= blocks {
            return Err(bad("has no possible first block"));
        }
        let per_group = u64::from(raw.le32(at::BLOCKS_PER_GROUP));
        let inodes_per_group = raw.le32(at::INODES_PER_GROUP);
        let most = 8 * block_size as u32;
        if per_group == 0 || inodes_per_group == 0 || inodes_per_group > most {
            return Err(bad("has no possible size of groups"));
        }
        let groups = (blocks - first_data_block).div_ceil(per_group);
        let inodes = raw.le32(at::INODES);
        if u64::from(inodes) > groups.saturating_mul(u64::from(inodes_per_group)) || inodes < ROOT {
            return Err(bad("has another number of inodes than its groups"));
        }
        let inode_size = usize::from(raw.le16(at::INODE_SIZE));
        if !inode_size.is_power_of_two() || !(inode::LEAST_BYTES..=block_size).contains(&inode_size)
        {
            return Err(bad("has no possible size of inodes"));
        }
        let descriptor_size = if wide64 {
            usize::from(raw.le16(at::DESCRIPTOR_SIZE))
        } else {
            group::BYTES
        };
        if !descriptor_size.is_power_of_two()
            || descriptor_size > block_size
            || (wide64 && descriptor_size < group::BYTES_64BIT)
        {
            return Err(bad("has no possible size of group descriptors"));
        }
        let half_md4 =
            raw[at::HASH_VERSION] == at::HALF_MD4 && raw.le32(at::FLAGS) & at::UNSIGNED_HASH != 0;
        let has_journal = raw.le32(at::COMPAT) & at::COMPAT_HAS_JOURNAL != 0;
        Ok(Self {
            block_size,
            blocks,
            inodes,
            inodes_per_group,
            inode_size,
            first_inode: raw.le32(at::FIRST_INODE),
            descriptor_size,
            incompat,
            journal_inode: if has_journal {
                raw.le32(at::JOURNAL_INODE)
            } else {
                0
            },
            seed,
            hash_seed: half_md4.then(|| [0, 1, 2, 3].map(|i| raw.le32(at::HASH_SEED + 4 * i))),
        })
    }

    /// Whether it was cut off with something in its journal.
    pub fn needs_recovery(&self) -> bool {
        self.incompat & at::INCOMPAT_RECOVER != 0
    }

    /// Whether entries of directories say what they name.
    pub fn has_file_types(&self) -> bool {
        self.incompat & at::INCOMPAT_FILETYPE != 0
    }

    /// Whether directories may have 4 GiB and more.
    pub fn large_directories(&self) -> bool {
        self.incompat & at::INCOMPAT_LARGEDIR != 0
    }

    /// First block of the inode table of a group.
    pub fn inode_table<S: ReadAt>(
        &self,
        blocks: &Blocks<S>,
        number: u32,
    ) -> Result<u64, ReadError> {
        let per_block = (self.block_size / self.descriptor_size) as u64;
        // After the superblock's own block, which is not always the first one of data (bigalloc).
        let block = (at::AT / self.block_size) as u64 + 1 + u64::from(number) / per_block;
        let from = (u64::from(number) % per_block) as usize * self.descriptor_size;
        let block = blocks.block(block)?;
        let raw = &block[from..from + self.descriptor_size];
        if let Some(seed) = self.seed {
            let sum = checksum::update(seed, &number.to_le_bytes());
            let sum = checksum::update(sum, &raw[..group::CHECKSUM]);
            let sum = checksum::update(sum, &[0; 2]);
            let sum = checksum::update(sum, &raw[group::CHECKSUM + 2..]);
            if sum as u16 != raw.le16(group::CHECKSUM) {
                return Err(damaged(
                    format!("the descriptor of group {number}"),
                    "does not have its checksum",
                ));
            }
        }
        let high = if self.descriptor_size >= group::BYTES_64BIT {
            raw.le32(group::INODE_TABLE_HIGH)
        } else {
            0
        };
        Ok(wide(high, raw.le32(group::INODE_TABLE)))
    }
}
