//! `docker push`: from the datastore to a registry. A layer that the registry has is not sent; one of another repository
//! there is taken over; the rest is rebuilt from the image's disk and packed (docs/decisions/0019).

use super::manifest::{self, Document, OCI_CONFIG, OCI_MANIFEST};
use super::origins::Origin;
use super::place::short;
use super::progress::{Meter, Progress};
use super::rebuild::{Disk, LayerTar, Lease};
use super::registry::{Access, Credentials, Repository, Told};
use super::{Images, Reference};
use crate::errors::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use layers::Digest;
use layers::digest::Hashing;
use layers::spool::{Blob, Spool};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

/// Layers of one push that are packed and sent at once.
const AT_ONCE: usize = 3;
/// The most repositories that a registry is asked to take one layer over from.
const MOUNTS_MAX: usize = 3;
/// The most repositories that a token is asked for beside the one that is pushed to.
const FROM_MAX: usize = 8;
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Images {
    /// Pushes a tag, or without one every tag of the repository, telling `progress` of it as Docker does. Dropping
    /// the future gives it up; a registry sees no manifest whose parts are not all there.
    ///
    /// # Errors
    /// In Docker's words where it has some.
    pub async fn push(
        self: &Arc<Self>,
        reference: &Reference,
        all: bool,
        credentials: Credentials,
        progress: &Progress,
    ) -> Result<()> {
        progress.status(&format!(
            "The push refers to repository [{}/{}]",
            reference.domain, reference.path
        ));
        let mut tags = self.tags_of(reference);
        if tags.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.name()
            )));
        }
        if !all {
            let wanted = reference.tagged();
            tags.retain(|(tag, _)| Some(tag) == wanted.as_ref());
            if tags.is_empty() {
                return Err(Error::not_found(format!("tag does not exist: {reference}")));
            }
        }
        let leases = tags
            .iter()
            .map(|(tag, id)| Ok((Reference::parse(tag), Arc::new(self.lease(id)?))))
            .collect::<Result<Vec<_>>>()?;
        let from = self.repositories(reference, leases.iter().map(|(_, lease)| lease));
        let repository = self
            .registry
            .open_home(reference, credentials, Access::Push { from })
            .await?;
        let repository = Arc::new(repository);
        for (tag, lease) in leases {
            let tag = tag.map_err(|e| Error::internal(e.to_string()))?;
            self.push_one(&repository, &tag, &lease, progress).await?;
        }
        Ok(())
    }

    /// Other repositories of the same registry that layers are known to be in.
    fn repositories<'a>(
        &self,
        reference: &Reference,
        leases: impl Iterator<Item = &'a Arc<Lease>>,
    ) -> Vec<String> {
        let mut from = Vec::new();
        for layer in leases.flat_map(|l| &l.image.layers) {
            for origin in self.origins(&layer.diff_id) {
                if origin.domain == reference.domain
                    && origin.path != reference.path
                    && !from.contains(&origin.path)
                    && from.len() < FROM_MAX
                {
                    from.push(origin.path);
                }
            }
        }
        from
    }

    async fn push_one(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        tag: &Reference,
        lease: &Arc<Lease>,
        progress: &Progress,
    ) -> Result<()> {
        let image = &lease.image;
        let mut layers: BTreeMap<Digest, usize> = BTreeMap::new();
        for (index, layer) in image.layers.iter().enumerate() {
            if layers.insert(layer.diff_id, index).is_none() {
                progress.of(&short(&layer.diff_id), "Preparing");
            }
        }
        let disk = Arc::new(OnceCell::new());
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks: JoinSet<Result<(Digest, Origin)>> = JoinSet::new();
        for index in layers.into_values() {
            let layer = Layer {
                images: self.clone(),
                repository: repository.clone(),
                lease: lease.clone(),
                disk: disk.clone(),
                index,
                to: tag.clone(),
                progress: progress.clone(),
            };
            let places = places.clone();
            tasks.spawn(async move {
                // Never closed.
                let _place = places
                    .acquire_owned()
                    .await
                    .map_err(|e| Error::internal(e.to_string()))?;
                layer.push().await
            });
        }
        let mut blobs = BTreeMap::new();
        // An error, or the drop of this future, ends the others.
        while let Some(done) = tasks.join_next().await {
            let (diff_id, origin) = done.map_err(|e| Error::internal(e.to_string()))??;
            blobs.insert(diff_id, origin);
        }
        let config = Arc::new(image.config.clone().into_bytes());
        if !repository.has_blob(&image.id).await? {
            repository.upload(config, &image.id, |_| {}).await?;
        }
        let (media_type, bytes) = manifest_of(image, &blobs)?;
        let size = bytes.len();
        let name = tag.tag.clone().unwrap_or_default();
        let digest = repository
            .put_manifest(&name, &media_type, bytes.into())
            .await?;
        progress.status(&format!("{name}: digest: {digest} size: {size}"));
        progress.send(&json!({
            "progressDetail": {},
            "aux": { "Tag": name, "Digest": digest, "Size": size },
        }));
        self.note_origins(blobs.into_iter().collect()).await;
        let change = self.changing().await;
        // It may have been removed meanwhile.
        if self.read(|s| s.images.contains_key(&image.id)) {
            let name = tag.with_digest(&digest);
            self.change_tags(&change, |tags| {
                tags.digests.insert(name, image.id);
            })
            .await?;
        }
        drop(change);
        self.tell("push", &tag.to_string(), &tag.name());
        Ok(())
    }
}

