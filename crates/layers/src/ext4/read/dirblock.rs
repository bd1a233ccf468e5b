//! One block of a directory: entries, or a node of its hash tree.

use super::bytes::Fields;
use super::error::{ReadError, damaged};
use super::inode::Inode;
use super::superblock::Superblock;
use crate::ext4::layout::entry as at;
use crate::ext4::{Kind, checksum};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1 to 255 bytes without NUL and slash; never `.` or `..`.
    pub name: Vec<u8>,
    /// What has that name.
    pub inode: u32,
    /// What that is, if the entry says it. [`Kind::CharDevice`] may be a whiteout: the inode knows.
    pub kind: Option<Kind>,
}

pub(super) fn bad(inode: &Inode, reason: &'static str) -> ReadError {
    damaged(format!("directory {}", inode.number), reason)
}

/// Where the index entries of a node are, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub from: usize,
    pub count: usize,
}

/// What a block of a directory is; where it has a checksum, it was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// Entries up to this byte.
    Leaf(usize),
    Node(Node),
}

impl Block {
    /// Looks at block `number` of a directory.
    pub fn parse(inode: &Inode, number: u32, raw: &[u8]) -> Result<Self, ReadError> {
        let whole = usize::from(raw.le16(at::LENGTH)) == raw.len() && raw.le32(at::INODE) == 0;
        let from = match number {
            _ if !inode.has_index() => None,
            0 => Some(at::ROOT_INDEX),
            _ if whole => Some(at::NODE_INDEX),
            _ => None,
        };
        let Some(from) = from else {
            let Some(seed) = inode.seed else {
                return Ok(Self::Leaf(raw.len()));
            };
            let tail = raw.len() - at::TAIL_BYTES;
            if checksum::update(seed, &raw[..tail]) != raw.le32(tail + at::TAIL_CHECKSUM) {
                return Err(bad(inode, "has a block that does not have its checksum"));
            }
            return Ok(Self::Leaf(tail));
        };
        let (limit, count) = (usize::from(raw.le16(from)), usize::from(raw.le16(from + 2)));
        let tail = from + limit * at::INDEX_BYTES;
        let room = if inode.seed.is_some() {
            at::INDEX_TAIL
        } else {
            0
        };
        if count > limit || count == 0 || tail + room > raw.len() {
            // Without a checksum an empty leaf looks like a node.
            if inode.seed.is_none() {
                return Ok(Self::Leaf(raw.len()));
            }
            return Err(bad(inode, "has an index with more entries than have room"));
        }
        if let Some(seed) = inode.seed
            && crate::ext4::dirs::index_sum(raw, from, limit, count, seed) != raw.le32(tail + 4)
        {
            return Err(bad(inode, "has a block that does not have its checksum"));
        }
        Ok(Self::Node(Node { from, count }))
    }

    /// Where its entries end. A node's two or one look like those of an empty directory.
    pub fn end(self, raw: &[u8]) -> usize {
        match self {
            Self::Leaf(end) => end,
            Self::Node(_) => raw.len(),
        }
    }
}

/// The entry at the start of `raw`, if it names anything, and its length.
pub(super) fn entry(
    sb: &Superblock,
    inode: &Inode,
    raw: &[u8],
) -> Result<(Option<Entry>, usize), ReadError> {
    if raw.len() < at::NAME {
        return Err(bad(inode, "has an entry that does not end"));
    }
    let length = usize::from(raw.le16(at::LENGTH));
    let number = raw.le32(at::INODE);
    let typed = sb.has_file_types();
    let name_length = if typed {
        usize::from(raw[at::NAME_LENGTH])
    } else {
        usize::from(raw.le16(at::NAME_LENGTH))
    };
    if length < at::NAME + name_length || !length.is_multiple_of(4) || length > raw.len() {
        return Err(bad(inode, "has an entry of an impossible length"));
    }
    let name = &raw[at::NAME..at::NAME + name_length];
    if number == 0 || matches!(name, b"." | b"..") {
        return Ok((None, length));
    }
    let cannot_be = |byte: &u8| matches!(byte, 0 | b'/');
    if name.is_empty() || name.len() > 255 || name.iter().any(cannot_be) {
        return Err(bad(inode, "has a name that cannot be"));
    }
    let found = Entry {
        name: name.to_vec(),
        inode: number,
        kind: typed.then(|| Kind::of_dirent(raw[at::KIND])).flatten(),
    };
    Ok((Some(found), length))
}
