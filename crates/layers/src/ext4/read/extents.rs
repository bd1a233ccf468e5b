//! Extent trees, read from the root to one leaf.

use super::blocks::Blocks;
use super::bytes::{Fields, wide};
use super::error::{ReadError, damaged};
use super::inode::Inode;
use crate::ReadAt;
use crate::ext4::checksum;
use crate::ext4::layout::extent as at;

/// Deepest tree that the kernel makes (fs/ext4/extents.h, `EXT4_MAX_EXTENT_DEPTH`).
const DEEPEST: u16 = 5;
/// The block after the last one that a file can have.
const END: u64 = u32::MAX as u64 + 1;

/// What is at a block of a file, and how far it goes on like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Its block on the disk; `None` where zeros are read.
    pub physical: Option<u64>,
    /// Blocks; at least 1.
    pub length: u64,
}

/// An extent, as it is stored.
#[derive(Debug, Clone, Copy)]
struct Extent {
    logical: u64,
    length: u64,
    /// `None` for one that is not written yet.
    physical: Option<u64>,
}

/// One leaf: all that is known of the blocks from `first` to `end`.
#[derive(Debug)]
pub(super) struct Leaf {
    first: u64,
    end: u64,
    extents: Vec<Extent>,
}

/// What a node above the leaves says of a block of the file.
enum Below {
    /// The node of this block tells of it, and of the range from one block to before the other.
    Node(u64, (u64, u64)),
    /// Nothing: there is a hole up to this block.
    Hole(u64),
}

/// One node of the tree.
struct Node<'a> {
    raw: &'a [u8],
    entries: usize,
    depth: u16,
}

impl<'a> Node<'a> {
    /// `raw` is the node with its header; the entries that it says to have are in it.
    fn parse(inode: &Inode, raw: &'a [u8], tail: usize) -> Result<Self, ReadError> {
        let bad = |reason| damaged(format!("the extent tree of inode {}", inode.number), reason);
        let entries = usize::from(raw.le16(at::ENTRIES));
        let most = usize::from(raw.le16(at::MOST));
        if raw.le16(at::MAGIC) != at::MAGIC_NUMBER {
            return Err(bad("has a node without the magic number"));
        }
        if entries > most || at::BYTES * (1 + most) + tail > raw.len() {
            return Err(bad("has a node with more entries than have room"));
        }
        if tail > 0
            && let Some(seed) = inode.seed
        {
            let end = at::BYTES * (1 + most);
            if checksum::update(seed, &raw[..end]) != raw.le32(end) {
                return Err(bad("has a node that does not have its checksum"));
            }
        }
        let depth = raw.le16(at::DEPTH);
        Ok(Self {
            raw,
            entries,
            depth,
        })
    }

    fn entry(&self, index: usize) -> &[u8] {
        &self.raw[at::BYTES * (1 + index)..at::BYTES * (2 + index)]
    }

    fn logical(&self, index: usize) -> u64 {
        u64::from(self.entry(index).le32(at::LOGICAL))
    }

    /// Where block `wanted` of the file is told of.
    fn child(&self, inode: &Inode, wanted: u64, range: (u64, u64)) -> Result<Below, ReadError> {
        let bad = |reason| damaged(format!("the extent tree of inode {}", inode.number), reason);
        let mut found = Below::Hole(range.1);
        let mut last = None;
        for index in 0..self.entries {
            let logical = self.logical(index);
            if logical < range.0 || logical >= range.1 || last.is_some_and(|last| last >= logical) {
                return Err(bad("is out of order"));
            }
            if logical > wanted {
                if last.is_none() {
                    found = Below::Hole(logical);
                }
                last = Some(logical);
                continue;
            }
            last = Some(logical);
            let end = if index + 1 < self.entries {
                self.logical(index + 1)
            } else {
                range.1
            };
            let entry = self.entry(index);
            let child = wide(u32::from(entry.le16(at::CHILD_HIGH)), entry.le32(at::CHILD));
            found = Below::Node(child, (logical, end));
        }
        Ok(found)
    }

