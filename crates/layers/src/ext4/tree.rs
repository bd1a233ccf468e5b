//! The files of an image while it is being built.

use super::extents::Extent;
use super::xattr::Attributes;
use super::{Error, Kind, Time};
use std::collections::BTreeMap;

/// Index of a node.
pub(super) type NodeId = usize;
pub(super) const ROOT_NODE: NodeId = 0;

/// A file, directory or other thing, with at least one name.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Access, change, modification.
    pub times: [Time; 3],
    /// Names that this has; a directory's are counted by its children.
    pub links: u32,
    pub attributes: Option<Box<Attributes>>,
    /// overlayfs shows nothing of this directory's lower ones.
    pub opaque: bool,
    /// An entry described it; a directory may also have been made for what is in it.
    pub given: bool,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    File { size: u64, extents: Box<[Extent]> },
    Symlink(Box<[u8]>),
    Device(u32, u32),
    Nothing,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Tree {
    pub nodes: Vec<Option<Node>>,
    /// Runs of data blocks whose file was replaced: (first block, count).
    pub freed: Vec<(u64, u64)>,
    /// Bytes of memory that the nodes take, about.
    pub weight: u64,
    pub live: u64,
}

/// The components of a path; it may begin and end with slashes.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let bad = |reason| Error::BadPath {
        path: path.to_vec(),
        reason,
    };
    let inner = path.strip_prefix(b"/").unwrap_or(path);
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for part in inner.split(|b| *b == b'/') {
        match part {
            b"" => return Err(bad("it has an empty component")),
            b"." | b".." => return Err(bad("it has a component . or ..")),
            _ if part.len() > 255 => return Err(bad("it has a component of more than 255 bytes")),
            _ if part.contains(&0) => return Err(bad("it has a NUL in it")),
            _ => out.push(part),
        }
    }
    Ok(out)
}

impl Tree {
    pub fn new(time: Time) -> Self {
        let mut tree = Tree {
            nodes: Vec::new(),
            freed: Vec::new(),
            weight: 0,
            live: 0,
        };
        tree.add(plain_directory(time));
        tree
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.weight += 200 + node.attributes.as_ref().map_or(0, |a| a.weight() as u64);
        self.live += 1;
        self.nodes.push(Some(node));
        self.nodes.len() - 1
    }

