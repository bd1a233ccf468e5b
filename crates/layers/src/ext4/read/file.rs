//! The bytes of a file, a long link or a directory.

use super::Filesystem;
use super::blocks::Blocks;
use super::error::{ReadError, damaged};
use super::extents::{Leaf, Run};
use super::inode::Inode;
use super::{blockmap, xattr};
use crate::ReadAt;

/// An open file: reads in order need its extent tree once for each leaf.
#[derive(Debug)]
pub struct File<'a, S> {
    fs: &'a Filesystem<S>,
    inode: Inode,
    /// The bytes, if they are in the inode.
    inline: Option<Vec<u8>>,
    /// The part of the tree that was looked at last.
    leaf: Option<Leaf>,
}

impl<'a, S: ReadAt> File<'a, S> {
    pub(super) fn new(fs: &'a Filesystem<S>, inode: &Inode) -> Result<Self, ReadError> {
        let inline = if inode.has_inline_data() {
            let bytes = [&inode.block[..], &xattr::inline_data(inode)?].concat();
            if inode.size > bytes.len() as u64 {
                return Err(damaged(
                    format!("inode {}", inode.number),
                    "has less data than it says",
                ));
            }
            Some(bytes)
        } else {
            None
        };
        Ok(Self {
            fs,
            inode: inode.clone(),
            inline,
            leaf: None,
        })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inode.size
    }

    /// Fills `buf` from `offset` as far as the file goes; holes and what was never written are zeros.
    /// Gives the number of bytes, less than `buf` has only at the end.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let count = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        if let Some(inline) = &self.inline {
            // Nothing is read past the size, which is at most that of these bytes.
            let from = offset.min(inline.len() as u64) as usize;
            buf[..count].copy_from_slice(&inline[from..from + count]);
            return Ok(count);
        }
        let size = self.fs.blocks.size as u64;
        let mut done = 0;
        while done < count {
            let at = offset + done as u64;
            // A size that was checked: no file has more blocks than 32 bits count.
            let run = self.run((at / size) as u32)?;
            let within = at % size;
            let take = (run.length * size - within).min((count - done) as u64) as usize;
            let part = &mut buf[done..done + take];
            match run.physical {
                Some(block) => self.fs.blocks.read(block, within as usize, part)?,
                None => part.fill(0),
            }
            done += take;
        }
        Ok(count)
    }

    /// What is at a block of the file.
    pub(super) fn run(&mut self, block: u32) -> Result<Run, ReadError> {
        if let Some(run) = self.leaf.as_ref().and_then(|leaf| leaf.run(block)) {
            return Ok(run);
        }
        let leaf = if self.inode.has_extents() {
            Leaf::find(&self.fs.blocks, &self.inode, block)?
        } else {
            blockmap::find(&self.fs.blocks, &self.inode, block)?
        };
        let run = leaf.run(block).ok_or_else(|| {
            damaged(
                format!("inode {}", self.inode.number),
                "has a tree that leaves out a block",
            )
        })?;
        self.leaf = Some(leaf);
        Ok(run)
    }

    /// Blocks of the file system.
    pub(super) fn blocks(&self) -> &'a Blocks<S> {
        &self.fs.blocks
    }
}
