//! What `docker load` is given: a tar with `manifest.json` (`docker save`) or an OCI image layout
//! (image-spec, `image-layout.md`).

use super::Reference;
use super::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, Platform};
use crate::errors::{Error, Result};
use layers::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The largest archive that is taken, in bytes.
pub const MAX_ARCHIVE: u64 = 64 << 30;
/// The most entries of an archive.
const ENTRIES_MAX: usize = 100_000;
/// The largest extended header (a long name, PAX records), in bytes.
const EXTENDED_MAX: u64 = 1 << 20;
/// How many links a name may lead through.
const LINKS_MAX: usize = 8;

/// An archive in a local file without a name.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    file: Arc<File>,
    /// Where each file's bytes are: offset, length.
    files: BTreeMap<String, (u64, u64)>,
    links: BTreeMap<String, String>,
}

/// One image in an archive.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Its configuration, as it is in the archive.
    pub config: Vec<u8>,
    /// Names of its layers in the archive, lowest first.
    pub layers: Vec<String>,
    /// Media types, where there are some.
    pub types: Vec<Option<String>>,
    /// References that it is to get.
    pub references: Vec<Reference>,
}

/// A part of the archive's file, as a stream.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let count = self.file.read_at(&mut buf[..want], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::bad(format!("the archive cannot be loaded: {reason}"))
}

