//! VMDKs for upload: header, descriptor, grain tables, then the spooled grains as they are. A compact one has the grain
//! tables in use only; a writable one has all of them, twice, as `qemu-img create` lays them out.

use std::io::{self, Read};
use std::sync::Arc;

use super::header::{FLAG_REDUNDANT, Header, SECTOR, TABLE_ENTRIES, TABLE_SECTORS};
use super::{Identity, VmdkError, descriptor};
use crate::io::{ReadAt, past_end};
use crate::spool::{GRAIN, GrainImage};

/// Something to be placed on the disk.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where on the disk its first byte comes, in bytes, a multiple of [`GRAIN`].
    pub start: u64,
    /// What is placed. Grains that it does not keep read as the parent's, or as zeros.
    pub image: GrainImage,
}

/// A whole VMDK, ready to be sent. Cheap to clone, and can be read as often as needed (a retried upload).
#[derive(Debug, Clone)]
pub struct VmdkBody {
    /// Header, descriptor, directory and tables, padded to a whole grain.
    head: Arc<Vec<u8>>,
    /// The pieces' stored grains, each with its offset in the file.
    pieces: Vec<(u64, GrainImage)>,
    len: u64,
}

/// Lays out a compact VMDK with these pieces, which must be inside the disk and must not share a grain.
pub fn body(identity: &Identity, pieces: &[Piece]) -> Result<VmdkBody, VmdkError> {
    lay_out(identity, pieces, false)
}

/// As [`body`], but one that a hypervisor can write to: its tables take 2 MiB for each 16 GiB of capacity.
pub fn writable_body(identity: &Identity, pieces: &[Piece]) -> Result<VmdkBody, VmdkError> {
    lay_out(identity, pieces, true)
}

fn lay_out(identity: &Identity, pieces: &[Piece], writable: bool) -> Result<VmdkBody, VmdkError> {
    identity.check()?;
    let unwritable = |reason: String| VmdkError::Unwritable {
        name: identity.name.clone(),
        reason,
    };
    let tables = identity.grains().div_ceil(TABLE_ENTRIES);
    // For each table its entries, as the number of the grain in the file plus one.
    let mut entries: Vec<Option<Box<[u32]>>> = vec![None; tables as usize];
    let mut offset = 0u64;
    for piece in pieces {
        let end = piece.start.checked_add(piece.image.size()?);
        if !piece.start.is_multiple_of(GRAIN) || end.is_none_or(|end| end > identity.capacity) {
            return Err(unwritable(format!(
                "a piece at {} is not aligned to {GRAIN} or not inside the disk",
                piece.start
            )));
        }
        for (grain, slot) in piece.image.grains() {
            let place = piece.start / GRAIN + grain;
            let table = entries[(place / TABLE_ENTRIES) as usize]
                .get_or_insert_with(|| vec![0; TABLE_ENTRIES as usize].into_boxed_slice());
            let entry = &mut table[(place % TABLE_ENTRIES) as usize];
            if *entry != 0 {
                return Err(unwritable(format!(
                    "two pieces share the grain at {}",
                    place * GRAIN
                )));
            }
            *entry = u32::try_from(offset + slot + 1)
                .map_err(|_| unwritable("it holds more than 2 TiB".into()))?;
        }
        offset += piece.image.stored() / GRAIN;
    }

    if writable {
        for table in &mut entries {
            table.get_or_insert_with(|| vec![0; TABLE_ENTRIES as usize].into_boxed_slice());
        }
    }
    let start = 1 + (descriptor::SIZE as u64) / SECTOR;
    let used = entries.iter().flatten().count() as u64;
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let copy = directory_sectors + used * TABLE_SECTORS;
    let (redundant, directory) = if writable {
        (start, start + copy)
    } else {
        (0, start)
    };
    let data = (directory + copy).next_multiple_of(GRAIN / SECTOR);
    let len = data * SECTOR + offset * GRAIN;
    if len / SECTOR > u64::from(u32::MAX) {
        return Err(unwritable("its file would be larger than 2 TiB".into()));
    }
    let header = Header {
        flags: if writable { FLAG_REDUNDANT } else { 0 },
        capacity: identity.capacity / SECTOR,
        grain: GRAIN / SECTOR,
        descriptor: 1,
        descriptor_size: (descriptor::SIZE as u64) / SECTOR,
        redundant,
        directory,
        data,
    };
    let mut head = Vec::with_capacity((data * SECTOR) as usize);
    head.extend(header.render());
    head.extend(identity.descriptor()?);
    let places = [redundant, directory];
    for place in places.into_iter().filter(|place| *place != 0) {
        let first_table = place + directory_sectors;
        let mut next = first_table;
        for table in &entries {
            let place = if table.is_some() { next } else { 0 };
            next += if table.is_some() { TABLE_SECTORS } else { 0 };
            // Sectors fit: the file's length was checked above.
            head.extend((place as u32).to_le_bytes());
        }
        head.resize((first_table * SECTOR) as usize, 0);
        for entry in entries.iter().flatten().flat_map(|table| table.iter()) {
            let sector = if *entry == 0 {
                0
            } else {
                data + u64::from(*entry - 1) * (GRAIN / SECTOR)
            };
            head.extend((sector as u32).to_le_bytes());
        }
    }
    head.resize((data * SECTOR) as usize, 0);

    let mut at = data * SECTOR;
    let mut placed = Vec::with_capacity(pieces.len());
    for piece in pieces {
        placed.push((at, piece.image.clone()));
        at += piece.image.stored();
    }
    Ok(VmdkBody {
        head: Arc::new(head),
        pieces: placed,
        len,
    })
}

