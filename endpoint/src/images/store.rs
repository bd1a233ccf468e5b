//! The folders of a virtual container host's images on the datastore: records, VMDKs and recipes.

use crate::errors::Result;
use crate::records::{self, Records, failed};
use crate::vsphere::Vsphere;
use bytes::Bytes;
use std::sync::Arc;
use vim::DatastorePath;

/// The folders of a virtual container host's images.
#[derive(Debug, Clone)]
pub struct Store {
    vsphere: Arc<Vsphere>,
    /// `[ds] mooring/<vch>/images`.
    records: Records,
    /// VMDKs and recipes: `[ds] mooring/<vch>/layers`.
    disks: DatastorePath,
}

impl Store {
    /// The hypervisor.
    pub fn vsphere(&self) -> &Vsphere {
        &self.vsphere
    }

    /// The same, to be kept.
    pub fn vsphere_arc(&self) -> &Arc<Vsphere> {
        &self.vsphere
    }

    /// The records of images and tags.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The folders of a VCH; they are made where they are missing.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn open(vsphere: Arc<Vsphere>, vch: &str) -> Result<Self> {
        let base = DatastorePath::new(vsphere.datastore(), format!("mooring/{vch}"));
        let disks = base.join("layers");
        records::make_folder(&vsphere, &disks).await?;
        Ok(Store {
            records: Records::open(vsphere.clone(), base.join("images")).await?,
            disks,
            vsphere,
        })
    }

    /// Datastore path of a VMDK or recipe.
    pub fn disk(&self, name: &str) -> DatastorePath {
        self.disks.join(name)
    }

    /// Names of all VMDKs and recipes.
    ///
    /// # Errors
    /// Where the datastore cannot be listed.
    pub async fn disk_names(&self) -> Result<Vec<String>> {
        records::names(&self.vsphere, &self.disks).await
    }

    /// Deletes a VMDK or recipe; one that is not there is deleted already.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn remove_disk(&self, name: &str) -> Result<()> {
        records::delete(&self.vsphere, &self.disks.join(name)).await
    }

    /// Whether there is a VMDK or recipe of this name.
    ///
    /// # Errors
    /// Where the datastore does not answer.
    pub async fn has_disk(&self, name: &str) -> Result<bool> {
        let path = self.disks.join(name);
        match self
            .vsphere
            .client()
            .file_head(self.vsphere.datacenter_path(), &path)
            .await
        {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(failed(format!("cannot look for {path}"))(e)),
        }
    }

    /// Reads a small file beside the VMDKs; `None` where there is none.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn read_disk(&self, name: &str) -> Result<Option<Bytes>> {
        if !self.has_disk(name).await? {
            return Ok(None);
        }
        records::read(&self.vsphere, &self.disks.join(name))
            .await
            .map(Some)
    }

    /// Uploads a VMDK, or a recipe.
    ///
    /// # Errors
    /// Where the datastore refuses, or has no room.
    pub async fn put_disk(
        &self,
        name: &str,
        content: impl tokio::io::AsyncRead + Send + Sync + 'static,
        length: u64,
    ) -> Result<()> {
        records::upload(&self.vsphere, &self.disks.join(name), content, length).await
    }
}
