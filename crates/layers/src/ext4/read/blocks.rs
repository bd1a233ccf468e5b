//! The source by blocks: what the journal holds lies over it, and metadata is kept for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{ReadError, damaged};
use super::journal::Logged;
use crate::ReadAt;

/// Blocks of metadata that are kept, 1 MiB at most: a folder's inodes stand together.
const KEPT: usize = 256;

/// A kept block and its number.
type Kept = Option<(u64, Arc<[u8]>)>;

pub(super) struct Blocks<S> {
    source: S,
    /// Bytes of a block.
    pub size: usize,
    /// Blocks of the file system; all of them are in the source.
    pub count: u64,
    /// Blocks whose newest form is in the journal.
    pub(super) logged: BTreeMap<u64, Logged>,
    kept: Mutex<Vec<Kept>>,
}

impl<S> fmt::Debug for Blocks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks")
            .field("size", &self.size)
            .field("count", &self.count)
            .field("logged", &self.logged.len())
            .finish_non_exhaustive()
    }
}

/// Reads from the source, with the place in the error.
pub(super) fn read_source<S: ReadAt>(
    source: &S,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), ReadError> {
    source
        .read_exact_at(offset, buf)
        .map_err(|source| ReadError::Io {
            offset,
            length: buf.len(),
            source,
        })
}

/// Bytes of the source.
pub(super) fn source_size<S: ReadAt>(source: &S) -> Result<u64, ReadError> {
    source.size().map_err(|source| ReadError::Io {
        offset: 0,
        length: 0,
        source,
    })
}

impl<S: ReadAt> Blocks<S> {
    pub fn new(source: S, size: usize, count: u64) -> Self {
        Self {
            source,
            size,
            count,
            logged: BTreeMap::new(),
            kept: Mutex::new(vec![None; KEPT]),
        }
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    /// Lays the journal's blocks over those of the source.
    pub fn lay_over(&mut self, logged: BTreeMap<u64, Logged>) {
        self.logged = logged;
        self.kept = Mutex::new(vec![None; KEPT]);
    }

    /// Fills `buf` from `within` bytes after the start of block `first`; goes on into the blocks after it.
    pub fn read(&self, first: u64, within: usize, buf: &mut [u8]) -> Result<(), ReadError> {
        let size = self.size as u64;
        let end = (within + buf.len()) as u64;
        if first
            .checked_add(end.div_ceil(size))
            .is_none_or(|end| end > self.count)
        {
            return Err(damaged(format!("block {first}"), "is outside of it"));
        }
        let mut offset = first * size + within as u64;
        let mut rest = buf;
        while !rest.is_empty() {
            let block = offset / size;
            let next = self.logged.range(block..).next();
            let take = match next {
                Some((number, logged)) if *number == block => {
                    let copy = logged.read(&self.source, self.size)?;
                    let within = (offset % size) as usize;
                    let take = rest.len().min(self.size - within);
                    rest[..take].copy_from_slice(&copy[within..within + take]);
                    take
                }
                _ => {
                    let plain = next.map_or(u64::MAX, |(number, _)| number * size - offset);
                    let take = plain.min(rest.len() as u64) as usize;
                    read_source(&self.source, offset, &mut rest[..take])?;
                    take
                }
            };
            offset += take as u64;
            rest = &mut rest[take..];
        }
        Ok(())
    }

    /// A block of metadata.
    pub fn block(&self, number: u64) -> Result<Arc<[u8]>, ReadError> {
        let slot = (number % KEPT as u64) as usize;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, block)) = &kept[slot]
            && *at == number
        {
            return Ok(Arc::clone(block));
        }
        drop(kept);
        let mut block = vec![0; self.size];
        self.read(number, 0, &mut block)?;
        let block: Arc<[u8]> = block.into();
        kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept[slot] = Some((number, Arc::clone(&block)));
        Ok(block)
    }
}
