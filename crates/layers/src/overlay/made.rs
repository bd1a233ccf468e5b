//! A layer that is on no disk: a root, and empty files in it.

use super::{Attributes, Content, Layer, Node, damaged};
use crate::ext4::Kind;
use crate::ext4::read::{Entry, ReadError};

/// The root's number.
const TOP: u32 = 1;

/// Empty files in a root.
#[derive(Debug, Clone)]
pub struct Made {
    root: Node,
    files: Vec<(Vec<u8>, Node)>,
}

/// An empty file.
struct Empty;

impl Content for Empty {
    fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<usize, ReadError> {
        Ok(0)
    }
}

impl Made {
    /// A root with these regular files.
    #[must_use]
    pub fn new(root: Node, files: Vec<(Vec<u8>, Node)>) -> Self {
        Self { root, files }
    }
}

impl Layer for Made {
    fn top(&self) -> u32 {
        TOP
    }

    fn node(&self, number: u32) -> Result<Node, ReadError> {
        match number.checked_sub(TOP + 1) {
            None => Ok(self.root),
            Some(at) => match self.files.get(at as usize) {
                Some((_, node)) => Ok(*node),
                None => Err(damaged(number, "does not exist")),
            },
        }
    }

    fn each(
        &self,
        _: u32,
        show: &mut dyn FnMut(Entry) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        // Only the root is a folder.
        for (inode, (name, _)) in (TOP + 1..).zip(&self.files) {
            show(Entry {
                name: name.clone(),
                inode,
                kind: Some(Kind::File),
            })?;
        }
        Ok(())
    }

    fn open(&self, _: u32) -> Result<Box<dyn Content + '_>, ReadError> {
        Ok(Box::new(Empty))
    }

    fn link(&self, link: u32) -> Result<Vec<u8>, ReadError> {
        Err(damaged(link, "is no symbolic link"))
    }

    fn attributes(&self, _: u32) -> Result<Attributes, ReadError> {
        Ok(Vec::new())
    }
}
