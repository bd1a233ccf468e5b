//! `docker pull`: from a registry to the datastore, each layer in one pass.

use super::convert::{self, Converted, LOWER_FAILED};
use super::flights::{Boarded, Key, Outcome};
use super::kept::Kept;
use super::manifest::{
    self, CONFIG_MAX, Descriptor, Document, ImageManifest, ManifestError, Platform,
};
use super::origins::Origin;
use super::place::{LayerSource, Work, short};
use super::progress::{Meter, Progress};
use super::registry::{Access, Credentials, Fetched, RegistryError, Repository};
use super::tags::Names;
use super::{Came, Images, Incoming, Reference, StoredLayer};
use crate::errors::{Error, Kind, Result};
use futures_util::FutureExt;
use layers::Digest;
use layers::convert::{ConvertError, Folders};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Layers of one pull that are fetched and converted at once, as many as Docker's default.
const AT_ONCE: usize = 3;

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NotFound(_) | RegistryError::Missing { .. } => Kind::NotFound,
            RegistryError::NotAllowed { .. }
            | RegistryError::NotSigned { .. }
            | RegistryError::SignedOnly(_) => Kind::Forbidden,
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
        let (repository, top) = self.find(reference, credentials).await?;
        progress.of(
            &reference.wanted(),
            &format!("Pulling from {}", reference.path),
        );
        let (came, image) = match manifest::parse(&top.bytes)? {
            Document::Image(image) => (top.clone(), image),
            Document::Index(index) => {
                let entry = manifest::choose(&index, &wanted)?;
                let inner = repository
                    .manifest(&entry.digest.to_string(), &reference.to_string())
                    .await?;
                match manifest::parse(&inner.bytes)? {
                    Document::Image(image) => (inner, image),
                    Document::Index(_) => {
                        return Err(Error::bad("an index within an index is not supported"));
                    }
                }
            }
        };
        manifest::check_layers(&image)?;
        let mut signed = vec![top.digest];
        if came.digest != top.digest {
            signed.push(came.digest);
        }
        self.registry
            .check_signed(&repository, reference, &signed)
            .await?;
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
            let wanted = Wanted {
                domain: &reference.domain,
                diff_ids: &config.diff_ids,
                blobs,
            };
            let (work, converted) = self.fetch(&repository, &wanted, progress).await?;
            let text = String::from_utf8(config_bytes.to_vec())
                .map_err(|e| Error::bad(format!("the configuration is no UTF-8: {e}")))?;
            let incoming = Incoming {
                id,
                config: text,
                manifest: kept(&came, &image),
                names,
            };
            self.commit(incoming, &work, converted, progress).await?;
            let keys: Vec<Key> = work
                .layers
                .iter()
                .enumerate()
                .filter_map(|(index, source)| match source {
                    LayerSource::Missing(digest, _) => Some(wanted.key(index, *digest)),
                    LayerSource::Known(_) => None,
                })
                .collect();
            self.flights.taken(&keys);
            let (kept, digests) = (self.kept.clone(), keys.into_iter().map(|key| key.digest));
            tokio::task::block_in_place(|| kept.forget(digests));
        } else {
            self.give_names(&names, id).await?;
        }
        let origin = |layer: &Descriptor| Origin {
            digest: layer.digest,
            size: layer.size,
            media_type: layer.media_type.clone(),
            domain: reference.domain.clone(),
            path: reference.path.clone(),
        };
        let origins = image.layers.iter().map(origin);
        self.note_origins(config.diff_ids.iter().copied().zip(origins).collect())
            .await;
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

    /// Pulls every tag of a repository, one after the other.
    ///
    /// # Errors
    /// Those of the first one that fails; those before it stay.
    pub async fn pull_all(
        self: &Arc<Self>,
        repository: &Reference,
        platform: Option<&Platform>,
        credentials: Credentials,
        progress: &Progress,
    ) -> Result<()> {
        let home = self
            .registry
            .open_home(repository, credentials.clone(), Access::Pull)
            .await?;
        for tag in home.tags(&repository.name()).await? {
            let reference = Reference::parse(&format!("{}:{tag}", repository.name()))
                .map_err(|e| Error::internal(format!("the registry's tag {tag:?}: {e}")))?;
            self.pull(&reference, platform, credentials.clone(), progress)
                .await?;
        }
        Ok(())
    }

    /// What a registry has for a reference: its descriptor (image-spec, "Descriptors"), and its platforms.
    ///
    /// # Errors
    /// Where the registry does not have it, or does not let in.
    pub async fn distribution(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(serde_json::Value, Vec<Platform>)> {
        let (repository, top) = self.find(reference, credentials).await?;
        let (media_type, platforms) = match manifest::parse(&top.bytes)? {
            Document::Index(entries) => {
                let platforms = entries.into_iter().filter_map(|e| e.platform);
                (None, platforms.collect())
            }
            Document::Image(image) => {
                let bytes = repository
                    .small_blob(&image.config.digest, CONFIG_MAX)
                    .await?;
                (image.media_type, vec![manifest::config(&bytes)?.platform])
            }
        };
        let descriptor = serde_json::json!({
            "mediaType": media_type.unwrap_or(top.media_type),
            "digest": top.digest,
            "size": top.bytes.len(),
        });
        Ok((descriptor, platforms))
    }

    /// The first place that has a reference, with what it gives for it.
    async fn find(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(Arc<Repository>, Fetched)> {
        let (wanted, shown) = (reference.wanted(), reference.to_string());
        let mut last = Error::internal("no registry was asked");
        for source in self.registry.sources(reference, credentials)? {
            let is_mirror = source.is_mirror;
            let found = async {
                let repository = self
                    .registry
                    .open(source, &reference.path, Access::Pull)
                    .await?;
                let top = repository.manifest(&wanted, &shown).await?;
                Ok::<_, RegistryError>((Arc::new(repository), top))
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    if is_mirror {
                        tracing::info!(%error, "a mirror does not give {shown}");
                    }
                    last = error.into();
                }
            }
        }
        Err(last)
    }

    /// Fetches and converts the layers that are missing, several at once; which these are, and they, by index.
    async fn fetch(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        image: &Wanted<'_>,
        progress: &Progress,
    ) -> Result<(Work, BTreeMap<usize, Converted>)> {
        let mut joined = false;
        let mut again = false;
        loop {
            let work = self.work(image.diff_ids, &image.blobs)?;
            for source in &work.layers {
                match source {
                    LayerSource::Known(layer) => {
                        progress.of(&short(&layer.digest), "Already exists")
                    }
                    LayerSource::Missing(digest, _) => {
                        progress.of(&short(digest), "Pulling fs layer")
                    }
                }
            }
            let fetched = self.fetch_once(repository, &work, image, progress, &mut joined);
            match fetched.await {
                Ok(Some(converted)) => return Ok((work, converted)),
                // Another image has brought a layer since `work` looked.
                Ok(None) => {}
                // What failed for another pull, with its account, need not fail for this one.
                Err(_) if joined && !again => again = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` where there is less to be done than `work` says.
    async fn fetch_once(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        work: &Work,
        image: &Wanted<'_>,
        progress: &Progress,
        joined: &mut bool,
    ) -> Result<Option<BTreeMap<usize, Converted>>> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut out = BTreeMap::new();
        let mut waiting: JoinSet<Result<(usize, Converted)>> = JoinSet::new();
        let mut below = Lower::Known(Arc::default());
        for (index, source) in work.layers.iter().enumerate() {
            let (digest, size) = match source {
                LayerSource::Known(layer) => {
                    below = Lower::Placed(self.clone(), Box::new(layer.clone()));
                    continue;
                }
                LayerSource::Missing(digest, size) => (*digest, *size),
            };
            let placed = || {
                self.work(image.diff_ids, &image.blobs)
                    .is_ok_and(|now| matches!(now.layers[index], LayerSource::Known(_)))
            };
            let fetch = |progress| {
                // In the order of the layers, so that none holds a place and waits for one below it that has none.
                let place = queued(places.clone());
                let job = Job {
                    repository: repository.clone(),
                    spool: self.spool.clone(),
                    kept: self.kept.clone(),
                    expected: convert::Expected {
                        digest: Some(digest),
                        size: Some(size),
                        diff_id: work.diff_ids[index],
                    },
                    digest,
                    size,
                    lower: below.clone(),
                };
                async move {
                    let _place = place.await?;
                    job.run(progress).await
                }
            };
            let key = image.key(index, digest);
            let flight = match self.flights.board(&key, progress, placed, fetch) {
                Boarded::Landed(converted) => {
                    progress.of(&short(&digest), "Download complete");
                    below = Lower::Known(converted.folders.clone());
                    out.insert(index, converted);
                    continue;
                }
                Boarded::Joined(flight) => {
                    *joined = true;
                    flight
                }
                Boarded::Started(flight) => flight,
                Boarded::Placed => return Ok(None),
            };
            below = Lower::Coming(flight.outcome());
            let progress = progress.clone();
            waiting.spawn(async move {
                let converted = flight.outcome().wait().await?;
                progress.of(&short(&digest), "Download complete");
                Ok((index, converted))
            });
        }
        let mut later = None;
        // An error, or the drop of this future, ends the others.
        while let Some(done) = waiting.join_next().await {
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
        Ok(Some(out))
    }
}

/// A place among those that fetch at once. The turn is that of the calls, not of the answer's first use.
fn queued(places: Arc<Semaphore>) -> impl Future<Output = Result<OwnedSemaphorePermit>> + Send {
    let mut place = Box::pin(places.acquire_owned());
    let there = place.as_mut().now_or_never();
    async move {
        let place = match there {
            Some(place) => place,
            None => place.await,
        };
        // The semaphore is never closed.
        place.map_err(|e| Error::internal(e.to_string()))
    }
}

/// What a pull wants, as far as its layers' fetching needs to know.
struct Wanted<'a> {
    domain: &'a str,
    diff_ids: &'a [Digest],
    /// Digest and size of each blob.
    blobs: Vec<(Digest, u64)>,
}

impl Wanted<'_> {
    fn key(&self, index: usize, digest: Digest) -> Key {
        Key {
            chain_id: layers::chain_id(&self.diff_ids[..=index]).unwrap_or(digest),
            digest,
            domain: self.domain.to_owned(),
        }
    }
}

/// One layer's fetching.
struct Job {
    repository: Arc<Repository>,
    spool: layers::spool::Spool,
    kept: Kept,
    expected: convert::Expected,
    digest: Digest,
    size: u64,
    lower: Lower,
}

/// Why an attempt at a layer failed.
struct Failed {
    error: Error,
    /// The bytes were not what they should be, and some of them had come earlier.
    from_kept: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed {
            error,
            from_kept: false,
        }
    }
}

impl Job {
    async fn run(self, progress: Progress) -> Result<Converted> {
        match self.attempt(&progress).await {
            // Those are gone now: the registry may have given others then, or the disk others back.
            Err(failed) if failed.from_kept => {
                tracing::info!(error = failed.error.message, "a kept download was no good");
                self.attempt(&progress).await
            }
            done => done,
        }
        .map_err(|failed| failed.error)
    }

    async fn attempt(&self, progress: &Progress) -> std::result::Result<Converted, Failed> {
        let (digest, size) = (self.digest, self.size);
        let name = short(&digest);
        let kept = self.kept.clone();
        let mut part = tokio::task::spawn_blocking(move || kept.part(&digest, size))
            .await
            .map_err(|e| Error::internal(e.to_string()))?;
        let came = part.came();
        let rest: Box<dyn Read + Send> = if came > 0 && came == size {
            Box::new(std::io::empty())
        } else {
            let retrying = {
                let (progress, name) = (progress.clone(), name.clone());
                Box::new(move |pause: Duration| {
                    let text = format!("Retrying in {:.1} seconds", pause.as_secs_f64());
                    progress.of(&name, &text);
                })
            };
            let stream = self.repository.blob(&digest, size, came, retrying);
            let stream = stream.await.map_err(Error::from)?;
            Box::new(SyncIoBridge::new(StreamReader::new(stream)))
        };
        let meter = Meter::new(progress.clone(), &name, size);
        let (expected, spool) = (self.expected.clone(), self.spool.clone());
        let (lower, progress) = (self.lower.clone(), progress.clone());
        let converting = convert::on_a_thread(move || {
            let lower = || lower.wait();
            let reader = part.whole(rest);
            let result = convert::convert(reader, &expected, &spool, lower, &progress, Some(meter));
            // What broke off is right as far as it came; of all else nobody knows which byte was wrong.
            if let Err(error) = &result
                && !matches!(error, ConvertError::Read(_) | ConvertError::Spool(_))
            {
                part.discard();
            }
            result
        });
        converting.await?.map_err(|error| Failed {
            from_kept: came > 0 && !matches!(error, ConvertError::Read(_) | ConvertError::Spool(_)),
            error: Error::internal(format!("layer {digest}: {error}")),
        })
    }
}

/// The manifest, to be sent again as it came.
fn kept(came: &Fetched, image: &ImageManifest) -> Option<Came> {
    let text = String::from_utf8(came.bytes.to_vec()).ok()?;
    let media_type = image
        .media_type
        .clone()
        .unwrap_or_else(|| came.media_type.clone());
    (!media_type.is_empty()).then_some(Came { media_type, text })
}

/// Where the folders of the layers below come from.
#[derive(Clone)]
enum Lower {
    /// None below the lowest; or from a conversion.
    Known(Arc<Folders>),
    /// From the datastore.
    Placed(Arc<Images>, Box<StoredLayer>),
    /// From the conversion of the layer below.
    Coming(Outcome),
}

impl Lower {
    /// Blocks until they are known.
    fn wait(self) -> std::io::Result<Arc<Folders>> {
        match self {
            Lower::Known(folders) => Ok(folders),
            Lower::Placed(images, layer) => tokio::runtime::Handle::current()
                .block_on(images.folders_of(&layer))
                .map_err(|error| std::io::Error::other(error.message)),
            Lower::Coming(outcome) => tokio::runtime::Handle::current()
                .block_on(outcome.wait())
                .map(|converted| converted.folders)
                .map_err(|_| std::io::Error::other(LOWER_FAILED)),
        }
    }
}
