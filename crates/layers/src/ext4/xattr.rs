//! Extended attributes, in the inode and in a block (Documentation/filesystems/ext4/attributes.rst).

use super::{BLOCK_BYTES, Error, checksum};

const MAGIC: u32 = 0xea02_0000;
/// Room in the inode behind its fixed fields (256 - 128 - 32 bytes), less the magic number.
const IN_INODE: usize = 96 - 4;
const ENTRY: usize = 16;
const BLOCK_HEADER: usize = 32;
/// Largest value that fits in a block beside its entry.
const VALUE_MAX: usize = BLOCK_BYTES - BLOCK_HEADER - ENTRY - 4 - 255;

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
        ENTRY + padded(self.name.len()) + padded(self.value.len())
    }

    fn new(path: &[u8], full: &[u8], value: &[u8]) -> Result<Self, Error> {
        let bad = |reason| Error::BadXattr {
            path: path.to_vec(),
            name: full.to_vec(),
            reason,
        };
        let (index, name, value) = match full {
            b"system.posix_acl_access" => (
                2,
                &b""[..],
                acl(value).ok_or_else(|| bad("its value is no POSIX ACL of version 2"))?,
            ),
            b"system.posix_acl_default" => (
                3,
                &b""[..],
                acl(value).ok_or_else(|| bad("its value is no POSIX ACL of version 2"))?,
            ),
            _ => {
                let prefixes: [(u8, &[u8]); 4] = [
                    (1, b"user."),
                    (4, b"trusted."),
                    (6, b"security."),
                    (7, b"system."),
                ];
                let found = prefixes
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
            index: 4,
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
        if out.block.iter().map(Stored::size).sum::<usize>() + BLOCK_HEADER + 4 > BLOCK_BYTES {
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
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        // Value offsets count from the first entry here; hashes are left zero, as the kernel does.
        entries(&mut out[4..], 0, 0, &self.inode, false);
    }

    /// The block, for its place and the file system's checksum seed.
    pub fn block(&self, number: u64, seed: u32) -> Vec<u8> {
        let mut out = vec![0u8; BLOCK_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&1u32.to_le_bytes());
        out[8..12].copy_from_slice(&1u32.to_le_bytes());
        entries(&mut out, BLOCK_HEADER, 0, &self.block, true);
        let mut hash = 0u32;
        for one in &self.block {
            hash = (hash << 16) ^ (hash >> 16) ^ one.hash();
        }
        if self.block.iter().any(|s| s.hash() == 0) {
            hash = 0;
        }
        out[12..16].copy_from_slice(&hash.to_le_bytes());
        let sum = checksum::update(checksum::update(seed, &number.to_le_bytes()), &out);
        out[16..20].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// Entries grow from `start`, values from the end of `out`; offsets count from `base`.
fn entries(out: &mut [u8], start: usize, base: usize, list: &[Stored], hashed: bool) {
    let (mut at, mut end) = (start, out.len());
    for one in list {
        end -= padded(one.value.len());
        out[end..end + one.value.len()].copy_from_slice(&one.value);
        out[at] = one.name.len() as u8;
        out[at + 1] = one.index;
        let offset = if one.value.is_empty() { 0 } else { end - base };
        out[at + 2..at + 4].copy_from_slice(&(offset as u16).to_le_bytes());
        out[at + 8..at + 12].copy_from_slice(&(one.value.len() as u32).to_le_bytes());
        if hashed {
            out[at + 12..at + 16].copy_from_slice(&one.hash().to_le_bytes());
        }
        out[at + ENTRY..at + ENTRY + one.name.len()].copy_from_slice(&one.name);
        at += ENTRY + padded(one.name.len());
    }
}
