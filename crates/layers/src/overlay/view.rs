//! An overlay by paths: the folders on the way to the last one that was asked for are kept.

use super::{Listing, Overlay, Place, damaged, unsupported};
use crate::ext4::read::ReadError;
use std::collections::HashMap;

/// Entries of folders that are kept at once: some 50 MB, twice that with long names.
const ENTRIES_MAX: usize = 300_000;
/// Paths as long as this are none to Linux (PATH_MAX).
const PATH_MAX: usize = 4096;
/// Bits of one piece of [`Seen`].
const PIECE_BITS: u32 = 4096;

/// A way into an overlay. Paths are relative to where it begins, clean, and no link in them is followed.
#[derive(Debug)]
pub struct View<'a> {
    overlay: &'a Overlay<'a>,
    /// What the empty path is; `None` where there are no layers.
    root: Option<Place>,
    /// Each folder is in the one before it.
    folders: Vec<Folder>,
    /// Entries of all of them.
    entries: usize,
    seen: Seen,
}

#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    listing: Listing,
}

impl<'a> View<'a> {
    /// Into all of this overlay.
    #[must_use]
    pub fn new(overlay: &'a Overlay<'a>) -> Self {
        Self::from(overlay, overlay.root())
    }

    /// Into what is at a place of it.
    #[must_use]
    pub fn at(overlay: &'a Overlay<'a>, place: Place) -> Self {
        Self::from(overlay, Some(place))
    }

    fn from(overlay: &'a Overlay<'a>, root: Option<Place>) -> Self {
        Self {
            overlay,
            root,
            folders: Vec::new(),
            entries: 0,
            seen: Seen::default(),
        }
    }

    /// What it is a view of.
    #[must_use]
    pub fn overlay(&self) -> &'a Overlay<'a> {
        self.overlay
    }

    /// What is at a path; `None` also where something on the way to it is no folder.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn place(&mut self, path: &[u8]) -> Result<Option<Place>, ReadError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        let (folder, name) = split(path);
        Ok(self.open(folder)?.and_then(|l| l.get(name)).cloned())
    }

    /// The names in a folder, sorted; `None` where it is none. Each folder can be walked through once: what is asked for
    /// again has two names, which is damage.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn walk(&mut self, path: &[u8]) -> Result<Option<Vec<Vec<u8>>>, ReadError> {
        let Some(place) = self.place(path)?.filter(|place| place.folder) else {
            return Ok(None);
        };
        let (layer, number) = place.first();
        if !self.seen.add(layer, number) {
            return Err(damaged(number, "is a directory with two names"));
        }
        let listing = self.open(path)?;
        Ok(listing.map(|listing| listing.keys().cloned().collect()))
    }

    fn open(&mut self, path: &[u8]) -> Result<Option<&Listing>, ReadError> {
        if path.len() >= PATH_MAX {
            return Err(unsupported("paths of 4096 bytes and more"));
        }
        while let Some(last) = self.folders.last().filter(|last| !last.holds(path)) {
            self.entries -= last.listing.len();
            self.folders.pop();
        }
        loop {
            let (own, place) = match self.folders.last() {
                None => match &self.root {
                    Some(root) if root.folder => (Vec::new(), root.clone()),
                    _ => return Ok(None),
                },
                Some(last) if last.path.len() == path.len() => break,
                Some(last) => {
                    let start = match last.path.len() {
                        0 => 0,
                        length => length + 1,
                    };
                    let name = path[start..].split(|b| *b == b'/').next();
                    let name = name.unwrap_or_default();
                    match last.listing.get(name) {
                        Some(place) if place.folder => {
                            (path[..start + name.len()].to_vec(), place.clone())
                        }
                        _ => return Ok(None),
                    }
                }
            };
            let room = ENTRIES_MAX.saturating_sub(self.entries);
            let listing = self.overlay.list(&place, room)?;
            self.entries += listing.len();
            self.folders.push(Folder { path: own, listing });
        }
        Ok(self.folders.last().map(|last| &last.listing))
    }
}

impl Folder {
    /// Whether a path is this folder or in it.
    fn holds(&self, path: &[u8]) -> bool {
        match path.strip_prefix(&self.path[..]) {
            Some(rest) => self.path.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }
}

/// A path's folder and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Folders that were walked through: bits, in pieces where there are any.
#[derive(Debug, Default)]
struct Seen {
    pieces: HashMap<(u16, u32), Box<[u64; PIECE_BITS as usize / 64]>>,
}

impl Seen {
    /// False: it was there.
    fn add(&mut self, layer: u16, number: u32) -> bool {
        let piece = self
            .pieces
            .entry((layer, number / PIECE_BITS))
            .or_insert_with(|| Box::new([0; PIECE_BITS as usize / 64]));
        let bit = number % PIECE_BITS;
        let word = &mut piece[(bit / 64) as usize];
        let fresh = *word & 1 << (bit % 64) == 0;
        *word |= 1 << (bit % 64);
        fresh
    }
}
