//! Extended attributes, from the inode and from a block.

use super::bytes::Fields;
use super::error::{ReadError, damaged, unsupported};
use super::inode::Inode;
use super::{Attribute, Filesystem};
use crate::ReadAt;
use crate::ext4::Kind;
use crate::ext4::layout::xattr as at;
use crate::ext4::xattr::{acl_of, block_sum};

/// The value of this one is the rest of an inode's inline data.
const INLINE: &[u8] = b"data";

/// One attribute as it is stored.
struct Stored<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

/// The attributes whose entries begin at `from`; their values' places count from `base`.
fn list<'a>(
    inode: &Inode,
    area: &'a [u8],
    from: usize,
    base: usize,
) -> Result<Vec<Stored<'a>>, ReadError> {
    let bad = |reason| damaged(format!("the attributes of inode {}", inode.number), reason);
    let mut found = Vec::new();
    let mut from = from;
    loop {
        let rest = area.get(from..).unwrap_or_default();
        if rest.len() < 4 {
            return Err(bad("do not end"));
        }
        // Four zero bytes end the list.
        if rest.le32(0) == 0 {
            return Ok(found);
        }
        if rest.len() < at::ENTRY_BYTES {
            return Err(bad("do not end"));
        }
        let name_length = usize::from(rest[at::NAME_LENGTH]);
        let name = rest
            .get(at::ENTRY_BYTES..at::ENTRY_BYTES + name_length)
            .ok_or_else(|| bad("have a name that does not end"))?;
        let length = rest.le32(at::VALUE_BYTES) as usize;
        let value = if rest.le32(at::VALUE_INODE) != 0 {
            return Err(unsupported("ea_inode"));
        } else if length == 0 {
            &[]
        } else {
            let start = base + usize::from(rest.le16(at::VALUE_AT));
            start
                .checked_add(length)
                .and_then(|end| area.get(start..end))
                .ok_or_else(|| bad("have a value that does not end"))?
        };
        if name.contains(&0) {
            return Err(bad("have a name with a NUL in it"));
        }
        found.push(Stored {
            index: rest[at::INDEX],
            name,
            value,
        });
        from += at::ENTRY_BYTES + name_length.next_multiple_of(4);
    }
}

/// Those behind the inode's fields.
fn in_body(inode: &Inode) -> Result<Vec<Stored<'_>>, ReadError> {
    let body = &inode.body[..];
    if body.len() < 8 || body.le32(0) != at::MAGIC_NUMBER {
        return Ok(Vec::new());
    }
    list(inode, body, 4, 4)
}

/// Full names and values of an inode's attributes. Those that Linux gives nobody are left out:
/// unknown prefixes, inline data, and `user.…` of what is neither file nor directory.
pub(super) fn attributes<S: ReadAt>(
    fs: &Filesystem<S>,
    inode: &Inode,
) -> Result<Vec<Attribute>, ReadError> {
    let bad = |reason| damaged(format!("the attributes of inode {}", inode.number), reason);
    let mut block = None;
    if inode.acl != 0 {
        let raw = fs.blocks.block(inode.acl)?;
        if raw.le32(0) != at::MAGIC_NUMBER || raw.le32(at::BLOCKS) != 1 {
            return Err(bad("are not where the inode says"));
        }
        if let Some(seed) = fs.sb.seed
            && block_sum(&raw, inode.acl, seed) != raw.le32(at::CHECKSUM)
        {
            return Err(bad("have a block that does not have its checksum"));
        }
        block = Some(raw);
    }
    let mut stored = in_body(inode)?;
    if let Some(raw) = &block {
        stored.extend(list(inode, raw, at::HEADER_BYTES, 0)?);
    }
    let holds_users = matches!(inode.kind, Kind::File | Kind::Directory);
    let mut found = Vec::with_capacity(stored.len());
    for one in stored {
        let acl = match one.index {
            at::ACL_ACCESS => Some(at::ACL_ACCESS_NAME),
            at::ACL_DEFAULT => Some(at::ACL_DEFAULT_NAME),
            _ => None,
        };
        if let Some(name) = acl {
            let value = acl_of(one.value).ok_or_else(|| bad("have an ACL that is none"))?;
            found.push((name.to_vec(), value));
        } else if let Some((_, prefix)) = at::PREFIXES.iter().find(|(i, _)| *i == one.index)
            && !(one.index == at::SYSTEM && one.name == INLINE)
            && (one.index != at::USER || holds_users)
        {
            found.push(([prefix, one.name].concat(), one.value.to_vec()));
        }
    }
    Ok(found)
}

/// What of an inode's inline data is beyond the bytes for its blocks.
pub(super) fn inline_data(inode: &Inode) -> Result<Vec<u8>, ReadError> {
    Ok(in_body(inode)?
        .into_iter()
        .find(|one| one.index == at::SYSTEM && one.name == INLINE)
        .map(|one| one.value.to_vec())
        .unwrap_or_default())
}
