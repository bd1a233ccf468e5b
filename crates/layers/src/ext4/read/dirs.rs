//! Entries of directories, block by block; a hash tree's blocks look like empty ones.

use super::Filesystem;
use super::bytes::Fields;
use super::error::{ReadError, damaged};
use super::file::File;
use super::inode::Inode;
use super::xattr;
use crate::ReadAt;
use crate::ext4::layout::entry as at;
use crate::ext4::{Kind, checksum};

/// Entries in an inode begin after its parent's number.
const INLINE_PARENT: usize = 4;

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

/// The entries of a directory in the order in which they are stored, without `.` and `..`. One block
/// is in memory at a time. After an error there are no more.
#[derive(Debug)]
pub struct Entries<'a, S> {
    fs: &'a Filesystem<S>,
    file: File<'a, S>,
    inode: Inode,
    /// Entries in the inode itself: two lists in place of blocks.
    inline: Option<[Vec<u8>; 2]>,
    /// Blocks, and the next one to read.
    blocks: u64,
    next: u64,
    block: Vec<u8>,
    /// Where the next entry is in `block`, and where its entries end.
    at: usize,
    end: usize,
}

impl<'a, S: ReadAt> Entries<'a, S> {
    pub(super) fn new(fs: &'a Filesystem<S>, inode: &Inode) -> Result<Self, ReadError> {
        if inode.kind != Kind::Directory {
            return Err(ReadError::WrongKind {
                inode: inode.number,
                wanted: "directory",
            });
        }
        let size = fs.blocks.size as u64;
        let mut blocks = inode.size / size;
        let mut inline = None;
        if inode.has_inline_data() {
            inline = Some([
                inode.block[INLINE_PARENT..].to_vec(),
                xattr::inline_data(inode)?,
            ]);
            blocks = 2;
        } else if !inode.size.is_multiple_of(size) || blocks > fs.blocks.count {
            // It has no holes, so it cannot have more blocks than there are: that bounds the work.
            return Err(damaged(
                format!("directory {}", inode.number),
                "has no possible size",
            ));
        }
        Ok(Self {
            fs,
            file: File::new(fs, inode)?,
            inode: inode.clone(),
            inline,
            blocks,
            next: 0,
            block: Vec::new(),
            at: 0,
            end: 0,
        })
    }

    fn bad(&self, reason: &'static str) -> ReadError {
        damaged(format!("directory {}", self.inode.number), reason)
    }

    /// Reads the next block; false at the end.
    fn load(&mut self) -> Result<bool, ReadError> {
        if self.next == self.blocks {
            return Ok(false);
        }
        if let Some(lists) = &mut self.inline {
            self.block = std::mem::take(&mut lists[self.next as usize]);
            (self.at, self.end) = (0, self.block.len());
            self.next += 1;
            return Ok(true);
        }
        let number = self.next as u32;
        let Some(physical) = self.file.run(number)?.physical else {
            return Err(self.bad("has a hole"));
        };
        self.block.resize(self.fs.blocks.size, 0);
        self.fs.blocks.read(physical, 0, &mut self.block)?;
        self.at = 0;
        self.end = self.block.len();
        if let Some(seed) = self.inode.seed {
            self.check(seed)?;
        }
        self.next += 1;
        Ok(true)
    }

    /// Checks a block's sum, and leaves the sum out of the entries.
    fn check(&mut self, seed: u32) -> Result<(), ReadError> {
        let raw = &self.block[..];
        let whole = |entry: &[u8], bytes| usize::from(entry.le16(at::LENGTH)) == bytes;
        let index = if !self.inode.has_index() {
            None
        } else if self.next == 0 {
            Some(at::ROOT_INDEX)
        } else if raw.le32(at::INODE) == 0 && whole(raw, raw.len()) {
            Some(at::NODE_INDEX)
        } else {
            None
        };
        let sums = if let Some(index) = index {
            let (limit, count) = (
                usize::from(raw.le16(index)),
                usize::from(raw.le16(index + 2)),
            );
            let tail = index + limit * at::INDEX_BYTES;
            if count > limit || tail + at::INDEX_TAIL > raw.len() {
                return Err(self.bad("has an index with more entries than have room"));
            }
            (
                crate::ext4::dirs::index_sum(raw, index, limit, count, seed),
                raw.le32(tail + 4),
            )
        } else {
            let tail = raw.len() - at::TAIL_BYTES;
            self.end = tail;
            (
                checksum::update(seed, &raw[..tail]),
                raw.le32(tail + at::TAIL_CHECKSUM),
            )
        };
        if sums.0 != sums.1 {
            return Err(self.bad("has a block that does not have its checksum"));
        }
        Ok(())
    }

    /// The next entry of the block, the end of which was not reached yet.
    fn entry(&mut self) -> Result<Option<Entry>, ReadError> {
        let raw = &self.block[self.at..self.end];
        if raw.len() < at::NAME {
            return Err(self.bad("has an entry that does not end"));
        }
        let length = usize::from(raw.le16(at::LENGTH));
        let inode = raw.le32(at::INODE);
        let typed = self.fs.sb.has_file_types();
        let name_length = if typed {
            usize::from(raw[at::NAME_LENGTH])
        } else {
            usize::from(raw.le16(at::NAME_LENGTH))
        };
        if length < at::NAME + name_length
            || length < at::NAME
            || !length.is_multiple_of(4)
            || length > raw.len()
        {
            return Err(self.bad("has an entry of an impossible length"));
        }
        let name = &raw[at::NAME..at::NAME + name_length];
        let found = match name {
            _ if inode == 0 => None,
            b"." | b".." => None,
            _ if name.is_empty()
                || name.len() > 255
                || name.iter().any(|byte| matches!(byte, 0 | b'/')) =>
            {
                return Err(self.bad("has a name that cannot be"));
            }
            _ => Some(Entry {
                name: name.to_vec(),
                inode,
                kind: typed.then(|| Kind::of_dirent(raw[at::KIND])).flatten(),
            }),
        };
        self.at += length;
        Ok(found)
    }

    fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            while self.at < self.end {
                if let Some(entry) = self.entry()? {
                    return Ok(Some(entry));
                }
            }
            if !self.load()? {
                return Ok(None);
            }
        }
    }
}

impl<S: ReadAt> Iterator for Entries<'_, S> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            (self.at, self.end, self.next) = (0, 0, self.blocks);
        }
        step.transpose()
    }
}
