//! The bounded place on disk where layers wait between their conversion and their upload.
//!
//! A partition image is kept as *grains* of 64 KiB, in the order in which they were first written, with a table beside
//! them in memory that says which grain of the partition is where. That is how a sparse VMDK keeps them, too, so the
//! image can be streamed into a VMDK at any partition offset without another copy: only the VMDK's tables depend on it.
//! Grains of zeros are not kept.
//!
//! The files have no name (`O_TMPFILE`, or unlinked at once): whatever ends the process, nothing is left behind.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ext4::BlockTarget;
use crate::io::{ReadAt, is_zero, past_end};

/// Size of a grain in bytes: that of VMware's and QEMU's monolithicSparse files.
pub const GRAIN: u64 = 64 * 1024;

const GRAIN_BYTES: usize = GRAIN as usize;

/// Largest partition image, so that the table of grains stays below 128 MiB: 2 TiB, a VMDK's limit.
pub const MAX_IMAGE: u64 = 2 << 40;

/// A folder for spooled data, with a limit on what all of it together may take.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// A share of the spool's budget, given back on drop.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, by: u64) -> io::Result<()> {
        let limit = self.budget.limit;
        self.budget
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(by).filter(|sum| *sum <= limit))
            .map_err(|used| {
                io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("the spool for layers is full: {used} of {limit} bytes in use; wait for other pulls to end or allow it more"),
                )
            })?;
        self.bytes += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Spool {
    /// A spool in `folder`, which must exist, that takes at most `limit` bytes in all.
    pub fn new(folder: impl Into<PathBuf>, limit: u64) -> io::Result<Self> {
        let folder = folder.into();
        if !folder.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("the spool {} is not a folder", folder.display()),
            ));
        }
        Ok(Self {
            folder,
            budget: Arc::new(Budget {
                limit,
                used: AtomicU64::new(0),
            }),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// Starts a partition image.
    pub fn image(&self) -> io::Result<ImageWriter> {
        Ok(ImageWriter::over(Store::File {
            file: tempfile::tempfile_in(&self.folder)?,
            share: self.share(),
        }))
    }

    /// Starts a file that is written from start to end.
    pub fn blob(&self) -> io::Result<BlobWriter> {
        Ok(BlobWriter {
            file: tempfile::tempfile_in(&self.folder)?,
            share: self.share(),
            len: 0,
        })
    }

    fn share(&self) -> Share {
        Share {
            budget: Arc::clone(&self.budget),
            bytes: 0,
        }
    }
}

/// Where grains are kept.
#[derive(Debug)]
enum Store {
    File { file: File, share: Share },
    Memory(Vec<u8>),
}

impl Store {
    fn write(&mut self, at: u64, bytes: &[u8], new: bool) -> io::Result<()> {
        match self {
            Self::File { file, share } => {
                if new {
                    share.grow(bytes.len() as u64)?;
                }
                file.write_all_at(bytes, at)
            }
            Self::Memory(store) => {
                let (start, end) = (at as usize, at as usize + bytes.len());
                if store.len() < end {
                    store.resize(end, 0);
                }
                store[start..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => FileExt::read_exact_at(file, buf, at),
            Self::Memory(store) => store.read_exact_at(at, buf),
        }
    }
}

/// Writes a partition image at random positions. What was never written reads as zeros.
pub struct ImageWriter {
    store: Store,
    /// For each grain of the partition: its slot in the store plus one, or 0.
    map: Vec<u32>,
    slots: u32,
    /// The grain last written to, kept here until another one is: most writes go on where the last one ended.
    open: Option<u64>,
    buffer: Box<[u8; GRAIN_BYTES]>,
}

impl std::fmt::Debug for ImageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageWriter")
            .field("slots", &self.slots)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl ImageWriter {
    /// An image in memory, for small ones such as a partition table or a freshly formatted file system.
    pub fn in_memory() -> Self {
        Self::over(Store::Memory(Vec::new()))
    }

    fn over(store: Store) -> Self {
        // The zeroed vector has the length that the array needs.
        let buffer = vec![0; GRAIN_BYTES]
            .into_boxed_slice()
            .try_into()
            .unwrap_or_else(|_| unreachable!());
        Self {
            store,
            map: Vec::new(),
            slots: 0,
            open: None,
            buffer,
        }
    }

    /// Writes `data` at `offset` (bytes) of the partition.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > MAX_IMAGE)
        {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "{} bytes at {offset} are past a partition's largest size of {MAX_IMAGE} bytes",
                    data.len()
                ),
            ));
        }
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let (grain, within) = (offset / GRAIN, (offset % GRAIN) as usize);
            let count = data.len().min(GRAIN_BYTES - within);
            if count == GRAIN_BYTES && self.open != Some(grain) {
                self.store_grain(grain, Some(&data[..count]))?;
            } else {
                self.open(grain)?;
                self.buffer[within..within + count].copy_from_slice(&data[..count]);
            }
            offset += count as u64;
            data = &data[count..];
        }
        Ok(())
    }

    /// Makes `grain` the open one.
    fn open(&mut self, grain: u64) -> io::Result<()> {
        if self.open == Some(grain) {
            return Ok(());
        }
        self.flush()?;
        match self.map.get(grain as usize).copied().unwrap_or(0) {
            0 => self.buffer.fill(0),
            slot => self
                .store
                .read(u64::from(slot - 1) * GRAIN, &mut self.buffer[..])?,
        }
        self.open = Some(grain);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(grain) => self.store_grain(grain, None),
            None => Ok(()),
        }
    }

    /// Stores `data`, or the buffer, as `grain`.
    fn store_grain(&mut self, grain: u64, data: Option<&[u8]>) -> io::Result<()> {
        let data = data.unwrap_or(&self.buffer[..]);
        let index = grain as usize;
        let slot = self.map.get(index).copied().unwrap_or(0);
        if slot != 0 {
            return self.store.write(u64::from(slot - 1) * GRAIN, data, false);
        }
        if is_zero(data) {
            return Ok(());
        }
        self.store
            .write(u64::from(self.slots) * GRAIN, data, true)?;
        if self.map.len() <= index {
            self.map.resize(index + 1, 0);
        }
        self.slots += 1;
        self.map[index] = self.slots;
        Ok(())
    }

    /// Ends the image, whose size is `size` bytes (at most [`MAX_IMAGE`]; at least what was written).
    pub fn finish(mut self, size: u64) -> io::Result<GrainImage> {
        self.flush()?;
        if size > MAX_IMAGE || (self.map.len() as u64) > size.div_ceil(GRAIN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "an image of {size} bytes cannot hold {} grains, or is larger than {MAX_IMAGE} bytes",
                    self.map.len()
                ),
            ));
        }
        Ok(GrainImage(Arc::new(Grains {
            store: self.store,
            map: self.map,
            slots: self.slots,
            size,
        })))
    }
}