    /// A node that has a name. Names are removed with their last node, so there always is one.
    pub fn node(&self, id: NodeId) -> &Node {
        // Invariant: an id that a directory holds is never `None`.
        self.nodes[id]
            .as_ref()
            .unwrap_or_else(|| unreachable!("a name without a node"))
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id]
            .as_mut()
            .unwrap_or_else(|| unreachable!("a name without a node"))
    }

    /// Paths of the directories that no entry described, parents before what is in them.
    pub fn implicit(&self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut todo = vec![(ROOT_NODE, Vec::new())];
        while let Some((id, path)) = todo.pop() {
            let node = self.node(id);
            let Content::Directory(children) = &node.content else {
                continue;
            };
            for (name, child) in children {
                if self.node(*child).kind == Kind::Directory {
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    todo.push((*child, [&path, slash, name].concat()));
                }
            }
            if !node.given {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    fn child(&self, id: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(id).content {
            Content::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    pub fn find(&self, path: &[&[u8]]) -> Option<NodeId> {
        path.iter()
            .try_fold(ROOT_NODE, |at, name| self.child(at, name))
    }

    /// Finds the directory above a path's last component; makes what is missing if `make` gives its time.
    fn parent(&mut self, path: &[u8], parts: &[&[u8]], time: Time) -> Result<NodeId, Error> {
        let mut at = ROOT_NODE;
        for (depth, name) in parts[..parts.len() - 1].iter().enumerate() {
            at = match self.child(at, name) {
                Some(id) if self.node(id).kind == Kind::Directory => id,
                Some(old) if self.node(old).kind == Kind::Whiteout => {
                    self.unlink(old);
                    let id = self.add(Node {
                        opaque: true,
                        ..plain_directory(time)
                    });
                    self.name(at, name, id);
                    id
                }
                Some(id) => {
                    return Err(Error::ParentNotDirectory {
                        path: path.to_vec(),
                        parent: parts[..=depth].join(&b'/'),
                        kind: self.node(id).kind,
                    });
                }
                None => {
                    let id = self.add(plain_directory(time));
                    self.name(at, name, id);
                    id
                }
            };
        }
        Ok(at)
    }

    fn name(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        self.weight += 64 + name.len() as u64;
        if let Content::Directory(children) = &mut self.node_mut(parent).content {
            children.insert(name.into(), id);
        }
    }

    /// Puts a node at a path: what was there goes, but a directory over a directory keeps its children.
    pub fn put(
        &mut self,
        path: &[u8],
        parts: &[&[u8]],
        node: Node,
        time: Time,
    ) -> Result<NodeId, Error> {
        let Some(last) = parts.last() else {
            if node.kind != Kind::Directory {
                return Err(Error::RootReplaced { kind: node.kind });
            }
            self.update(ROOT_NODE, node);
            return Ok(ROOT_NODE);
        };
        let parent = self.parent(path, parts, time)?;
        let mut node = node;
        if let Some(old) = self.child(parent, last) {
            match (node.kind, self.node(old).kind) {
                (Kind::Directory, Kind::Directory) => {
                    self.update(old, node);
                    return Ok(old);
                }
                // What a whiteout hides stays hidden: a whiteout counts for the layers below only,
                // wherever it stands among the entries of its own.
                (Kind::Directory, Kind::Whiteout) => node.opaque = true,
                (Kind::Whiteout, Kind::Directory) => {
                    self.node_mut(old).opaque = true;
                    return Ok(old);
                }
                (Kind::Whiteout, _) => return Ok(old),
                _ => {}
            }
            self.unlink(old);
        }
        let id = self.add(node);
        self.name(parent, last, id);
        Ok(id)
    }

    /// The directory at a path, where there is none yet, made as a missing parent is.
    pub fn implied(&mut self, path: &[u8], parts: &[&[u8]], time: Time) -> Result<NodeId, Error> {
        self.put(path, parts, plain_directory(time), time)
    }

    fn update(&mut self, id: NodeId, new: Node) {
        self.weight += new.attributes.as_ref().map_or(0, |a| a.weight() as u64);
        let old = self.node_mut(id);
        let content = std::mem::replace(&mut old.content, Content::Nothing);
        *old = Node {
            content,
            opaque: old.opaque,
            ..new
        };
    }

    /// Gives a further name to what is at `target`.
    pub fn link(&mut self, path: &[u8], target: &[u8], time: Time) -> Result<(), Error> {
        let (parts, to) = (components(path)?, components(target)?);
        let missing = || Error::LinkTargetMissing {
            path: path.to_vec(),
            target: target.to_vec(),
        };
        let id = self
            .find(&to)
            .filter(|id| self.node(*id).kind != Kind::Whiteout)
            .ok_or_else(missing)?;
        if self.node(id).kind == Kind::Directory {
            return Err(Error::LinkToDirectory {
                path: path.to_vec(),
                target: target.to_vec(),
            });
        }
        if self.node(id).links >= 65_000 {
            return Err(Error::TooManyLinks {
                path: path.to_vec(),
                target: target.to_vec(),
            });
        }
        let Some(last) = parts.last() else {
            return Err(Error::RootReplaced {
                kind: self.node(id).kind,
            });
        };
        let parent = self.parent(path, &parts, time)?;
        match self.child(parent, last) {
            Some(old) if old == id => return Ok(()),
            Some(old) => {
                // Counted first: what goes may be the directory that holds the target's other name.
                self.node_mut(id).links += 1;
                self.unlink(old);
            }
            None => self.node_mut(id).links += 1,
        }
        self.name(parent, last, id);
        Ok(())
    }

    /// Takes one name away; with the last one the node goes, and what is below it.
    fn unlink(&mut self, id: NodeId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links > 0 {
                continue;
            }
            let Some(node) = self.nodes[id].take() else {
                continue;
            };
            self.live -= 1;
            match node.content {
                Content::Directory(children) => todo.extend(children.into_values()),
                Content::File { extents, .. } => self
                    .freed
                    .extend(extents.iter().map(|e| (e.physical, u64::from(e.length)))),
                _ => {}
            }
        }
    }
}

/// A directory that no entry described.
fn plain_directory(time: Time) -> Node {
    Node {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        times: [time; 3],
        links: 1,
        attributes: None,
        opaque: false,
        given: false,
        content: Content::Directory(BTreeMap::new()),
    }
}
