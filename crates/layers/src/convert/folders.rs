//! What the folders of a stack of layers look like.
//!
//! A layer that has `usr/bin/x` need not have entries for `usr` and `usr/bin`. overlayfs takes a folder's owner, mode
//! and times from the uppermost layer that has it, so such folders must look in their layer as they do below.
//!
//! An image has up to 254 layers and a layer up to a million folders, and each layer's list is kept until the image is
//! placed: so a list has what its layer changes, and shares the rest with that of the layer below.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::sync::Arc;

use crate::ext4::{Metadata, Time};

/// Bytes that a decoded list may take; a layer's own limit on metadata is of this order.
const DECODED_MAX: u64 = 1 << 30;

/// About what one folder takes in memory beside its path and attributes, in bytes: a map is filled to two thirds.
const FOLDER_WEIGHT: u64 = 192;
/// The same for a path that is gone, and for an attribute.
const PART_WEIGHT: u64 = 64;

/// The folders that are seen in a stack of layers, with their metadata, by path from the root.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// Those of the layers below, where any of them is still seen.
    lower: Option<Arc<Folders>>,
    /// What is gone of those, with all that is below it.
    removed: BTreeSet<Vec<u8>>,
    /// What the layer has itself, and has not just as it is below.
    own: BTreeMap<Vec<u8>, Metadata>,
    /// Bytes of memory of the list's own part, and with the lists of all layers below, seen or not.
    own_weight: u64,
    weight: u64,
}

/// A list in one piece.
pub(super) type Flat<'a> = BTreeMap<&'a [u8], &'a Metadata>;

impl PartialEq for Folders {
    /// Whether the same folders are seen.
    fn eq(&self, other: &Self) -> bool {
        self.flat() == other.flat()
    }
}

impl Eq for Folders {}

impl Folders {
    /// The list of a layer that is above `lower`, of which `hidden` is not seen any more. `own` are its own folders.
    pub(super) fn above(
        lower: &Arc<Folders>,
        mut below: Flat<'_>,
        hidden: impl IntoIterator<Item = Vec<u8>>,
        mut own: BTreeMap<Vec<u8>, Metadata>,
    ) -> Self {
        let mut removed: BTreeSet<Vec<u8>> = hidden.into_iter().collect();
        removed.retain(|path| remove(&mut below, path));
        own.retain(|path, meta| below.get(path.as_slice()).is_none_or(|is| *is != meta));
        if below.is_empty() {
            removed.clear();
        }
        let lower_weight = lower.weight;
        let lower = (!below.is_empty()).then(|| lower.clone());
        Self::with(lower, lower_weight, removed, own)
    }

    fn with(
        lower: Option<Arc<Folders>>,
        lower_weight: u64,
        removed: BTreeSet<Vec<u8>>,
        own: BTreeMap<Vec<u8>, Metadata>,
    ) -> Self {
        let gone = removed.iter().map(|path| PART_WEIGHT + path.len() as u64);
        let folders = own.iter().map(|(path, meta)| {
            let attributes = meta.xattrs.iter();
            let attributes = attributes.map(|(n, v)| PART_WEIGHT + (n.len() + v.len()) as u64);
            FOLDER_WEIGHT + path.len() as u64 + attributes.sum::<u64>()
        });
        let own_weight = gone.sum::<u64>() + folders.sum::<u64>();
        Self {
            lower,
            removed,
            own,
            own_weight,
            weight: lower_weight.saturating_add(own_weight),
        }
    }

