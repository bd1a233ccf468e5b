//! From a tar's entries to a file system's.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::folders::Flat;
use super::{ConvertError, Folders};
use crate::ext4::{Builder, DeviceKind, FileExtent, Kind, Metadata, Options, Time};
use crate::recipe::RecipeWriter;
use crate::spool::{GrainImage, ImageWriter};
use crate::tar::path::{Meaning, clean, meaning};
use crate::tar::{Entry, Kind as TarKind, Reader};

/// Bytes of file data handled at once.
const CHUNK: usize = 256 * 1024;

/// A layer being built.
pub(super) struct Layer {
    builder: Builder<ImageWriter>,
    /// What the lower layers have here is gone: by a whiteout, or by an opaque marker.
    hidden: HashSet<Vec<u8>>,
    /// Hard links whose target has not come yet.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Folders that the layer has entries for.
    folders: BTreeMap<Vec<u8>, Metadata>,
    entries: u64,
    hides_lower_layers: bool,
    buffer: Vec<u8>,
}

/// A layer that was built.
pub(super) struct Applied {
    pub image: GrainImage,
    pub entries: u64,
    pub file_bytes: u64,
    pub folders: Folders,
    pub hides_lower_layers: bool,
}

impl Layer {
    pub(super) fn new(image: ImageWriter, options: Options) -> Self {
        Self {
            builder: Builder::new(image, options),
            hidden: HashSet::new(),
            links: BTreeMap::new(),
            folders: BTreeMap::new(),
            entries: 0,
            hides_lower_layers: false,
            buffer: vec![0; CHUNK],
        }
    }

    /// Adds an entry, whose data `tar` has next; the recipe learns where it went.
    pub(super) fn entry<R: Read, W: Write>(
        &mut self,
        entry: &Entry,
        tar: &mut Reader<R>,
        recipe: &mut RecipeWriter<W>,
    ) -> Result<(), ConvertError> {
        self.entries += 1;
        let path = clean(&entry.path)?;
        match meaning(&path)? {
            Meaning::Dropped => return Ok(()),
            Meaning::Opaque(folder) => return self.opaque(folder),
            Meaning::Whiteout(path) => return self.whiteout(path),
            Meaning::Entry => {}
        }
        if entry.kind == TarKind::Char && entry.device == (0, 0) {
            return self.whiteout(path);
        }
        self.uncover_parents(&path)?;
        self.links.remove(&path);
        let meta = metadata(entry);
        let (major, minor) = entry.device;
        match entry.kind {
            TarKind::Directory => {
                self.builder.directory(&path, &meta)?;
                self.folders.insert(path.clone(), meta);
                if self.hidden.contains(&path) {
                    self.builder.opaque(&path)?;
                }
            }
            TarKind::File => self.file(&path, entry, &meta, tar, recipe)?,
            TarKind::HardLink => self.hard_link(path, &entry.link)?,
            TarKind::Symlink => self.builder.symlink(&path, &entry.link, &meta)?,
            TarKind::Char => self
                .builder
                .device(&path, DeviceKind::Char, major, minor, &meta)?,
            TarKind::Block => self
                .builder
                .device(&path, DeviceKind::Block, major, minor, &meta)?,
            TarKind::Fifo => self.builder.fifo(&path, &meta)?,
        }
        Ok(())
    }

