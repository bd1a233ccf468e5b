//! Extent trees: where a file's blocks are (Documentation/filesystems/ext4/ifork.rst).

use super::layout::extent as at;
use super::layout::inode;
use super::{BLOCK_BYTES, checksum};

/// Longest initialised extent, in blocks.
const MAX_LENGTH: u64 = at::MAX_LENGTH as u64;
/// Extents or indexes in a block, and in the inode.
const PER_BLOCK: usize = (BLOCK_BYTES - at::TAIL_BYTES) / at::BYTES - 1;
const IN_INODE: usize = inode::BLOCK_BYTES / at::BYTES - 1;

/// A run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block in the file.
    pub logical: u32,
    /// First block on the disk.
    pub physical: u64,
    /// Number of blocks, at most 32,768.
    pub length: u16,
}

/// Adds blocks to a list, joining them to its last run where they follow it.
pub(super) fn push(list: &mut Vec<Extent>, logical: u32, physical: u64, mut count: u64) {
    let (mut logical, mut physical) = (logical, physical);
    if let Some(last) = list.last_mut() {
        let length = u64::from(last.length);
        if u64::from(last.logical) + length == u64::from(logical)
            && last.physical + length == physical
            && length < MAX_LENGTH
        {
            let more = count.min(MAX_LENGTH - length);
            last.length += more as u16;
            (logical, physical, count) = (logical + more as u32, physical + more, count - more);
        }
    }
    while count > 0 {
        let length = count.min(MAX_LENGTH);
        list.push(Extent {
            logical,
            physical,
            length: length as u16,
        });
        (logical, physical, count) = (logical + length as u32, physical + length, count - length);
    }
}

/// Blocks that the tree of so many extents takes besides the inode.
pub(super) fn nodes(extents: usize) -> u64 {
    if extents <= IN_INODE {
        return 0;
    }
    let leaves = extents.div_ceil(PER_BLOCK);
    let middle = if leaves > IN_INODE {
        leaves.div_ceil(PER_BLOCK)
    } else {
        0
    };
    (leaves + middle) as u64
}

/// Most extents that fit in a tree of depth 2, the deepest that is written here.
pub(super) const MOST: usize = IN_INODE * PER_BLOCK * PER_BLOCK;

fn put<const N: usize>(out: &mut [u8], field: usize, bytes: [u8; N]) {
    out[field..field + N].copy_from_slice(&bytes);
}

fn header(out: &mut [u8], entries: usize, max: usize, depth: u16) {
    put(out, at::MAGIC, at::MAGIC_NUMBER.to_le_bytes());
    put(out, at::ENTRIES, (entries as u16).to_le_bytes());
    put(out, at::MOST, (max as u16).to_le_bytes());
    put(out, at::DEPTH, depth.to_le_bytes());
}

/// Entry `index` of the node `out`.
fn leaf_entry(out: &mut [u8], index: usize, extent: &Extent) {
    let out = &mut out[at::BYTES * (1 + index)..];
    put(out, at::LOGICAL, extent.logical.to_le_bytes());
    put(out, at::LENGTH, extent.length.to_le_bytes());
    put(
        out,
        at::PHYSICAL_HIGH,
        ((extent.physical >> 32) as u16).to_le_bytes(),
    );
    put(out, at::PHYSICAL, (extent.physical as u32).to_le_bytes());
}

/// The same above the leaves. What follows the child's number stays zero.
fn index_entry(out: &mut [u8], index: usize, logical: u32, block: u64) {
    let out = &mut out[at::BYTES * (1 + index)..];
    put(out, at::LOGICAL, logical.to_le_bytes());
    put(out, at::CHILD, (block as u32).to_le_bytes());
    put(out, at::CHILD_HIGH, ((block >> 32) as u16).to_le_bytes());
}

/// A tree: the inode's 60 bytes, and the blocks that go to `first_block` and those after it.
/// `seed` is the inode's checksum seed.
pub(super) fn tree(
    extents: &[Extent],
    first_block: u64,
    seed: u32,
) -> ([u8; inode::BLOCK_BYTES], Vec<Vec<u8>>) {
    let mut root = [0u8; inode::BLOCK_BYTES];
    if extents.len() <= IN_INODE {
        header(&mut root, extents.len(), IN_INODE, 0);
        for (i, extent) in extents.iter().enumerate() {
            leaf_entry(&mut root, i, extent);
        }
        return (root, Vec::new());
    }
    let mut blocks = Vec::new();
    let mut level: Vec<(u32, u64)> = Vec::new();
    let seal = |mut block: Vec<u8>| {
        let sum = checksum::update(seed, &block[..BLOCK_BYTES - at::TAIL_BYTES]);
        block[BLOCK_BYTES - at::TAIL_BYTES..].copy_from_slice(&sum.to_le_bytes());
        block
    };
    for chunk in extents.chunks(PER_BLOCK) {
        let mut block = vec![0u8; BLOCK_BYTES];
        header(&mut block, chunk.len(), PER_BLOCK, 0);
        for (i, extent) in chunk.iter().enumerate() {
            leaf_entry(&mut block, i, extent);
        }
        level.push((chunk[0].logical, first_block + blocks.len() as u64));
        blocks.push(seal(block));
    }
    let mut depth = 1;
    if level.len() > IN_INODE {
        let mut upper = Vec::new();
        for chunk in level.chunks(PER_BLOCK) {
            let mut block = vec![0u8; BLOCK_BYTES];
            header(&mut block, chunk.len(), PER_BLOCK, 1);
            for (i, (logical, at)) in chunk.iter().enumerate() {
                index_entry(&mut block, i, *logical, *at);
            }
            upper.push((chunk[0].0, first_block + blocks.len() as u64));
            blocks.push(seal(block));
        }
        level = upper;
        depth = 2;
    }
    header(&mut root, level.len(), IN_INODE, depth);
    for (i, (logical, at)) in level.iter().enumerate() {
        index_entry(&mut root, i, *logical, *at);
    }
    (root, blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_up_to_the_longest() {
        let mut list = Vec::new();
        push(&mut list, 0, 100, 40_000);
        push(&mut list, 40_000, 40_100, 1);
        push(&mut list, 40_005, 40_101, 1);
        assert_eq!(
            list,
            [
                Extent {
                    logical: 0,
                    physical: 100,
                    length: 32_768
                },
                Extent {
                    logical: 32_768,
                    physical: 32_868,
                    length: 7_233
                },
                Extent {
                    logical: 40_005,
                    physical: 40_101,
                    length: 1
                },
            ]
        );
    }

    #[test]
    fn the_number_of_nodes_is_that_of_the_tree() {
        for count in [0, 1, 4, 5, 340, 341, 1360, 1361, 5000] {
            let extents: Vec<_> = (0..count)
                .map(|i| Extent {
                    logical: 2 * i,
                    physical: 100 + u64::from(i),
                    length: 1,
                })
                .collect();
            assert_eq!(
                tree(&extents, 7, 0).1.len() as u64,
                nodes(extents.len()),
                "{count}"
            );
        }
    }
}
