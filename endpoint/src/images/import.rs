//! `docker import`: an image of one layer out of a tar.

use super::archive::MAX_ARCHIVE;
use super::load::decompressed;
use super::manifest::Platform;
use super::place::{LayerSource, short};
use super::progress::Progress;
use super::registry::shown;
use super::tags::Names;
use super::{Images, Incoming, Reference, convert};
use crate::containers::{config::Config, instructions};
use crate::errors::{Error, Result};
use crate::timestamps;
use layers::Digest;
use layers::digest::Hashing;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

/// What an import is told.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Where the tar comes from, for the image's history: `-` or a URL.
    pub source: String,
    /// The name that the image gets.
    pub reference: Option<Reference>,
    /// Changes to its configuration, as in a Dockerfile.
    pub changes: Vec<String>,
    /// Its comment.
    pub message: String,
    /// Its platform.
    pub platform: Option<Platform>,
}

impl Import {
    /// Checks the changes, before anything is fetched.
    ///
    /// # Errors
    /// 400 that names the first wrong one.
    pub fn check(&self) -> Result<()> {
        self.config().map(|_| ())
    }

    /// Where it comes from, without a password.
    pub fn shown(&self) -> String {
        reqwest::Url::parse(&self.source).map_or_else(|_| self.source.clone(), |url| shown(&url))
    }

    fn config(&self) -> Result<Config> {
        let mut config = Config::default();
        instructions::apply(&mut config, &self.changes)?;
        Ok(config)
    }

    /// The image's whole configuration.
    fn image(&self, diff_id: &Digest) -> Result<String> {
        let platform = self.platform.clone().unwrap_or_else(Platform::ours);
        let created = timestamps::rfc3339(timestamps::now());
        let comment = if self.message.is_empty() {
            format!("Imported from {}", self.shown())
        } else {
            self.message.clone()
        };
        let mut image = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "comment": comment,
            "created": created,
            "config": self.config()?,
            "history": [{ "created": created, "comment": comment }],
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        if let Some(variant) = platform.variant {
            image["variant"] = variant.into();
        }
        Ok(image.to_string())
    }
}

impl Images {
    /// Fetches a tar over HTTP into the spool.
    ///
    /// # Errors
    /// Where the URL is none, is on no registry's list, or does not answer.
    pub async fn download(&self, url: &str) -> Result<File> {
        let url = reqwest::Url::parse(url)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https"))
            .ok_or_else(|| {
                Error::bad(format!(
                    "{url:?} cannot be imported: give - or a URL that starts with http:// or https://"
                ))
            })?;
        let answer = self.registry.fetch(&url).await?;
        self.receive(answer.bytes_stream()).await
    }

    /// Makes an image out of a tar, which may be compressed; tells its ID.
    ///
    /// # Errors
    /// Where the tar is none, or the datastore has no room.
    pub async fn import(
        self: &Arc<Self>,
        file: File,
        import: &Import,
        progress: &Progress,
    ) -> Result<()> {
        self.registry.check_unsigned("docker import")?;
        let spool = self.spool.clone();
        let (file, diff_id, size) = tokio::task::spawn_blocking(move || {
            let mut file = decompressed(file, spool.folder(), MAX_ARCHIVE)?;
            let read = |e: std::io::Error| Error::internal(format!("cannot read the spool: {e}"));
            file.seek(SeekFrom::Start(0)).map_err(read)?;
            // The layer's partition is made from its digest, so that has to come first.
            let mut hash = Hashing::new(std::io::sink());
            let size = std::io::copy(&mut file, &mut hash).map_err(read)?;
            file.seek(SeekFrom::Start(0)).map_err(read)?;
            Ok::<_, Error>((file, hash.finish().1, size))
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))??;
        if size == 0 {
            return Err(Error::bad(
                "there is nothing to import: the archive is empty",
            ));
        }
        let work = self.work(&[diff_id], &[(diff_id, size)])?;
        let mut converted = BTreeMap::new();
        if let LayerSource::Missing(..) = work.layers[0] {
            let (spool, told) = (self.spool.clone(), progress.clone().quiet());
            let expected = convert::Expected {
                digest: None,
                size: None,
                diff_id,
            };
            let layer = tokio::task::spawn_blocking(move || {
                convert::convert(file, &expected, &spool, || Ok(Arc::default()), &told, None)
            })
            .await
            .map_err(|e| {
                Error::internal(format!("the conversion of {} ended: {e}", short(&diff_id)))
            })?
            .map_err(|e| Error::bad(format!("the archive cannot be imported: {e}")))?;
            converted.insert(0, layer);
        }
        let config = import.image(&diff_id)?;
        let id = Digest::of(config.as_bytes());
        let tag = import.reference.as_ref().and_then(Reference::tagged);
        let image = Incoming {
            id,
            config,
            manifest: None,
            names: Names {
                tags: tag.iter().cloned().collect(),
                digests: Vec::new(),
            },
        };
        self.commit(image, &work, converted, &progress.clone().quiet())
            .await?;
        progress.status(&id.to_string());
        let id = id.to_string();
        self.tell("import", &id, tag.as_deref().unwrap_or(&id));
        Ok(())
    }
}
