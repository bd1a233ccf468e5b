//! The images of this virtual container host: pulled, loaded, tagged, listed, removed.
//!
//! The truth is on the datastore (see [`store`]): a record for each image, one for each layer that has a VMDK,
//! and one with all tags. VMDKs are written first and records last, so a VMDK without a record is rubbish of
//! something that was interrupted, and is deleted at the start.

pub(crate) mod archive;
pub mod commit;
mod convert;
mod flights;
mod import;
mod kept;
pub(crate) mod load;
pub mod manifest;
mod origins;
mod place;
pub mod progress;
mod pull;
mod push;
mod rebuild;
pub mod reference;
pub mod registry;
mod remove;
mod save;
pub(crate) mod store;
mod sweep;
mod tags;
#[cfg(test)]
mod tests;
mod uses;

pub use import::Import;
pub use reference::Reference;
pub use remove::{Removed, User};
pub use uses::Claim;

use crate::errors::{Error, Kind, Result};
use crate::events::Events;
use crate::records::{self, Loaded};
use crate::vsphere::Vsphere;
use flights::Flights;
use kept::Kept;
use layers::Digest;
use layers::spool::Spool;
use origins::Origins;
use registry::{RegistryClient, RegistrySettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use store::Store;
use tags::{Names, Tags};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uses::Uses;

/// Bytes of layers that may be converted and not yet uploaded, at most.
const SPOOL_MAX: u64 = 64 << 30;
/// Name of the record with all tags.
const TAGS: &str = "tags";
/// What the name of an image's record begins with; the ID's digits follow.
const IMAGE: &str = "image-";
/// Name of the record of where layers are known to be.
const ORIGINS: &str = "origins";

/// Where an image's files are, and how a guest finds them (docs/decisions/0001, "Disks").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Datastore path of the seal, which a container's own disk is a child of: `[ds] path.vmdk`.
    pub seal: String,
    /// GPT disk GUID.
    pub guid: String,
    /// Capacity in bytes; a child has its parent's.
    pub capacity: u64,
    /// Partition numbers of the layers, lowest first.
    pub layers: Vec<u32>,
    /// Partition number of the ephemeral file system.
    pub ephemeral: u32,
    /// Partition number of the journal.
    pub journal: u32,
}

/// One image, as containers are made from it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// `sha256:` and the digest of its configuration.
    pub id: String,
    /// The configuration (OCI image-spec `config.md`, or Docker's), whole.
    pub config: Value,
    /// Its disks.
    pub chain: Chain,
    /// `name:tag`, familiar form (`busybox:latest`).
    pub repo_tags: Vec<String>,
    /// `name@sha256:…`, familiar form.
    pub repo_digests: Vec<String>,
    /// Bytes of the files of all layers.
    pub size: u64,
    /// Bytes of each layer's files, lowest first.
    pub layer_sizes: Vec<u64>,
}

impl ImageRecord {
    /// All names.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().chain(&self.repo_digests)
    }
}

/// An image's record on the datastore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredImage {
    /// Digest of the configuration.
    id: Digest,
    /// The configuration as it came, to the byte: its digest is the image's ID.
    config: String,
    /// Its disks.
    chain: Chain,
    /// Names of its VMDKs, parents first.
    vmdks: Vec<String>,
    /// Its layers, lowest first.
    layers: Vec<StoredLayer>,
    /// The manifest that it came with, where it came from a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Came>,
}

/// A manifest as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Came {
    media_type: String,
    text: String,
}

/// An image that comes: what is written down of it beside its layers.
#[derive(Debug)]
struct Incoming {
    id: Digest,
    config: String,
    manifest: Option<Came>,
    names: Names,
}

impl StoredImage {
    /// Names of all its files beside the records.
    fn files(&self) -> impl Iterator<Item = String> + '_ {
        let beside = |l: &StoredLayer| {
            [
                place::recipe_name(&l.chain_id),
                place::folders_name(&l.chain_id),
            ]
        };
        self.vmdks
            .iter()
            .cloned()
            .chain(self.layers.iter().flat_map(beside))
    }
}

/// A layer, as an image's record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLayer {
    /// Chain ID up to it.
    chain_id: Digest,
    /// Digest of its tar.
    diff_id: Digest,
    /// Digest of the blob that it came as.
    digest: Digest,
    /// Size of the blob, in bytes.
    compressed: u64,
    /// Lower layers must not be seen below it.
    #[serde(default)]
    hides_lower_layers: bool,
    /// Size of its partition, in bytes.
    partition: u64,
    /// Size of its tar, in bytes.
    unpacked: u64,
    /// Bytes of its files, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<u64>,
    /// The VMDK that holds it.
    vmdk: String,
}

impl StoredLayer {
    /// Its size as Docker shows it: bytes of its files.
    fn size(&self) -> u64 {
        self.content.unwrap_or(self.unpacked)
    }
}

/// What the records say.
#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Digest, (u64, StoredImage)>,
    tags: (u64, Tags),
    origins: (u64, Origins),
    /// Records of images that are there and cannot be read, by name: their highest generations. As long as there is
    /// one, nobody knows whose files it names.
    unreadable: BTreeMap<String, u64>,
    /// As containers and clients see them; made anew with each change.
    shown: Vec<Arc<ImageRecord>>,
}

