//! `docker load`: from an archive to the datastore.

use super::archive::{Archive, MAX_ARCHIVE};
use super::manifest::{self, ManifestError, Platform};
use super::place::{LayerSource, short};
use super::progress::Progress;
use super::tags::Names;
use super::{Images, Incoming, convert};
use crate::errors::{Error, Result};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use layers::Digest;
use layers::convert::{Compression, Decoder, Limits};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

impl Images {
    /// Takes an archive whole into the spool. It has no name there: whatever happens, it is not left behind.
    ///
    /// # Errors
    /// Where the stream breaks, is too large, or the spool is full.
    pub async fn receive<E: std::fmt::Display>(
        &self,
        mut stream: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    ) -> Result<File> {
        let full = |e: std::io::Error| Error::internal(format!("cannot spool the archive: {e}"));
        let mut file = tempfile::tempfile_in(self.spool.folder()).map_err(full)?;
        let mut length = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| Error::bad(format!("the archive broke off: {e}")))?;
            length += piece.len() as u64;
            if length > MAX_ARCHIVE {
                return Err(Error::bad(format!(
                    "the archive is larger than {MAX_ARCHIVE} bytes"
                )));
            }
            tokio::task::block_in_place(|| file.write_all(&piece)).map_err(full)?;
        }
        Ok(file)
    }

    /// Loads every image of an archive.
    ///
    /// # Errors
    /// Where one cannot be loaded; those before it stay.
    pub async fn load(
        self: &Arc<Self>,
        file: File,
        platform: Option<&Platform>,
        progress: &Progress,
    ) -> Result<()> {
        self.registry.check_unsigned("docker load")?;
        let spool = self.spool.folder().to_owned();
        let archive =
            blocking(move || Archive::open(decompressed(file, &spool, MAX_ARCHIVE)?)).await?;
        let archive = Arc::new(archive);
        let listed = {
            let archive = archive.clone();
            blocking(move || archive.images()).await?
        };
        for one in listed {
            let image = {
                let (archive, platform) = (archive.clone(), platform.cloned());
                blocking(move || archive.packed(&one, platform.as_ref())).await?
            };
            let config = manifest::config(&image.config)?;
            let wanted = platform.cloned().unwrap_or_else(Platform::ours);
            let id = Digest::of(&image.config);
            if !wanted.takes(&config.platform) {
                return Err(ManifestError::OtherPlatform {
                    reference: image
                        .references
                        .first()
                        .map_or_else(|| id.to_string(), ToString::to_string),
                    is: config.platform.to_string(),
                    wanted: wanted.to_string(),
                }
                .into());
            }
            if config.diff_ids.len() != image.layers.len() {
                return Err(Error::bad(
                    "the archive cannot be loaded: an image's configuration has another number of layers than its manifest",
                ));
            }
            let names = Names {
                tags: image
                    .references
                    .iter()
                    .filter_map(super::Reference::tagged)
                    .collect(),
                digests: Vec::new(),
            };
            if self.read(|s| s.images.contains_key(&id)) {
                self.give_names(&names, id).await?;
            } else {
                self.load_layers(&archive, &image, &names, &config.diff_ids, progress)
                    .await?;
            }
            for reference in &image.references {
                progress.stream(&format!("Loaded image: {reference}\n"));
                self.tell("load", &id.to_string(), &reference.to_string());
            }
            if image.references.is_empty() {
                progress.stream(&format!("Loaded image ID: {id}\n"));
                self.tell("load", &id.to_string(), &id.to_string());
            }
        }
        Ok(())
    }

    async fn load_layers(
        self: &Arc<Self>,
        archive: &Arc<Archive>,
        image: &super::archive::Packed,
        names: &Names,
        diff_ids: &[Digest],
        progress: &Progress,
    ) -> Result<()> {
        // The blobs' digests come with the conversion; until then the diff ID stands for each.
        let blobs: Vec<_> = diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(d, name)| (*d, archive.size(name)))
            .collect();
        let work = self.work(diff_ids, &blobs)?;
        let mut converted = BTreeMap::new();
        let mut lower = Arc::default();
        for (index, source) in work.layers.iter().enumerate() {
            if let LayerSource::Known(layer) = source {
                lower = self.folders_of(layer).await?;
                continue;
            }
            let diff_id = diff_ids[index];
            let expected = convert::Expected {
                digest: None,
                size: None,
                diff_id,
            };
            let part = archive.part(&image.layers[index])?;
            let (spool, progress2) = (self.spool.clone(), progress.clone());
            let name = short(&diff_id);
            progress.of(&name, "Loading layer");
            let layer = convert::on_a_thread(move || {
                convert::convert(part, &expected, &spool, || Ok(lower), &progress2, None)
            })
            .await?
            .map_err(|e| Error::bad(format!("layer {diff_id}: {e}")))?;
            lower = layer.folders.clone();
            converted.insert(index, layer);
        }
        let config = String::from_utf8(image.config.clone())
            .map_err(|e| Error::bad(format!("an image's configuration is no UTF-8: {e}")))?;
        let id = Digest::of(&image.config);
        let image = Incoming {
            id,
            config,
            manifest: None,
            names: names.clone(),
        };
        self.commit(image, &work, converted, progress).await
    }
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|e| Error::internal(e.to_string()))?
}

/// The archive without its compression, if it has one.
pub(crate) fn decompressed(mut file: File, spool: &Path, most: u64) -> Result<File> {
    let fail = |e: std::io::Error| Error::bad(format!("the archive cannot be decompressed: {e}"));
    let length = file.metadata().map_err(fail)?.len();
    file.seek(SeekFrom::Start(0)).map_err(fail)?;
    let (compression, decoder) = Decoder::of(&file).map_err(fail)?;
    if compression == Compression::None {
        drop(decoder);
        file.seek(SeekFrom::Start(0)).map_err(fail)?;
        return Ok(file);
    }
    // As for one layer: a bomb is refused long before it fills the disk.
    let bounds = Limits::default();
    let limit = length
        .saturating_mul(bounds.ratio)
        .max(bounds.ratio_from)
        .min(most);
    let mut out = tempfile::tempfile_in(spool).map_err(fail)?;
    if std::io::copy(&mut decoder.take(limit + 1), &mut out).map_err(fail)? > limit {
        return Err(Error::bad(format!(
            "the archive cannot be loaded: its {length} bytes decompress to more than {limit}"
        )));
    }
    out.seek(SeekFrom::Start(0)).map_err(fail)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        let mut zeros = std::io::repeat(0).take(65 << 20);
        let mut encoder =
            zstd::stream::write::Encoder::new(tempfile::tempfile().unwrap(), 1).unwrap();
        std::io::copy(&mut zeros, &mut encoder).unwrap();
        let bomb = encoder.finish().unwrap();
        let error = decompressed(bomb, &std::env::temp_dir(), MAX_ARCHIVE).unwrap_err();
        assert!(
            error.message.contains("decompress to more"),
            "{}",
            error.message
        );
    }
}
