//! What the journal holds and the disk does not yet (Documentation/filesystems/ext4/journal.rst).
//!
//! The rules are those of the kernel's `fs/jbd2/recovery.c`, in one pass instead of three: nothing
//! counts before the commit block of its transaction was found, and what a transaction revokes is
//! forgotten of it and of all before it. So the list of revoked blocks is never in memory.

use std::collections::BTreeMap;

use super::Filesystem;
use super::blocks::{read_source, source_size};
use super::bytes::{Fields, wide};
use super::error::{ReadError, damaged, unsupported};
use super::file::File;
use super::inode::Inode;
use crate::ReadAt;
use crate::ext4::checksum;
use crate::ext4::layout::journal as at;

/// Most blocks of a journal that is read: 1 GiB, the largest that `mkfs.ext4` makes of itself.
const MOST_BLOCKS: u32 = 1 << 18;

/// Features of a journal, by the names of the constants in the kernel, and whether they are read here.
const FEATURES: [(u32, &str, bool); 7] = [
    (at::INCOMPAT_REVOKE, "", true),
    (at::INCOMPAT_64BIT, "", true),
    (at::INCOMPAT_ASYNC_COMMIT, "journal_async_commit", false),
    (at::INCOMPAT_CSUM_V2, "", true),
    (at::INCOMPAT_CSUM_V3, "", true),
    (at::INCOMPAT_FAST_COMMIT, "fast_commit", false),
    (
        0xffff_ffc0,
        "a journal that is newer than this reader",
        false,
    ),
];

/// Where the newest form of a block is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    /// The block of the file system that holds it.
    physical: u64,
    /// It began with the journal's own magic number, in whose place are zeros.
    escaped: bool,
    sum: Option<Sum>,
}

/// What the copy must add up to.
#[derive(Debug, Clone, Copy)]
struct Sum {
    /// Over the journal's UUID and the transaction's number.
    seed: u32,
    expected: u32,
    /// Bits of it that were kept.
    bits: u32,
}

impl Logged {
    /// The block as it belongs on the disk.
    pub fn read<S: ReadAt>(&self, source: &S, size: usize) -> Result<Vec<u8>, ReadError> {
        let mut block = vec![0; size];
        read_source(source, self.physical * size as u64, &mut block)?;
        if let Some(sum) = self.sum
            && checksum::update(sum.seed, &block) & sum.bits != sum.expected
        {
            return Err(damaged(
                format!("block {} of the journal", self.physical),
                "does not have its checksum",
            ));
        }
        if self.escaped {
            block[..4].copy_from_slice(&at::MAGIC_NUMBER.to_be_bytes());
        }
        Ok(block)
    }
}

/// Reads the journal of a file system that was cut off: the blocks that a mount would put in their places.
///
/// # Errors
/// [`ReadError::Damaged`] also where a mount would refuse the journal.
pub(super) fn replay<S: ReadAt>(fs: &Filesystem<S>) -> Result<BTreeMap<u64, Logged>, ReadError> {
    match Log::open(fs)? {
        Some(log) => log.replay(),
        None => Ok(BTreeMap::new()),
    }
}

fn bad(reason: &'static str) -> ReadError {
    damaged("the journal", reason)
}

/// Versions of checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sums {
    None,
    V2,
    V3,
}

/// A journal that is read from its oldest transaction on.
struct Log<'a, S> {
    file: File<'a, S>,
    size: usize,
    /// The log is a ring of the journal's blocks from `first` to before `last`.
    first: u32,
    last: u32,
    /// The next block to read, and how many were read.
    next: u32,
    read: u32,
    sequence: u32,
    sums: Sums,
    seed: u32,
    wide: bool,
    /// Blocks of the disk: the journal may be what tells that the file system was made larger.
    blocks: u64,
}

/// A transaction whose commit block was not found yet.
#[derive(Default)]
struct Pending {
    copies: Vec<(u64, Logged)>,
    /// Blocks of the journal with revoked blocks.
    revokes: Vec<u32>,
    /// A block did not have its checksum.
    damaged: bool,
}