/// The right to change the records and the VMDKs. What is told to go on by itself has it, too: it is free for another one
/// when all of that has ended.
type Change = Arc<OwnedMutexGuard<()>>;

/// All images. What is in here is what the datastore's records say.
#[derive(Debug)]
pub struct Images {
    store: Store,
    spool: Spool,
    registry: RegistryClient,
    events: Events,
    state: RwLock<State>,
    /// Layers on their way here.
    flights: Arc<Flights>,
    /// Blobs as far as they have come.
    kept: Kept,
    /// Files that are being read, and by how many.
    leased: std::sync::Mutex<BTreeMap<String, usize>>,
    /// Who makes containers of them, and which are going.
    uses: Arc<Uses>,
    /// Held by whoever changes the records or the VMDKs: [`Images::changing`].
    change: Arc<Mutex<()>>,
}

impl Images {
    /// Reads the records, and deletes what an interrupted pull or removal has left. `spool` is a local folder.
    ///
    /// # Errors
    /// Where the datastore or the folder cannot be used.
    pub async fn open(
        vsphere: Arc<Vsphere>,
        vch: &str,
        spool: &Path,
        registries: RegistrySettings,
        events: Events,
    ) -> Result<Self> {
        std::fs::create_dir_all(spool).map_err(|e| {
            Error::internal(format!("cannot make the folder {}: {e}", spool.display()))
        })?;
        let kept = Kept::open(spool.join("kept"))
            .map_err(|e| Error::internal(format!("downloads cannot be kept: {e}")))?;
        kept.watch();
        let spool = Spool::new(spool, SPOOL_MAX).map_err(|e| Error::internal(e.to_string()))?;
        let store = Store::open(vsphere, vch).await?;
        let state = State::of(store.records().load().await?)?;
        let images = Images {
            store,
            spool,
            registry: RegistryClient::new(registries)
                .map_err(|e| Error::internal(e.to_string()))?,
            events,
            state: RwLock::new(state),
            flights: Arc::default(),
            kept,
            leased: std::sync::Mutex::default(),
            uses: Arc::default(),
            change: Arc::default(),
        };
        images.refresh();
        images.sweep().await?;
        Ok(images)
    }

    /// Whether images can be placed on this host at all; asked before anything is fetched.
    ///
    /// # Errors
    /// 501 where the host takes no uploaded disks.
    pub fn can_place(&self) -> Result<()> {
        if self.store.vsphere().capabilities().disk_upload {
            return Ok(());
        }
        Err(Error::new(
            Kind::NotImplemented,
            "images cannot be placed on this host: it does not announce mooring.disk.upload (ESXi does not; hostsim does without --strict, or with --strict=link), and the way that works there, disks attached to the endpoint's own VM, is not supported by Mooring yet",
        ))
    }

    /// The client's side of registries.
    pub fn registry(&self) -> &RegistryClient {
        &self.registry
    }

    /// Every image, in no particular order.
    pub fn all(&self) -> Vec<Arc<ImageRecord>> {
        self.read(|s| s.shown.clone())
    }

    fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let out = f(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.refresh();
        out
    }

    /// Makes the images as they are shown out of the records.
    fn refresh(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let names = |list: &BTreeMap<String, Digest>, id: &Digest| {
            list.iter()
                .filter(|(_, i)| *i == id)
                .map(|(n, _)| n.clone())
                .collect()
        };
        state.shown = state
            .images
            .values()
            .map(|(_, image)| {
                Arc::new(ImageRecord {
                    id: image.id.to_string(),
                    config: serde_json::from_str(&image.config).unwrap_or_default(),
                    chain: image.chain.clone(),
                    repo_tags: names(&state.tags.1.tags, &image.id),
                    repo_digests: names(&state.tags.1.digests, &image.id),
                    size: image.layers.iter().map(StoredLayer::size).sum(),
                    layer_sizes: image.layers.iter().map(StoredLayer::size).collect(),
                })
            })
            .collect();
    }

