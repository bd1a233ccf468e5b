//! An empty file system, read-write, with a journal: a container's ephemeral partition.
//!
//! Only what differs from zeros is written: a few hundred KiB for 60 GiB. Bitmaps and inode tables of
//! all groups stand together at the start; those of groups that hold nothing are marked as not
//! initialised, and the tables as zeroed, so that the kernel has nothing to do in the background.

use super::bitmap::Bits;
use super::dirs::{Entry, Plan, leaf};
use super::extents;
use super::inode::Inode;
use super::layout::inode::FLAG_EXTENTS;
use super::layout::journal as log;
use super::layout::superblock::COMPAT_HAS_JOURNAL;
use super::superblock::{
    BLOCK_UNINIT, COMPAT_LAYER, Group, INODE_UNINIT, INODE_ZEROED, Superblock, descriptors,
    hash_seed,
};
use super::{
    BLOCK, BLOCK_BYTES, BlockTarget, Error, GROUP_BLOCKS, GROUP_BYTES, INODE_BYTES, Kind,
    LOST_AND_FOUND, MAX_GROUPS, ROOT, Time, checksum,
};

/// What an empty file system is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyOptions {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Time of its creation.
    pub time: Time,
    /// Bytes of the journal, a multiple of 4,096; 4 MiB at least.
    pub journal: u64,
    /// Bytes of disk for which there is one inode.
    pub bytes_per_inode: u64,
}

impl EmptyOptions {
    /// A journal of 32 MiB (4 MiB below 512 MiB of disk), an inode for each 16 KiB.
    #[must_use]
    pub fn new(uuid: [u8; 16]) -> Self {
        EmptyOptions {
            uuid,
            label: String::new(),
            time: Time::default(),
            journal: 32 << 20,
            bytes_per_inode: 16 << 10,
        }
    }
}

