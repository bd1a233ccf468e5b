//! The first sector of a sparse VMDK, and what follows from it.

use super::{MAX_CAPACITY, VmdkError};

pub(super) const SECTOR: u64 = 512;
/// Entries of a grain table. VMware's files have no other number.
pub(super) const TABLE_ENTRIES: u64 = 512;
/// Sectors of a grain table.
pub(super) const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;

const MAGIC: &[u8; 4] = b"KDMV";
/// The bytes that a transfer in text mode would have changed are valid.
const FLAG_NEWLINES: u32 = 1;
/// The redundant grain directory is valid.
pub(super) const FLAG_REDUNDANT: u32 = 2;
/// A grain table entry of 1 stands for a grain of zeros.
pub(super) const FLAG_ZERO_GRAIN: u32 = 4;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;

/// A header's fields, in sectors where they are places or sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub flags: u32,
    pub capacity: u64,
    pub grain: u64,
    pub descriptor: u64,
    pub descriptor_size: u64,
    /// Redundant grain directory; 0 without.
    pub redundant: u64,
    pub directory: u64,
    /// First sector of the grains.
    pub data: u64,
}

impl Header {
    pub(super) fn render(&self) -> [u8; SECTOR as usize] {
        let mut bytes = Vec::with_capacity(SECTOR as usize);
        bytes.extend(MAGIC);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((self.flags | FLAG_NEWLINES).to_le_bytes());
        for field in [
            self.capacity,
            self.grain,
            self.descriptor,
            self.descriptor_size,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend((TABLE_ENTRIES as u32).to_le_bytes());
        for field in [self.redundant, self.directory, self.data] {
            bytes.extend(field.to_le_bytes());
        }
        // Not in use by anyone (uncleanShutdown), then the bytes to detect text mode by.
        bytes.extend(b"\0\n \r\n");
        let mut sector = [0; SECTOR as usize];
        sector[..bytes.len()].copy_from_slice(&bytes);
        sector
    }

    /// Reads a header and refuses what would make the tables larger than the format's largest disk needs.
    pub(super) fn parse(sector: &[u8; SECTOR as usize]) -> Result<Self, VmdkError> {
        let refuse = |reason: String| Err(VmdkError::Invalid(reason));
        let u32_at = |at: usize| {
            u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if &sector[..4] != MAGIC {
            return refuse("it does not start with KDMV".into());
        }
        let (version, flags) = (u32_at(4), u32_at(8));
        if !(1..=3).contains(&version) || flags & (FLAG_COMPRESSED | FLAG_MARKERS) != 0 {
            return refuse(format!(
                "version {version} with flags {flags:#x}; compressed (streamOptimized) files are not read"
            ));
        }
        let header = Self {
            flags,
            capacity: u64_at(12),
            grain: u64_at(20),
            descriptor: u64_at(28),
            descriptor_size: u64_at(36),
            redundant: u64_at(48),
            directory: u64_at(56),
            data: u64_at(64),
        };
        if u32_at(44) != TABLE_ENTRIES as u32 {
            return refuse(format!(
                "grain tables of {} entries in place of {TABLE_ENTRIES}",
                u32_at(44)
            ));
        }
        if !header.grain.is_power_of_two() || !(8..=2048).contains(&header.grain) {
            return refuse(format!(
                "a grain size of {} sectors; it must be a power of two from 8 to 2048",
                header.grain
            ));
        }
        if header.capacity == 0 || header.capacity > MAX_CAPACITY / SECTOR {
            return refuse(format!(
                "a capacity of {} sectors; it must be from 1 sector to 2 TiB",
                header.capacity
            ));
        }
        if header.descriptor == 0 || header.descriptor_size == 0 || header.descriptor_size > 128 {
            return refuse(format!(
                "an embedded descriptor of {} sectors; it must have 1 to 128",
                header.descriptor_size
            ));
        }
        Ok(header)
    }

    /// Number of grain tables: at most 1,048,576.
    pub(super) fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.grain * TABLE_ENTRIES)
    }
}
