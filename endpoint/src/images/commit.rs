//! An image out of a container's changes (`docker commit`).

use super::convert::{self, Converted, Expected};
use super::place::LayerSource;
use super::progress::Progress;
use super::rebuild::Lease;
use super::tags::Names;
use super::{Images, Incoming, Reference};
use crate::errors::{Error, Result};
use layers::Digest;
use layers::convert::Folders;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;

/// What a tar without entries is: two blocks of zeros. As Docker, such a layer is none.
const EMPTY_TAR: u64 = 1024;

/// What an image gets beside a container's files.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Who made it.
    pub author: String,
    /// For its history.
    pub comment: String,
    /// When, RFC 3339.
    pub created: String,
    /// The container's command, for its history.
    pub created_by: String,
    /// `config` of the new image.
    pub config: Value,
    /// The container's ID.
    pub container: String,
}

impl Images {
    /// Makes an image of another one and a layer on top of it: a tar, as [`Images::receive`] took it. Its ID.
    ///
    /// # Errors
    /// 409 where the image below is gone; those of placing it.
    pub async fn commit_layer(
        self: &Arc<Self>,
        base: &str,
        tar: File,
        described: Described,
        name: Option<&Reference>,
    ) -> Result<Digest> {
        self.registry.check_unsigned("docker commit")?;
        let below = super::parse_id(base)?;
        let lease = self.lease(&below).map_err(|_| {
            Error::conflict(format!(
                "the container's image {base} was removed meanwhile"
            ))
        })?;
        let lease = Arc::new(lease);
        let stored = &lease.image;
        let (tar, diff_id, size) = hashed(tar).await?;
        let mut diff_ids: Vec<Digest> = stored.layers.iter().map(|l| l.diff_id).collect();
        let mut blobs: Vec<_> = stored
            .layers
            .iter()
            .map(|l| (l.digest, l.compressed))
            .collect();
        let empty = size <= EMPTY_TAR;
        if !empty {
            diff_ids.push(diff_id);
            blobs.push((diff_id, size));
        }
        let config = configuration(&stored.config, &diff_ids, described, empty)?;
        let id = Digest::of(config.as_bytes());
        let names = Names {
            tags: name.and_then(Reference::tagged).into_iter().collect(),
            digests: Vec::new(),
        };
        let work = self.work(&diff_ids, &blobs)?;
        let (progress, _nobody_listens) = Progress::new();
        let mut converted = BTreeMap::new();
        let first = work.layers.iter().position(LayerSource::is_missing);
        if let Some(first) = first {
            let below = first.checked_sub(1).and_then(|at| stored.layers.get(at));
            let mut lower = match below {
                Some(layer) => self.folders_of(layer).await?,
                None => Arc::default(),
            };
            // All but the new one are the image's own.
            if first < stored.layers.len() {
                converted = self.convert_again(&lease, first, lower, &progress).await?;
                lower = converted
                    .last_key_value()
                    .map(|(_, layer): (_, &Converted)| layer.folders.clone())
                    .unwrap_or_default();
            }
            if !empty {
                let expected = Expected {
                    digest: None,
                    size: Some(size),
                    diff_id,
                };
                let (spool, progress) = (self.spool.clone(), progress.clone());
                let layer = convert::on_a_thread(move || {
                    convert::convert(tar, &expected, &spool, || Ok(lower), &progress, None)
                })
                .await?
                .map_err(|e| Error::internal(format!("the new layer: {e}")))?;
                converted.insert(diff_ids.len() - 1, layer);
            }
        }
        let tag = names.tags.first().cloned();
        let image = Incoming {
            id,
            config,
            manifest: None,
            names,
        };
        self.commit(image, &work, converted, &progress).await?;
        if let Some(name) = tag {
            self.tell("tag", &id.to_string(), &name);
        }
        Ok(id)
    }

