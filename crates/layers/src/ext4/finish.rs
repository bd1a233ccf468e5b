//! The end of an image: everything that describes the data.

use super::bitmap::Bits;
use super::dirs::{self, Entry};
use super::extents::{self, Extent};
use super::inode::{Inode, device_block};
use super::layout::inode::{FLAG_EXTENTS, FLAG_INDEX};
use super::superblock::{COMPAT_LAYER, Group, INODE_ZEROED, Superblock, descriptors, hash_seed};
use super::tree::{Content, NodeId, ROOT_NODE};
use super::xattr::Attributes;
use super::{
    BLOCK, BLOCK_BYTES, BlockTarget, Builder, Error, FIRST_DATA, FIRST_INODE, GROUP_BLOCKS,
    GROUP_BYTES, INODE_BYTES, Kind, MAX_GROUPS, ROOT, Summary, checksum,
};

/// Bytes of inodes that are handed on at a time.
const TABLE_PIECE: usize = 1 << 20;

/// What finishing has found out about a node.
#[derive(Debug, Clone, Default)]
struct Place {
    inode: u32,
    subdirectories: u32,
    /// `i_block` and the number of all blocks, once they are known.
    block: Option<[u8; 60]>,
    blocks: u64,
    size: u64,
    flags: u32,
    acl: u64,
}

impl<T: BlockTarget> Builder<T> {
    /// Writes everything that is left, descriptors and superblock last.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::DirectoryTooLarge`], [`Error::Io`].
    pub fn finish(self) -> Result<Summary, Error> {
        self.finish_into().map(|(summary, _)| summary)
    }

    /// As [`Builder::finish`]; gives the target back, too.
    ///
    /// # Errors
    /// As [`Builder::finish`].
    pub fn finish_into(mut self) -> Result<(Summary, T), Error> {
        let seed = checksum::seed(&self.options.uuid);
        let mut places = self.number()?;
        self.opaque_attributes(&places)?;
        self.attribute_blocks(&mut places, seed)?;
        self.directories(&mut places, seed)?;
        self.symlinks(&mut places)?;
        self.extent_trees(&mut places, seed)?;
        let summary = self.tables(&places, seed)?;
        Ok((summary, self.target))
    }

    /// Takes blocks from the end.
    fn take(&mut self, count: u64) -> Result<u64, Error> {
        let limit = self.options.limits.bytes;
        if (self.next + count) * BLOCK > limit {
            return Err(Error::Limit {
                what: "bytes of disk",
                limit,
            });
        }
        let at = self.next;
        self.next += count;
        Ok(at)
    }

