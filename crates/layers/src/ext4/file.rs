//! Streaming one file's data.

use super::extents::{self, Extent};
use super::tree::Content;
use super::{BLOCK, BLOCK_BYTES, BlockTarget, Builder, Error, Kind, Metadata};

/// The largest file in blocks, less one (fs/ext4/ext4.h, `EXT_MAX_BLOCKS`).
const MAX_BLOCKS: u64 = u32::MAX as u64;
/// Data is handed on in pieces of at most this many bytes.
const PIECE: usize = 1 << 20;

/// Where a run of a file's bytes is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileExtent {
    /// First byte in the file.
    pub file_offset: u64,
    /// First byte in the image.
    pub image_offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Writes a file's data in order. Dropped without [`FileWriter::finish`], there is no such file.
#[derive(Debug)]
pub struct FileWriter<'a, T> {
    builder: &'a mut Builder<T>,
    path: Vec<u8>,
    meta: Metadata,
    extents: Vec<Extent>,
    /// Bytes so far, holes included.
    size: u64,
    /// The end of the file that does not fill a block yet, from a block's start.
    partial: Vec<u8>,
    /// First block of this file; given back when it is dropped.
    first: u64,
    finished: bool,
}

impl<'a, T: BlockTarget> FileWriter<'a, T> {
    pub(super) fn new(builder: &'a mut Builder<T>, path: &[u8], meta: &Metadata) -> Self {
        let first = builder.next;
        FileWriter {
            builder,
            path: path.to_vec(),
            meta: meta.clone(),
            extents: Vec::new(),
            size: 0,
            partial: Vec::new(),
            first,
            finished: false,
        }
    }

    fn room(&self, more: u64) -> Result<(), Error> {
        if self
            .size
            .checked_add(more)
            .is_none_or(|end| end.div_ceil(BLOCK) > MAX_BLOCKS)
        {
            return Err(Error::FileTooLarge {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    /// Appends data.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`], [`Error::Limit`], [`Error::Io`].
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        self.room(data.len() as u64)?;
        if !self.partial.is_empty() {
            let take = data.len().min(BLOCK_BYTES - self.partial.len());
            self.partial.extend_from_slice(&data[..take]);
            self.size += take as u64;
            data = &data[take..];
            if self.partial.len() < BLOCK_BYTES {
                return Ok(());
            }
            let block = std::mem::take(&mut self.partial);
            self.blocks(&block, self.size - BLOCK)?;
            self.partial = block;
            self.partial.clear();
        }
        let whole = data.len() / BLOCK_BYTES * BLOCK_BYTES;
        for piece in data[..whole].chunks(PIECE) {
            self.blocks(piece, self.size)?;
            self.size += piece.len() as u64;
        }
        self.partial.extend_from_slice(&data[whole..]);
        self.size += (data.len() - whole) as u64;
        Ok(())
    }

    /// Leaves a hole of so many bytes, which read as zeros.
    ///
    /// # Errors
    /// As [`FileWriter::write`].
    pub fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        self.room(bytes)?;
        let end = self.size + bytes;
        if !self.partial.is_empty() {
            let fill = bytes.min(BLOCK - self.partial.len() as u64);
            self.write(&vec![0; fill as usize])?;
        }
        // What does not fill a block at the end stays data, so that more may follow in it.
        if end > self.size {
            let holes = (end - self.size) / BLOCK * BLOCK;
            self.size += holes;
            let rest = end - self.size;
            if rest > 0 {
                self.write(&vec![0; rest as usize])?;
            }
        }
        Ok(())
    }

    /// Writes whole blocks at a position of the file.
    fn blocks(&mut self, data: &[u8], file_offset: u64) -> Result<(), Error> {
        let count = (data.len() / BLOCK_BYTES) as u64;
        let limit = self.builder.options.limits.bytes;
        if (self.builder.next + count) * BLOCK > limit {
            return Err(Error::Limit {
                what: "bytes of disk",
                limit,
            });
        }
        let at = self.builder.next;
        self.builder.emit(at, data)?;
        self.builder.next += count;
        extents::push(&mut self.extents, (file_offset / BLOCK) as u32, at, count);
        if self.extents.len() > extents::MOST {
            return Err(Error::Limit {
                what: "extents of one file",
                limit: extents::MOST as u64,
            });
        }
        Ok(())
    }

    /// Puts the file in its place; says where its bytes are in the image, holes left out.
    ///
    /// # Errors
    /// As [`FileWriter::write`], and as for all entries.
    pub fn finish(mut self) -> Result<Vec<FileExtent>, Error> {
        if !self.partial.is_empty() {
            let used = self.partial.len() as u64;
            let mut block = std::mem::take(&mut self.partial);
            block.resize(BLOCK_BYTES, 0);
            self.blocks(&block, self.size - used)?;
        }
        let size = self.size;
        let places = self
            .extents
            .iter()
            .map(|e| {
                let file_offset = u64::from(e.logical) * BLOCK;
                FileExtent {
                    file_offset,
                    image_offset: e.physical * BLOCK,
                    length: (u64::from(e.length) * BLOCK).min(size - file_offset),
                }
            })
            .collect();
        let extents = std::mem::take(&mut self.extents);
        let kept: Vec<(u64, u64)> = extents
            .iter()
            .map(|e| (e.physical, u64::from(e.length)))
            .collect();
        self.builder.data += size;
        let (path, meta) = (
            std::mem::take(&mut self.path),
            std::mem::take(&mut self.meta),
        );
        self.finished = true;
        let put = self.builder.put(
            &path,
            Kind::File,
            &meta,
            Content::File {
                size,
                extents: extents.into(),
            },
        );
        if put.is_err() {
            self.builder.tree.freed.extend(kept);
        }
        put.map(|()| places)
    }
}

impl<T: BlockTarget> std::io::Write for FileWriter<'_, T> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        FileWriter::write(self, data).map_err(std::io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<T> Drop for FileWriter<'_, T> {
    fn drop(&mut self) {
        if !self.finished && self.builder.next > self.first {
            self.builder
                .tree
                .freed
                .push((self.first, self.builder.next - self.first));
        }
    }
}

impl<T: BlockTarget> Builder<T> {
    /// Writes whole blocks to the target.
    pub(super) fn emit(&mut self, block: u64, data: &[u8]) -> Result<(), Error> {
        let offset = block * BLOCK;
        self.target
            .write_at(offset, data)
            .map_err(|source| Error::Io {
                offset,
                length: data.len(),
                source,
            })
    }
}