    /// The layers of an image from `first` on, from its disk. Those from the 21st on are in one VMDK, whose name is that
    /// of all of them: an image with one more has a VMDK of its own, and nobody but the image's disk has their tars.
    async fn convert_again(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        first: usize,
        mut lower: Arc<Folders>,
        progress: &Progress,
    ) -> Result<BTreeMap<usize, Converted>> {
        let (lease, spool, progress) = (lease.clone(), self.spool.clone(), progress.clone());
        convert::on_a_thread(move || {
            let disk = lease.open()?;
            let mut converted = BTreeMap::new();
            for (index, layer) in lease.image.layers.iter().enumerate().skip(first) {
                let expected = Expected {
                    digest: None,
                    size: Some(layer.unpacked),
                    diff_id: layer.diff_id,
                };
                let tar = disk.tar(index)?;
                let made = convert::convert(tar, &expected, &spool, || Ok(lower), &progress, None)
                    .map_err(|e| Error::internal(format!("layer {} again: {e}", layer.diff_id)))?;
                lower = made.folders.clone();
                let made = Converted {
                    // Of the blob that it came as, which a registry may have.
                    digest: layer.digest,
                    compressed: layer.compressed,
                    ..made
                };
                converted.insert(index, made);
            }
            Ok::<_, Error>(converted)
        })
        .await?
    }
}

/// The file at its start again, its digest and its size.
async fn hashed(mut file: File) -> Result<(File, Digest, u64)> {
    tokio::task::spawn_blocking(move || {
        let fail = |e: std::io::Error| Error::internal(format!("reading the spooled layer: {e}"));
        file.rewind().map_err(fail)?;
        let (digest, size) = digest(&mut file).map_err(fail)?;
        file.rewind().map_err(fail)?;
        Ok((file, digest, size))
    })
    .await
    .map_err(|e| Error::internal(e.to_string()))?
}

fn digest(input: &mut impl Read) -> std::io::Result<(Digest, u64)> {
    use sha2::{Digest as _, Sha256};
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok((Digest::from_bytes(hash.finalize().into()), size)),
            count => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

/// The new image's configuration: that of the image below with what is new.
fn configuration(
    base: &str,
    diff_ids: &[Digest],
    described: Described,
    empty: bool,
) -> Result<String> {
    let wrong = |e: serde_json::Error| Error::internal(format!("the image's configuration: {e}"));
    let mut config: Value = serde_json::from_str(base).map_err(wrong)?;
    let mut entry = json!({
        "created": described.created,
        "created_by": described.created_by,
    });
    for (key, text) in [
        ("author", &described.author),
        ("comment", &described.comment),
    ] {
        if !text.is_empty() {
            entry[key] = json!(text);
        }
    }
    if empty {
        entry["empty_layer"] = json!(true);
    }
    let fields = config
        .as_object_mut()
        .ok_or_else(|| Error::internal("the image's configuration is no JSON object"))?;
    // Of the image below and what made it, not of this one.
    for key in ["id", "parent", "container_config", "docker_version"] {
        fields.remove(key);
    }
    let mut history = match fields.remove("history") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    history.push(entry);
    fields.insert("history".to_owned(), Value::Array(history));
    fields.insert("created".to_owned(), json!(described.created));
    fields.insert("author".to_owned(), json!(described.author));
    fields.insert("container".to_owned(), json!(described.container));
    fields.insert("config".to_owned(), described.config);
    let ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": ids });
    fields.insert("rootfs".to_owned(), rootfs);
    if described.author.is_empty() {
        fields.remove("author");
    }
    serde_json::to_string(&config).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_keeps_what_is_the_base_s_and_adds_a_step() {
        let base = json!({
            "architecture": "amd64", "os": "linux", "author": "before",
            "config": {"Cmd": ["a"]}, "history": [{"created_by": "base"}],
            "rootfs": {"type": "layers", "diff_ids": ["x"]}, "container_config": {},
        });
        let described = Described {
            author: String::new(),
            comment: "c".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            created_by: "sh".to_owned(),
            config: json!({"Cmd": ["b"]}),
            container: "ab".to_owned(),
        };
        let digest = Digest::of(b"layer");
        let text = configuration(&base.to_string(), &[digest], described, true).unwrap();
        let made: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(made["config"]["Cmd"], json!(["b"]));
        assert_eq!(made["rootfs"]["diff_ids"], json!([digest.to_string()]));
        assert_eq!(made["history"][0]["created_by"], "base");
        assert_eq!(made["history"][1]["comment"], "c");
        assert_eq!(made["history"][1]["empty_layer"], true);
        assert!(made.get("author").is_none() && made.get("container_config").is_none());
        assert_eq!(made["architecture"], "amd64");
    }

    #[test]
    fn a_digest_is_of_all_bytes() {
        let bytes = vec![3; (1 << 20) + 5];
        assert_eq!(
            digest(&mut &bytes[..]).unwrap(),
            (Digest::of(&bytes), bytes.len() as u64)
        );
    }
}