impl<'a, S: ReadAt> Log<'a, S> {
    /// `None` where there is nothing to replay.
    fn open(fs: &'a Filesystem<S>) -> Result<Option<Self>, ReadError> {
        if fs.sb.journal_inode == 0 {
            return Err(bad("is missing or on another disk"));
        }
        let inode = Inode::read(&fs.sb, &fs.blocks, fs.sb.journal_inode)?;
        if inode.kind != crate::ext4::Kind::File {
            return Err(bad("is no file"));
        }
        let file = File::new(fs, &inode)?;
        let size = fs.blocks.size;
        let blocks = file.size() / size as u64;
        let mut log = Self {
            file,
            size,
            first: 0,
            last: 1,
            next: 0,
            read: 0,
            sequence: 0,
            sums: Sums::None,
            seed: 0,
            wide: false,
            blocks: source_size(fs.blocks.source())? / size as u64,
        };
        let (_, sb) = log.block(0)?;
        if sb.be32(at::MAGIC) != at::MAGIC_NUMBER
            || sb.be32(at::BLOCK_SIZE) as usize != size
            || !matches!(sb.be32(at::TYPE), at::SUPERBLOCK_V1 | at::SUPERBLOCK)
        {
            return Err(bad("does not begin with its superblock"));
        }
        // The first version knew no features: what is there is not for them.
        if sb.be32(at::TYPE) == at::SUPERBLOCK {
            log.features(&sb)?;
        }
        let start = sb.be32(at::START);
        if start == 0 {
            return Ok(None);
        }
        log.first = sb.be32(at::FIRST);
        log.last = sb.be32(at::BLOCKS);
        if log.last > MOST_BLOCKS {
            return Err(unsupported(format!(
                "a journal of more than {MOST_BLOCKS} blocks"
            )));
        }
        if log.first == 0 || u64::from(log.last) > blocks || !(log.first..log.last).contains(&start)
        {
            return Err(bad("says that it is where it cannot be"));
        }
        log.next = start;
        log.sequence = sb.be32(at::NEXT_SEQUENCE);
        Ok(Some(log))
    }

    fn features(&mut self, sb: &[u8]) -> Result<(), ReadError> {
        let incompat = sb.be32(at::INCOMPAT);
        let unknown = |(bits, _, known): &&(u32, &str, bool)| !known && incompat & bits != 0;
        if let Some((_, name, _)) = FEATURES.iter().find(unknown) {
            return Err(unsupported(*name));
        }
        if sb.be32(at::COMPAT) & at::COMPAT_CHECKSUM != 0 {
            return Err(unsupported("journal_checksum without metadata_csum"));
        }
        self.wide = incompat & at::INCOMPAT_64BIT != 0;
        self.sums = match incompat & (at::INCOMPAT_CSUM_V2 | at::INCOMPAT_CSUM_V3) {
            0 => Sums::None,
            at::INCOMPAT_CSUM_V2 => Sums::V2,
            at::INCOMPAT_CSUM_V3 => Sums::V3,
            _ => return Err(bad("has two kinds of checksums")),
        };
        if self.sums != Sums::None {
            if sb[at::CHECKSUM_TYPE] != at::CRC32C {
                return Err(unsupported("checksums of a journal other than crc32c"));
            }
            if sum_without(!0, &sb[..at::SUPERBLOCK_BYTES], at::CHECKSUM) != sb.be32(at::CHECKSUM) {
                return Err(bad("has a superblock that does not have its checksum"));
            }
            self.seed = checksum::update(!0, &sb[at::UUID..at::UUID + 16]);
        }
        Ok(())
    }

    /// A block of the journal, with its place on the disk.
    fn block(&mut self, number: u32) -> Result<(u64, Vec<u8>), ReadError> {
        let physical = self.physical(number)?;
        let mut block = vec![0; self.size];
        self.file.blocks().read(physical, 0, &mut block)?;
        Ok((physical, block))
    }

    fn physical(&mut self, number: u32) -> Result<u64, ReadError> {
        self.file
            .run(number)?
            .physical
            .ok_or_else(|| bad("has a hole"))
    }

    /// Steps over the next block of the ring; gives its number. `None` where all were seen: what
    /// follows is the oldest one, which also ends a walk in circles.
    fn step(&mut self) -> Option<u32> {
        if self.read == self.last - self.first {
            return None;
        }
        self.read += 1;
        let number = self.next;
        self.next += 1;
        if self.next == self.last {
            self.next = self.first;
        }
        Some(number)
    }

