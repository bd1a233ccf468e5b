//! The files of an image while it is being built.

use super::extents::Extent;
use super::xattr::Attributes;
use super::{Error, Kind, Limits, Time};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Index of a node.
pub(super) type NodeId = usize;
pub(super) const ROOT_NODE: NodeId = 0;

/// Bytes of memory, about: of a node, of a name less its own bytes, and of the map that a directory has from its first
/// name on (a leaf of the standard library's B-tree: 11 keys and values).
const NODE_WEIGHT: u64 = 200;
const NAME_WEIGHT: u64 = 64;
const MAP_WEIGHT: u64 = 288;

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
    limits: Limits,
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
    pub fn new(time: Time, limits: Limits) -> Self {
        let mut tree = Tree {
            nodes: Vec::new(),
            freed: Vec::new(),
            weight: 0,
            live: 0,
            limits,
        };
        tree.add(plain_directory(time));
        tree
    }

    /// Whether the limits allow one more node.
    pub fn room(&self) -> Result<(), Error> {
        if self.live >= self.limits.inodes {
            return Err(Error::Limit {
                what: "inodes",
                limit: self.limits.inodes,
            });
        }
        if self.weight >= self.limits.memory {
            return Err(Error::Limit {
                what: "bytes of memory for metadata",
                limit: self.limits.memory,
            });
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.weight += NODE_WEIGHT + node.attributes.as_ref().map_or(0, |a| a.weight() as u64);
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

    /// The directories that no entry described, of those in `among`, parents before what is in them.
    ///
    /// All their paths together may take a thousand times what the tree takes: an entry's path of 4,095 bytes makes
    /// 2,047 of them. So there is one path at a time, nothing is kept but references to `among`, and no directory is
    /// entered that `among` has nothing below.
    pub fn implicit<'a, K: Borrow<[u8]> + Ord, V>(
        &self,
        among: &'a BTreeMap<K, V>,
    ) -> Vec<(&'a [u8], &'a V)> {
        let mut found = Vec::new();
        let mut path = Vec::new();
        let mut open = Vec::new();
        let root = self.node(ROOT_NODE);
        if let Content::Directory(children) = &root.content {
            if !root.given {
                found.extend(among.get_key_value(path.as_slice()));
            }
            open.push((0, children.iter()));
        }
        while let Some((length, children)) = open.last_mut() {
            path.truncate(*length);
            let Some((name, id)) = children.next() else {
                open.pop();
                continue;
            };
            let node = self.node(*id);
            let Content::Directory(below) = &node.content else {
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if !node.given {
                found.extend(among.get_key_value(path.as_slice()));
            }
            let length = path.len();
            path.push(b'/');
            if has_prefix(among, &path) {
                open.push((length, below.iter()));
            }
        }
        found.sort_unstable_by_key(|(path, _)| *path);
        found
            .into_iter()
            .map(|(path, value)| (path.borrow(), value))
            .collect()
    }

    pub(super) fn child(&self, id: NodeId, name: &[u8]) -> Option<NodeId> {
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
                    // One path may have 2,047 of them, so it is not enough to look once for each entry.
                    self.room()?;
                    let id = self.add(plain_directory(time));
                    self.name(at, name, id);
                    id
                }
            };
        }
        Ok(at)
    }

    fn name(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        self.weight += NAME_WEIGHT + name.len() as u64;
        if let Content::Directory(children) = &mut self.node_mut(parent).content {
            let first = children.is_empty();
            children.insert(name.into(), id);
            if first {
                self.weight += MAP_WEIGHT;
            }
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
        self.room()?;
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

/// Whether a key begins with `prefix`.
fn has_prefix<K: Borrow<[u8]> + Ord, V>(map: &BTreeMap<K, V>, prefix: &[u8]) -> bool {
    map.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
        .next()
        .is_some_and(|(key, _)| Borrow::<[u8]>::borrow(key).starts_with(prefix))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(limits: Limits) -> Tree {
        Tree::new(Time::default(), limits)
    }

    fn put(tree: &mut Tree, path: &str, kind: Kind) -> Result<NodeId, Error> {
        let content = match kind {
            Kind::Directory => Content::Directory(BTreeMap::new()),
            _ => Content::Nothing,
        };
        let node = Node {
            kind,
            given: true,
            content,
            ..plain_directory(Time::default())
        };
        let path = path.as_bytes();
        tree.put(path, &components(path)?, node, Time::default())
    }

    /// A path whose last component has `above` directories above it.
    fn deep(above: usize) -> String {
        format!("{}f", "a/".repeat(above))
    }

    #[test]
    fn of_the_directories_without_an_entry_only_those_asked_for_are_found() {
        let mut tree = tree(Limits::default());
        for path in ["a/b/c/f", "a/b-c/f", "ab/c/f", "d/e/f", "g/h/f"] {
            put(&mut tree, path, Kind::Fifo).unwrap();
        }
        for path in ["d", "d/e/given"] {
            put(&mut tree, path, Kind::Directory).unwrap();
        }
        let asked = [
            "",
            "a",
            "a/b",
            "a/b-c",
            "a/b/c",
            "a/b/c/f",
            "a/b/c/none",
            "b",
            "d",
            "d/e",
            "d/e/given",
            // Not "g": no layer below needs to have an entry for it.
            "g/h",
            "g/h/f",
        ];
        let among: BTreeMap<Vec<u8>, usize> = asked
            .iter()
            .enumerate()
            .map(|(number, path)| (path.as_bytes().to_vec(), number))
            .collect();
        let found = tree.implicit(&among);
        let expected = ["", "a", "a/b", "a/b-c", "a/b/c", "d/e", "g/h"];
        assert_eq!(
            found.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
            expected.map(str::as_bytes)
        );
        for (path, number) in found {
            assert_eq!(asked[*number].as_bytes(), path);
        }
        put(&mut tree, "", Kind::Directory).unwrap();
        assert_eq!(tree.implicit(&among)[0].0, b"a");
        assert!(tree.implicit::<Vec<u8>, ()>(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn the_directories_of_one_path_do_not_get_past_the_limit_on_inodes() {
        let mut tree = tree(Limits {
            inodes: 1000,
            ..Limits::default()
        });
        let refused = put(&mut tree, &deep(2000), Kind::Fifo);
        assert!(matches!(
            refused,
            Err(Error::Limit {
                what: "inodes",
                limit: 1000
            })
        ));
        assert_eq!(tree.live, 1000);
    }

    #[test]
    fn what_is_in_the_last_directory_of_a_path_does_not_get_past_the_limit_on_inodes() {
        let limits = Limits {
            inodes: 1000,
            ..Limits::default()
        };
        // The root and 999 more; then one too many.
        assert!(put(&mut tree(limits), &deep(998), Kind::Fifo).is_ok());
        assert!(put(&mut tree(limits), &deep(999), Kind::Fifo).is_err());
    }

    #[test]
    fn the_directories_of_one_path_do_not_get_past_the_limit_on_memory() {
        let limits = Limits {
            memory: 1 << 20,
            ..Limits::default()
        };
        let one = NODE_WEIGHT + NAME_WEIGHT + MAP_WEIGHT + 1;
        assert!(2047 * one > limits.memory);
        let mut tree = tree(limits);
        let refused = put(&mut tree, &deep(2047), Kind::Fifo);
        assert!(matches!(
            refused,
            Err(Error::Limit {
                limit: 1_048_576,
                ..
            })
        ));
        assert!(tree.weight < limits.memory + one);
    }

    #[test]
    fn a_directory_weighs_what_the_nodes_and_maps_take() {
        // A leaf of the map: 11 keys and values, the parent, two counters.
        let leaf = 11 * (size_of::<Box<[u8]>>() + size_of::<NodeId>()) + 8 + 2 + 2;
        assert!(MAP_WEIGHT as usize >= leaf);
        assert!(NODE_WEIGHT as usize >= size_of::<Option<Node>>());
        let mut tree = tree(Limits::default());
        let before = tree.weight;
        put(&mut tree, "a/f", Kind::Fifo).unwrap();
        put(&mut tree, "a/g", Kind::Fifo).unwrap();
        let names = 3 * (NODE_WEIGHT + NAME_WEIGHT + 1);
        assert_eq!(tree.weight - before, names + 2 * MAP_WEIGHT);
    }
}