    fn file<R: Read, W: Write>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        meta: &Metadata,
        tar: &mut Reader<R>,
        recipe: &mut RecipeWriter<W>,
    ) -> Result<(), ConvertError> {
        let whole = [(0, entry.data)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        let mut file = self.builder.file(path, meta)?;
        let mut at = 0;
        for (offset, length) in pieces {
            file.skip(offset - at)?;
            let mut left = *length;
            while left > 0 {
                let most = (self.buffer.len() as u64).min(left) as usize;
                let count = tar.read_data(&mut self.buffer[..most])?;
                file.write(&self.buffer[..count])?;
                left -= count as u64;
            }
            at = offset + length;
        }
        file.skip(entry.size - at)?;
        let extents = file.finish()?;
        for piece in pieces {
            refer(recipe, *piece, &extents).map_err(ConvertError::Spool)?;
        }
        Ok(())
    }

    /// A whiteout is about lower layers: what this layer has under the name stays.
    fn whiteout(&mut self, path: Vec<u8>) -> Result<(), ConvertError> {
        self.uncover_parents(&path)?;
        match self.builder.kind(&path) {
            None => self.builder.whiteout(&path)?,
            Some(Kind::Directory) => self.builder.opaque(&path)?,
            Some(_) => {}
        }
        self.hidden.insert(path);
        Ok(())
    }

    fn opaque(&mut self, folder: &[u8]) -> Result<(), ConvertError> {
        if folder.is_empty() {
            self.hides_lower_layers = true;
            return Ok(());
        }
        self.uncover_parents(folder)?;
        self.uncover(folder)?;
        self.builder.opaque(folder)?;
        self.hidden.insert(folder.to_vec());
        Ok(())
    }

    /// Makes whited-out folders above `path` into opaque ones: this layer has something in them.
    fn uncover_parents(&mut self, path: &[u8]) -> Result<(), ConvertError> {
        if self.hidden.is_empty() {
            return Ok(());
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.uncover(&path[..at])?;
        }
        Ok(())
    }

    fn uncover(&mut self, path: &[u8]) -> Result<(), ConvertError> {
        if self.hidden.contains(path) && self.builder.kind(path) == Some(Kind::Whiteout) {
            self.builder
                .directory(path, &Metadata::new(0o755, Time::default()))?;
            self.builder.opaque(path)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: Vec<u8>, target: &[u8]) -> Result<(), ConvertError> {
        let target = clean(target)?;
        if meaning(&target)? != Meaning::Entry {
            return Err(refused(&path, &target, "is a whiteout"));
        }
        if target == path {
            return Err(refused(&path, &target, "is the link itself"));
        }
        match self.builder.kind(&target) {
            None | Some(Kind::Whiteout) => {
                self.links.insert(path, target);
            }
            Some(Kind::Directory) => return Err(refused(&path, &target, "is a directory")),
            Some(_) => self.builder.hard_link(&path, &target)?,
        }
        Ok(())
    }

    /// Gives folders that the layer has no entry for the look that they have below; the folders of the whole stack.
    fn inherit(&mut self, lower: &Arc<Folders>, limit: u64) -> Result<Folders, ConvertError> {
        let below = if self.hides_lower_layers {
            Flat::new()
        } else {
            lower.flat()
        };
        let mut own = std::mem::take(&mut self.folders);
        for (path, meta) in self.builder.implicit_directories(&below) {
            self.builder.directory(path, meta)?;
            own.entry(path.to_vec()).or_insert_with(|| (*meta).clone());
        }
        let builder = &self.builder;
        let replaced: Vec<Vec<u8>> = below
            .keys()
            .filter(|path| builder.kind(path).is_some_and(|k| k != Kind::Directory))
            .map(|path| path.to_vec())
            .collect();
        own.retain(|path, _| builder.kind(path) == Some(Kind::Directory));
        let hidden = std::mem::take(&mut self.hidden);
        let all = Folders::above(lower, below, hidden.into_iter().chain(replaced), own);
        if all.weight() > limit {
            return Err(ConvertError::Limit {
                what: "bytes of folders, with those of the layers below,",
                limit,
            });
        }
        Ok(all)
    }

    /// Makes the links that waited for their targets, and ends the image. All folders may take `limit` bytes of memory.
    pub(super) fn finish(
        mut self,
        lower: Arc<Folders>,
        limit: u64,
    ) -> Result<Applied, ConvertError> {
        loop {
            let mut waiting = BTreeMap::new();
            let before = self.links.len();
            for (path, target) in std::mem::take(&mut self.links) {
                match self.builder.kind(&target) {
                    None | Some(Kind::Whiteout) => {
                        waiting.insert(path, target);
                    }
                    Some(Kind::Directory) => return Err(refused(&path, &target, "is a directory")),
                    Some(_) if self.builder.kind(&path) == Some(Kind::Directory) => {
                        return Err(refused(
                            &path,
                            &target,
                            "came too late: a directory has the link's place",
                        ));
                    }
                    Some(_) => self.builder.hard_link(&path, &target)?,
                }
            }
            match waiting.first_key_value() {
                None => break,
                Some((path, target)) if waiting.len() == before => {
                    return Err(refused(path, target, "is not in the layer"));
                }
                Some(_) => self.links = waiting,
            }
        }
        let folders = self.inherit(&lower, limit)?;
        let (summary, target) = self.builder.finish_into()?;
        Ok(Applied {
            image: target.finish(summary.bytes).map_err(ConvertError::Spool)?,
            entries: self.entries,
            file_bytes: summary.data,
            folders,
            hides_lower_layers: self.hides_lower_layers,
        })
    }
}

/// Tells the recipe where a piece of a file's data is: in extents of the image, or nowhere where it is a hole.
fn refer<W: Write>(
    recipe: &mut RecipeWriter<W>,
    (start, length): (u64, u64),
    extents: &[FileExtent],
) -> io::Result<()> {
    let (mut at, end) = (start, start + length);
    let first = extents.partition_point(|extent| extent.file_offset + extent.length <= start);
    for extent in &extents[first..] {
        if extent.file_offset >= end {
            break;
        }
        let from = extent.file_offset.max(at);
        let to = (extent.file_offset + extent.length).min(end);
        recipe.zeros(from - at)?;
        recipe.extent(extent.image_offset + (from - extent.file_offset), to - from)?;
        at = to;
    }
    recipe.zeros(end - at)
}

fn refused(path: &[u8], target: &[u8], reason: &'static str) -> ConvertError {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ConvertError::Link {
        path: show(path),
        target: show(target),
        reason,
    }
}

fn metadata(entry: &Entry) -> Metadata {
    let kept = |name: &[u8]| {
        let of_ext4 = [&b"security."[..], b"trusted.", b"system.posix_acl_"]
            .iter()
            .any(|space| name.starts_with(space));
        let user =
            name.starts_with(b"user.") && matches!(entry.kind, TarKind::File | TarKind::Directory);
        (of_ext4 || user) && !name.starts_with(b"trusted.overlay.")
    };
    Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        atime: entry.atime.unwrap_or(entry.mtime),
        ctime: entry.ctime.unwrap_or(entry.mtime),
        xattrs: entry
            .xattrs
            .iter()
            .filter(|(name, _)| kept(name))
            .cloned()
            .collect(),
    }
}
