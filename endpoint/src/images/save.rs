//! `docker save`: images as an archive that both forms of `docker load` read. It is Docker's `manifest.json` over an
//! OCI image layout (image-spec, `image-layout.md`); layers are plain tars, named by their diff IDs.

use super::manifest::{ManifestError, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Platform};
use super::rebuild::Lease;
use super::reference::Reference;
use super::{Images, StoredImage, parse_id};
use crate::errors::{Error, Result};
use bytes::Bytes;
use layers::Digest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of a piece on its way to the client.
const PIECE: usize = 256 << 10;
/// The most images of one archive.
const IMAGES_MAX: usize = 1000;

/// An image that is wanted, under these names.
struct Wanted {
    lease: Arc<Lease>,
    tags: BTreeSet<String>,
}

impl Images {
    /// An archive of the images that these names mean, in pieces. What cannot be read breaks the stream off.
    ///
    /// # Errors
    /// Where a name means no image, or one of another platform.
    pub fn save(
        self: &Arc<Self>,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        if names.is_empty() {
            return Err(Error::bad("no image is named: which are to be saved?"));
        }
        let mut wanted: BTreeMap<Digest, Wanted> = BTreeMap::new();
        for name in names {
            for (id, tag) in self.named(name)? {
                if !wanted.contains_key(&id) {
                    if wanted.len() == IMAGES_MAX {
                        return Err(Error::bad(format!(
                            "more than {IMAGES_MAX} images are asked for; save them in several archives"
                        )));
                    }
                    let lease = Arc::new(self.lease(&id)?);
                    check(&lease.image, name, platform)?;
                    let tags = BTreeSet::new();
                    wanted.insert(id, Wanted { lease, tags });
                }
                if let Some(wanted) = wanted.get_mut(&id) {
                    wanted.tags.extend(tag);
                }
            }
        }
        for (id, wanted) in &wanted {
            let name = wanted.tags.first().cloned();
            let id = id.to_string();
            self.tell("save", &id, name.as_deref().unwrap_or(&id));
        }
        let (send, receive) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(PIECE, Pieces(send.clone()));
            let done = write(&mut out, &wanted).and_then(|()| out.flush());
            if let Err(error) = done
                // A client that has gone needs no error.
                && !send.is_closed()
            {
                tracing::warn!(%error, "an archive broke off");
                let _ = send.blocking_send(Err(error));
            }
        });
        Ok(receive)
    }

    /// What a name means to `docker save`: a repository without a tag all of its tags.
    fn named(&self, name: &str) -> Result<Vec<(Digest, Option<String>)>> {
        let last = name.rsplit('/').next().unwrap_or(name);
        if !last.contains([':', '@'])
            && let Ok(reference) = Reference::parse(name)
        {
            let all = self.tags_of(&reference);
            if !all.is_empty() {
                return Ok(all.into_iter().map(|(tag, id)| (id, Some(tag))).collect());
            }
        }
        let image = self
            .resolve(name)
            .ok_or_else(|| Error::no_such_image(name))?;
        let tag = Reference::parse(name).ok().and_then(|r| {
            r.tagged()
                .filter(|t| r.digest.is_none() && image.repo_tags.contains(t))
        });
        Ok(vec![(parse_id(&image.id)?, tag)])
    }
}

fn check(image: &StoredImage, name: &str, platform: Option<&Platform>) -> Result<()> {
    let Some(wanted) = platform else {
        return Ok(());
    };
    let config = super::manifest::config(image.config.as_bytes())?;
    if wanted.takes(&config.platform) {
        return Ok(());
    }
    Err(ManifestError::OtherPlatform {
        reference: name.to_owned(),
        is: config.platform.to_string(),
        wanted: wanted.to_string(),
    }
    .into())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn write(out: impl Write, wanted: &BTreeMap<Digest, Wanted>) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut written = BTreeSet::new();
    let (mut docker, mut index) = (Vec::new(), Vec::new());
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for folder in ["blobs/", "blobs/sha256/"] {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, folder, io::empty())?;
    }
    for (id, Wanted { lease, tags }) in wanted {
        let image = &lease.image;
        let mut disk = None;
        for (at, layer) in image.layers.iter().enumerate() {
            if !written.insert(layer.diff_id) {
                continue;
            }
            let disk = match &mut disk {
                Some(disk) => disk,
                none => none.insert(lease.open().map_err(io::Error::other)?),
            };
            let mut content = disk.tar(at).map_err(io::Error::other)?;
            let mut header = header(layer.unpacked, 0o644);
            tar.append_data(&mut header, blob_name(&layer.diff_id), &mut content)?;
            // The last read, which finds the end, is what checks the digest.
            if content.read(&mut [0])? != 0 || content.diff_id() != Some(layer.diff_id) {
                return Err(io::Error::other(format!(
                    "layer {} was not rebuilt as it came",
                    layer.diff_id
                )));
            }
        }
        let mut put = |digest: &Digest, bytes: &[u8]| {
            if written.insert(*digest) {
                let mut header = header(bytes.len() as u64, 0o644);
                tar.append_data(&mut header, blob_name(digest), bytes)?;
            }
            Ok::<_, io::Error>(())
        };
        put(id, image.config.as_bytes())?;
        let manifest = manifest(image).to_string();
        let digest = Digest::of(manifest.as_bytes());
        put(&digest, manifest.as_bytes())?;
        let entry = |annotations: Value| {
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": digest,
                "size": manifest.len(),
                "annotations": annotations,
            })
        };
        for tag in tags {
            let Ok(reference) = Reference::parse(tag) else {
                continue;
            };
            let short = reference.tag.clone().unwrap_or_default();
            index.push(entry(json!({
                "io.containerd.image.name": reference.whole(),
                "org.opencontainers.image.ref.name": short,
            })));
            if let Some(last) = image.layers.last() {
                let of = repositories.entry(reference.name()).or_default();
                of.insert(short, last.diff_id.hex());
            }
        }
        if tags.is_empty() {
            index.push(entry(json!({})));
        }
        docker.push(json!({
            "Config": blob_name(id),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": image.layers.iter().map(|l| blob_name(&l.diff_id)).collect::<Vec<_>>(),
        }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index });
    let mut files = vec![
        ("index.json", index),
        ("manifest.json", Value::Array(docker)),
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
    ];
    if !repositories.is_empty() {
        files.push(("repositories", json!(repositories)));
    }
    for (name, value) in files {
        let text = value.to_string();
        let mut header = header(text.len() as u64, 0o644);
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    tar.into_inner()?.flush()
}

/// The manifest of an image in the archive, whose layers are plain tars.
fn manifest(image: &StoredImage) -> Value {
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|l| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": l.diff_id,
                "size": l.unpacked,
            })
        })
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": image.id, "size": image.config.len() },
        "layers": layers,
    })
}

/// The same image gives the same archive: no times, no owner.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

/// A writer on a thread, whose pieces are read elsewhere.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(buf)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
