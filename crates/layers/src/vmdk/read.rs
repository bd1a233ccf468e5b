//! Reading a chain of sparse VMDKs by position. Nothing in the files is believed: what is allocated is bounded by
//! [`MAX_CAPACITY`], and a table that points outside its file is an error.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::descriptor::{self, Descriptor};
use super::header::{FLAG_ZERO_GRAIN, Header, SECTOR, TABLE_ENTRIES};
use super::{MAX_DEPTH, Parent, VmdkError};
use crate::io::{ReadAt, past_end};

/// Grain tables kept in memory for each file: 64 of 2 KiB.
const CACHED_TABLES: usize = 64;

type Table = Arc<[u32; TABLE_ENTRIES as usize]>;

/// One sparse VMDK, open for reading.
pub struct SparseFile {
    source: Box<dyn ReadAt>,
    size: u64,
    header: Header,
    descriptor: Descriptor,
    directory: Vec<u32>,
    /// Tables read lately, the last one used at the end.
    tables: Mutex<Vec<(usize, Table)>>,
}

impl fmt::Debug for SparseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseFile")
            .field("header", &self.header)
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

/// What a file says of a grain.
enum Grain {
    /// Its bytes are the parent's.
    Below,
    Zero,
    /// Its bytes start here in the file.
    At(u64),
}

impl SparseFile {
    /// Opens a monolithicSparse VMDK; reads header, descriptor and grain directory.
    pub fn open(source: impl ReadAt + 'static) -> Result<Self, VmdkError> {
        let source: Box<dyn ReadAt> = Box::new(source);
        let size = source.size()?;
        let read = |offset: u64, len: u64, what: &str| {
            if offset.checked_add(len).is_none_or(|end| end > size) {
                return Err(VmdkError::Invalid(format!(
                    "its {what} ({len} bytes at {offset}) is not inside the file of {size} bytes"
                )));
            }
            let mut bytes = vec![0; len as usize];
            source.read_exact_at(offset, &mut bytes)?;
            Ok(bytes)
        };
        let bytes = |sector: u64| sector.saturating_mul(SECTOR);
        let mut first = [0; SECTOR as usize];
        first.copy_from_slice(&read(0, SECTOR, "header")?);
        let header = Header::parse(&first)?;
        let descriptor = descriptor::parse(&read(
            bytes(header.descriptor),
            bytes(header.descriptor_size),
            "descriptor",
        )?)?;
        let directory = read(
            bytes(header.directory),
            header.tables() * 4,
            "grain directory",
        )?;
        let directory = directory
            .chunks_exact(4)
            .map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
            .collect();
        Ok(Self {
            source,
            size,
            header,
            descriptor,
            directory,
            tables: Mutex::default(),
        })
    }

    /// Size of the virtual disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    /// Its content ID.
    pub fn cid(&self) -> u32 {
        self.descriptor.cid
    }

    /// The VMDK below, as named inside.
    pub fn parent(&self) -> Option<&Parent> {
        self.descriptor.parent.as_ref()
    }

    fn grain_bytes(&self) -> u64 {
        self.header.grain * SECTOR
    }

    fn find(&self, grain: u64) -> io::Result<Grain> {
        let (index, entry) = (
            (grain / TABLE_ENTRIES) as usize,
            (grain % TABLE_ENTRIES) as usize,
        );
        let sector = match self.directory.get(index) {
            None | Some(0) => 0,
            Some(table) => self.table(index, u64::from(*table))?[entry],
        };
        Ok(match sector {
            0 => Grain::Below,
            1 if self.header.flags & FLAG_ZERO_GRAIN != 0 => Grain::Zero,
            sector => Grain::At(u64::from(sector) * SECTOR),
        })
    }

