//! An image's layers as the tars that they came as, rebuilt from its disks (docs/decisions/0019).

use super::place::recipe_name;
use super::{Images, StoredImage};
use crate::errors::{Error, Result};
use crate::vsphere::{RemoteFile, open_chain};
use layers::Digest;
use layers::gpt::Table;
use layers::io::{Stream, Window};
use layers::recipe::Rebuild;
use layers::vmdk::Chain;
use std::io::BufReader;
use std::sync::{Arc, PoisonError};

/// An image whose files are being read. As long as this is there they stay on the datastore, even where the image is
/// removed meanwhile; the last one of a removed image has them deleted.
pub(super) struct Lease {
    images: Arc<Images>,
    /// The image.
    pub image: StoredImage,
}

/// A layer's tar.
pub(super) type LayerTar = Rebuild<BufReader<Stream<RemoteFile>>, Window<Arc<Chain>>>;

/// The open disk of an image.
pub(super) struct Disk {
    lease: Arc<Lease>,
    chain: Arc<Chain>,
    table: Table,
}

impl Images {
    /// Holds an image for reading.
    ///
    /// # Errors
    /// Where it is not there any more.
    pub(super) fn lease(self: &Arc<Self>, id: &Digest) -> Result<Lease> {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        // Within the lock: a sweep reads the records first and the leases then.
        let image = self
            .read(|s| s.images.get(id).map(|(_, image)| image.clone()))
            .ok_or_else(|| Error::no_such_image(&id.to_string()))?;
        for name in image.files() {
            *leased.entry(name).or_default() += 1;
        }
        drop(leased);
        Ok(Lease {
            images: self.clone(),
            image,
        })
    }

    /// Whether a file of the layers' folder is being read.
    pub(super) fn is_leased(&self, name: &str) -> bool {
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        leased.contains_key(name)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leased = self
            .images
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for name in self.image.files() {
            if let Some(count) = leased.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    leased.remove(&name);
                }
            }
        }
        drop(leased);
        let gone = self.images.read(|s| !s.images.contains_key(&self.image.id));
        if gone && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.images.clone().sweep_until_done());
        }
    }
}

impl Lease {
    /// Opens the image's disk. Blocks.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(self: &Arc<Self>) -> Result<Disk> {
        let store = &self.images.store;
        let seal = self.image.chain.seal.parse().map_err(|e| {
            Error::internal(format!("the path of image {}'s disk: {e}", self.image.id))
        })?;
        let chain = open_chain(store.vsphere_arc(), seal).map_err(|e| self.failed(e))?;
        let table = Table::read(&chain).map_err(|e| self.failed(e))?;
        Ok(Disk {
            lease: self.clone(),
            chain: Arc::new(chain),
            table,
        })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::internal(format!(
            "the disk of image {} cannot be read: {why}",
            self.image.id
        ))
    }
}

impl Disk {
    /// The tar of a layer, by its place from below. It counts once it was read to its end without an error. Blocks.
    ///
    /// # Errors
    /// Where the datastore does not give it.
    pub fn tar(&self, index: usize) -> Result<LayerTar> {
        let lease = &self.lease;
        let Some(layer) = lease.image.layers.get(index) else {
            return Err(lease.failed(format!("it has no layer {index}")));
        };
        // At most 254 layers; partition k holds layer k, from 1.
        let number = index as u32 + 1;
        let partition = self
            .table
            .partition(number)
            .ok_or_else(|| lease.failed(format!("it has no partition {number}")))?;
        let window = Window::new(self.chain.clone(), partition.start, partition.size)
            .map_err(|e| lease.failed(e))?;
        let store = &lease.images.store;
        let path = store.disk(&recipe_name(&layer.chain_id));
        let recipe = tokio::runtime::Handle::current()
            .block_on(RemoteFile::open(store.vsphere_arc().clone(), path))
            .and_then(Stream::new)
            .map_err(|e| lease.failed(e))?;
        Rebuild::new(BufReader::new(recipe), window, layer.unpacked).map_err(|e| lease.failed(e))
    }
}
