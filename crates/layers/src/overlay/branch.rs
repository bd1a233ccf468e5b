//! A layer that is an ext4, or a folder of one.

use super::{Attributes, Content, Layer, Node, damaged};
use crate::ReadAt;
use crate::ext4::Kind;
use crate::ext4::read::{Entry, File, Filesystem, Inode, ReadError};

/// A folder of an ext4, with what is in it.
#[derive(Debug)]
pub struct Branch<S> {
    fs: Filesystem<S>,
    top: u32,
}

impl<S: ReadAt> Branch<S> {
    /// All of it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn whole(fs: Filesystem<S>) -> Result<Self, ReadError> {
        let top = fs.root()?.number;
        Ok(Self { fs, top })
    }

    /// The folder of this name in its root, if there is one.
    ///
    /// # Errors
    /// What cannot be read; [`ReadError::Damaged`] where it is no folder.
    pub fn folder(fs: Filesystem<S>, name: &[u8]) -> Result<Option<Self>, ReadError> {
        let Some(entry) = fs.lookup(&fs.root()?, name)? else {
            return Ok(None);
        };
        if fs.inode(entry.inode)?.kind != Kind::Directory {
            return Err(damaged(entry.inode, "should be a directory"));
        }
        let top = entry.inode;
        Ok(Some(Self { fs, top }))
    }
}

impl From<&Inode> for Node {
    fn from(inode: &Inode) -> Self {
        Self {
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            links: inode.links,
            mtime: inode.mtime,
            device: inode.device.unwrap_or_default(),
        }
    }
}

impl<S: ReadAt> Content for File<'_, S> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        File::read_at(self, offset, buf)
    }
}

impl<S: ReadAt> Layer for Branch<S> {
    fn top(&self) -> u32 {
        self.top
    }

    fn node(&self, number: u32) -> Result<Node, ReadError> {
        Ok(Node::from(&self.fs.inode(number)?))
    }

    fn each(
        &self,
        folder: u32,
        show: &mut dyn FnMut(Entry) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let folder = self.fs.inode(folder)?;
        if folder.kind != Kind::Directory {
            return Err(damaged(folder.number, "is not what its entry says"));
        }
        self.fs.entries(&folder)?.try_for_each(|entry| show(entry?))
    }

    fn open(&self, file: u32) -> Result<Box<dyn Content + '_>, ReadError> {
        Ok(Box::new(self.fs.file(&self.fs.inode(file)?)?))
    }

    fn link(&self, link: u32) -> Result<Vec<u8>, ReadError> {
        self.fs.link(&self.fs.inode(link)?)
    }

    fn attributes(&self, number: u32) -> Result<Attributes, ReadError> {
        self.fs.attributes(&self.fs.inode(number)?)
    }
}