    fn leaf(&self, inode: &Inode, blocks: u64, range: (u64, u64)) -> Result<Leaf, ReadError> {
        let bad = |reason| damaged(format!("the extent tree of inode {}", inode.number), reason);
        let mut extents: Vec<Extent> = Vec::with_capacity(self.entries);
        let mut next = range.0;
        for index in 0..self.entries {
            let entry = self.entry(index);
            let logical = self.logical(index);
            let (length, written) = match entry.le16(at::LENGTH) {
                length if length <= at::MAX_LENGTH => (u64::from(length), true),
                length => (u64::from(length - at::MAX_LENGTH), false),
            };
            let physical = wide(
                u32::from(entry.le16(at::PHYSICAL_HIGH)),
                entry.le32(at::PHYSICAL),
            );
            if logical < next || logical + length > range.1 || length == 0 {
                return Err(bad("is out of order"));
            }
            // Block 0 is the superblock's.
            if physical == 0 || physical + length > blocks {
                return Err(bad("leads out of the disk"));
            }
            next = logical + length;
            extents.push(Extent {
                logical,
                length,
                physical: written.then_some(physical),
            });
        }
        Ok(Leaf {
            first: range.0,
            end: range.1,
            extents,
        })
    }
}

impl Leaf {
    /// No blocks from `first` to before `end`.
    pub fn hole(first: u64, end: u64) -> Self {
        Self {
            first,
            end,
            extents: Vec::new(),
        }
    }

    /// Adds a block behind all others.
    pub fn push(&mut self, logical: u64, physical: u64) {
        if let Some(last) = self.extents.last_mut()
            && last.logical + last.length == logical
            && last
                .physical
                .is_some_and(|first| first + last.length == physical)
        {
            last.length += 1;
        } else {
            self.extents.push(Extent {
                logical,
                length: 1,
                physical: Some(physical),
            });
        }
    }

    /// The leaf that tells of block `wanted` of the file.
    pub fn find<S: ReadAt>(
        blocks: &Blocks<S>,
        inode: &Inode,
        wanted: u32,
    ) -> Result<Self, ReadError> {
        let bad = |reason| damaged(format!("the extent tree of inode {}", inode.number), reason);
        let wanted = u64::from(wanted);
        let mut range = (0, END);
        let root = Node::parse(inode, &inode.block, 0)?;
        if root.depth > DEEPEST {
            return Err(bad("is too deep"));
        }
        if root.depth == 0 {
            return root.leaf(inode, blocks.count, range);
        }
        let mut depth = root.depth;
        let mut child = root.child(inode, wanted, range)?;
        loop {
            let block = match child {
                Below::Node(block, below) => {
                    range = below;
                    block
                }
                Below::Hole(end) => {
                    return Ok(Self::hole(range.0, end));
                }
            };
            let raw = blocks.block(block)?;
            let node = Node::parse(inode, &raw, at::TAIL_BYTES)?;
            // Each level is one less deep, which ends the way even where a node leads back to itself.
            if node.depth + 1 != depth {
                return Err(bad("has a node at the wrong depth"));
            }
            if node.depth == 0 {
                return node.leaf(inode, blocks.count, range);
            }
            depth = node.depth;
            child = node.child(inode, wanted, range)?;
        }
    }

    /// What is at a block, if this leaf tells of it.
    pub fn run(&self, wanted: u32) -> Option<Run> {
        let wanted = u64::from(wanted);
        if wanted < self.first || wanted >= self.end {
            return None;
        }
        let after = self.extents.partition_point(|e| e.logical <= wanted);
        if let Some(extent) = after.checked_sub(1).map(|i| &self.extents[i]) {
            let into = wanted - extent.logical;
            if into < extent.length {
                return Some(Run {
                    physical: extent.physical.map(|first| first + into),
                    length: extent.length - into,
                });
            }
        }
        let end = self.extents.get(after).map_or(self.end, |e| e.logical);
        Some(Run {
            physical: None,
            length: end - wanted,
        })
    }
}