    /// About the bytes of memory that this list takes, and those of all layers that it was made above of.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// About the bytes of memory that some lists take. What they share counts once.
    pub fn memory<'a>(lists: impl IntoIterator<Item = &'a Arc<Folders>>) -> u64 {
        let mut seen = HashSet::new();
        let levels = lists.into_iter().flat_map(|list| {
            // Below one that was counted, all were.
            list.levels()
                .take_while(|level| seen.insert(std::ptr::from_ref(*level)))
                .map(|level| level.own_weight)
                .collect::<Vec<_>>()
        });
        levels.sum()
    }

    /// This list's own part, then those that it shares, downwards.
    fn levels(&self) -> impl Iterator<Item = &Folders> {
        std::iter::successors(Some(self), |level| level.lower.as_deref())
    }

    /// All that is seen.
    pub(super) fn flat(&self) -> Flat<'_> {
        let levels: Vec<&Folders> = self.levels().collect();
        let mut flat = Flat::new();
        for level in levels.into_iter().rev() {
            for path in &level.removed {
                remove(&mut flat, path);
            }
            flat.extend(level.own.iter().map(|(path, meta)| (path.as_slice(), meta)));
        }
        flat
    }

    /// A folder's metadata.
    pub fn get(&self, path: &[u8]) -> Option<&Metadata> {
        for level in self.levels() {
            if let Some(meta) = level.own.get(path) {
                return Some(meta);
            }
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let mut parents = slashes.map(|(at, _)| &path[..at]);
            if level.removed.contains(path) || parents.any(|p| level.removed.contains(p)) {
                return None;
            }
        }
        None
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flat().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flat().is_empty()
    }

    /// The list as bytes, compressed, to be kept beside the layer.
    ///
    /// # Errors
    /// Of the compressor.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
        let mut out = Vec::new();
        let text = |out: &mut Vec<u8>, bytes: &[u8]| {
            // Paths, names and values are far below 4 GiB: the tar's headers are bounded.
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        for (path, meta) in self.flat() {
            out.clear();
            text(&mut out, path);
            out.extend_from_slice(&meta.mode.to_le_bytes());
            for id in [meta.uid, meta.gid] {
                out.extend_from_slice(&id.to_le_bytes());
            }
            for time in [meta.mtime, meta.atime, meta.ctime] {
                out.extend_from_slice(&time.secs.to_le_bytes());
                out.extend_from_slice(&time.nanos.to_le_bytes());
            }
            out.extend_from_slice(&(meta.xattrs.len() as u32).to_le_bytes());
            for (name, value) in &meta.xattrs {
                text(&mut out, name);
                text(&mut out, value);
            }
            packed.write_all(&out)?;
        }
        packed.finish()
    }

    /// Reads what [`Folders::encode`] wrote.
    ///
    /// # Errors
    /// `InvalidData` for anything else.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut all = Vec::new();
        zstd::stream::read::Decoder::new(bytes)?
            .take(DECODED_MAX)
            .read_to_end(&mut all)?;
        let mut at = Cursor(&all);
        let mut folders = BTreeMap::new();
        while !at.0.is_empty() {
            let path = at.text()?;
            let mode = u16::from_le_bytes(at.take()?);
            let (uid, gid) = (
                u32::from_le_bytes(at.take()?),
                u32::from_le_bytes(at.take()?),
            );
            let mut time = || {
                Ok::<_, io::Error>(Time {
                    secs: i64::from_le_bytes(at.take()?),
                    nanos: u32::from_le_bytes(at.take()?),
                })
            };
            let (mtime, atime, ctime) = (time()?, time()?, time()?);
            let count = u32::from_le_bytes(at.take()?);
            let mut xattrs = Vec::new();
            for _ in 0..count {
                xattrs.push((at.text()?, at.text()?));
            }
            folders.insert(
                path,
                Metadata {
                    mode,
                    uid,
                    gid,
                    mtime,
                    atime,
                    ctime,
                    xattrs,
                },
            );
        }
        Ok(Self::with(None, 0, BTreeSet::new(), folders))
    }
}

