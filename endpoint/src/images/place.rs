//! From converted layers to an image on the datastore.

use super::convert::Converted;
use super::progress::Progress;
use super::store::Store;
use super::sweep::Unfinished;
use super::tags::Names;
use super::{Chain, Change, Images, Incoming, StoredImage, StoredLayer, TAGS, image_record, whole};
use crate::errors::{Error, Result};
use crate::records;
use layers::chain::{BlockSink, ImagePlan, Kind, LayerInput, Params, plan};
use layers::convert::Folders;
use layers::io::Stream;
use layers::vmdk::VmdkBody;
use layers::{Digest, ReadAt, chain_id};
use std::collections::BTreeMap;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Bytes that are read from the spool at a time.
const PIECE: usize = 256 << 10;

/// A layer of an image that is to be placed.
#[derive(Debug, Clone)]
pub(super) enum LayerSource {
    /// On the datastore already.
    Known(StoredLayer),
    /// To be fetched: digest and size of its blob.
    Missing(Digest, u64),
}

impl LayerSource {
    /// Whether it is to be fetched.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(..))
    }
}

/// What has to be done for an image.
#[derive(Debug)]
pub(super) struct Work {
    /// Diff IDs, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Where each comes from.
    pub layers: Vec<LayerSource>,
}

impl Images {
    /// Which layers of an image are on the datastore, and which must be fetched. `blobs` are digest and size of each.
    pub(super) fn work(&self, diff_ids: &[Digest], blobs: &[(Digest, u64)]) -> Result<Work> {
        // The names of VMDKs do not depend on sizes.
        let unsized_layers: Vec<_> = diff_ids
            .iter()
            .map(|d| LayerInput {
                diff_id: *d,
                size: 1,
            })
            .collect();
        let names = layout(&unsized_layers)?;
        let by_vmdk = vmdk_of_layer(&names);
        let known: BTreeMap<(Digest, String), StoredLayer> = self.read(|s| {
            s.images
                .values()
                .flat_map(|(_, i)| &i.layers)
                .map(|l| ((l.chain_id, l.vmdk.clone()), l.clone()))
                .collect()
        });
        let layers = diff_ids
            .iter()
            .enumerate()
            .map(|(index, _)| {
                let chain = chain_id(&diff_ids[..=index]).unwrap_or(diff_ids[index]);
                match known.get(&(chain, by_vmdk[index].clone())) {
                    Some(layer) => LayerSource::Known(layer.clone()),
                    None => LayerSource::Missing(blobs[index].0, blobs[index].1),
                }
            })
            .collect();
        Ok(Work {
            diff_ids: diff_ids.to_vec(),
            layers,
        })
    }

    /// The folders of the stack that ends with a layer on the datastore.
    pub(super) async fn folders_of(&self, layer: &StoredLayer) -> Result<Arc<Folders>> {
        let name = folders_name(&layer.chain_id);
        let Some(bytes) = self.store.read_disk(&name).await? else {
            return Ok(Arc::default());
        };
        Folders::decode(&bytes).map(Arc::new).map_err(|e| {
            Error::internal(format!(
                "{name} on the datastore cannot be read: {e}; remove the image and pull it again"
            ))
        })
    }

    /// Uploads what is missing of an image and writes its record and names. `converted` holds the missing layers by
    /// index.
    pub(super) async fn commit(
        self: &Arc<Self>,
        image: Incoming,
        work: &Work,
        converted: BTreeMap<usize, Converted>,
        progress: &Progress,
    ) -> Result<()> {
        let inputs: Vec<LayerInput> = work
            .layers
            .iter()
            .enumerate()
            .map(|(index, source)| {
                let size = match source {
                    LayerSource::Known(layer) => layer.partition,
                    LayerSource::Missing(..) => converted.get(&index).map_or(0, |c| c.partition),
                };
                LayerInput {
                    diff_id: work.diff_ids[index],
                    size,
                }
            })
            .collect();
        let plan = layout(&inputs)?;
        let Incoming {
            id,
            config,
            manifest,
            names,
        } = image;
        let stored = stored(work, &converted, &vmdk_of_layer(&plan))?;
        let image = StoredImage {
            id,
            config,
            manifest,
            chain: Chain {
                seal: self.store.disk(&plan.seal().identity.name).to_string(),
                guid: plan.table.disk_guid.to_string(),
                capacity: plan.table.capacity,
                layers: visible(&stored),
                ephemeral: plan.ephemeral,
                journal: plan.journal,
            },
            vmdks: plan.vmdks.iter().map(|v| v.identity.name.clone()).collect(),
            layers: stored,
        };
        // Before anything is uploaded.
        records::check(&image_record(&id), &image).map_err(|e| {
            Error::new(
                e.kind,
                format!(
                    "image {id} cannot be kept, its configuration or manifest is too large: {e}"
                ),
            )
        })?;
        let change = self.changing().await;
        let unfinished = Unfinished::new(self);
        // Another pull may have removed (or brought) VMDKs since `work` looked.
        for source in &work.layers {
            if let LayerSource::Known(layer) = source
                && !self.read(|s| s.images.values().any(|(_, i)| i.layers.contains(layer)))
            {
                return Err(Error::conflict(
                    "a layer was removed while the image was pulled; pull it again",
                ));
            }
        }
        let sink = Sink { store: &self.store };
        layers::chain::place(&plan, &sink, |index| {
            converted.get(&index).map(|c| c.image.clone())
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))?;
        for (index, layer) in converted {
            if let Some(stored) = image.layers.get(index) {
                self.put_beside(stored, layer).await?;
            }
        }
        self.put_image(&change, image, names).await?;
        unfinished.finished();
        for source in &work.layers {
            if let LayerSource::Missing(digest, _) = source {
                progress.of(&short(digest), "Pull complete");
            }
        }
        Ok(())
    }