/// A name without `./` and `a/../`; `None` for one that leads out of the archive.
fn clean(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Refuses too many entries, and extended headers that would not go into memory: the tar reader
/// takes each of those whole.
fn check_headers(mut file: &File) -> Result<()> {
    file.rewind().map_err(bad)?;
    let mut tar = tar::Archive::new(file);
    for (number, entry) in tar.entries_with_seek().map_err(bad)?.raw(true).enumerate() {
        let header = entry.map_err(bad)?.header().clone();
        let kind = header.entry_type();
        let extended = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extended && header.entry_size().map_err(bad)? > EXTENDED_MAX {
            return Err(bad(format!(
                "an extended header in it has more than {EXTENDED_MAX} bytes"
            )));
        }
        if number >= ENTRIES_MAX {
            return Err(bad(format!("it has more than {ENTRIES_MAX} entries")));
        }
    }
    Ok(())
}

impl Archive {
    /// Finds what is where. Blocks.
    pub fn open(mut file: File) -> Result<Self> {
        let length = file.metadata().map_err(bad)?.len();
        check_headers(&file)?;
        file.rewind().map_err(bad)?;
        let mut tar = tar::Archive::new(&file);
        let mut archive = Archive {
            file: Arc::new(file.try_clone().map_err(bad)?),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        for entry in tar.entries_with_seek().map_err(bad)? {
            let entry = entry.map_err(bad)?;
            let Some(name) = std::str::from_utf8(&entry.path_bytes())
                .ok()
                .and_then(clean)
            else {
                continue;
            };
            match entry.header().entry_type() {
                t if t.is_file() => {
                    let (at, size) = (entry.raw_file_position(), entry.size());
                    if at.checked_add(size).is_none_or(|end| end > length) {
                        return Err(bad("it is truncated"));
                    }
                    archive.files.insert(name, (at, size));
                }
                t if t.is_symlink() => {
                    let target = entry
                        .link_name_bytes()
                        .and_then(|l| String::from_utf8(l.to_vec()).ok());
                    let folder = name.rsplit_once('/').map_or("", |s| s.0);
                    if let Some(target) = target.and_then(|t| clean(&format!("{folder}/{t}"))) {
                        archive.links.insert(name, target);
                    }
                }
                t if t.is_hard_link() => {
                    let target = entry
                        .link_name_bytes()
                        .and_then(|l| String::from_utf8(l.to_vec()).ok())
                        .and_then(|t| clean(&t));
                    if let Some(target) = target {
                        archive.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    fn place(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = clean(name)?;
        for _ in 0..LINKS_MAX {
            if let Some(place) = self.files.get(&name) {
                return Some(*place);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    /// A file of the archive, as a stream.
    pub fn part(&self, name: &str) -> Result<Part> {
        let (at, left) = self
            .place(name)
            .ok_or_else(|| bad(format!("{name} is missing in it")))?;
        Ok(Part {
            file: self.file.clone(),
            at,
            left,
        })
    }

    /// Size of a file of the archive, in bytes.
    pub fn size(&self, name: &str) -> u64 {
        self.place(name).map_or(0, |p| p.1)
    }

    fn whole(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let part = self.part(name)?;
        if part.left > limit {
            return Err(bad(format!(
                "{name} has {} bytes; {limit} are the most",
                part.left
            )));
        }
        let mut out = Vec::new();
        part.take(limit).read_to_end(&mut out).map_err(bad)?;
        Ok(out)
    }

    /// The images in it.
    pub fn images(&self, platform: Option<&Platform>) -> Result<Vec<Packed>> {
        if self.place("manifest.json").is_some() {
            self.docker()
        } else if self.place("index.json").is_some() {
            self.layout(platform)
        } else {
            Err(bad(
                "it has neither manifest.json (docker save) nor index.json (OCI image layout) in it",
            ))
        }
    }

    fn docker(&self) -> Result<Vec<Packed>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            #[serde(default)]
            layers: Vec<String>,
        }
        let items: Vec<Item> =
            serde_json::from_slice(&self.whole("manifest.json", MANIFEST_MAX)?).map_err(bad)?;
        items
            .into_iter()
            .map(|item| {
                if item.layers.len() > manifest::LAYERS_MAX {
                    return Err(bad(format!(
                        "an image in it has {} layers",
                        item.layers.len()
                    )));
                }
                let references = item.repo_tags.unwrap_or_default();
                Ok(Packed {
                    config: self.whole(&item.config, CONFIG_MAX)?,
                    types: vec![None; item.layers.len()],
                    layers: item.layers,
                    references: references
                        .iter()
                        .map(|r| Reference::parse(r).map_err(bad))
                        .collect::<Result<_>>()?,
                })
            })
            .collect()
    }

    fn layout(&self, platform: Option<&Platform>) -> Result<Vec<Packed>> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            digest: Digest,
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        let index: Index =
            serde_json::from_slice(&self.whole("index.json", MANIFEST_MAX)?).map_err(bad)?;
        let wanted = platform.cloned().unwrap_or_else(Platform::ours);
        let mut out = Vec::new();
        for named in index.manifests {
            let mut document = manifest::parse(&self.blob(&named.digest, MANIFEST_MAX)?)?;
            if let Document::Index(list) = &document {
                document = manifest::parse(
                    &self.blob(&manifest::choose(list, &wanted)?.digest, MANIFEST_MAX)?,
                )?;
            }
            let Document::Image(image) = document else {
                return Err(bad("an index within an index is not supported"));
            };
            // containerd's name is whole; the specification's may be a tag only, which names nothing by itself.
            let name = named
                .annotations
                .get("io.containerd.image.name")
                .or_else(|| {
                    named
                        .annotations
                        .get("org.opencontainers.image.ref.name")
                        .filter(|n| n.contains(['/', ':']))
                });
            out.push(Packed {
                config: self.blob(&image.config.digest, CONFIG_MAX)?,
                layers: image.layers.iter().map(|l| blob_name(&l.digest)).collect(),
                types: image
                    .layers
                    .iter()
                    .map(|l| Some(l.media_type.clone()))
                    .collect(),
                references: name
                    .map(|n| Reference::parse(n).map_err(bad))
                    .transpose()?
                    .into_iter()
                    .collect(),
            });
        }
        Ok(out)
    }

    fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.whole(&blob_name(digest), limit)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(bad(format!("the blob {digest} has another digest")))
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])], links: &[(&str, &str)]) -> Archive {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        for (name, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        }
        Archive::open(builder.into_inner().unwrap()).unwrap()
    }

    #[test]
    fn docker_s_form_with_links_to_layers() {
        let manifest = br#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["x/layer.tar"]}]"#;
        let a = archive(
            &[
                ("./manifest.json", manifest),
                ("c.json", b"{}"),
                ("l.tar", b"layer"),
            ],
            &[("x/layer.tar", "../l.tar")],
        );
        let images = a.images(None).unwrap();
        assert_eq!(images[0].references[0].to_string(), "a/b:1");
        let mut text = String::new();
        a.part(&images[0].layers[0])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "layer");
    }

    #[test]
    fn a_link_out_of_the_archive_or_in_a_circle_leads_nowhere() {
        let manifest = br#"[{"Config":"c.json","Layers":["out","a"]}]"#;
        let a = archive(
            &[("manifest.json", manifest), ("c.json", b"{}")],
            &[("out", "../../etc/passwd"), ("a", "b"), ("b", "a")],
        );
        for name in ["out", "a", "../x", "/etc/passwd"] {
            assert!(a.part(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_that_would_fill_the_memory_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(EXTENDED_MAX + 1);
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let name = std::io::repeat(b'x').take(EXTENDED_MAX + 1);
        builder.append_data(&mut header, "l", name).unwrap();
        let error = Archive::open(builder.into_inner().unwrap()).unwrap_err();
        assert!(
            error.message.contains("extended header"),
            "{}",
            error.message
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(
            archive(&[("file", b"x")], &[])
                .images(None)
                .unwrap_err()
                .message
                .contains("manifest.json")
        );
        assert!(
            archive(&[("manifest.json", b"[{]")], &[])
                .images(None)
                .is_err()
        );
        assert!(
            archive(&[("manifest.json", br#"[{"Config":"missing"}]"#)], &[])
                .images(None)
                .is_err()
        );
    }
}