    /// Gives inode numbers in the order of the entries, and counts subdirectories.
    fn number(&self) -> Result<Vec<Place>, Error> {
        let mut places = vec![Place::default(); self.tree.nodes.len()];
        let mut next = FIRST_INODE;
        for (id, node) in self.tree.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            places[id].inode = if id == ROOT_NODE {
                ROOT
            } else {
                next += 1;
                next - 1
            };
            if let Content::Directory(children) = &node.content {
                places[id].subdirectories = children
                    .values()
                    .filter(|c| self.tree.node(**c).kind == Kind::Directory)
                    .count() as u32;
            }
        }
        Ok(places)
    }

    fn ids(&self) -> Vec<NodeId> {
        (0..self.tree.nodes.len())
            .filter(|id| self.tree.nodes[*id].is_some())
            .collect()
    }

    fn opaque_attributes(&mut self, places: &[Place]) -> Result<(), Error> {
        for id in self.ids() {
            let node = self.tree.node_mut(id);
            if node.opaque {
                let before = node.attributes.take().unwrap_or_default();
                let path = format!("inode {}", places[id].inode);
                node.attributes = Some(Box::new(Attributes::opaque(&before, path.as_bytes())?));
            }
        }
        Ok(())
    }

    fn attribute_blocks(&mut self, places: &mut [Place], seed: u32) -> Result<(), Error> {
        for id in self.ids() {
            if !self
                .tree
                .node(id)
                .attributes
                .as_ref()
                .is_some_and(|a| a.needs_block())
            {
                continue;
            }
            let at = self.take(1)?;
            let block = self
                .tree
                .node(id)
                .attributes
                .as_ref()
                .map(|a| a.block(at, seed))
                .unwrap_or_default();
            self.emit(at, &block)?;
            places[id].acl = at;
            places[id].blocks += 1;
        }
        Ok(())
    }

    /// Writes data that is known whole, and notes where.
    fn small(&mut self, place: &mut Place, data: &[u8], seed: u32) -> Result<(), Error> {
        let count = (data.len() / BLOCK_BYTES) as u64;
        let at = self.take(count)?;
        self.emit(at, data)?;
        let mut list: Vec<Extent> = Vec::new();
        extents::push(&mut list, 0, at, count);
        // One run of at most 128 MiB is one extent; `dirs::MOST_LEAVES` keeps a directory below.
        let (block, _) = extents::tree(&list, 0, seed);
        place.block = Some(block);
        place.blocks += count;
        place.flags |= FLAG_EXTENTS;
        Ok(())
    }

    fn directories(&mut self, places: &mut [Place], seed: u32) -> Result<(), Error> {
        let hash = hash_seed(&self.options.uuid);
        // Breadth first from the root, so that each one's parent is known.
        let mut todo = std::collections::VecDeque::from([(ROOT_NODE, ROOT)]);
        while let Some((id, parent)) = todo.pop_front() {
            let own = places[id].inode;
            let (data, indexed) = {
                let Content::Directory(children) = &self.tree.node(id).content else {
                    continue;
                };
                let mut entries = Vec::with_capacity(children.len());
                for (name, child) in children {
                    let node = self.tree.node(*child);
                    if node.kind == Kind::Directory {
                        todo.push_back((*child, own));
                    }
                    entries.push(Entry {
                        inode: places[*child].inode,
                        kind: node.kind.dirent_type(),
                        name,
                    });
                }
                let plan = dirs::Plan::new(entries, &hash);
                if plan.leaves() > dirs::MOST_LEAVES {
                    return Err(Error::DirectoryTooLarge {
                        path: format!("inode {own}").into_bytes(),
                        entries: children.len(),
                    });
                }
                (
                    plan.render(own, parent, checksum::inode_seed(seed, own)),
                    plan.indexed(),
                )
            };
            let mut place = std::mem::take(&mut places[id]);
            self.small(&mut place, &data, checksum::inode_seed(seed, own))?;
            place.size = data.len() as u64;
            if indexed {
                place.flags |= FLAG_INDEX;
            }
            places[id] = place;
        }
        Ok(())
    }

    fn symlinks(&mut self, places: &mut [Place]) -> Result<(), Error> {
        for id in self.ids() {
            let Content::Symlink(target) = &self.tree.node(id).content else {
                continue;
            };
            let mut place = std::mem::take(&mut places[id]);
            place.size = target.len() as u64;
            if target.len() < 60 {
                let mut block = [0u8; 60];
                block[..target.len()].copy_from_slice(target);
                place.block = Some(block);
            } else {
                let mut data = target.to_vec();
                data.resize(BLOCK_BYTES, 0);
                self.small(&mut place, &data, 0)?;
            }
            places[id] = place;
        }
        Ok(())
    }

    fn extent_trees(&mut self, places: &mut [Place], seed: u32) -> Result<(), Error> {
        for id in self.ids() {
            let Content::File { size, extents } = &self.tree.node(id).content else {
                continue;
            };
            let (size, data) = (
                *size,
                extents.iter().map(|e| u64::from(e.length)).sum::<u64>(),
            );
            let nodes = extents::nodes(extents.len());
            let at = if nodes > 0 { self.take(nodes)? } else { 0 };
            let own = checksum::inode_seed(seed, places[id].inode);
            let (block, written) = {
                let Content::File { extents, .. } = &self.tree.node(id).content else {
                    continue;
                };
                extents::tree(extents, at, own)
            };
            for (i, node) in written.iter().enumerate() {
                self.emit(at + i as u64, node)?;
            }
            let place = &mut places[id];
            place.block = Some(block);
            place.size = size;
            place.blocks += data + nodes;
            place.flags |= FLAG_EXTENTS;
        }
        Ok(())
    }

    fn inode(&self, id: NodeId, place: &Place, seed: u32) -> [u8; INODE_BYTES] {
        let node = self.tree.node(id);
        let block = match (&node.content, place.block) {
            (_, Some(block)) => block,
            (Content::Device(major, minor), None) => device_block(*major, *minor),
            _ => [0; 60],
        };
        let links = match node.content {
            Content::Directory(_) => 2 + place.subdirectories,
            _ => node.links,
        };
        Inode {
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: place.size,
            times: node.times,
            links,
            blocks: place.blocks,
            flags: place.flags,
            block,
            acl: place.acl,
            attributes: node.attributes.as_deref(),
        }
        .encode(checksum::inode_seed(seed, place.inode))
    }

    /// Inode tables, bitmaps, descriptors, superblock.
    fn tables(&mut self, places: &[Place], seed: u32) -> Result<Summary, Error> {
        // By inode number; the root and the reserved ones come first.
        let mut order: Vec<(u32, NodeId)> = self
            .ids()
            .into_iter()
            .map(|id| (places[id].inode, id))
            .collect();
        order.sort_unstable();
        let last_inode = order
            .last()
            .map_or(FIRST_INODE - 1, |o| o.0.max(FIRST_INODE - 1));

        // The more groups, the more bitmaps; go on until both agree.
        let first = self.next;
        let mut groups = 1u64;
        let (per_group, table_blocks, total) = loop {
            let per_group = u64::from(last_inode).div_ceil(groups).next_multiple_of(16);
            let table_blocks = per_group * INODE_BYTES as u64 / BLOCK;
            let total = first + groups * (2 + table_blocks);
            let needed = total
                .div_ceil(GROUP_BLOCKS)
                .max(per_group.div_ceil(GROUP_BLOCKS));
            if needed <= groups && per_group <= GROUP_BLOCKS {
                break (per_group, table_blocks, total);
            }
            groups = needed.max(groups + 1);
            if groups > MAX_GROUPS {
                return Err(Error::Limit {
                    what: "bytes of disk",
                    limit: MAX_GROUPS * GROUP_BLOCKS * BLOCK,
                });
            }
        };
        // Groups that have become unnecessary at the end would have no blocks of their own.
        let groups = groups.max(total.div_ceil(GROUP_BLOCKS));
        let total = total.max((groups - 1) * GROUP_BLOCKS + 64);
        let at = self.take(total - first)?;
        let bitmaps = at;
        let table = at + 2 * groups;

        let mut all = vec![Group::default(); groups as usize];
        let mut piece: Vec<u8> = Vec::with_capacity(TABLE_PIECE);
        let mut piece_at = table;
        let mut used = order.iter().peekable();
        for number in 1..=(per_group * groups) as u32 {
            match used.peek() {
                Some((inode, id)) if *inode == number => {
                    piece.extend(self.inode(*id, &places[*id], seed));
                    if self.tree.node(*id).kind == Kind::Directory {
                        all[((u64::from(number) - 1) / per_group) as usize].directories += 1;
                    }
                    used.next();
                }
                _ => piece.resize(piece.len() + INODE_BYTES, 0),
            }
            if piece.len() == TABLE_PIECE {
                self.emit(piece_at, &piece)?;
                piece_at += (piece.len() / BLOCK_BYTES) as u64;
                piece.clear();
            }
        }
        if !piece.is_empty() {
            self.emit(piece_at, &piece)?;
        }

        let mut blocks: Vec<Bits> = (0..groups).map(|_| Bits::new()).collect();
        let mut mark = |from: u64, to: u64, on: bool| {
            let mut at = from;
            while at < to {
                let group = at / GROUP_BLOCKS;
                let end = to.min((group + 1) * GROUP_BLOCKS);
                let bits = &mut blocks[group as usize];
                let (low, high) = (at - group * GROUP_BLOCKS, end - group * GROUP_BLOCKS);
                if on {
                    bits.set(low, high)
                } else {
                    bits.clear(low, high)
                }
                at = end;
            }
        };
        let descriptor_blocks = (groups * GROUP_BYTES).div_ceil(BLOCK);
        mark(0, 1 + descriptor_blocks, true);
        mark(FIRST_DATA, at + groups * (2 + table_blocks), true);
        for (from, count) in &self.tree.freed {
            mark(*from, from + count, false);
        }
        mark(total, groups * GROUP_BLOCKS, true); // beyond the end

        let mut free_blocks = 0;
        let mut bytes = Vec::with_capacity(2 * groups as usize * BLOCK_BYTES);
        let mut inode_bitmaps = Vec::with_capacity(groups as usize * BLOCK_BYTES);
        for (g, group) in all.iter_mut().enumerate() {
            let g = g as u64;
            group.block_bitmap = bitmaps + g;
            group.inode_bitmap = bitmaps + groups + g;
            group.inode_table = table + g * table_blocks;
            group.flags = INODE_ZEROED;
            let bits = &blocks[g as usize];
            group.free_blocks = bits.free(GROUP_BLOCKS) as u32;
            free_blocks += u64::from(group.free_blocks);
            group.block_bitmap_sum = checksum::update(seed, &bits.0);
            bytes.extend_from_slice(&bits.0);
            // Numbers are given without gaps, so a group's inodes in use are its first ones.
            let in_use = u64::from(last_inode)
                .saturating_sub(g * per_group)
                .min(per_group);
            let mut inodes = Bits::new();
            inodes.set(0, in_use);
            inodes.set(per_group, GROUP_BLOCKS);
            group.free_inodes = (per_group - in_use) as u32;
            group.unused_inodes = group.free_inodes;
            group.inode_bitmap_sum = checksum::update(seed, &inodes.0[..(per_group / 8) as usize]);
            inode_bitmaps.extend_from_slice(&inodes.0);
        }
        bytes.extend(inode_bitmaps);
        self.emit(bitmaps, &bytes)?;
        self.emit(1, &descriptors(&all, seed))?;
        let superblock = Superblock {
            uuid: self.options.uuid,
            label: &self.options.label,
            time: self.options.time,
            blocks: total,
            free_blocks,
            inodes: (per_group * groups) as u32,
            free_inodes: (per_group * groups) as u32 - last_inode,
            inodes_per_group: per_group as u32,
            compat: COMPAT_LAYER,
            journal: None,
        }
        .encode();
        self.emit(0, &superblock)?;
        Ok(Summary {
            bytes: total * BLOCK,
            inodes: u64::from(last_inode),
            data: self.data,
        })
    }
}
