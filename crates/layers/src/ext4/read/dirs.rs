//! Entries of directories, in the order in which they are stored.

use super::dirblock::{Block, Entry, bad, entry};
use super::error::ReadError;
use super::file::File;
use super::inode::Inode;
use super::{Filesystem, xattr};
use crate::ReadAt;
use crate::ext4::Kind;

/// Entries in an inode begin after its parent's number.
const INLINE_PARENT: usize = 4;
/// Blocks that are read at once where they stand together.
const AT_ONCE: u64 = 16;

/// The entries of a directory in the order in which they are stored, without `.` and `..`. A few
/// blocks are in memory at a time. After an error there are no more.
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
    /// What was read, and where in it the next block begins.
    read: Vec<u8>,
    after: usize,
    /// Where in it the next entry is, and where those of its block end.
    at: usize,
    end: usize,
}

/// The number of blocks of a directory without entries in its inode.
pub(super) fn blocks_of<S>(fs: &Filesystem<S>, inode: &Inode) -> Result<u64, ReadError> {
    let size = fs.blocks.size as u64;
    let blocks = inode.size / size;
    // It has no holes, so it cannot have more blocks than there are: that bounds the work.
    if !inode.size.is_multiple_of(size) || blocks > fs.blocks.count {
        return Err(bad(inode, "has no possible size"));
    }
    Ok(blocks)
}

impl<'a, S: ReadAt> Entries<'a, S> {
    pub(super) fn new(fs: &'a Filesystem<S>, inode: &Inode) -> Result<Self, ReadError> {
        if inode.kind != Kind::Directory {
            return Err(ReadError::WrongKind {
                inode: inode.number,
                wanted: "directory",
            });
        }
        let (inline, blocks) = if inode.has_inline_data() {
            let lists = [
                inode.block[INLINE_PARENT..].to_vec(),
                xattr::inline_data(inode)?,
            ];
            (Some(lists), 2)
        } else {
            (None, blocks_of(fs, inode)?)
        };
        Ok(Self {
            fs,
            file: File::new(fs, inode)?,
            inode: inode.clone(),
            inline,
            blocks,
            next: 0,
            read: Vec::new(),
            after: 0,
            at: 0,
            end: 0,
        })
    }

    /// Goes to the next block; false at the end.
    fn load(&mut self) -> Result<bool, ReadError> {
        if self.next == self.blocks {
            return Ok(false);
        }
        if let Some(lists) = &mut self.inline {
            self.read = std::mem::take(&mut lists[self.next as usize]);
            (self.at, self.end) = (0, self.read.len());
            self.next += 1;
            return Ok(true);
        }
        let number = self.next as u32;
        let size = self.fs.blocks.size;
        if self.after == self.read.len() {
            let run = self.file.run(number)?;
            let Some(physical) = run.physical else {
                return Err(bad(&self.inode, "has a hole"));
            };
            let count = run.length.min(AT_ONCE).min(self.blocks - self.next);
            self.read.resize(count as usize * size, 0);
            self.fs.blocks.read(physical, 0, &mut self.read)?;
            self.after = 0;
        }
        let raw = &self.read[self.after..self.after + size];
        self.end = self.after + Block::parse(&self.inode, number, raw)?.end(raw);
        self.at = self.after;
        self.after += size;
        self.next += 1;
        Ok(true)
    }

    fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            while self.at < self.end {
                let raw = &self.read[self.at..self.end];
                let (found, length) = entry(&self.fs.sb, &self.inode, raw)?;
                self.at += length;
                if found.is_some() {
                    return Ok(found);
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
