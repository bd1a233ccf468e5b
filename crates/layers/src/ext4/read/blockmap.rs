//! Files of ext2 and ext3: lists of blocks, the longer ones over up to three levels
//! (Documentation/filesystems/ext4/ifork.rst).

use super::blocks::Blocks;
use super::bytes::Fields;
use super::error::{ReadError, damaged};
use super::extents::Leaf;
use super::inode::Inode;
use crate::ReadAt;

/// Blocks that the inode itself lists; three lists of lists follow.
const DIRECT: u64 = 12;

/// The list that tells of block `wanted` of a file.
pub(super) fn find<S: ReadAt>(
    blocks: &Blocks<S>,
    inode: &Inode,
    wanted: u32,
) -> Result<Leaf, ReadError> {
    let bad = |reason| damaged(format!("the block list of inode {}", inode.number), reason);
    let wanted = u64::from(wanted);
    if wanted < DIRECT {
        let list = &inode.block[..4 * DIRECT as usize];
        return leaf(blocks, inode, list, 0);
    }
    let each = blocks.size as u64 / 4;
    let mut first = DIRECT;
    let mut below = 1;
    for level in 0..3 {
        let spans = below * each;
        if wanted - first < spans {
            let mut block = inode.block.le32(4 * (DIRECT as usize + level));
            // What each entry of the list at hand spans.
            let mut span = below;
            loop {
                if block == 0 {
                    return Ok(Leaf::hole(first, first + span * each));
                }
                if u64::from(block) >= blocks.count {
                    return Err(bad("leads out of the disk"));
                }
                let list = blocks.block(u64::from(block))?;
                if span == 1 {
                    return leaf(blocks, inode, &list, first);
                }
                let index = (wanted - first) / span;
                block = list.le32(4 * index as usize);
                first += index * span;
                span /= each;
            }
        }
        first += spans;
        below = spans;
    }
    Err(bad("does not reach to the end of the file"))
}

/// The blocks in one list, of which the first one is block `first` of the file.
fn leaf<S: ReadAt>(
    blocks: &Blocks<S>,
    inode: &Inode,
    list: &[u8],
    first: u64,
) -> Result<Leaf, ReadError> {
    let mut leaf = Leaf::hole(first, first + list.len() as u64 / 4);
    for (logical, block) in (first..).zip(list.chunks_exact(4)) {
        let block = u64::from(block.le32(0));
        if block >= blocks.count {
            return Err(damaged(
                format!("the block list of inode {}", inode.number),
                "leads out of the disk",
            ));
        }
        if block != 0 {
            leaf.push(logical, block);
        }
    }
    Ok(leaf)
}