/// The manifest to send, with its media type: the one that the image came with, to the byte, where all of its blobs are
/// there; else one of those that are.
fn manifest_of(
    image: &super::StoredImage,
    blobs: &BTreeMap<Digest, Origin>,
) -> Result<(String, Vec<u8>)> {
    let used: Vec<&Origin> = image
        .layers
        .iter()
        .map(|l| {
            blobs
                .get(&l.diff_id)
                .ok_or_else(|| Error::internal(format!("layer {} was not sent", l.diff_id)))
        })
        .collect::<Result<_>>()?;
    if let Some(came) = &image.manifest
        && let Ok(Document::Image(parsed)) = manifest::parse(came.text.as_bytes())
        && parsed.layers.len() == used.len()
        && parsed
            .layers
            .iter()
            .zip(&used)
            .all(|(is, used)| is.digest == used.digest)
    {
        return Ok((came.media_type.clone(), came.text.clone().into_bytes()));
    }
    let layers: Vec<_> = used
        .iter()
        .map(|o| {
            json!({
                "mediaType": oci_type(&o.media_type),
                "size": o.size,
                "digest": o.digest,
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "size": image.config.len(), "digest": image.id },
        "layers": layers,
    });
    Ok((OCI_MANIFEST.to_owned(), manifest.to_string().into_bytes()))
}

/// OCI's media type of a layer, whatever form it is told in.
fn oci_type(media_type: &str) -> &'static str {
    if media_type.ends_with("zstd") {
        "application/vnd.oci.image.layer.v1.tar+zstd"
    } else if media_type.ends_with("gzip") {
        LAYER_GZIP
    } else {
        "application/vnd.oci.image.layer.v1.tar"
    }
}

/// A layer on its way out.
struct Layer {
    images: Arc<Images>,
    repository: Arc<Repository>,
    lease: Arc<Lease>,
    disk: Arc<OnceCell<Arc<Disk>>>,
    index: usize,
    to: Reference,
    progress: Progress,
}

