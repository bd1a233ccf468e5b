//! Extended attributes, in the inode and in a block (Documentation/filesystems/ext4/attributes.rst).

use super::inode::EXTRA;
use super::layout::inode;
use super::layout::xattr as at;
use super::{BLOCK_BYTES, Error, INODE_BYTES, checksum};

/// Room in the inode behind its fixed fields, less the magic number.
const IN_INODE: usize = INODE_BYTES - inode::LEAST_BYTES - EXTRA - 4;
/// Largest value that fits in a block beside its entry.
const VALUE_MAX: usize = BLOCK_BYTES - at::HEADER_BYTES - at::ENTRY_BYTES - 4 - 255;

/// Most attributes that are looked at, repeated ones included.
const MOST_GIVEN: usize = 512;

/// One attribute as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Where the attributes of an entry go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    inode: Vec<Stored>,
    block: Vec<Stored>,
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(4)
}

impl Stored {
    fn size(&self) -> usize {
        at::ENTRY_BYTES + padded(self.name.len()) + padded(self.value.len())
    }

    fn new(path: &[u8], full: &[u8], value: &[u8]) -> Result<Self, Error> {
        let bad = |reason| Error::BadXattr {
            path: path.to_vec(),
            name: full.to_vec(),
            reason,
        };
        let (index, name, value) = match full {
            at::ACL_ACCESS_NAME => (
                at::ACL_ACCESS,
                &b""[..],
                acl(value).ok_or_else(|| bad("its value is no POSIX ACL of version 2"))?,
            ),
            at::ACL_DEFAULT_NAME => (
                at::ACL_DEFAULT,
                &b""[..],
                acl(value).ok_or_else(|| bad("its value is no POSIX ACL of version 2"))?,
            ),
            _ => {
                let found = at::PREFIXES
                    .into_iter()
                    .find_map(|(i, p)| Some((i, full.strip_prefix(p)?)));
                let (index, name) = found.ok_or_else(|| {
                    bad("its name begins with none of user., trusted., security. and system.")
                })?;
                if name.is_empty() {
                    return Err(bad("nothing follows the prefix of its name"));
                }
                (index, name, value.to_vec())
            }
        };
        if full.len() > 255 || name.contains(&0) {
            return Err(bad("its name is longer than 255 bytes or has a NUL in it"));
        }
        if value.len() > VALUE_MAX {
            return Err(Error::XattrTooLong {
                path: path.to_vec(),
                name: full.to_vec(),
                length: value.len(),
                most: VALUE_MAX,
            });
        }
        Ok(Stored {
            index,
            name: name.to_vec(),
            value,
        })
    }

    /// fs/ext4/xattr.c, `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        let mut hash = 0u32;
        for byte in &self.name {
            hash = (hash << 5) ^ (hash >> 27) ^ u32::from(*byte);
        }
        for word in self.value.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            hash = (hash << 16) ^ (hash >> 16) ^ u32::from_le_bytes(bytes);
        }
        hash
    }
}

/// `getxattr`'s form of an ACL (version 2, eight bytes an entry) as ext4 keeps it (version 1, ids only where they mean something).
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    if !entries.len().is_multiple_of(8) || entries.is_empty() {
        return None;
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        out.extend_from_slice(&entry[..4]);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x02 | 0x08 => out.extend_from_slice(&entry[4..]),
            0x01 | 0x04 | 0x10 | 0x20 => {}
            _ => return None,
        }
    }
    Some(out)
}

/// The other way round: what [`acl`] made, as `getxattr` gives it.
pub(super) fn acl_of(stored: &[u8]) -> Option<Vec<u8>> {
    let mut rest = stored.strip_prefix(&1u32.to_le_bytes())?;
    let mut out = 2u32.to_le_bytes().to_vec();
    while let Some((entry, after)) = rest.split_first_chunk::<4>() {
        out.extend_from_slice(entry);
        rest = after;
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x02 | 0x08 => {
                let (id, after) = rest.split_first_chunk::<4>()?;
                out.extend_from_slice(id);
                rest = after;
            }
            0x01 | 0x04 | 0x10 | 0x20 => out.extend_from_slice(&[0xff; 4]),
            _ => return None,
        }
    }
    rest.is_empty().then_some(out)
}