    fn table(&self, index: usize, sector: u64) -> io::Result<Table> {
        // A panic elsewhere leaves the cache whole: entries are pushed complete.
        let mut cache = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().rposition(|(cached, _)| *cached == index) {
            let found = cache.remove(at);
            let table = Arc::clone(&found.1);
            cache.push(found);
            return Ok(table);
        }
        drop(cache);
        let mut bytes = [0; TABLE_ENTRIES as usize * 4];
        self.inside(sector * SECTOR, bytes.len(), "grain table")?;
        self.source.read_exact_at(sector * SECTOR, &mut bytes)?;
        let mut table = [0; TABLE_ENTRIES as usize];
        for (entry, bytes) in table.iter_mut().zip(bytes.chunks_exact(4)) {
            *entry = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let table = Arc::new(table);
        let mut cache = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_TABLES {
            cache.remove(0);
        }
        cache.push((index, Arc::clone(&table)));
        Ok(table)
    }

    fn inside(&self, offset: u64, len: usize, what: &str) -> io::Result<()> {
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > self.size)
        {
            let reason = format!(
                "damaged VMDK: a {what} at {offset} is not inside the file of {} bytes",
                self.size
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(())
    }
}

/// A chain of VMDKs, read as the disk that its leaf is.
#[derive(Debug)]
pub struct Chain {
    /// The leaf first.
    files: Vec<SparseFile>,
}

impl Chain {
    /// Makes a chain of these files, the leaf first, the base last. Each must be the parent that the one before it
    /// names by content ID, and have the same capacity.
    pub fn new(files: Vec<SparseFile>) -> Result<Self, VmdkError> {
        let broken = |reason: String| Err(VmdkError::BrokenChain(reason));
        if files.is_empty() || files.len() > MAX_DEPTH {
            return broken(format!(
                "it has {} files; it must have 1 to {MAX_DEPTH}",
                files.len()
            ));
        }
        for (at, pair) in files.windows(2).enumerate() {
            let named = pair[0].parent().map(|parent| parent.cid);
            if named != Some(pair[1].cid()) {
                let (named, found) = (named.map(|cid| format!("{cid:08x}")), pair[1].cid());
                return broken(format!(
                    "file {at} (from the leaf) was made on content {named:?}, but its parent has {found:08x}"
                ));
            }
            if pair[0].capacity() != pair[1].capacity() {
                return broken(format!(
                    "file {at} (from the leaf) has {} bytes, its parent {}",
                    pair[0].capacity(),
                    pair[1].capacity()
                ));
            }
        }
        if let Some(parent) = files.last().and_then(SparseFile::parent) {
            return broken(format!("its last file needs the parent {:?}", parent.hint));
        }
        Ok(Self { files })
    }

    /// Opens a leaf and everything below it. `open` is given each parent's name as its child has it, and the number
    /// of files above it.
    pub fn open_with(
        leaf: SparseFile,
        mut open: impl FnMut(&str, usize) -> Result<SparseFile, VmdkError>,
    ) -> Result<Self, VmdkError> {
        let mut files = vec![leaf];
        while let Some(parent) = files.last().and_then(SparseFile::parent) {
            if files.len() >= MAX_DEPTH {
                return Err(VmdkError::BrokenChain(format!(
                    "it is more than {MAX_DEPTH} files deep, or a circle"
                )));
            }
            let below = open(&parent.hint, files.len())?;
            files.push(below);
        }
        Self::new(files)
    }

    /// Opens a leaf in a folder tree. A parent's name is taken relative to its child's folder; all of them must stay
    /// inside `root`, through whatever links.
    pub fn open_files(root: &Path, leaf: &Path) -> Result<Self, VmdkError> {
        let root = root.canonicalize()?;
        let resolve = |path: &Path| -> Result<PathBuf, VmdkError> {
            let whole = path.canonicalize().map_err(|error| {
                VmdkError::BrokenChain(format!("cannot open {}: {error}", path.display()))
            })?;
            if !whole.starts_with(&root) {
                return Err(VmdkError::BrokenChain(format!(
                    "{} is not inside {}",
                    path.display(),
                    root.display()
                )));
            }
            Ok(whole)
        };
        let mut current = resolve(&root.join(leaf))?;
        let first = SparseFile::open(std::fs::File::open(&current)?)?;
        Self::open_with(first, |hint, _| {
            let hint = Path::new(hint);
            if hint
                .components()
                .any(|part| matches!(part, Component::RootDir))
                && !hint.starts_with(&root)
            {
                return Err(VmdkError::BrokenChain(format!(
                    "the parent {} is not inside {}",
                    hint.display(),
                    root.display()
                )));
            }
            let folder = current.parent().unwrap_or(&root);
            current = resolve(&folder.join(hint))?;
            SparseFile::open(std::fs::File::open(&current)?)
        })
    }

    /// Number of files.
    pub fn depth(&self) -> usize {
        self.files.len()
    }

    /// Bytes that the files keep from `offset` on as one run, with where they come from. `None`: zeros.
    fn locate(&self, offset: u64) -> io::Result<(u64, Option<(&SparseFile, u64)>)> {
        // A file with small grains bounds the run for the larger ones below it.
        let mut run = u64::MAX;
        for file in &self.files {
            let size = file.grain_bytes();
            run = run.min(size - offset % size);
            match file.find(offset / size)? {
                Grain::Below => {}
                Grain::Zero => return Ok((run, None)),
                Grain::At(place) => return Ok((run, Some((file, place + offset % size)))),
            }
        }
        Ok((run, None))
    }
}

impl ReadAt for Chain {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = ReadAt::size(self)?;
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > size)
        {
            return Err(past_end(offset, buf.len(), size));
        }
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let (mut run, from) = self.locate(offset)?;
            // Grains that follow each other in the same file are read at once: a range request each would be slow.
            while run < buf.len() as u64 {
                let (more, next) = self.locate(offset + run)?;
                let joins = match (from, next) {
                    (None, None) => true,
                    (Some((file, at)), Some((next, next_at))) => {
                        std::ptr::eq(file, next) && at + run == next_at
                    }
                    _ => false,
                };
                if !joins {
                    break;
                }
                run += more;
            }
            let count = run.min(buf.len() as u64) as usize;
            let (part, rest) = buf.split_at_mut(count);
            match from {
                None => part.fill(0),
                Some((file, at)) => {
                    file.inside(at, count, "grain")?;
                    file.source.read_exact_at(at, part)?;
                }
            }
            offset += count as u64;
            buf = rest;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.files[0].capacity())
    }
}
