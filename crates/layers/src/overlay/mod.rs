//! Reads file systems that lie over each other as Linux's overlayfs shows them (Documentation/filesystems/overlayfs).
//!
//! Folders of one path are one folder, down to the first layer that has something else there, hides what is below, or is
//! marked as opaque. What the kernel writes only where it is told to (redirect_dir, metacopy, whiteouts that are
//! attributes) is not read here, but seen: [`ReadError::Unsupported`].
//!
//! Nothing on the disks is believed: a folder that contains itself or has two names is damage, and what is kept of folders
//! is bounded.

mod branch;
mod made;
mod view;

pub use branch::Branch;
pub use made::Made;
pub use view::View;

use crate::ext4::read::{Entry, ReadError};
use crate::ext4::{Kind, Time};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Attributes that stand for what is elsewhere, and what sets them.
const REFERENCES: [(&[u8], &str); 2] = [
    (b"trusted.overlay.redirect", "overlayfs's redirect_dir"),
    (b"trusted.overlay.metacopy", "overlayfs's metacopy"),
];

/// Extended attributes: full names and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What something on a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names that it has.
    pub links: u32,
    /// Last change of the data.
    pub mtime: Time,
    /// Major and minor number, of a device.
    pub device: (u32, u32),
}

/// Bytes of a file.
pub trait Content {
    /// Fills `buf` from `offset` as far as the file goes; gives the number of bytes.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError>;
}

/// A file system that is a layer, or a part of one. The errors of all: what cannot be read.
pub trait Layer: Send + Sync {
    /// The folder that is its root.
    fn top(&self) -> u32;

    /// What has this number.
    fn node(&self, number: u32) -> Result<Node, ReadError>;

    /// Shows all entries of a folder.
    fn each(
        &self,
        folder: u32,
        show: &mut dyn FnMut(Entry) -> Result<(), ReadError>,
    ) -> Result<(), ReadError>;

    /// Opens a regular file.
    fn open(&self, file: u32) -> Result<Box<dyn Content + '_>, ReadError>;

    /// Where a symbolic link leads.
    fn link(&self, link: u32) -> Result<Vec<u8>, ReadError>;

    /// Extended attributes: full names and values.
    fn attributes(&self, number: u32) -> Result<Attributes, ReadError>;
}

/// Something in an overlay: where it is, the topmost layer first. Only folders are on several layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of the layer, and the number there.
    parts: Vec<(u16, u32)>,
    folder: bool,
    /// What is found further below belongs to it, too.
    open: bool,
}

impl Place {
    fn new(part: (u16, u32), kind: Kind) -> Self {
        let folder = kind == Kind::Directory;
        Self {
            parts: vec![part],
            folder,
            open: folder,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// The topmost of its parts.
    fn first(&self) -> (u16, u32) {
        // Invariant: a place is made with a part, and none is ever taken away.
        self.parts[0]
    }
}

/// A folder's names, and what has them.
type Listing = BTreeMap<Vec<u8>, Place>;

/// Layers that lie over each other, or one alone.
pub struct Overlay<'a> {
    layers: Vec<Box<dyn Layer + 'a>>,
    merged: bool,
}

impl std::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("layers", &self.layers.len())
            .field("merged", &self.merged)
            .finish()
    }
}

impl<'a> Overlay<'a> {
    /// What these layers are together, the topmost first.
    ///
    /// # Errors
    /// [`ReadError::Unsupported`] for more layers than have numbers.
    pub fn new(layers: Vec<Box<dyn Layer + 'a>>) -> Result<Self, ReadError> {
        if u16::try_from(layers.len()).is_err() {
            return Err(unsupported("more layers than can be"));
        }
        Ok(Self {
            layers,
            merged: true,
        })
    }

    /// One layer as it is, with its whiteouts.
    #[must_use]
    pub fn plain(layer: Box<dyn Layer + 'a>) -> Self {
        Self {
            layers: vec![layer],
            merged: false,
        }
    }

    fn layer(&self, number: u16) -> &(dyn Layer + 'a) {
        // Invariant: places have the numbers of layers that there are.
        &*self.layers[usize::from(number)]
    }

