//! Files on the datastore, read at any place.

use super::Vsphere;
use layers::{
    ReadAt,
    vmdk::{Chain, SparseFile, VmdkError},
};
use std::{io, sync::Arc, sync::Mutex, sync::PoisonError};
use vim::DatastorePath;

/// Bytes that are fetched at once; neighbours are mostly wanted too.
const BLOCK: u64 = 256 * 1024;
/// Blocks that are kept of a file that is read alone, and of all files of a chain: 4 and 12 MiB.
const BLOCKS: usize = 16;
const CHAIN_BLOCKS: usize = 48;

/// A file's number and a place in it, and the bytes from there.
type Fetched = ((usize, u64), Arc<Vec<u8>>);

/// Blocks that were fetched lately, the last one used at the end.
#[derive(Debug)]
struct Cache {
    most: usize,
    blocks: Mutex<Vec<Fetched>>,
}

impl Cache {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            blocks: Mutex::default(),
        })
    }

    fn get(&self, key: (usize, u64)) -> Option<Arc<Vec<u8>>> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = blocks.iter().rposition(|(own, _)| *own == key)?;
        let found = blocks.remove(at);
        let block = found.1.clone();
        blocks.push(found);
        Some(block)
    }

    fn put(&self, key: (usize, u64), block: Arc<Vec<u8>>) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= self.most {
            blocks.remove(0);
        }
        blocks.push((key, block));
    }
}

/// A file on the datastore for readers that know nothing of networks. Its methods block: call
/// them from a blocking task.
#[derive(Debug)]
pub struct RemoteFile {
    vsphere: Arc<Vsphere>,
    path: DatastorePath,
    size: u64,
    runtime: tokio::runtime::Handle,
    cache: Arc<Cache>,
    /// Which of the cache's files this is.
    number: usize,
}

impl RemoteFile {
    /// Opens a file; must be called within the runtime.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn open(vsphere: Arc<Vsphere>, path: DatastorePath) -> io::Result<Self> {
        Self::with(vsphere, path, Cache::new(BLOCKS), 0).await
    }

    async fn with(
        vsphere: Arc<Vsphere>,
        path: DatastorePath,
        cache: Arc<Cache>,
        number: usize,
    ) -> io::Result<Self> {
        let stat = vsphere
            .client
            .file_head(&vsphere.places.datacenter_path, &path)
            .await
            .map_err(|e| io::Error::other(format!("{path}: {e}")))?;
        Ok(Self {
            vsphere,
            path,
            size: stat.size,
            runtime: tokio::runtime::Handle::current(),
            cache,
            number,
        })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// Behind the end of the file, or where it cannot be fetched.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            if at >= self.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let start = at / BLOCK * BLOCK;
            let block = self.block(start)?;
            let from = usize::try_from(at - start).map_err(io::Error::other)?;
            let count = block.len().saturating_sub(from).min(buf.len() - done);
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf[done..done + count].copy_from_slice(&block[from..from + count]);
            done += count;
        }
        Ok(())
    }

    fn block(&self, start: u64) -> io::Result<Arc<Vec<u8>>> {
        if let Some(block) = self.cache.get((self.number, start)) {
            return Ok(block);
        }
        let end = (start + BLOCK).min(self.size);
        let fetch = async {
            let max = usize::try_from(BLOCK).unwrap_or(usize::MAX);
            self.vsphere
                .client
                .file_get(
                    &self.vsphere.places.datacenter_path,
                    &self.path,
                    Some(start..end),
                )
                .await?
                .bytes(max)
                .await
        };
        let bytes = self
            .runtime
            .block_on(fetch)
            .map_err(|e| io::Error::other(format!("{}: {e}", self.path)))?;
        let block = Arc::new(bytes);
        self.cache.put((self.number, start), block.clone());
        Ok(block)
    }
}

impl ReadAt for RemoteFile {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len())
    }
}

/// Opens a disk with everything below it, for reading. Runs in a blocking task.
///
/// # Errors
/// Where a file is missing or damaged, or they do not belong together.
pub fn open_chain(vsphere: &Arc<Vsphere>, leaf: DatastorePath) -> Result<Chain, VmdkError> {
    let cache = Cache::new(CHAIN_BLOCKS);
    let open = |path: &DatastorePath, number| {
        let file = RemoteFile::with(vsphere.clone(), path.clone(), cache.clone(), number);
        SparseFile::open(tokio::runtime::Handle::current().block_on(file)?)
    };
    let mut path = leaf;
    Chain::open_with(open(&path, 0)?, |hint, number| {
        path = resolve(&path, hint);
        open(&path, number)
    })
}

/// The path that a child's hint means: absolute on the datastore, or relative to the child.
fn resolve(child: &DatastorePath, hint: &str) -> DatastorePath {
    if let Ok(path) = hint.parse::<DatastorePath>() {
        return path;
    }
    // An absolute path of the host: /vmfs/volumes/<datastore>/…
    if let Some((_, path)) = hint
        .strip_prefix("/vmfs/volumes/")
        .and_then(|rest| rest.split_once('/'))
    {
        return DatastorePath::new(&child.datastore, path);
    }
    let mut parts: Vec<&str> = match child.path.rsplit_once('/') {
        Some((folder, _)) => folder.split('/').collect(),
        None => Vec::new(),
    };
    for part in hint.split('/') {
        match part {
            "" | "." => {}
            // Above the root there is nothing: the path stays on the datastore.
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    DatastorePath::new(&child.datastore, parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_relative_to_its_child_and_stays_on_the_datastore() {
        let child = DatastorePath::new("ds", "a/b/leaf.vmdk");
        for (hint, want) in [
            ("../x.vmdk", "[ds] a/x.vmdk"),
            ("x.vmdk", "[ds] a/b/x.vmdk"),
            ("../../../../x.vmdk", "[ds] x.vmdk"),
            ("[ds] i/seal.vmdk", "[ds] i/seal.vmdk"),
            ("/vmfs/volumes/ds/i/x.vmdk", "[ds] i/x.vmdk"),
        ] {
            assert_eq!(resolve(&child, hint).to_string(), want, "{hint}");
        }
    }
}
