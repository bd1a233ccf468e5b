//! The builder: takes entries, streams data.

use super::tree::{Content, Node, ROOT_NODE, Tree, components};
use super::xattr::Attributes;
use super::{BLOCK, BlockTarget, DeviceKind, Error, FIRST_DATA, FileWriter, Kind, Metadata, Time};
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Bounds of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the image at most.
    pub bytes: u64,
    /// Files, directories and others at most; those that are made for what is in them count, too.
    pub inodes: u64,
    /// Bytes of memory for names, owners, attributes and places of data at most, about.
    pub memory: u64,
}

impl Default for Limits {
    /// 256 GiB, 4 million inodes, 1 GiB of memory.
    fn default() -> Self {
        Limits {
            bytes: 256 << 30,
            inodes: 4_000_000,
            memory: 1 << 30,
        }
    }
}

/// What an image's superblock says. The same options and entries give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file system's UUID; seeds all checksums.
    pub uuid: [u8; 16],
    /// Volume label, at most 16 bytes; what is longer is cut.
    pub label: String,
    /// Time of the file system's creation, and of directories that no entry describes.
    pub time: Time,
    /// Bounds.
    pub limits: Limits,
}

impl Options {
    /// Options with a UUID, no label, and times at 1970.
    #[must_use]
    pub fn new(uuid: [u8; 16]) -> Self {
        Options {
            uuid,
            label: String::new(),
            time: Time::default(),
            limits: Limits::default(),
        }
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image, a multiple of 4,096.
    pub bytes: u64,
    /// Inodes in use, reserved ones included.
    pub inodes: u64,
    /// Bytes of file data that were streamed.
    pub data: u64,
}

/// Builds one image out of entries, in any order. Paths are bytes, relative to the root, without `.` and `..`.
#[derive(Debug)]
pub struct Builder<T> {
    pub(super) target: T,
    pub(super) options: Options,
    pub(super) tree: Tree,
    /// Next free block.
    pub(super) next: u64,
    pub(super) data: u64,
}

impl<T: BlockTarget> Builder<T> {
    /// An image with an empty root directory (0755, root's).
    pub fn new(target: T, options: Options) -> Self {
        let tree = Tree::new(options.time, options.limits);
        Builder {
            target,
            options,
            tree,
            next: FIRST_DATA,
            data: 0,
        }
    }

    pub(super) fn put(
        &mut self,
        path: &[u8],
        kind: Kind,
        meta: &Metadata,
        content: Content,
    ) -> Result<(), Error> {
        self.tree.room()?;
        let parts = components(path)?;
        let attributes = if meta.xattrs.is_empty() {
            None
        } else {
            Some(Box::new(Attributes::new(path, &meta.xattrs)?))
        };
        if let Content::File { extents, .. } = &content {
            self.tree.weight += 16 * extents.len() as u64;
        }
        let node = Node {
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            times: [meta.atime, meta.ctime, meta.mtime],
            links: 1,
            attributes,
            opaque: false,
            given: true,
            content,
        };
        self.tree
            .put(path, &parts, node, self.options.time)
            .map(|_| ())
    }

    /// A directory. Over another one it changes the metadata and keeps what is in it.
    ///
    /// # Errors
    /// As for all entries: [`Error::BadPath`], [`Error::ParentNotDirectory`], [`Error::BadXattr`], [`Error::Limit`].
    pub fn directory(&mut self, path: &[u8], meta: &Metadata) -> Result<(), Error> {
        self.put(
            path,
            Kind::Directory,
            meta,
            Content::Directory(BTreeMap::new()),
        )
    }