    fn replay(mut self) -> Result<BTreeMap<u64, Logged>, ReadError> {
        let mut done = BTreeMap::new();
        let mut pending = Pending::default();
        let mut last_time = 0;
        while let Some(number) = self.step() {
            let (_, block) = self.block(number)?;
            if block.be32(at::MAGIC) != at::MAGIC_NUMBER
                || block.be32(at::SEQUENCE) != self.sequence
            {
                break;
            }
            match block.be32(at::TYPE) {
                at::DESCRIPTOR => {
                    pending.damaged |= !self.tail_is_right(&block);
                    self.copies(&block, &mut pending)?;
                }
                at::REVOKE => {
                    pending.damaged |= !self.tail_is_right(&block);
                    pending.revokes.push(number);
                }
                at::COMMIT => {
                    let time = wide(block.be32(at::COMMIT_TIME), block.be32(at::COMMIT_TIME + 4));
                    if pending.damaged || !self.commit_is_right(&block) {
                        // An older round of the ring may have left a block with the same number: then this is the end.
                        if time < last_time {
                            return Ok(done);
                        }
                        return Err(bad("has a transaction that does not have its checksum"));
                    }
                    last_time = time;
                    self.commit(std::mem::take(&mut pending), &mut done)?;
                    self.sequence = self.sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(done)
    }

    /// Takes over what a transaction changed.
    fn commit(
        &mut self,
        pending: Pending,
        done: &mut BTreeMap<u64, Logged>,
    ) -> Result<(), ReadError> {
        for (block, logged) in pending.copies {
            if block >= self.blocks {
                return Err(bad("holds a block that is outside of the disk"));
            }
            done.insert(block, logged);
        }
        for number in pending.revokes {
            let (_, block) = self.block(number)?;
            let end = block.be32(at::REVOKE_BYTES) as usize;
            if end > self.size - self.tail() {
                return Err(bad("has a list of revoked blocks that does not end"));
            }
            let each = if self.wide { 8 } else { 4 };
            let records = block.get(at::REVOKE_RECORDS..end).unwrap_or_default();
            for record in records.chunks_exact(each) {
                done.remove(&if self.wide {
                    wide(record.be32(0), record.be32(4))
                } else {
                    u64::from(record.be32(0))
                });
            }
        }
        Ok(())
    }

    /// The copies that a descriptor block announces; they follow it.
    fn copies(&mut self, block: &[u8], pending: &mut Pending) -> Result<(), ReadError> {
        let bytes = match self.sums {
            Sums::V3 => at::TAG_BYTES_V3,
            sums => {
                let high = if self.wide { 4 } else { 0 };
                at::TAG_BLOCK_HIGH + high + if sums == Sums::V2 { 2 } else { 0 }
            }
        };
        let seed = checksum::update(self.seed, &self.sequence.to_be_bytes());
        let end = block.len() - self.tail();
        let mut from = at::HEADER_BYTES;
        while from + bytes <= end {
            let tag = &block[from..from + bytes];
            let flags = tag.be16(at::TAG_FLAGS);
            let high = if self.wide {
                tag.be32(at::TAG_BLOCK_HIGH)
            } else {
                0
            };
            let (expected, bits) = match self.sums {
                Sums::V3 => (tag.be32(at::TAG_CHECKSUM_V3), u32::MAX),
                _ => (u32::from(tag.be16(at::TAG_CHECKSUM)), 0xffff),
            };
            let Some(number) = self.step() else {
                break;
            };
            let logged = Logged {
                physical: self.physical(number)?,
                escaped: flags & at::TAG_ESCAPED != 0,
                sum: (self.sums != Sums::None).then_some(Sum {
                    seed,
                    expected,
                    bits,
                }),
            };
            pending
                .copies
                .push((wide(high, tag.be32(at::TAG_BLOCK)), logged));
            from += bytes;
            if flags & at::TAG_SAME_UUID == 0 {
                from += at::TAG_UUID_BYTES;
            }
            if flags & at::TAG_LAST != 0 {
                break;
            }
        }
        Ok(())
    }

    /// Bytes at the end of descriptor and revoke blocks that are their checksum's.
    fn tail(&self) -> usize {
        if self.sums == Sums::None {
            0
        } else {
            at::TAIL_BYTES
        }
    }

    fn tail_is_right(&self, block: &[u8]) -> bool {
        let tail = block.len() - at::TAIL_BYTES;
        self.sums == Sums::None || sum_without(self.seed, block, tail) == block.be32(tail)
    }

    fn commit_is_right(&self, block: &[u8]) -> bool {
        self.sums == Sums::None
            || sum_without(self.seed, block, at::COMMIT_CHECKSUM) == block.be32(at::COMMIT_CHECKSUM)
    }
}

/// The checksum of a structure with zeros in place of the four bytes that keep it.
fn sum_without(seed: u32, bytes: &[u8], field: usize) -> u32 {
    let sum = checksum::update(seed, &bytes[..field]);
    checksum::update(checksum::update(sum, &[0; 4]), &bytes[field + 4..])
}

#[cfg(test)]
mod tests;
