//! Directories: blocks of entries, with a hash tree where there is more than one
//! (Documentation/filesystems/ext4/directory.rst).

use super::{BLOCK_BYTES, checksum, hash};

/// Bytes of a block for entries; the rest is the checksum's.
const ROOM: usize = BLOCK_BYTES - 12;
/// Entries of the tree's root, and of a node below it (8 bytes each, and 8 for the checksum).
const ROOT_LIMIT: usize = (BLOCK_BYTES - 32 - 8) / 8;
const NODE_LIMIT: usize = (BLOCK_BYTES - 8 - 8) / 8;

/// One entry of a directory.
pub(super) struct Entry<'a> {
    pub inode: u32,
    pub kind: u8,
    pub name: &'a [u8],
}

fn needed(name: &[u8]) -> usize {
    8 + name.len().next_multiple_of(4)
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
        let dots = 24;
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
                kind: 2,
                name: b".",
            },
            Entry {
                inode: parent,
                kind: 2,
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
        entry(&mut root[0..], &dots[0], 12);
        entry(&mut root[12..], &dots[1], BLOCK_BYTES - 12);
        root[28] = 1; // half MD4
        root[29] = 8; // length of this information
        root[30] = u8::from(nodes > 0); // levels below
        if nodes == 0 {
            index(&mut root, 32, ROOT_LIMIT, &points, seed);
            out.extend(root);
        } else {
            let upper: Vec<(u32, u32)> = points
                .chunks(NODE_LIMIT)
                .enumerate()
                .map(|(i, c)| (c[0].0, 1 + i as u32))
                .collect();
            index(&mut root, 32, ROOT_LIMIT, &upper, seed);
            out.extend(root);
            for chunk in points.chunks(NODE_LIMIT) {
                let mut node = vec![0u8; BLOCK_BYTES];
                node[4..6].copy_from_slice(&(BLOCK_BYTES as u16).to_le_bytes());
                index(&mut node, 8, NODE_LIMIT, chunk, seed);
                out.extend(node);
            }
        }
        for (_, entries) in &self.leaves {
            out.extend(leaf(entries.iter(), seed));
        }
        out
    }
}

/// Index entries from `at`: limit and count take the place of the first one's hash.
fn index(block: &mut [u8], at: usize, limit: usize, points: &[(u32, u32)], seed: u32) {
    for (i, (hash, child)) in points.iter().enumerate() {
        block[at + 8 * i..at + 8 * i + 4].copy_from_slice(&hash.to_le_bytes());
        block[at + 8 * i + 4..at + 8 * i + 8].copy_from_slice(&child.to_le_bytes());
    }
    block[at..at + 2].copy_from_slice(&(limit as u16).to_le_bytes());
    block[at + 2..at + 4].copy_from_slice(&(points.len() as u16).to_le_bytes());
    let sum = index_sum(block, at, limit, points.len(), seed);
    let tail = at + 8 * limit;
    block[tail + 4..tail + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of a block with room for `limit` index entries from `at`: over the `count` in use and
/// the reserved bytes of the tail, which the kernel does not clear (fs/ext4/namei.c, `ext4_dx_csum`).
pub(super) fn index_sum(block: &[u8], at: usize, limit: usize, count: usize, seed: u32) -> u32 {
    let tail = at + 8 * limit;
    let sum = checksum::update(seed, &block[..at + 8 * count]);
    checksum::update(checksum::update(sum, &block[tail..tail + 4]), &[0; 4])
}

/// One block of entries, the last of which takes the rest of it.
fn leaf<'a>(entries: impl Iterator<Item = &'a Entry<'a>>, seed: u32) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK_BYTES];
    let (mut at, mut last) = (0, 0);
    for e in entries {
        last = at;
        entry(&mut block[at..], e, needed(e.name));
        at += needed(e.name);
    }
    let rest = (ROOM - last) as u16;
    block[last + 4..last + 6].copy_from_slice(&rest.to_le_bytes());
    let tail = &mut block[ROOM..];
    tail[4] = 12;
    tail[7] = 0xde;
    let sum = checksum::update(seed, &block[..ROOM]);
    block[ROOM + 8..].copy_from_slice(&sum.to_le_bytes());
    block
}

fn entry(out: &mut [u8], e: &Entry, length: usize) {
    out[0..4].copy_from_slice(&e.inode.to_le_bytes());
    out[4..6].copy_from_slice(&(length as u16).to_le_bytes());
    out[6] = e.name.len() as u8;
    out[7] = e.kind;
    out[8..8 + e.name.len()].copy_from_slice(e.name);
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
