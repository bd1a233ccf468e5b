//! What the journal holds and the disk does not yet.

use std::collections::BTreeMap;

use super::Filesystem;
use super::blocks::read_source;
use super::error::{ReadError, unsupported};
use crate::ReadAt;

/// Where the newest form of a block is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    /// Byte offset in the source.
    offset: u64,
}

impl Logged {
    /// The block as it belongs on the disk.
    pub fn read<S: ReadAt>(&self, source: &S, size: usize) -> Result<Vec<u8>, ReadError> {
        let mut block = vec![0; size];
        read_source(source, self.offset, &mut block)?;
        Ok(block)
    }
}

/// Reads the journal of a file system that was cut off.
pub(super) fn replay<S: ReadAt>(_fs: &Filesystem<S>) -> Result<BTreeMap<u64, Logged>, ReadError> {
    Err(unsupported("needs_recovery"))
}