/// Takes away a path and everything below it; whether there was any of that.
fn remove(folders: &mut Flat<'_>, path: &[u8]) -> bool {
    let itself = folders.remove(path).is_some();
    let below = [path, b"/"].concat();
    let gone: Vec<&[u8]> = folders
        .range::<[u8], _>((Bound::Included(below.as_slice()), Bound::Unbounded))
        .map(|(path, _)| *path)
        .take_while(|path| path.starts_with(&below))
        .collect();
    for path in &gone {
        folders.remove(path);
    }
    itself || !gone.is_empty()
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn short() -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the list of folders is cut short or damaged",
        )
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(mode: u16) -> Metadata {
        Metadata {
            xattrs: vec![(b"user.a".to_vec(), b"v".to_vec())],
            uid: 3_000_000_000,
            ..Metadata::new(mode, Time { secs: -5, nanos: 7 })
        }
    }

    fn paths<'a>(
        paths: impl IntoIterator<Item = &'a str>,
        mode: u16,
    ) -> BTreeMap<Vec<u8>, Metadata> {
        paths
            .into_iter()
            .map(|path| (path.as_bytes().to_vec(), meta(mode)))
            .collect()
    }

    fn above(
        lower: &Arc<Folders>,
        hidden: &[&str],
        own: BTreeMap<Vec<u8>, Metadata>,
    ) -> Arc<Folders> {
        let hidden = hidden.iter().map(|path| path.as_bytes().to_vec());
        Arc::new(Folders::above(lower, lower.flat(), hidden, own))
    }

    fn sample() -> Folders {
        let own = paths(["usr", "usr/bin", "usr-local", "tmp"], 0o1777);
        Folders::with(None, 0, BTreeSet::new(), own)
    }

    #[test]
    fn a_list_comes_back_and_a_damaged_one_does_not() {
        let bytes = sample().encode().unwrap();
        assert_eq!(Folders::decode(&bytes).unwrap(), sample());
        for cut in 0..bytes.len() {
            // A cut frame is an error or a shorter list, never a panic.
            let _ = Folders::decode(&bytes[..cut]);
        }
        assert!(Folders::decode(&zstd::bulk::compress(b"\xff\xff\xff\xff", 1).unwrap()).is_err());
    }

    #[test]
    fn a_folder_goes_with_what_is_below_it_only() {
        let folders = above(&Arc::new(sample()), &["usr"], BTreeMap::new());
        assert_eq!(
            folders.flat().into_keys().collect::<Vec<_>>(),
            [&b"tmp"[..], b"usr-local"]
        );
        assert!(folders.get(b"usr").is_none() && folders.get(b"usr/bin").is_none());
        assert!(folders.get(b"usr-local").is_some());
    }

    #[test]
    fn many_layers_share_the_folders_of_the_lowest() {
        let names: Vec<String> = (0..10_000)
            .map(|number| format!("folder-{number}"))
            .collect();
        let lowest = above(
            &Arc::default(),
            &[],
            paths(names.iter().map(String::as_str), 0o755),
        );
        let mut stack = vec![lowest.clone()];
        for number in 0..249 {
            let below = stack.last().unwrap();
            // One that is there as it is, one that is changed, one that is new; and some that are gone, or never were.
            let mut own = paths([names[0].as_str()], 0o755);
            own.extend(paths([names[number + 300].as_str(), "new"], number as u16));
            stack.push(above(below, &[&names[number + 1], "never"], own));
        }
        assert_eq!(stack[249].len(), 10_000 - 249 + 1);
        let all = Folders::memory(&stack);
        assert!(
            all < lowest.weight() + (64 << 10) + lowest.weight() / 10,
            "{all} bytes; the lowest layer has {}",
            lowest.weight()
        );
        assert_eq!(stack[249].weight(), all);
        assert_eq!(Folders::memory([&stack[249], &stack[3]]), all);
        // What nothing is seen of is not held, but goes on to be counted.
        let alone = Folders::above(&stack[249], Flat::new(), [], paths(["x"], 1));
        assert!(alone.lower.is_none() && alone.weight() > all);
    }

    /// Some path of few, so that they meet.
    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]", 1..4).prop_map(|names| names.join("/"))
    }

    proptest! {
        #[test]
        fn shared_lists_show_what_whole_ones_do(
            layers in prop::collection::vec(
                (prop::collection::vec(path(), 0..3), prop::collection::vec((path(), 0u16..3), 0..4)),
                1..8,
            )
        ) {
            let mut whole: BTreeMap<Vec<u8>, Metadata> = BTreeMap::new();
            let mut shared = Arc::new(Folders::default());
            for (hidden, own) in layers {
                for path in &hidden {
                    let below = format!("{path}/");
                    whole.retain(|p, _| p != path.as_bytes() && !p.starts_with(below.as_bytes()));
                }
                let own: BTreeMap<Vec<u8>, Metadata> = own
                    .into_iter()
                    .map(|(path, mode)| (path.into_bytes(), meta(mode)))
                    .collect();
                whole.extend(own.clone());
                let hidden: Vec<&str> = hidden.iter().map(String::as_str).collect();
                shared = above(&shared, &hidden, own);
                let seen: BTreeMap<Vec<u8>, Metadata> = shared
                    .flat()
                    .into_iter()
                    .map(|(path, meta)| (path.to_vec(), meta.clone()))
                    .collect();
                prop_assert_eq!(&seen, &whole);
                for path in ["a", "b", "a/b", "b/a/a"] {
                    prop_assert_eq!(shared.get(path.as_bytes()), whole.get(path.as_bytes()));
                }
                prop_assert_eq!(&Folders::decode(&shared.encode().unwrap()).unwrap(), &*shared);
            }
        }
    }
}
