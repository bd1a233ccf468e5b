//! Directories: blocks of entries, with a hash tree where there is more than one
//! (Documentation/filesystems/ext4/directory.rst).

use super::layout::entry as at;
use super::layout::superblock::HALF_MD4;
use super::{BLOCK_BYTES, Kind, checksum, hash};

/// Bytes of a block for entries; the rest is the checksum's.
const ROOM: usize = BLOCK_BYTES - at::TAIL_BYTES;
/// Entries of the tree's root, and of a node below it.
const ROOT_LIMIT: usize = (BLOCK_BYTES - at::ROOT_INDEX - at::INDEX_TAIL) / at::INDEX_BYTES;
const NODE_LIMIT: usize = (BLOCK_BYTES - at::NODE_INDEX - at::INDEX_TAIL) / at::INDEX_BYTES;
/// Bytes of the entry of `.`, and of that of `..`.
const DOT: usize = at::NAME + 4;

/// One entry of a directory.
pub(super) struct Entry<'a> {
    pub inode: u32,
    pub kind: u8,
    pub name: &'a [u8],
}

fn needed(name: &[u8]) -> usize {
    at::NAME + name.len().next_multiple_of(4)
}

/// How the entries of a directory are laid out, before it is known where.
pub(super) struct Plan<'a> {
    /// Leaves, each with its entries; for a hash tree also the lowest hash of each.
    leaves: Vec<(u32, Vec<Entry<'a>>)>,
    hashed: bool,
}

/// Most leaves of a directory that are written: with the tree above them they stay within one extent
/// and 128 MiB of memory (480,000 names of 255 bytes, 2,700,000 of 30). ext4 itself takes eight
/// times as many.
pub(super) const MOST_LEAVES: usize = 32_768 - 1 - 32_768usize.div_ceil(NODE_LIMIT);
const _: () = assert!(MOST_LEAVES <= ROOT_LIMIT * NODE_LIMIT);

impl<'a> Plan<'a> {
    /// Distributes entries, without `.` and `..`, over blocks.
    pub fn new(entries: Vec<Entry<'a>>, seed: &[u32; 4]) -> Self {
        let dots = 2 * DOT;
        let total: usize = entries.iter().map(|e| needed(e.name)).sum();
        if dots + total <= ROOM {
            return Plan {
                leaves: vec![(0, entries)],
                hashed: false,
            };
        }
        let mut hashed: Vec<(u32, Entry)> = entries
            .into_iter()
            .map(|e| (hash::half_md4(e.name, seed), e))
            .collect();
        hashed.sort_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
        let mut leaves: Vec<(u32, Vec<Entry>)> = Vec::new();
        let mut room = 0;
        let mut last = None;
        for (h, entry) in hashed {
            if needed(entry.name) > room {
                // The lowest bit says that the leaf goes on with a hash that the one before it ends with.
                let start = if leaves.is_empty() {
                    0
                } else {
                    h | u32::from(last == Some(h))
                };
                leaves.push((start, Vec::new()));
                room = ROOM;
            }
            room -= needed(entry.name);
            last = Some(h);
            if let Some(leaf) = leaves.last_mut() {
                leaf.1.push(entry);
            }
        }
        Plan {
            leaves,
            hashed: true,
        }
    }

    /// Whether there is a hash tree.
    pub fn indexed(&self) -> bool {
        self.hashed
    }

    /// Number of leaves.
    pub fn leaves(&self) -> usize {
        self.leaves.len()
    }

    fn nodes(&self) -> usize {
        if self.leaves.len() > ROOT_LIMIT {
            self.leaves.len().div_ceil(NODE_LIMIT)
        } else {
            0
        }
    }

