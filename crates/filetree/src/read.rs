//! Entries of a tree.

use crate::{BLOCK, CHAR, FIFO, Found, Output, Tree, below, system};
use std::io::{self, Write};
use wire::files::{ATTRIBUTES_MAX, Entry, Failure, Kind, PIECE_MAX, PathStat, Record};

/// Files with several names that are kept in mind, and bytes of those names; those beyond become files of their own.
const LINKS_MAX: usize = 65_536;
const NAMES_MAX: usize = 16 << 20;

/// Tells what a path means; `target` is where it leads, if it is a link.
///
/// # Errors
/// Where nobody reads.
pub fn stat<W: Write>(found: &Found, target: Vec<u8>, out: &mut Output<W>) -> Result<(), Failure> {
    let stat = PathStat {
        size: found.size,
        mode: found.mode,
        mtime: found.mtime.0,
        mtime_ns: found.mtime.1,
        target,
    };
    out.record(&Record::Found(stat)).map_err(told)
}

/// Tells all that is at the tree's place, which is `found`.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn read<T: Tree, W: Write>(
    tree: &mut T,
    found: &Found,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut walk = Walk::new(tree, out);
    walk.entry(b"", found)?;
    if found.is_folder() {
        walk.folder(b"")?;
    }
    Ok(())
}

/// Tells all that is in the tree's place.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn export<T: Tree, W: Write>(tree: &mut T, out: &mut Output<W>) -> Result<(), Failure> {
    Walk::new(tree, out).folder(b"")
}

/// Nobody reads any more: what is told of it is told to nobody.
pub(crate) fn told(error: io::Error) -> Failure {
    system(error.to_string())
}

/// A tree that is being told.
pub(crate) struct Walk<'a, T, W> {
    pub tree: &'a mut T,
    /// Where records go.
    pub out: &'a mut Output<W>,
    /// Files with several names, and the first name; sorted.
    links: Vec<((u64, u64), Vec<u8>)>,
    /// Bytes of those names.
    names: usize,
    piece: Vec<u8>,
}

impl<'a, T: Tree, W: Write> Walk<'a, T, W> {
    pub fn new(tree: &'a mut T, out: &'a mut Output<W>) -> Self {
        Self {
            tree,
            out,
            links: Vec::new(),
            names: 0,
            piece: vec![0; PIECE_MAX],
        }
    }

    /// Tells all that is in a folder.
    fn folder(&mut self, path: &[u8]) -> Result<(), Failure> {
        for name in self.tree.names(path)? {
            let own = below(path, &name);
            let Some(found) = self.tree.look(&own)? else {
                continue;
            };
            self.entry(&own, &found)?;
            if found.is_folder() {
                self.folder(&own)?;
            }
        }
        Ok(())
    }

    /// Tells one entry, with its contents.
    ///
    /// # Errors
    /// Where it cannot be read, or nobody reads.
    pub fn entry(&mut self, path: &[u8], found: &Found) -> Result<(), Failure> {
        let (major, minor) = found.device;
        let kind = if found.is_folder() {
            Kind::Folder
        } else if let Some(first) = self.first_name(path, found) {
            Kind::HardLink(first)
        } else if found.is_link() {
            match self.tree.link(path)? {
                Some(target) => Kind::Symlink(target),
                None => return Ok(()),
            }
        } else if found.is(CHAR) {
            Kind::Char(major, minor)
        } else if found.is(BLOCK) {
            Kind::Block(major, minor)
        } else if found.is(FIFO) {
            Kind::Fifo
        } else if found.is_file() {
            return self.file(path, found);
        } else {
            // A socket is its server's.
            return Ok(());
        };
        let entry = describe(self.tree, path, path, kind, found)?;
        self.out.record(&Record::Entry(entry)).map_err(told)
    }

    fn first_name(&mut self, path: &[u8], found: &Found) -> Option<Vec<u8>> {
        if found.links < 2 || path.is_empty() {
            return None;
        }
        match self.links.binary_search_by_key(&found.id, |(id, _)| *id) {
            Ok(at) => return Some(self.links[at].1.clone()),
            Err(at) if self.links.len() < LINKS_MAX && self.names + path.len() <= NAMES_MAX => {
                self.names += path.len();
                self.links.insert(at, (found.id, path.to_vec()));
            }
            Err(_) => {}
        }
        None
    }

    /// A file, as large as it is when it is opened: what it lacks in the end is zeros, as tar has it.
    fn file(&mut self, path: &[u8], found: &Found) -> Result<(), Failure> {
        let Some((mut file, found)) = self.tree.open(path)? else {
            self.links.retain(|(id, _)| *id != found.id);
            return Ok(());
        };
        if !found.is_file() {
            let at = self.tree.shown(path);
            return Err(system(format!("{at} was replaced meanwhile")));
        }
        let entry = describe(self.tree, path, path, Kind::File(found.size), &found)?;
        self.out.record(&Record::Entry(entry)).map_err(told)?;
        let mut left = found.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE_MAX).min(PIECE_MAX);
            let mut count = self.tree.next(path, &mut file, &mut self.piece[..most])?;
            if count == 0 {
                self.piece[..most].fill(0);
                count = most;
            }
            self.out.piece(&self.piece[..count]).map_err(told)?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// An entry of the name `path` for what is at `at`, with the attributes that go with it: not those of the overlay itself.
///
/// # Errors
/// What cannot be read.
pub(crate) fn describe<T: Tree>(
    tree: &mut T,
    path: &[u8],
    at: &[u8],
    kind: Kind,
    found: &Found,
) -> Result<Entry, Failure> {
    let mut attributes = Vec::new();
    let mut size = 0;
    if !matches!(kind, Kind::HardLink(_) | Kind::Symlink(_)) {
        for name in tree.attribute_names(at)? {
            if !(name.starts_with(b"user.") || name == b"security.capability") {
                continue;
            }
            // One that went meanwhile is none.
            let Some(value) = tree.attribute(at, &name)? else {
                continue;
            };
            size += name.len() + value.len();
            if size > ATTRIBUTES_MAX {
                let at = tree.shown(at);
                return Err(system(format!(
                    "{at}: more than {ATTRIBUTES_MAX} bytes of extended attributes"
                )));
            }
            attributes.push((name, value));
        }
    }
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode: found.mode & 0o7777,
        uid: found.uid,
        gid: found.gid,
        mtime: found.mtime.0,
        mtime_ns: found.mtime.1,
        attributes,
    })
}