    /// The root; `None` where there are no layers.
    fn root(&self) -> Option<Place> {
        let parts: Vec<_> = (0u16..)
            .zip(&self.layers)
            .map(|(number, layer)| (number, layer.top()))
            .collect();
        (!parts.is_empty()).then_some(Place {
            parts,
            folder: true,
            open: false,
        })
    }

    /// What is at a place.
    ///
    /// # Errors
    /// What cannot be read; [`ReadError::Damaged`] where an entry has said something else.
    pub fn node(&self, place: &Place) -> Result<Node, ReadError> {
        let (layer, number) = place.first();
        let node = self.layer(layer).node(number)?;
        if (node.kind == Kind::Directory) != place.folder {
            return Err(damaged(number, "is not what its entry says"));
        }
        Ok(node)
    }

    /// Two places with the same are one file.
    #[must_use]
    pub fn id(&self, place: &Place) -> (u64, u64) {
        let (layer, number) = place.first();
        (layer.into(), number.into())
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn link(&self, place: &Place) -> Result<Vec<u8>, ReadError> {
        let (layer, number) = place.first();
        self.layer(layer).link(number)
    }

    /// Extended attributes, the overlay's own among them.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn attributes(&self, place: &Place) -> Result<Attributes, ReadError> {
        let (layer, number) = place.first();
        self.layer(layer).attributes(number)
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(&self, place: &Place) -> Result<Box<dyn Content + '_>, ReadError> {
        let (number, file) = place.first();
        let layer = self.layer(number);
        if self.merged {
            check_references(&layer.attributes(file)?)?;
        }
        layer.open(file)
    }

    /// The names in a folder, `room` of them at most.
    fn list(&self, folder: &Place, room: usize) -> Result<Listing, ReadError> {
        let mut all: BTreeMap<Vec<u8>, Option<Place>> = BTreeMap::new();
        for &(number, inode) in &folder.parts {
            let layer = self.layer(number);
            layer.each(inode, &mut |entry| {
                let kind = match entry.kind {
                    // A whiteout is one.
                    None | Some(Kind::CharDevice) => layer.node(entry.inode)?.kind,
                    Some(kind) => kind,
                };
                let part = (number, entry.inode);
                let hidden = self.merged && kind == Kind::Whiteout;
                let full = all.len() >= room;
                match all.entry(entry.name) {
                    Slot::Vacant(_) if full => {
                        return Err(unsupported("more entries of folders than are kept at once"));
                    }
                    Slot::Vacant(slot) => {
                        slot.insert((!hidden).then(|| Place::new(part, kind)));
                    }
                    Slot::Occupied(mut slot) => {
                        let Some(place) = slot.get_mut() else {
                            return Ok(());
                        };
                        if place.parts.last().is_some_and(|(last, _)| *last == number) {
                            return Err(damaged(inode, "has two entries of one name"));
                        }
                        match kind {
                            Kind::Directory if place.open => place.parts.push(part),
                            _ => place.open = false,
                        }
                    }
                }
                Ok(())
            })?;
            if self.merged && self.is_opaque(number, inode)? {
                break;
            }
        }
        Ok(all
            .into_iter()
            .filter_map(|(name, place)| Some((name, place?)))
            .collect())
    }

    /// Whether a folder hides those below it.
    fn is_opaque(&self, number: u16, folder: u32) -> Result<bool, ReadError> {
        if usize::from(number) + 1 == self.layers.len() {
            return Ok(false);
        }
        let attributes = self.layer(number).attributes(folder)?;
        check_references(&attributes)?;
        match attributes.iter().find(|(name, _)| name == OPAQUE) {
            Some((_, value)) if value == b"x" => {
                Err(unsupported("whiteouts that are attributes (overlayfs)"))
            }
            Some((_, value)) => Ok(value == b"y"),
            None => Ok(false),
        }
    }
}

fn check_references(attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), ReadError> {
    for (reference, what) in REFERENCES {
        if attributes.iter().any(|(name, _)| name == reference) {
            return Err(unsupported(what));
        }
    }
    Ok(())
}

fn unsupported(what: impl Into<Cow<'static, str>>) -> ReadError {
    ReadError::Unsupported { what: what.into() }
}

fn damaged(inode: u32, reason: &'static str) -> ReadError {
    ReadError::Damaged {
        what: format!("inode {inode}"),
        reason,
    }
}

#[cfg(test)]
mod tests;
