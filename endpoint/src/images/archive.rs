//! What `docker load` is given: a tar with `manifest.json` (`docker save`) or an OCI image layout
//! (image-spec, `image-layout.md`).

use super::Reference;
use super::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, Platform};
use crate::errors::{Error, Result};
use layers::Digest;
use layers::tar::{Kind, Reader, TarLimits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The largest archive that is taken, in bytes.
pub const MAX_ARCHIVE: u64 = 64 << 30;
/// What an archive's headers may take: names and their places are kept. What else is in it is not read here.
const LIMITS: TarLimits = TarLimits {
    entries: 100_000,
    metadata: 256 << 20,
    rest: 1 << 20,
};
/// The most images of one archive, as of what `docker save` is asked for.
const IMAGES_MAX: usize = 1000;
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

/// An image that an archive lists.
#[derive(Debug)]
pub(crate) enum Listed {
    /// In `manifest.json`.
    Docker(Item),
    /// In `index.json`.
    Oci(Named),
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Named>,
}

/// An entry of `index.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    digest: Digest,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// One image in an archive.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Its configuration, as it is in the archive.
    pub config: Vec<u8>,
    /// Names of its layers in the archive, lowest first.
    pub layers: Vec<String>,
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

/// Takes the headers of an archive, which are not kept.
struct Nothing;

impl layers::tar::RawSink for Nothing {
    fn raw(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

impl Archive {
    /// Finds what is where. Blocks.
    pub fn open(mut file: File) -> Result<Self> {
        let length = file.metadata().map_err(bad)?.len();
        file.rewind().map_err(bad)?;
        let mut tar = Reader::new(&file, LIMITS);
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        while let Some(entry) = tar.next_entry(&mut Nothing).map_err(bad)? {
            let at = tar.position().map_err(bad)?;
            tar.pass_over().map_err(bad)?;
            if at.checked_add(entry.data).is_none_or(|end| end > length) {
                return Err(bad("it is truncated"));
            }
            let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(clean) else {
                continue;
            };
            let target = std::str::from_utf8(&entry.link);
            match entry.kind {
                // Of a sparse one not all is there. No tool packs images so.
                Kind::File if entry.sparse.is_none() => {
                    files.insert(name, (at, entry.data));
                }
                Kind::Symlink => {
                    let folder = name.rsplit_once('/').map_or("", |s| s.0);
                    let target = target.ok().and_then(|t| clean(&format!("{folder}/{t}")));
                    links.extend(target.map(|target| (name, target)));
                }
                Kind::HardLink => {
                    let target = target.ok().and_then(clean);
                    links.extend(target.map(|target| (name, target)));
                }
                _ => {}
            }
        }
        Ok(Archive {
            file: Arc::new(file),
            files,
            links,
        })
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

    /// The images that it lists; [`Archive::packed`] reads one of them.
    pub fn images(&self) -> Result<Vec<Listed>> {
        let listed: Vec<Listed> = if self.place("manifest.json").is_some() {
            let items: Vec<Item> = self.json("manifest.json")?;
            items.into_iter().map(Listed::Docker).collect()
        } else if self.place("index.json").is_some() {
            let index: Index = self.json("index.json")?;
            index.manifests.into_iter().map(Listed::Oci).collect()
        } else {
            return Err(bad(
                "it has neither manifest.json (docker save) nor index.json (OCI image layout) in it",
            ));
        };
        if listed.len() > IMAGES_MAX {
            return Err(bad(format!(
                "it lists {} images; {IMAGES_MAX} are the most. Make several archives of them",
                listed.len()
            )));
        }
        Ok(listed)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.whole(name, MANIFEST_MAX)?).map_err(bad)
    }

    /// Reads one image's description: of a thousand that are listed, there is one at a time in memory.
    pub fn packed(&self, listed: &Listed, platform: Option<&Platform>) -> Result<Packed> {
        match listed {
            Listed::Docker(item) => self.docker(item),
            Listed::Oci(named) => self.layout(named, platform),
        }
    }

    fn docker(&self, item: &Item) -> Result<Packed> {
        if item.layers.len() > manifest::LAYERS_MAX {
            return Err(bad(format!(
                "an image in it has {} layers",
                item.layers.len()
            )));
        }
        let references = item.repo_tags.iter().flatten();
        Ok(Packed {
            config: self.whole(&item.config, CONFIG_MAX)?,
            layers: item.layers.clone(),
            references: references
                .map(|r| Reference::parse(r).map_err(bad))
                .collect::<Result<_>>()?,
        })
    }

    fn layout(&self, named: &Named, platform: Option<&Platform>) -> Result<Packed> {
        let wanted = platform.cloned().unwrap_or_else(Platform::ours);
        let mut document = manifest::parse(&self.blob(&named.digest, MANIFEST_MAX)?)?;
        if let Document::Index(list) = &document {
            let chosen = manifest::choose(list, &wanted)?.digest;
            document = manifest::parse(&self.blob(&chosen, MANIFEST_MAX)?)?;
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
        Ok(Packed {
            config: self.blob(&image.config.digest, CONFIG_MAX)?,
            layers: image.layers.iter().map(|l| blob_name(&l.digest)).collect(),
            references: name
                .map(|n| Reference::parse(n).map_err(bad))
                .transpose()?
                .into_iter()
                .collect(),
        })
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
    use std::io::Write;

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
        let image = a.packed(&a.images().unwrap()[0], None).unwrap();
        assert_eq!(image.references[0].to_string(), "a/b:1");
        let mut text = String::new();
        a.part(&image.layers[0])
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
        header.set_size((1 << 20) + 1);
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let name = std::io::repeat(b'x').take((1 << 20) + 1);
        builder.append_data(&mut header, "l", name).unwrap();
        let error = Archive::open(builder.into_inner().unwrap()).unwrap_err();
        assert!(
            error.message.contains("extended header"),
            "{}",
            error.message
        );
    }

    /// A header, and a file of these parts with so many bytes behind them, as a hole.
    fn header(kind: tar::EntryType, name: &str, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn file_of(parts: &[Vec<u8>], hole: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&parts.concat()).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length + hole).unwrap();
        file
    }

    fn record(text: &str) -> Vec<u8> {
        let mut record = text.as_bytes().to_vec();
        record.resize(512, 0);
        [
            header(tar::EntryType::XHeader, "x", text.len() as u64),
            record,
        ]
        .concat()
    }

    #[test]
    fn a_size_that_is_told_twice_hides_no_name_that_would_fill_the_memory() {
        // By its header the file is empty, and what follows is another one, which holds all the rest. By its record it has
        // a block, and what follows is a name of 20 GiB.
        let hidden = file_of(
            &[
                record("12 size=512\n"),
                header(tar::EntryType::Regular, "file", 0),
                header(tar::EntryType::Regular, "rest", (20 << 30) + 512),
                header(tar::EntryType::GNULongName, "l", 20 << 30),
            ],
            (20 << 30) + 1024,
        );
        let error = Archive::open(hidden).unwrap_err();
        assert!(
            error.message.contains("extended header"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_file_of_more_than_8_gib_is_found_behind_either_form_of_its_size() {
        let large: u64 = 9 << 30;
        let name = "large";
        for parts in [
            // GNU's: the size in binary.
            vec![header(tar::EntryType::Regular, name, large)],
            // PAX's: Go and others leave the field of the header 0.
            vec![
                record(&format!("19 size={large}\n")),
                header(tar::EntryType::Regular, name, 0),
            ],
        ] {
            let start = parts.concat().len() as u64;
            let file = file_of(&parts, large);
            let mut behind = header(tar::EntryType::Regular, "behind", 3);
            behind.extend(b"end");
            behind.resize(1024 + 1024, 0);
            file.write_all_at(&behind, start + large).unwrap();
            let archive = Archive::open(file).unwrap();
            assert_eq!(archive.place(name), Some((start, large)));
            assert_eq!(archive.whole("behind", 100).unwrap(), b"end");
            // Cut short, it is refused.
            let file = file_of(&parts, large - 1);
            assert!(
                Archive::open(file)
                    .unwrap_err()
                    .message
                    .contains("truncated")
            );
        }
    }

    #[test]
    fn many_images_are_listed_and_none_of_their_configurations_is_read() {
        let item = r#"{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["missing"]}"#;
        let list = |count| format!("[{}]", vec![item; count].join(","));
        let few = archive(&[("manifest.json", list(IMAGES_MAX).as_bytes())], &[]);
        let images = few.images().unwrap();
        assert_eq!(images.len(), IMAGES_MAX);
        // It is missed when the image's turn has come.
        assert!(few.packed(&images[0], None).is_err());
        let named = format!(r#"{{"digest":"{}"}}"#, Digest::of(b"x"));
        let index = format!(
            r#"{{"manifests":[{}]}}"#,
            vec![named.as_str(); IMAGES_MAX + 1].join(",")
        );
        for (name, text) in [
            ("manifest.json", list(IMAGES_MAX + 1)),
            ("index.json", index),
        ] {
            let error = archive(&[(name, text.as_bytes())], &[])
                .images()
                .unwrap_err();
            assert!(error.message.contains("1001 images"), "{}", error.message);
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(
            archive(&[("file", b"x")], &[])
                .images()
                .unwrap_err()
                .message
                .contains("manifest.json")
        );
        assert!(archive(&[("manifest.json", b"[{]")], &[]).images().is_err());
        let missing = archive(&[("manifest.json", br#"[{"Config":"missing"}]"#)], &[]);
        let listed = missing.images().unwrap();
        assert!(missing.packed(&listed[0], None).is_err());
    }
}