/// Writes an empty file system of `size` bytes (cut to whole blocks).
///
/// # Errors
/// [`Error::BadSize`] for less than 16 MiB or more than 1 TiB; [`Error::Io`].
pub fn format_empty(
    target: &mut impl BlockTarget,
    size: u64,
    options: &EmptyOptions,
) -> Result<(), Error> {
    let bad = |reason| Error::BadSize {
        bytes: size,
        reason,
    };
    let total = size / BLOCK;
    if size < 16 << 20 {
        return Err(bad("16 MiB are the least"));
    }
    let mut groups = total.div_ceil(GROUP_BLOCKS);
    if groups > MAX_GROUPS {
        return Err(bad("1 TiB is the most"));
    }
    // A last group of a few blocks would have no use.
    let total = if groups > 1 && !total.is_multiple_of(GROUP_BLOCKS) && total % GROUP_BLOCKS < 64 {
        (groups - 1) * GROUP_BLOCKS
    } else {
        total
    };
    groups = total.div_ceil(GROUP_BLOCKS);
    let journal_bytes = if size < 512 << 20 {
        4 << 20
    } else {
        options.journal.max(4 << 20)
    };
    let journal_blocks = journal_bytes / BLOCK;
    let per_group = (size / options.bytes_per_inode.max(BLOCK))
        .div_ceil(groups)
        .clamp(16, 8192)
        .next_multiple_of(16);
    let table_blocks = per_group * INODE_BYTES as u64 / BLOCK;
    let descriptor_blocks = (groups * GROUP_BYTES).div_ceil(BLOCK);
    let bitmaps = 1 + descriptor_blocks;
    let table = bitmaps + 2 * groups;
    let journal = table + groups * table_blocks;
    let root_block = journal + journal_blocks;
    let lost_block = root_block + 1;
    let used = lost_block + 4; // four blocks for lost+found, so that it can be filled when nothing else can
    if used >= total {
        return Err(bad("it is too small for its journal and inode tables"));
    }

    let seed = checksum::seed(&options.uuid);
    let mut emit = |block: u64, data: &[u8]| {
        let offset = block * BLOCK;
        target.write_at(offset, data).map_err(|source| Error::Io {
            offset,
            length: data.len(),
            source,
        })
    };

    // The journal's superblock (include/linux/jbd2.h), big-endian: an empty log.
    let mut first = vec![0u8; BLOCK_BYTES];
    for (at, word) in [
        (log::MAGIC, log::MAGIC_NUMBER),
        (log::TYPE, log::SUPERBLOCK),
        (log::BLOCK_SIZE, BLOCK as u32),
        (log::BLOCKS, journal_blocks as u32),
        (log::FIRST, 1),
        (log::NEXT_SEQUENCE, 1),
        (log::USERS, 1),
    ] {
        first[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
    first[log::UUID..log::UUID + 16].copy_from_slice(&options.uuid);
    emit(journal, &first)?;

    let hash = hash_seed(&options.uuid);
    let root = Plan::new(
        vec![Entry {
            inode: LOST_AND_FOUND,
            kind: 2,
            name: b"lost+found",
        }],
        &hash,
    );
    emit(
        root_block,
        &root.render(ROOT, ROOT, checksum::inode_seed(seed, ROOT)),
    )?;
    let lost_seed = checksum::inode_seed(seed, LOST_AND_FOUND);
    let mut lost = Plan::new(Vec::new(), &hash).render(LOST_AND_FOUND, ROOT, lost_seed);
    for _ in 1..4 {
        lost.extend(leaf(std::iter::empty(), lost_seed));
    }
    emit(lost_block, &lost)?;

    let inode = |number: u32, kind: Kind, mode: u16, first: u64, blocks: u64, links: u32| {
        let mut list = Vec::new();
        extents::push(&mut list, 0, first, blocks);
        let own = checksum::inode_seed(seed, number);
        let (block, _) = extents::tree(&list, 0, own);
        let size = blocks * BLOCK;
        let encoded = Inode {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size,
            times: [options.time; 3],
            links,
            blocks,
            flags: FLAG_EXTENTS,
            block,
            acl: 0,
            attributes: None,
        }
        .encode(own);
        (encoded, block, size)
    };
    let mut inodes = vec![0u8; BLOCK_BYTES];
    let mut put = |number: u32, bytes: &[u8]| {
        let at = (number as usize - 1) * INODE_BYTES;
        inodes[at..at + INODE_BYTES].copy_from_slice(bytes);
    };
    put(
        ROOT,
        &inode(ROOT, Kind::Directory, 0o755, root_block, 1, 3).0,
    );
    put(
        LOST_AND_FOUND,
        &inode(LOST_AND_FOUND, Kind::Directory, 0o700, lost_block, 4, 2).0,
    );
    let (journal_inode, journal_block, journal_size) =
        inode(log::INODE, Kind::File, 0o600, journal, journal_blocks, 1);
    put(log::INODE, &journal_inode);
    emit(table, &inodes)?;

    let mut all = vec![Group::default(); groups as usize];
    let mut free_blocks = 0u64;
    for (g, group) in all.iter_mut().enumerate() {
        let g = g as u64;
        let first = g * GROUP_BLOCKS;
        let length = (total - first).min(GROUP_BLOCKS);
        group.block_bitmap = bitmaps + g;
        group.inode_bitmap = bitmaps + groups + g;
        group.inode_table = table + g * table_blocks;
        group.free_inodes = per_group as u32;
        group.unused_inodes = per_group as u32;
        group.flags = INODE_ZEROED | INODE_UNINIT;
        let taken = used.saturating_sub(first).min(length);
        // Those after the metadata hold nothing; the last one says where it ends.
        if taken == 0 && g + 1 < groups {
            group.flags |= BLOCK_UNINIT;
            group.free_blocks = length as u32;
        } else {
            let mut bits = Bits::new();
            bits.set(0, taken);
            bits.set(length, GROUP_BLOCKS);
            group.free_blocks = bits.free(GROUP_BLOCKS) as u32;
            group.block_bitmap_sum = checksum::update(seed, &bits.0);
            emit(group.block_bitmap, &bits.0)?;
        }
        if g == 0 {
            let in_use = u64::from(LOST_AND_FOUND);
            let mut bits = Bits::new();
            bits.set(0, in_use);
            bits.set(per_group, GROUP_BLOCKS);
            group.flags &= !INODE_UNINIT;
            group.free_inodes -= LOST_AND_FOUND;
            group.unused_inodes -= LOST_AND_FOUND;
            group.directories = 2;
            group.inode_bitmap_sum = checksum::update(seed, &bits.0[..(per_group / 8) as usize]);
            emit(group.inode_bitmap, &bits.0)?;
        }
        free_blocks += u64::from(group.free_blocks);
    }
    emit(1, &descriptors(&all, seed))?;
    let superblock = Superblock {
        uuid: options.uuid,
        label: &options.label,
        time: options.time,
        blocks: total,
        free_blocks,
        inodes: (per_group * groups) as u32,
        free_inodes: (per_group * groups) as u32 - LOST_AND_FOUND,
        inodes_per_group: per_group as u32,
        compat: COMPAT_LAYER | COMPAT_HAS_JOURNAL,
        journal: Some((journal_block, journal_size)),
    }
    .encode();
    emit(0, &superblock)
}