impl VmdkBody {
    /// The exact number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a VMDK has a header. Here because a `len` asks for it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A reader over the file from its start; gives exactly [`VmdkBody::len`] bytes. It blocks on the spool's disk.
    pub fn reader(&self) -> BodyReader {
        BodyReader {
            body: self.clone(),
            at: 0,
        }
    }
}

impl ReadAt for VmdkBody {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(past_end(offset, buf.len(), self.len));
        }
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let head = self.head.len() as u64;
            let piece = self
                .pieces
                .partition_point(|(start, _)| *start <= offset)
                .checked_sub(1)
                .map(|at| &self.pieces[at]);
            let end = match piece {
                Some((start, image)) if offset >= head => start + image.stored(),
                _ => head,
            };
            let count = (buf.len() as u64).min(end - offset) as usize;
            let (part, rest) = buf.split_at_mut(count);
            match piece {
                Some((start, image)) if offset >= head => {
                    image.read_stored(offset - start, part)?
                }
                _ => self.head.read_exact_at(offset, part)?,
            }
            offset += count as u64;
            buf = rest;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// Reads a [`VmdkBody`] from its start.
#[derive(Debug)]
pub struct BodyReader {
    body: VmdkBody,
    at: u64,
}

impl Read for BodyReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = (buf.len() as u64).min(self.body.len - self.at) as usize;
        self.body.read_exact_at(self.at, &mut buf[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::ImageWriter;
    use crate::vmdk::{Chain, SparseFile, write_child};

    fn identity() -> Identity {
        Identity {
            name: "volume.vmdk".into(),
            capacity: 1 << 30,
            cid: 7,
            parent: None,
        }
    }

    #[test]
    fn a_writable_body_without_data_is_what_a_new_disk_is() {
        let body = writable_body(&identity(), &[]).unwrap();
        let mut streamed = Vec::new();
        body.reader().read_to_end(&mut streamed).unwrap();
        let file = tempfile::tempfile().unwrap();
        write_child(&file, &identity()).unwrap();
        let mut made = vec![0; file.metadata().unwrap().len() as usize];
        crate::ReadAt::read_exact_at(&file, 0, &mut made).unwrap();
        assert!(streamed == made);
    }

    #[test]
    fn a_writable_body_gives_its_pieces_back() {
        let mut image = ImageWriter::in_memory();
        image.write_at(5 * GRAIN + 3, b"here").unwrap();
        let image = image.finish(1 << 30).unwrap();
        let body = writable_body(&identity(), &[Piece { start: 0, image }]).unwrap();
        let chain = Chain::open_with(SparseFile::open(body).unwrap(), |_, _| {
            unreachable!("it has no parent")
        })
        .unwrap();
        let mut bytes = [0; 4];
        chain.read_exact_at(5 * GRAIN + 3, &mut bytes).unwrap();
        assert_eq!(&bytes, b"here");
        chain.read_exact_at(900 << 20, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4]);
    }
}