impl Layer {
    /// Sees to it that the repository has the layer; gives the blob that holds it there.
    async fn push(&self) -> Result<(Digest, Origin)> {
        let diff_id = self.lease.image.layers[self.index].diff_id;
        let name = short(&diff_id);
        let known = self.images.origins(&diff_id);
        let here = |o: &Origin| Origin {
            domain: self.to.domain.clone(),
            path: self.to.path.clone(),
            ..o.clone()
        };
        // The same blob may be known of several places.
        let mut asked = Vec::new();
        for origin in &known {
            if asked.contains(&origin.digest) {
                continue;
            }
            asked.push(origin.digest);
            if self.repository.has_blob(&origin.digest).await? {
                self.progress.of(&name, "Layer already exists");
                return Ok((diff_id, here(origin)));
            }
        }
        let near = known
            .iter()
            .filter(|o| o.domain == self.to.domain && o.path != self.to.path);
        for origin in near.take(MOUNTS_MAX) {
            if self.repository.mount(&origin.digest, &origin.path).await? {
                self.progress
                    .of(&name, &format!("Mounted from {}", origin.path));
                return Ok((diff_id, here(origin)));
            }
        }
        let (blob, digest, size) = self.packed().await?;
        let origin = Origin {
            digest,
            size,
            media_type: LAYER_GZIP.to_owned(),
            domain: self.to.domain.clone(),
            path: self.to.path.clone(),
        };
        if !asked.contains(&digest) && self.repository.has_blob(&digest).await? {
            self.progress.of(&name, "Layer already exists");
            return Ok((diff_id, origin));
        }
        let meter = Meter::new(self.progress.clone(), &name, size).doing("Pushing");
        let meter = std::sync::Mutex::new(meter);
        let told = |what| match (what, meter.lock()) {
            (Told::Sent(bytes), Ok(mut meter)) => meter.at(bytes),
            (Told::Again(pause), _) => self
                .progress
                .of(&name, &format!("Retrying in {} seconds", pause.as_secs())),
            _ => {}
        };
        self.repository.upload(blob, &digest, told).await?;
        self.progress.of(&name, "Pushed");
        Ok((diff_id, origin))
    }

    /// The layer's tar, packed, in the spool: so that its digest is known, and a broken upload can go on.
    async fn packed(&self) -> Result<(Blob, Digest, u64)> {
        let lease = self.lease.clone();
        let disk = self
            .disk
            .get_or_try_init(|| async move {
                tokio::task::spawn_blocking(move || lease.open().map(Arc::new))
                    .await
                    .map_err(|e| Error::internal(e.to_string()))?
            })
            .await?
            .clone();
        let (index, spool, progress) =
            (self.index, self.images.spool.clone(), self.progress.clone());
        tokio::task::spawn_blocking(move || {
            let tar = disk.tar(index)?;
            pack(tar, &spool, &progress)
                .map_err(|e| Error::internal(format!("a layer cannot be packed: {e}")))
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))?
    }
}

/// Compresses a tar with gzip, in the same way each time.
fn pack(mut tar: LayerTar, spool: &Spool, progress: &Progress) -> io::Result<(Blob, Digest, u64)> {
    let out = Hashing::new(spool.blob()?);
    let mut encoder = GzEncoder::new(out, Compression::default());
    let mut piece = vec![0; 256 << 10];
    loop {
        if progress.is_closed() {
            return Err(io::Error::other("the client has gone"));
        }
        // The end is given only where the digest is right.
        let count = tar.read(&mut piece)?;
        if count == 0 {
            break;
        }
        io::Write::write_all(&mut encoder, &piece[..count])?;
    }
    let (blob, digest, size) = encoder.finish()?.finish();
    Ok((blob.finish(), digest, size))
}

impl Images {
    /// The tag that a push without `--all-tags` means.
    ///
    /// # Errors
    /// Where the name is none, or names a digest.
    pub fn push_target(name: &str, tag: &str) -> Result<(Reference, bool)> {
        let all = tag.is_empty() && !name.rsplit('/').next().unwrap_or(name).contains(':');
        let whole = if tag.is_empty() {
            name.to_owned()
        } else {
            format!("{name}:{tag}")
        };
        let reference = Reference::parse(&whole).map_err(|e| Error::bad(e.to_string()))?;
        if reference.digest.is_some() {
            return Err(Error::bad("cannot push a digest reference"));
        }
        Ok((reference, all))
    }
}