    /// A regular file; its data is written through what is returned, and it is there once that is finished.
    ///
    /// # Errors
    /// As for all entries.
    pub fn file<'a>(
        &'a mut self,
        path: &[u8],
        meta: &Metadata,
    ) -> Result<FileWriter<'a, T>, Error> {
        self.tree.room()?;
        // Said now, before data is streamed for nothing; the parents are looked at again when the file is finished.
        let parts = components(path)?;
        if parts.is_empty() {
            return Err(Error::RootReplaced { kind: Kind::File });
        }
        let mut at = ROOT_NODE;
        for (depth, name) in (1..).zip(&parts[..parts.len() - 1]) {
            let Some(id) = self.tree.child(at, name) else {
                break;
            };
            match self.tree.node(id).kind {
                Kind::Directory => at = id,
                // A directory takes the place of a whiteout that something is put into.
                Kind::Whiteout => break,
                kind => {
                    return Err(Error::ParentNotDirectory {
                        path: path.to_vec(),
                        parent: parts[..depth].join(&b'/'),
                        kind,
                    });
                }
            }
        }
        Ok(FileWriter::new(self, path, meta))
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// [`Error::BadSymlink`] for a target that Linux cannot hold; as for all entries.
    pub fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Metadata) -> Result<(), Error> {
        let bad = |reason| Error::BadSymlink {
            path: path.to_vec(),
            reason,
        };
        match target {
            b"" => return Err(bad("its target is empty")),
            _ if target.len() >= BLOCK as usize => {
                return Err(bad("its target is longer than 4,095 bytes"));
            }
            _ if target.contains(&0) => return Err(bad("its target has a NUL in it")),
            _ => {}
        }
        let meta = Metadata {
            mode: 0o777,
            ..meta.clone()
        };
        self.put(path, Kind::Symlink, &meta, Content::Symlink(target.into()))
    }

    /// A device node.
    ///
    /// # Errors
    /// [`Error::BadDevice`] above Linux's numbers; as for all entries.
    pub fn device(
        &mut self,
        path: &[u8],
        kind: DeviceKind,
        major: u32,
        minor: u32,
        meta: &Metadata,
    ) -> Result<(), Error> {
        if major > 0xfff || minor > 0xf_ffff {
            return Err(Error::BadDevice {
                path: path.to_vec(),
                major,
                minor,
            });
        }
        let kind = match kind {
            DeviceKind::Char => Kind::CharDevice,
            DeviceKind::Block => Kind::BlockDevice,
        };
        self.put(path, kind, meta, Content::Device(major, minor))
    }

    /// A named pipe.
    ///
    /// # Errors
    /// As for all entries.
    pub fn fifo(&mut self, path: &[u8], meta: &Metadata) -> Result<(), Error> {
        self.put(path, Kind::Fifo, meta, Content::Nothing)
    }

    /// A unix socket's name.
    ///
    /// # Errors
    /// As for all entries.
    pub fn socket(&mut self, path: &[u8], meta: &Metadata) -> Result<(), Error> {
        self.put(path, Kind::Socket, meta, Content::Nothing)
    }

    /// A further name of something that is there and is no directory.
    ///
    /// # Errors
    /// [`Error::LinkTargetMissing`], [`Error::LinkToDirectory`], [`Error::TooManyLinks`]; as for all entries.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        self.tree.room()?;
        self.tree.link(path, target, self.options.time)
    }

    /// Hides what lower layers have at `path`. What this layer itself has there stays, whichever
    /// came first (OCI image specification, layer.md, "Whiteouts"): a directory becomes opaque,
    /// anything else hides the lower entry as it is, and where there is nothing, overlayfs's
    /// whiteout (character device 0:0) is put.
    ///
    /// # Errors
    /// As for all entries.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        self.put(
            path,
            Kind::Whiteout,
            &Metadata::new(0, self.options.time),
            Content::Device(0, 0),
        )
    }

    /// Marks a directory, which is made if it is missing, so that overlayfs shows nothing of it from
    /// below. It stays marked when [`Builder::directory`] comes later.
    ///
    /// # Errors
    /// As for all entries.
    pub fn opaque(&mut self, path: &[u8]) -> Result<(), Error> {
        let parts = components(path)?;
        let id = match self.tree.find(&parts) {
            Some(id) if self.tree.node(id).kind == Kind::Directory => id,
            Some(id) if self.tree.node(id).kind != Kind::Whiteout => {
                return Err(Error::ParentNotDirectory {
                    path: path.to_vec(),
                    parent: path.to_vec(),
                    kind: self.tree.node(id).kind,
                });
            }
            _ => {
                self.tree.room()?;
                self.tree.implied(path, &parts, self.options.time)?
            }
        };
        self.tree.node_mut(id).opaque = true;
        Ok(())
    }

    /// What is at a path.
    #[must_use]
    pub fn kind(&self, path: &[u8]) -> Option<Kind> {
        let parts = components(path).ok()?;
        self.tree.find(&parts).map(|id| self.tree.node(id).kind)
    }

    /// Those of the paths in `among`, with their values, whose directories were made for what is in
    /// them and never given themselves, the root (the empty path) included, parents first.
    /// overlayfs shows the uppermost layer's metadata of a directory, so in a stack of layers such
    /// a one should look as it does below: ask with the lower layers' directories, and give what
    /// is found with the metadata from there before [`Builder::finish`]. What this takes is bounded
    /// by `among`, however many such directories there are.
    #[must_use]
    pub fn implicit_directories<'a, K: Borrow<[u8]> + Ord, V>(
        &self,
        among: &'a BTreeMap<K, V>,
    ) -> Vec<(&'a [u8], &'a V)> {
        self.tree.implicit(among)
    }
}