impl Attributes {
    /// Takes an entry's attributes (full names): as many as fit go into the inode, smallest first; the rest into a block.
    pub fn new(path: &[u8], given: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, Error> {
        if let Some((name, _)) = given
            .iter()
            .find(|(n, _)| n.starts_with(b"trusted.overlay."))
        {
            return Err(Error::BadXattr {
                path: path.to_vec(),
                name: name.clone(),
                reason: "it would steer overlayfs",
            });
        }
        // Bounds the search for repeated names below; a block holds 203 of the shortest.
        if given.len() > MOST_GIVEN {
            return Err(Error::TooManyXattrs {
                path: path.to_vec(),
            });
        }
        let mut all: Vec<Stored> = Vec::new();
        for (name, value) in given {
            let new = Stored::new(path, name, value)?;
            all.retain(|s| (s.index, &s.name) != (new.index, &new.name));
            all.push(new);
        }
        Self::arrange(path, all)
    }

    /// The same with overlayfs's mark of an opaque directory.
    pub fn opaque(&self, path: &[u8]) -> Result<Self, Error> {
        let mut all: Vec<Stored> = self.inode.iter().chain(&self.block).cloned().collect();
        all.push(Stored {
            index: at::TRUSTED,
            name: b"overlay.opaque".to_vec(),
            value: b"y".to_vec(),
        });
        Self::arrange(path, all)
    }

    fn arrange(path: &[u8], mut all: Vec<Stored>) -> Result<Self, Error> {
        all.sort_by(|a, b| (a.size(), a.index, &a.name).cmp(&(b.size(), b.index, &b.name)));
        let mut out = Attributes::default();
        let mut room = IN_INODE - 4; // four zero bytes end the list
        for one in all {
            if one.size() <= room && out.block.is_empty() {
                room -= one.size();
                out.inode.push(one);
            } else {
                out.block.push(one);
            }
        }
        let order = |a: &Stored, b: &Stored| {
            (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name))
        };
        out.inode.sort_by(order);
        out.block.sort_by(order);
        if out.block.iter().map(Stored::size).sum::<usize>() + at::HEADER_BYTES + 4 > BLOCK_BYTES {
            return Err(Error::TooManyXattrs {
                path: path.to_vec(),
            });
        }
        Ok(out)
    }

    /// Whether a block is needed.
    pub fn needs_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Bytes of memory, about.
    pub fn weight(&self) -> usize {
        self.inode
            .iter()
            .chain(&self.block)
            .map(|s| 72 + s.name.len() + s.value.len())
            .sum()
    }

    /// Writes the part in the inode, into the bytes behind its fixed fields.
    pub fn write_inode(&self, out: &mut [u8]) {
        if self.inode.is_empty() {
            return;
        }
        out[..4].copy_from_slice(&at::MAGIC_NUMBER.to_le_bytes());
        // Value offsets count from the first entry here; hashes are left zero, as the kernel does.
        entries(&mut out[4..], 0, 0, &self.inode, false);
    }

    /// The block, for its place and the file system's checksum seed.
    pub fn block(&self, number: u64, seed: u32) -> Vec<u8> {
        let mut out = vec![0u8; BLOCK_BYTES];
        out[0..4].copy_from_slice(&at::MAGIC_NUMBER.to_le_bytes());
        for field in [at::REFERENCES, at::BLOCKS] {
            out[field..field + 4].copy_from_slice(&1u32.to_le_bytes());
        }
        entries(&mut out, at::HEADER_BYTES, 0, &self.block, true);
        let mut hash = 0u32;
        for one in &self.block {
            hash = (hash << 16) ^ (hash >> 16) ^ one.hash();
        }
        if self.block.iter().any(|s| s.hash() == 0) {
            hash = 0;
        }
        out[at::HASH..at::HASH + 4].copy_from_slice(&hash.to_le_bytes());
        let sum = block_sum(&out, number, seed);
        out[at::CHECKSUM..at::CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// The checksum of an attribute block at its place, with zeros in place of it itself.
pub(super) fn block_sum(block: &[u8], number: u64, seed: u32) -> u32 {
    let sum = checksum::update(seed, &number.to_le_bytes());
    let sum = checksum::update(sum, &block[..at::CHECKSUM]);
    let sum = checksum::update(sum, &[0; 4]);
    checksum::update(sum, &block[at::CHECKSUM + 4..])
}

/// Entries grow from `start`, values from the end of `out`; offsets count from `base`.
fn entries(out: &mut [u8], start: usize, base: usize, list: &[Stored], hashed: bool) {
    let (mut next, mut end) = (start, out.len());
    for one in list {
        end -= padded(one.value.len());
        out[end..end + one.value.len()].copy_from_slice(&one.value);
        let place = if one.value.is_empty() { 0 } else { end - base };
        let entry = &mut out[next..];
        let mut put = |field: usize, bytes: &[u8]| {
            entry[field..field + bytes.len()].copy_from_slice(bytes);
        };
        put(at::NAME_LENGTH, &[one.name.len() as u8]);
        put(at::INDEX, &[one.index]);
        put(at::VALUE_AT, &(place as u16).to_le_bytes());
        put(at::VALUE_BYTES, &(one.value.len() as u32).to_le_bytes());
        if hashed {
            put(at::ENTRY_HASH, &one.hash().to_le_bytes());
        }
        put(at::ENTRY_BYTES, &one.name);
        next += at::ENTRY_BYTES + padded(one.name.len());
    }
}
