//! `docker pull`: from a registry to the datastore, each layer in one pass.

use super::convert::{self, Converted, LOWER_FAILED};
use super::manifest::{self, CONFIG_MAX, Document, ManifestError, Platform};
use super::place::{LayerSource, Work, short};
use super::progress::{Meter, Progress};
use super::registry::{Credentials, RegistryError, Repository};
use super::tags::Names;
use super::{Images, Reference};
use crate::errors::{Error, Kind, Result};
use layers::convert::{ConvertError, Folders};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Layers of one pull that are fetched and converted at once, as many as Docker's default.
const AT_ONCE: usize = 3;

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NotFound(_) => Kind::NotFound,
            _ => Kind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        let kind = match &error {
            ManifestError::Platform { .. } | ManifestError::OtherPlatform { .. } => Kind::NotFound,
            _ => Kind::BadParameter,
        };
        Error::new(kind, error.to_string())
    }
}

impl Images {
    /// Pulls an image, telling `progress` of it as Docker does. Dropping the future gives the pull up; nothing
    /// that was half-made becomes visible.
    ///
    /// # Errors
    /// In Docker's words where it has some.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: Credentials,
        progress: &Progress,
    ) -> Result<()> {
        self.can_place()?;
        let wanted = platform.cloned().unwrap_or_else(Platform::ours);
        let repository = Arc::new(self.registry.open(reference, credentials).await?);
        let top = repository
            .manifest(&reference.wanted(), &reference.to_string())
            .await?;
        progress.of(
            &reference.wanted(),
            &format!("Pulling from {}", reference.path),
        );
        let image = match manifest::parse(&top.bytes)? {
            Document::Image(image) => image,
            Document::Index(index) => {
                let entry = manifest::choose(&index, &wanted)?;
                let inner = repository
                    .manifest(&entry.digest.to_string(), &reference.to_string())
                    .await?;
                match manifest::parse(&inner.bytes)? {
                    Document::Image(image) => image,
                    Document::Index(_) => {
                        return Err(Error::bad("an index within an index is not supported"));
                    }
                }
            }
        };
        let config_bytes = repository
            .small_blob(&image.config.digest, CONFIG_MAX)
            .await?;
        let config = manifest::config(&config_bytes)?;
        if !wanted.takes(&config.platform) {
            return Err(ManifestError::OtherPlatform {
                reference: reference.to_string(),
                is: config.platform.to_string(),
                wanted: wanted.to_string(),
            }
            .into());
        }
        if config.diff_ids.len() != image.layers.len() {
            return Err(Error::bad(format!(
                "the image's manifest has {} layers and its configuration {}: they do not belong together",
                image.layers.len(),
                config.diff_ids.len()
            )));
        }
        let id = image.config.digest;
        let names = Names {
            tags: reference
                .tagged()
                .filter(|_| reference.digest.is_none())
                .into_iter()
                .collect(),
            digests: vec![reference.with_digest(&top.digest)],
        };
        let (fresh, known) = self.read(|s| {
            let mut named = s.tags.1.clone();
            named.name(&names, id);
            (!s.images.contains_key(&id), named == s.tags.1)
        });
        if fresh {
            let blobs: Vec<_> = image.layers.iter().map(|l| (l.digest, l.size)).collect();
            let types: Vec<_> = image.layers.iter().map(|l| l.media_type.clone()).collect();
            let work = self.work(&config.diff_ids, &blobs)?;
            let converted = self.fetch(&repository, &work, &types, progress).await?;
            let text = String::from_utf8(config_bytes.to_vec())
                .map_err(|e| Error::bad(format!("the configuration is no UTF-8: {e}")))?;
            self.commit(id, text, &names, &work, converted, progress)
                .await?;
        } else {
            self.give_names(&names, id).await?;
        }
        progress.status(&format!("Digest: {}", top.digest));
        let shown = reference.to_string();
        progress.status(&if fresh || !known {
            format!("Status: Downloaded newer image for {shown}")
        } else {
            format!("Status: Image is up to date for {shown}")
        });
        self.tell("pull", &shown, &reference.name());
        Ok(())
    }

    /// Fetches and converts the layers that are missing, several at once.
    async fn fetch(
        &self,
        repository: &Arc<Repository>,
        work: &Work,
        types: &[String],
        progress: &Progress,
    ) -> Result<BTreeMap<usize, Converted>> {
        for source in &work.layers {
            match source {
                LayerSource::Known(layer) => progress.of(&short(&layer.digest), "Already exists"),
                LayerSource::Missing(digest, _) => progress.of(&short(digest), "Pulling fs layer"),
            }
        }
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks: JoinSet<Result<(usize, Converted)>> = JoinSet::new();
        let mut below: Option<std::sync::mpsc::Receiver<Arc<Folders>>> = None;
        for (index, source) in work.layers.iter().enumerate() {
            let LayerSource::Missing(digest, size) = source else {
                continue;
            };
            let (digest, size, diff_id, media_type) =
                (*digest, *size, work.diff_ids[index], types[index].clone());
            let (repository, progress, spool, places) = (
                repository.clone(),
                progress.clone(),
                self.spool.clone(),
                places.clone(),
            );
            // In the order of the layers, so that none holds a place and waits for one below it that has none.
            // The semaphore is never closed.
            let place = places
                .acquire_owned()
                .await
                .map_err(|e| Error::internal(e.to_string()))?;
            let lower = match index.checked_sub(1).map(|below| &work.layers[below]) {
                None => Lower::Known(Arc::default()),
                Some(LayerSource::Known(layer)) => Lower::Known(self.folders_of(layer).await?),
                Some(LayerSource::Missing(..)) => Lower::Coming(below.take()),
            };
            let (send, receive) = std::sync::mpsc::sync_channel(1);
            below = Some(receive);
            tasks.spawn(async move {
                let _place = place;
                let stream = repository.blob(&digest).await?;
                let reader = SyncIoBridge::new(StreamReader::new(stream));
                let name = short(&digest);
                let meter = Meter::new(progress.clone(), &name, size);
                let expected = convert::Expected {
                    digest: Some(digest),
                    size: Some(size),
                    diff_id,
                    media_type: Some(media_type),
                };
                let watched = progress.clone();
                let converted = tokio::task::spawn_blocking(move || {
                    let converted = convert::convert(
                        reader,
                        &expected,
                        &spool,
                        || lower.wait(),
                        &watched,
                        Some(meter),
                    )?;
                    // The layer above may have been given up.
                    let _ = send.send(converted.folders.clone());
                    Ok::<_, ConvertError>(converted)
                })
                .await
                .map_err(|e| Error::internal(format!("the conversion of layer {name} ended: {e}")))?
                .map_err(|e| Error::internal(format!("layer {digest}: {e}")))?;
                progress.of(&short(&digest), "Download complete");
                Ok((index, converted))
            });
        }
        let mut out = BTreeMap::new();
        let mut later = None;
        // An error, or the drop of this future, ends the others.
        while let Some(done) = tasks.join_next().await {
            match done.map_err(|e| Error::internal(e.to_string()))? {
                Ok((index, converted)) => drop(out.insert(index, converted)),
                // The layer below has more to say.
                Err(error) if error.message.contains(LOWER_FAILED) => later = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = later {
            return Err(error);
        }
        Ok(out)
    }
}

/// Where the folders of the layers below come from.
enum Lower {
    /// From the datastore; none below the lowest.
    Known(Arc<Folders>),
    /// From the conversion of the layer below.
    Coming(Option<std::sync::mpsc::Receiver<Arc<Folders>>>),
}

impl Lower {
    /// Blocks until they are known.
    fn wait(self) -> std::io::Result<Arc<Folders>> {
        match self {
            Lower::Known(folders) => Ok(folders),
            Lower::Coming(receive) => receive
                .and_then(|r| r.recv().ok())
                .ok_or_else(|| std::io::Error::other(LOWER_FAILED)),
        }
    }
}
