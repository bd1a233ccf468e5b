//! Where an image is written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Takes writes at any offset. Everything never written must read as zeros.
///
/// Writes come in whole blocks of 4,096 bytes (the superblock at offset 1,024 included: its block
/// is written as a whole), file data in ascending order in pieces of up to 1 MiB, metadata after
/// it, group descriptors and superblock last: a target that lost its writer half way holds no
/// valid file system.
pub trait BlockTarget {
    /// Writes all of `data` at `offset` bytes from the image's start.
    ///
    /// # Errors
    /// Whatever the target's medium reports; the image is then given up.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
}

impl BlockTarget for File {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }
}

impl<T: BlockTarget + ?Sized> BlockTarget for &mut T {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, data)
    }
}

impl<T: BlockTarget + ?Sized> BlockTarget for Box<T> {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, data)
    }
}

/// Keeps the writes as they came, to be placed later: for the few blocks of an empty file system.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Byte offset and bytes of each write, in order. No two overlap.
    pub writes: Vec<(u64, Vec<u8>)>,
}

impl BlockTarget for Recording {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes.push((offset, data.to_vec()));
        Ok(())
    }
}