impl BlockTarget for ImageWriter {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        ImageWriter::write_at(self, offset, data)
    }
}

/// A finished partition image. Cheap to clone; the spool's space is given back with the last clone.
#[derive(Debug, Clone)]
pub struct GrainImage(Arc<Grains>);

struct Grains {
    store: Store,
    map: Vec<u32>,
    slots: u32,
    size: u64,
}

impl std::fmt::Debug for Grains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grains")
            .field("slots", &self.slots)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl GrainImage {
    /// Bytes of grains that are kept.
    pub fn stored(&self) -> u64 {
        u64::from(self.0.slots) * GRAIN
    }

    /// Grains that are kept, as (grain of the partition, slot in the store), by grain.
    pub fn grains(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .map
            .iter()
            .enumerate()
            .filter(|(_, slot)| **slot != 0)
            .map(|(grain, slot)| (grain as u64, u64::from(*slot - 1)))
    }

    /// Fills `buf` from the stored grains, `offset` bytes from the first slot's start.
    pub fn read_stored(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.store.read(offset, buf)
    }
}

impl ReadAt for GrainImage {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.0.size)
        {
            return Err(past_end(offset, buf.len(), self.0.size));
        }
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let (grain, within) = (offset / GRAIN, offset % GRAIN);
            let count = buf.len().min((GRAIN - within) as usize);
            let (part, rest) = buf.split_at_mut(count);
            match self.0.map.get(grain as usize).copied().unwrap_or(0) {
                0 => part.fill(0),
                slot => self
                    .0
                    .store
                    .read(u64::from(slot - 1) * GRAIN + within, part)?,
            }
            offset += count as u64;
            buf = rest;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.size)
    }
}

/// Writes a spooled file from start to end.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    share: Share,
    len: u64,
}

impl BlobWriter {
    /// Ends the file.
    pub fn finish(self) -> Blob {
        Blob(Arc::new(self))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.share.grow(bytes.len() as u64)?;
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A finished spooled file. Cheap to clone; the spool's space is given back with the last clone.
#[derive(Debug, Clone)]
pub struct Blob(Arc<BlobWriter>);

impl ReadAt for Blob {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(&self.0.file, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_spool_refuses_and_gives_back() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path(), 2 * GRAIN).unwrap();
        let mut image = spool.image().unwrap();
        image.write_at(0, &[1; 2 * GRAIN_BYTES]).unwrap();
        let mut other = spool.image().unwrap();
        let error = other.write_at(0, &[1; GRAIN_BYTES]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(spool.used(), 2 * GRAIN);
        let image = image.finish(2 * GRAIN).unwrap();
        drop(image.clone());
        assert_eq!(spool.used(), 2 * GRAIN);
        drop(image);
        assert_eq!(spool.used(), 0);
        other.write_at(0, &[1; GRAIN_BYTES]).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "a spooled file has a name"
        );
    }

    #[test]
    fn zeros_take_no_room() {
        let mut image = ImageWriter::in_memory();
        image.write_at(0, &[0; 3 * GRAIN_BYTES]).unwrap();
        image.write_at(5 * GRAIN + 7, b"x").unwrap();
        let image = image.finish(1 << 30).unwrap();
        assert_eq!(image.stored(), GRAIN);
        assert_eq!(image.grains().collect::<Vec<_>>(), [(5, 0)]);
        assert_eq!(image.size().unwrap(), 1 << 30);
    }

    #[test]
    fn a_write_past_the_largest_image_is_refused() {
        let mut image = ImageWriter::in_memory();
        assert!(image.write_at(MAX_IMAGE - 1, b"ab").is_err());
        assert!(image.write_at(u64::MAX, b"a").is_err());
        image.write_at(GRAIN, b"a").unwrap();
        assert!(image.finish(GRAIN).is_err());
    }

    proptest! {
        #[test]
        fn random_writes_read_back(writes in prop::collection::vec((0u64..400_000, 1usize..100_000, any::<u8>()), 1..20)) {
            let mut flat = vec![0; 600_000];
            let mut image = ImageWriter::in_memory();
            for (offset, len, byte) in writes {
                image.write_at(offset, &vec![byte; len]).unwrap();
                flat[offset as usize..offset as usize + len].fill(byte);
            }
            let image = image.finish(600_000).unwrap();
            let mut back = vec![0xee; 600_000];
            image.read_exact_at(0, &mut back).unwrap();
            prop_assert!(back == flat);
        }
    }
}
