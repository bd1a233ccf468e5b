//! One name of a directory: by its hash tree where there is one of the kind that is made here,
//! else by reading all entries.

use super::Filesystem;
use super::bytes::Fields;
use super::dirblock::{Block, Entry, bad, entry};
use super::dirs::blocks_of;
use super::error::ReadError;
use super::file::File;
use super::inode::Inode;
use crate::ReadAt;
use crate::ext4::hash;
use crate::ext4::layout::entry as at;
use crate::ext4::layout::superblock::HALF_MD4;

/// Most levels of nodes below the root that the kernel makes, with the feature large_dir.
const DEEPEST: u8 = 2;
/// The upper bits of a child's number are reserved.
const CHILD: u32 = 0x0fff_ffff;

/// The entry of that name.
pub(super) fn lookup<S: ReadAt>(
    fs: &Filesystem<S>,
    directory: &Inode,
    name: &[u8],
) -> Result<Option<Entry>, ReadError> {
    if let Some(found) = by_hash(fs, directory, name)? {
        return Ok(found);
    }
    for entry in fs.entries(directory)? {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// What the tree says; `None` where it does not say it all.
fn by_hash<S: ReadAt>(
    fs: &Filesystem<S>,
    directory: &Inode,
    name: &[u8],
) -> Result<Option<Option<Entry>>, ReadError> {
    let Some(seed) = &fs.sb.hash_seed else {
        return Ok(None);
    };
    if !directory.has_index() || directory.has_inline_data() || name.is_empty() || name.len() > 255
    {
        return Ok(None);
    }
    let blocks = blocks_of(fs, directory)?;
    let mut file = File::new(fs, directory)?;
    let mut load = |number: u32| {
        let physical = file.run(number)?.physical;
        match physical.filter(|_| u64::from(number) < blocks) {
            Some(physical) => fs.blocks.block(physical),
            None => Err(bad(directory, "has an index that leads out of it")),
        }
    };
    let wanted = hash::half_md4(name, seed);
    let mut raw = load(0)?;
    let levels = raw[at::ROOT_LEVELS];
    if raw[at::ROOT_HASH] != HALF_MD4
        || usize::from(raw[at::ROOT_LENGTH]) != at::ROOT_BYTES
        || levels > DEEPEST
    {
        return Ok(None);
    }
    let mut number = 0;
    for _ in 0..=levels {
        let Block::Node(node) = Block::parse(directory, number, &raw)? else {
            return Ok(None);
        };
        let point = |index: usize| node.from + index * at::INDEX_BYTES;
        // The first one has no hash: it counts from zero. Those after it ascend; where a hostile disk
        // lets them not, another one is found, but one of this node.
        let (mut low, mut high) = (1, node.count);
        while low < high {
            let middle = low.midpoint(high);
            if raw.le32(point(middle)) <= wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // Names of one hash may go on in the next leaf, whose lowest bit says so: that is rare enough
        // for reading all. The last one of a node may go on in another node.
        if low == node.count && number != 0
            || low < node.count && raw.le32(point(low)) == wanted | 1
        {
            return Ok(None);
        }
        number = raw.le32(point(low - 1) + at::INDEX_CHILD) & CHILD;
        raw = load(number)?;
    }
    let Block::Leaf(end) = Block::parse(directory, number, &raw)? else {
        return Ok(None);
    };
    let mut from = 0;
    while from < end {
        let (found, length) = entry(&fs.sb, directory, &raw[from..end])?;
        if let Some(found) = found.filter(|found| found.name == name) {
            return Ok(Some(Some(found)));
        }
        from += length;
    }
    Ok(Some(None))
}