    /// The blocks; `seed` is the inode's checksum seed.
    pub fn render(&self, own: u32, parent: u32, seed: u32) -> Vec<u8> {
        let dots = [
            Entry {
                inode: own,
                kind: Kind::Directory.dirent_type(),
                name: b".",
            },
            Entry {
                inode: parent,
                kind: Kind::Directory.dirent_type(),
                name: b"..",
            },
        ];
        if !self.hashed {
            return leaf(
                dots.iter().chain(self.leaves.iter().flat_map(|l| &l.1)),
                seed,
            );
        }
        let nodes = self.nodes();
        let first_leaf = 1 + nodes;
        let points: Vec<(u32, u32)> = self
            .leaves
            .iter()
            .enumerate()
            .map(|(i, l)| (l.0, (first_leaf + i) as u32))
            .collect();
        let mut out = Vec::with_capacity((1 + nodes + self.leaves.len()) * BLOCK_BYTES);

        let mut root = vec![0u8; BLOCK_BYTES];
        entry(&mut root[0..], &dots[0], DOT);
        entry(&mut root[DOT..], &dots[1], BLOCK_BYTES - DOT);
        root[at::ROOT_HASH] = HALF_MD4;
        root[at::ROOT_LENGTH] = at::ROOT_BYTES as u8;
        root[at::ROOT_LEVELS] = u8::from(nodes > 0);
        if nodes == 0 {
            index(&mut root, at::ROOT_INDEX, ROOT_LIMIT, &points, seed);
            out.extend(root);
        } else {
            let upper: Vec<(u32, u32)> = points
                .chunks(NODE_LIMIT)
                .enumerate()
                .map(|(i, c)| (c[0].0, 1 + i as u32))
                .collect();
            index(&mut root, at::ROOT_INDEX, ROOT_LIMIT, &upper, seed);
            out.extend(root);
            for chunk in points.chunks(NODE_LIMIT) {
                let mut node = vec![0u8; BLOCK_BYTES];
                node[at::LENGTH..at::LENGTH + 2]
                    .copy_from_slice(&(BLOCK_BYTES as u16).to_le_bytes());
                index(&mut node, at::NODE_INDEX, NODE_LIMIT, chunk, seed);
                out.extend(node);
            }
        }
        for (_, entries) in &self.leaves {
            out.extend(leaf(entries.iter(), seed));
        }
        out
    }
}

/// Index entries from `from`: limit and count take the place of the first one's hash.
fn index(block: &mut [u8], from: usize, limit: usize, points: &[(u32, u32)], seed: u32) {
    for (out, (hash, child)) in block[from..].chunks_exact_mut(at::INDEX_BYTES).zip(points) {
        out[..at::INDEX_CHILD].copy_from_slice(&hash.to_le_bytes());
        out[at::INDEX_CHILD..].copy_from_slice(&child.to_le_bytes());
    }
    block[from..from + 2].copy_from_slice(&(limit as u16).to_le_bytes());
    block[from + 2..from + 4].copy_from_slice(&(points.len() as u16).to_le_bytes());
    let sum = index_sum(block, from, limit, points.len(), seed);
    let tail = from + at::INDEX_BYTES * limit;
    block[tail + 4..tail + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of a block with room for `limit` index entries from `from`: over the `count` in use and
/// the reserved bytes of the tail, which the kernel does not clear (fs/ext4/namei.c, `ext4_dx_csum`).
pub(super) fn index_sum(block: &[u8], from: usize, limit: usize, count: usize, seed: u32) -> u32 {
    let tail = from + at::INDEX_BYTES * limit;
    let sum = checksum::update(seed, &block[..from + at::INDEX_BYTES * count]);
    checksum::update(checksum::update(sum, &block[tail..tail + 4]), &[0; 4])
}

/// One block of entries, the last of which takes the rest of it.
pub(super) fn leaf<'a>(entries: impl Iterator<Item = &'a Entry<'a>>, seed: u32) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK_BYTES];
    let (mut next, mut last) = (0, 0);
    for e in entries {
        last = next;
        entry(&mut block[next..], e, needed(e.name));
        next += needed(e.name);
    }
    let rest = (ROOM - last) as u16;
    block[last + at::LENGTH..last + at::LENGTH + 2].copy_from_slice(&rest.to_le_bytes());
    let sum = checksum::update(seed, &block[..ROOM]);
    let tail = &mut block[ROOM..];
    tail[at::LENGTH] = at::TAIL_BYTES as u8;
    tail[at::KIND] = at::TAIL_KIND;
    tail[at::TAIL_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    block
}

fn entry(out: &mut [u8], e: &Entry, length: usize) {
    out[at::INODE..at::INODE + 4].copy_from_slice(&e.inode.to_le_bytes());
    out[at::LENGTH..at::LENGTH + 2].copy_from_slice(&(length as u16).to_le_bytes());
    out[at::NAME_LENGTH] = e.name.len() as u8;
    out[at::KIND] = e.kind;
    out[at::NAME..at::NAME + e.name.len()].copy_from_slice(e.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_full_sorted_and_marked_where_a_hash_goes_on() {
        let names: Vec<String> = (0..5000).map(|i| format!("file-{i:06}")).collect();
        let entries = names
            .iter()
            .enumerate()
            .map(|(i, n)| Entry {
                inode: 12 + i as u32,
                kind: 1,
                name: n.as_bytes(),
            })
            .collect();
        let plan = Plan::new(entries, &[1, 2, 3, 4]);
        assert!(plan.indexed());
        assert_eq!(plan.leaves.iter().map(|l| l.1.len()).sum::<usize>(), 5000);
        assert!(plan.leaves.windows(2).all(|w| w[0].0 & !1 <= w[1].0));
        assert_eq!(plan.render(2, 2, 7).len(), (1 + plan.leaves()) * 4096);
    }
}