    /// Uploads what lies beside a layer's VMDK.
    async fn put_beside(&self, stored: &StoredLayer, layer: Converted) -> Result<()> {
        let fail = |e: std::io::Error| Error::internal(format!("a layer's recipe: {e}"));
        let length = layer.recipe.size().map_err(fail)?;
        let recipe = Pieces::of(Stream::new(layer.recipe).map_err(fail)?);
        let name = recipe_name(&stored.chain_id);
        self.store.put_disk(&name, recipe, length).await?;
        let folders = layer
            .folders
            .encode()
            .map_err(|e| Error::internal(format!("cannot pack a layer's folders: {e}")))?;
        let length = folders.len() as u64;
        let name = folders_name(&stored.chain_id);
        self.store
            .put_disk(&name, std::io::Cursor::new(folders), length)
            .await
    }

    /// Writes an image's names, then its record, which is what makes both count.
    pub(super) async fn put_image(
        self: &Arc<Self>,
        change: &Change,
        image: StoredImage,
        names: Names,
    ) -> Result<()> {
        let this = self.clone();
        whole(change, async move { this.write_image(image, &names).await }).await
    }

    async fn write_image(&self, image: StoredImage, names: &Names) -> Result<()> {
        let id = image.id;
        let (before, old) = self.read(|s| s.tags.clone());
        let mut tags = old.clone();
        tags.name(names, id);
        if tags != old {
            let written = tags.clone().falling_back_to(&old);
            let generation = self.store.records().save(TAGS, before, &written).await?;
            // Until the image's record is there, the names mean what they did.
            self.write(|s| s.tags.0 = generation);
        }
        let name = image_record(&id);
        // One that cannot be read is replaced.
        let before = self.read(|s| {
            let known = s.images.get(&id).map(|i| i.0);
            known.or_else(|| s.unreadable.get(&name).copied())
        });
        let before = before.unwrap_or(0);
        let generation = self.store.records().save(&name, before, &image).await?;
        self.write(|s| {
            s.unreadable.remove(&name);
            s.images.insert(id, (generation, image));
            s.tags.1 = tags;
        });
        Ok(())
    }
}

/// The layers of an image as its record names them.
fn stored(
    work: &Work,
    converted: &BTreeMap<usize, Converted>,
    by_vmdk: &[String],
) -> Result<Vec<StoredLayer>> {
    let sources = work.layers.iter().enumerate();
    sources
        .map(|(index, source)| {
            if let LayerSource::Known(layer) = source {
                return Ok(layer.clone());
            }
            let Some(layer) = converted.get(&index) else {
                return Err(Error::internal(format!("layer {index} was not converted")));
            };
            Ok(StoredLayer {
                chain_id: chain_id(&work.diff_ids[..=index]).unwrap_or(work.diff_ids[index]),
                diff_id: work.diff_ids[index],
                digest: layer.digest,
                compressed: layer.compressed,
                hides_lower_layers: layer.hides_lower_layers,
                partition: layer.partition,
                unpacked: layer.unpacked,
                content: Some(layer.content),
                vmdk: by_vmdk[index].clone(),
            })
        })
        .collect()
}

fn layout(layers: &[LayerInput]) -> Result<ImagePlan> {
    plan(layers, &Params::default()).map_err(|e| Error::bad(e.to_string()))
}

/// The VMDK of each layer.
fn vmdk_of_layer(plan: &ImagePlan) -> Vec<String> {
    let mut out = Vec::new();
    for vmdk in plan
        .vmdks
        .iter()
        .filter(|v| matches!(v.kind, Kind::Layer | Kind::Group))
    {
        out.extend(vmdk.layers.iter().map(|_| vmdk.identity.name.clone()));
    }
    out
}

/// Partitions of the layers that a container sees: none below one whose root is opaque.
fn visible(layers: &[StoredLayer]) -> Vec<u32> {
    let first = layers
        .iter()
        .rposition(|l| l.hides_lower_layers)
        .unwrap_or(0);
    // At most 254 layers.
    (first as u32 + 1..=layers.len() as u32).collect()
}

pub(super) fn recipe_name(chain: &Digest) -> String {
    format!("{}.recipe", chain.hex())
}

pub(super) fn folders_name(chain: &Digest) -> String {
    format!("{}.folders", chain.hex())
}

/// The first 12 digits of a digest, as Docker names a layer in its progress.
pub(super) fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// The datastore as a place for VMDKs, by upload.
struct Sink<'a> {
    store: &'a Store,
}

impl BlockSink for Sink<'_> {
    type Error = Error;

    async fn exists(&self, name: &str) -> Result<bool> {
        self.store.has_disk(name).await
    }

    async fn put(&self, name: &str, body: VmdkBody) -> Result<()> {
        let pieces = Pieces::of(body.reader());
        self.store.put_disk(name, pieces, body.len()).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.store.remove_disk(name).await
    }
}

/// Pieces out of a channel, as a reader.
struct Pieces {
    receive: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    /// Those of something in the spool, whose files are read by blocking calls: so on a thread. The channel bounds what
    /// waits.
    fn of(mut reader: impl Read + Send + 'static) -> Self {
        let (send, receive) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let piece = match reader.read(&mut piece) {
                    Ok(0) => return,
                    Ok(n) => {
                        piece.truncate(n);
                        Ok(piece)
                    }
                    Err(e) => Err(e),
                };
                let failed = piece.is_err();
                // Nobody listens when the upload has failed.
                if send.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        Pieces {
            receive,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at == self.piece.len() {
            match std::task::ready!(self.receive.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(piece) => (self.piece, self.at) = (piece?, 0),
            }
        }
        let count = buf.remaining().min(self.piece.len() - self.at);
        buf.put_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}