    /// The image that a reference means: an ID or a unique prefix of one, a name with tag
    /// (`latest` where there is none), or a name with digest.
    pub fn resolve(&self, reference: &str) -> Option<Arc<ImageRecord>> {
        let records = self.all();
        if let Ok(name) = Reference::parse(reference) {
            let shown = name.to_string();
            if let Some(found) = records
                .iter()
                .find(|r| r.repo_tags.contains(&shown) || r.repo_digests.contains(&shown))
            {
                return Some(found.clone());
            }
        }
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = records.iter().filter(|r| {
            r.id.strip_prefix("sha256:")
                .is_some_and(|id| id.starts_with(hex))
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Some(one.clone()),
            _ => None,
        }
    }

    /// The tags of a repository, with what they mean.
    fn tags_of(&self, repository: &Reference) -> Vec<(String, Digest)> {
        let start = format!("{}:", repository.name());
        self.read(|s| {
            let tags = s.tags.1.tags.iter();
            tags.filter(|(tag, _)| {
                tag.strip_prefix(&start)
                    .is_some_and(|rest| !rest.contains('/'))
            })
            .map(|(tag, id)| (tag.clone(), *id))
            .collect()
        })
    }

    /// Gives an image a further name (`docker tag`). A tag moves from the image that had it.
    ///
    /// # Errors
    /// Where there is no such image, the name is none, or the datastore refuses.
    pub async fn tag(self: &Arc<Self>, image: &str, name: &str) -> Result<()> {
        let reference = Reference::parse(name).map_err(|e| Error::bad(e.to_string()))?;
        let Some(tag) = reference.tagged().filter(|_| reference.digest.is_none()) else {
            return Err(Error::bad(
                "refusing to create a tag with a digest reference",
            ));
        };
        let change = self.changing().await;
        // Behind the lock: before it, the image may be going.
        let record = self
            .resolve(image)
            .ok_or_else(|| Error::no_such_image(image))?;
        let id = parse_id(&record.id)?;
        self.change_tags(&change, |tags| {
            tags.tags.insert(tag.clone(), id);
        })
        .await?;
        self.tell("tag", &record.id, &tag);
        Ok(())
    }

    /// Waits until nobody else changes records or VMDKs.
    async fn changing(&self) -> Change {
        Arc::new(self.change.clone().lock_owned().await)
    }

    /// Changes the tags, on the datastore first.
    async fn change_tags(
        self: &Arc<Self>,
        change: &Change,
        f: impl FnOnce(&mut Tags),
    ) -> Result<()> {
        let (before, mut tags) = self.read(|s| s.tags.clone());
        let old = tags.clone();
        f(&mut tags);
        if tags == old {
            return Ok(());
        }
        let this = self.clone();
        whole(change, async move {
            let generation = this.store.records().save(TAGS, before, &tags).await?;
            this.write(|s| s.tags = (generation, tags));
            Ok(())
        })
        .await
    }

    /// Gives further names to an image that is there. Where it was removed in the meantime they would point nowhere.
    async fn give_names(self: &Arc<Self>, names: &Names, id: Digest) -> Result<()> {
        let change = self.changing().await;
        if self.read(|s| !s.images.contains_key(&id)) {
            return Err(Error::conflict(
                "the image was removed while it came a second time; pull or load it again",
            ));
        }
        self.change_tags(&change, |tags| tags.name(names, id)).await
    }

    /// An event about an image.
    fn tell(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.events.emit("image", action, id, attributes);
    }
}

impl State {
    /// What records say. An image's record that cannot be read is passed over: the other images are as good as before.
    fn of(loaded: Loaded) -> Result<Self> {
        let mut state = State::default();
        let pass_over = |state: &mut State, name: String, generation: u64, why: Error| {
            tracing::warn!(
                error = why.message,
                "an image is passed over, and no layer is deleted while its record is there"
            );
            state.unreadable.insert(name, generation);
        };
        for (name, record) in loaded.records {
            let generation = record.generation;
            if name == TAGS {
                state.tags = (generation, records::decode(&name, &record.value)?);
            } else if name == ORIGINS {
                // Nothing depends on it.
                let origins = records::decode(&name, &record.value).unwrap_or_default();
                state.origins = (generation, origins);
            } else if name.starts_with(IMAGE) {
                match records::decode::<StoredImage>(&name, &record.value) {
                    Ok(image) => drop(state.images.insert(image.id, (generation, image))),
                    Err(why) => pass_over(&mut state, name, generation, why),
                }
            }
        }
        for (name, record) in loaded.unreadable {
            match name.as_str() {
                // Without it all names would be lost with the next one that is given.
                TAGS => return Err(record.error),
                ORIGINS => state.origins.0 = record.generation,
                _ if name.starts_with(IMAGE) => {
                    pass_over(&mut state, name, record.generation, record.error)
                }
                _ => {}
            }
        }
        let tags = std::mem::take(&mut state.tags.1);
        state.tags.1 = tags.settled(|id| {
            state.images.contains_key(id) || state.unreadable.contains_key(&image_record(id))
        });
        Ok(state)
    }
}

/// Does something to its end, also where the caller is given up meanwhile: what the datastore has been told and what is
/// known of it stay together. Nobody else changes anything before that end.
async fn whole(
    change: &Change,
    step: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<()> {
    let held = change.clone();
    let step = tokio::spawn(async move {
        let done = step.await;
        drop(held);
        done
    });
    step.await
        .map_err(|e| Error::internal(format!("the writing of a record ended: {e}")))?
}

fn parse_id(id: &str) -> Result<Digest> {
    id.parse()
        .map_err(|e| Error::internal(format!("an image's ID: {e}")))
}

/// Name of an image's record.
fn image_record(id: &Digest) -> String {
    format!("{IMAGE}{}", id.hex())
}

/// A reference in Docker's familiar form, with tag: `docker.io/library/busybox` is `busybox:latest`. What is no
/// reference stays as it is.
pub fn familiar(reference: &str) -> String {
    Reference::parse(reference).map_or_else(|_| reference.to_owned(), |r| r.to_string())
}
