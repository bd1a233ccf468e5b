//! GUID partition tables with 256 entries (UEFI specification 2.10, section 5), written at both ends of the disk.
//!
//! 512-byte sectors; partitions are aligned to 1 MiB. Own code rather than a crate's, since tables must come out the
//! same for the same image, and since a table that a guest could have written to is read with every field bounded.

use std::io;

use uuid::Uuid;

use crate::io::ReadAt;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Entries of a table: room for 254 layers, the ephemeral partition and the journal.
pub const ENTRIES: usize = 256;
/// Alignment of partitions in bytes. The space before the first partition and after the last one is as large.
pub const ALIGNMENT: u64 = 1 << 20;
/// Partition type "Linux filesystem data".
pub const LINUX_DATA: Uuid = Uuid::from_u128(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4);

const ENTRY_SIZE: usize = 128;
const ENTRY_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;
const HEADER_SIZE: usize = 92;
const SIGNATURE: &[u8; 8] = b"EFI PART";

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID, by which the guest finds it.
    pub disk_guid: Uuid,
    /// Size of the disk in bytes, a multiple of 1 MiB.
    pub capacity: u64,
    /// The partitions in use, number 1 first, without gaps.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it holds; [`LINUX_DATA`] for all of ours.
    pub kind: Uuid,
    /// Its own GUID.
    pub guid: Uuid,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its label, at most 36 UTF-16 units.
    pub name: String,
}

/// Why there is no table to be had from a disk, or none to be written.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk could not be read.
    #[error("cannot read the partition table: {0}")]
    Read(#[from] io::Error),
    /// Neither copy of the table is valid.
    #[error("the disk has no valid partition table: at its start, {primary}; at its end, {backup}")]
    Invalid {
        /// What is wrong with the copy at the start.
        primary: String,
        /// What is wrong with the copy at the end.
        backup: String,
    },
    /// The table cannot be written as it is.
    #[error("cannot write this partition table: {0}")]
    Unwritable(String),
}

impl Table {
    /// The partition with this number, from 1.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.get((number as usize).checked_sub(1)?)
    }

    /// The disk's first sectors: protective MBR, header and entries (33 KiB, from offset 0), and its last ones:
    /// entries and header (32.5 KiB, up to the disk's end).
    pub fn render(&self) -> Result<(Vec<u8>, Vec<u8>), GptError> {
        self.check().map_err(GptError::Unwritable)?;
        let mut entries = vec![0; ENTRIES * ENTRY_SIZE];
        for (partition, entry) in self
            .partitions
            .iter()
            .zip(entries.chunks_exact_mut(ENTRY_SIZE))
        {
            entry[..16].copy_from_slice(&partition.kind.to_bytes_le());
            entry[16..32].copy_from_slice(&partition.guid.to_bytes_le());
            entry[32..40].copy_from_slice(&(partition.start / SECTOR).to_le_bytes());
            entry[40..48]
                .copy_from_slice(&((partition.start + partition.size) / SECTOR - 1).to_le_bytes());
            for (unit, place) in partition
                .name
                .encode_utf16()
                .zip(entry[56..].chunks_exact_mut(2))
            {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let last = self.capacity / SECTOR - 1;
        let crc = crc32fast::hash(&entries);
        let mut primary = self.protective_mbr();
        primary.extend(self.header(1, last, 2, crc));
        primary.extend(&entries);
        let mut backup = entries;
        backup.extend(self.header(last, 1, last - ENTRY_SECTORS, crc));
        Ok((primary, backup))
    }

    fn check(&self) -> Result<(), String> {
        if !self.capacity.is_multiple_of(ALIGNMENT) || self.capacity < 3 * ALIGNMENT {
            return Err(format!(
                "a disk of {} bytes is not a multiple of 1 MiB, at least 3 MiB",
                self.capacity
            ));
        }
        if self.partitions.len() > ENTRIES {
            return Err(format!(
                "{} partitions, but the table has {ENTRIES} entries",
                self.partitions.len()
            ));
        }
        for (at, partition) in self.partitions.iter().enumerate() {
            let number = at + 1;
            if partition.kind.is_nil() || partition.name.encode_utf16().count() > 36 {
                return Err(format!(
                    "partition {number} has no type, or a name of more than 36 UTF-16 units"
                ));
            }
            if partition.size == 0
                || !partition.start.is_multiple_of(SECTOR)
                || !partition.size.is_multiple_of(SECTOR)
            {
                return Err(format!(
                    "partition {number} is empty or does not consist of whole sectors"
                ));
            }
        }
        self.check_places()
    }

    /// Whether all partitions are inside the usable part of the disk and none overlaps another.
    fn check_places(&self) -> Result<(), String> {
        let usable = (2 + ENTRY_SECTORS) * SECTOR
            ..self.capacity.saturating_sub((1 + ENTRY_SECTORS) * SECTOR);
        let mut places = Vec::with_capacity(self.partitions.len());
        for (at, partition) in self.partitions.iter().enumerate() {
            let end = partition.start.checked_add(partition.size);
            let end = end.filter(|end| *end <= usable.end && partition.start >= usable.start);
            let Some(end) = end else {
                return Err(format!(
                    "partition {} ({} bytes at {}) is not inside the disk",
                    at + 1,
                    partition.size,
                    partition.start
                ));
            };
            places.push((partition.start, end, at + 1));
        }
        places.sort_unstable();
        match places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            Some(pair) => Err(format!(
                "partitions {} and {} overlap",
                pair[0].2, pair[1].2
            )),
            None => Ok(()),
        }
    }

    fn protective_mbr(&self) -> Vec<u8> {
        let mut mbr = vec![0; SECTOR as usize];
        let sectors = u32::try_from(self.capacity / SECTOR - 1).unwrap_or(u32::MAX);
        // Head, sector and cylinder of LBA 1 and "does not fit", type 0xEE, LBA 1, size (UEFI 2.10, table 5-4).
        mbr[446..458].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
        mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        mbr
    }

    fn header(&self, own: u64, other: u64, entries: u64, crc: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(SECTOR as usize);
        header.extend(SIGNATURE);
        header.extend(0x0001_0000u32.to_le_bytes());
        header.extend((HEADER_SIZE as u32).to_le_bytes());
        header.extend([0; 8]);
        header.extend(own.to_le_bytes());
        header.extend(other.to_le_bytes());
        header.extend((ALIGNMENT / SECTOR).to_le_bytes());
        header.extend(((self.capacity - ALIGNMENT) / SECTOR - 1).to_le_bytes());
        header.extend(self.disk_guid.to_bytes_le());
        header.extend(entries.to_le_bytes());
        header.extend((ENTRIES as u32).to_le_bytes());
        header.extend((ENTRY_SIZE as u32).to_le_bytes());
        header.extend(crc.to_le_bytes());
        let own_crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&own_crc.to_le_bytes());
        header.resize(SECTOR as usize, 0);
        header
    }

    /// Reads the table of a disk: the copy at its start or, if that one is damaged, the one at its end.
    pub fn read(disk: &(impl ReadAt + ?Sized)) -> Result<Self, GptError> {
        let capacity = disk.size()?;
        if capacity < 3 * ALIGNMENT {
            let reason = format!("the disk has only {capacity} bytes");
            return Err(GptError::Invalid {
                primary: reason.clone(),
                backup: reason,
            });
        }
        match Self::read_copy(disk, capacity, 1)? {
            Ok(table) => Ok(table),
            Err(primary) => match Self::read_copy(disk, capacity, capacity / SECTOR - 1)? {
                Ok(table) => Ok(table),
                Err(backup) => Err(GptError::Invalid { primary, backup }),
            },
        }
    }

    fn read_copy(
        disk: &(impl ReadAt + ?Sized),
        capacity: u64,
        lba: u64,
    ) -> io::Result<Result<Self, String>> {
        let mut header = [0; HEADER_SIZE];
        disk.read_exact_at(lba * SECTOR, &mut header)?;
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if &header[..8] != SIGNATURE {
            return Ok(Err("there is none".into()));
        }
        let mut unsigned = header;
        unsigned[16..20].fill(0);
        if u32_at(12) != HEADER_SIZE as u32
            || u32_at(16) != crc32fast::hash(&unsigned)
            || u64_at(24) != lba
        {
            return Ok(Err("its header's checksum, size or place is wrong".into()));
        }
        if (u32_at(80), u32_at(84)) != (ENTRIES as u32, ENTRY_SIZE as u32) {
            return Ok(Err(format!(
                "{} entries of {} bytes in place of {ENTRIES} of {ENTRY_SIZE}",
                u32_at(80),
                u32_at(84)
            )));
        }
        let entries_at = u64_at(72);
        if entries_at
            .checked_add(ENTRY_SECTORS)
            .is_none_or(|end| end > capacity / SECTOR)
        {
            return Ok(Err("its entries are not inside the disk".into()));
        }
        let mut entries = vec![0; ENTRIES * ENTRY_SIZE];
        disk.read_exact_at(entries_at * SECTOR, &mut entries)?;
        if crc32fast::hash(&entries) != u32_at(88) {
            return Ok(Err("its entries' checksum is wrong".into()));
        }
        let mut guid = [0; 16];
        guid.copy_from_slice(&header[56..72]);
        let partitions = match entries
            .chunks_exact(ENTRY_SIZE)
            .map(read_entry)
            .collect::<Result<Vec<_>, _>>()
        {
            Ok(entries) => entries,
            Err(reason) => return Ok(Err(reason)),
        };
        let used = partitions
            .iter()
            .take_while(|partition| partition.is_some())
            .count();
        if partitions[used..].iter().any(Option::is_some) {
            return Ok(Err("there is a gap in its numbers".into()));
        }
        let partitions = partitions.into_iter().flatten().collect();
        let table = Self {
            disk_guid: Uuid::from_bytes_le(guid),
            capacity,
            partitions,
        };
        Ok(table.check_places().map(|()| table))
    }
}

fn read_entry(entry: &[u8]) -> Result<Option<Partition>, String> {
    let guid_at = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&entry[at..at + 16]);
        Uuid::from_bytes_le(bytes)
    };
    let u64_at = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&entry[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if guid_at(0).is_nil() {
        return Ok(None);
    }
    let (first, last) = (u64_at(32), u64_at(40));
    let sectors = last
        .checked_sub(first)
        .and_then(|count| count.checked_add(1));
    let bytes = |sectors: u64| sectors.checked_mul(SECTOR);
    let (Some(start), Some(size)) = (bytes(first), sectors.and_then(bytes)) else {
        return Err(format!("a partition goes from sector {first} to {last}"));
    };
    let units = entry[56..]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|unit| *unit != 0);
    let name = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Ok(Some(Partition {
        kind: guid_at(0),
        guid: guid_at(16),
        start,
        size,
        name,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        let partition = |number: u64, start: u64, size: u64| Partition {
            kind: LINUX_DATA,
            guid: Uuid::from_u128(u128::from(number) + 1),
            start: start << 20,
            size: size << 20,
            name: format!("layer {number}"),
        };
        Table {
            disk_guid: Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF),
            capacity: 64 << 20,
            partitions: vec![partition(1, 1, 5), partition(2, 6, 1), partition(3, 10, 53)],
        }
    }

    fn disk(table: &Table) -> Vec<u8> {
        let (primary, backup) = table.render().unwrap();
        let mut disk = vec![0; table.capacity as usize];
        disk[..primary.len()].copy_from_slice(&primary);
        let at = disk.len() - backup.len();
        disk[at..].copy_from_slice(&backup);
        disk
    }

    #[test]
    fn another_reader_finds_the_same_partitions() {
        let table = table();
        let disk = disk(&table);
        let theirs = gptman::GPT::read_from(&mut std::io::Cursor::new(&disk), SECTOR).unwrap();
        assert_eq!(theirs.header.number_of_partition_entries, ENTRIES as u32);
        assert_eq!(theirs.header.disk_guid, table.disk_guid.to_bytes_le());
        for (number, ours) in (1..).zip(&table.partitions) {
            let entry = &theirs[number];
            assert_eq!(
                (entry.starting_lba * SECTOR, entry.size().unwrap() * SECTOR),
                (ours.start, ours.size)
            );
            assert_eq!(entry.partition_name.as_str(), ours.name);
            assert_eq!(entry.unique_partition_guid, ours.guid.to_bytes_le());
        }
        assert_eq!(Table::read(&disk).unwrap(), table);
    }

    #[test]
    fn the_backup_stands_in_for_a_damaged_primary() {
        let table = table();
        let mut disk = disk(&table);
        disk[512 + 60] ^= 1;
        assert_eq!(Table::read(&disk).unwrap(), table);
        let end = disk.len() - 512;
        let theirs = gptman::GPT::read_from(&mut std::io::Cursor::new(&disk), SECTOR).unwrap();
        assert_eq!(theirs.header.disk_guid, table.disk_guid.to_bytes_le());
        disk[end + 60] ^= 1;
        assert!(matches!(Table::read(&disk), Err(GptError::Invalid { .. })));
    }

    #[test]
    fn overlapping_or_outlying_partitions_are_refused() {
        for (start, size) in [(5, 2), (62, 2), (0, 1), (63, 1 << 40), (u64::MAX >> 20, 1)] {
            let mut table = table();
            table.partitions[1].start = start << 20;
            table.partitions[1].size = size << 20;
            assert!(table.render().is_err(), "{start} {size}");
        }
        let mut many = table();
        many.capacity = 1 << 30;
        many.partitions = (0..257)
            .map(|k| Partition {
                start: (k + 1) << 20,
                size: 1 << 20,
                ..many.partitions[0].clone()
            })
            .collect();
        assert!(many.render().is_err());
        many.partitions.pop();
        let disk = disk(&many);
        assert_eq!(Table::read(&disk).unwrap().partitions.len(), 256);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arbitrary_tables_never_panic(header in prop::collection::vec(any::<u8>(), 92), entries in prop::collection::vec(any::<u8>(), 1280), fix in any::<bool>()) {
            let mut disk = disk(&Table { capacity: 64 << 20, ..table() });
            disk[1024..1024 + entries.len()].copy_from_slice(&entries);
            if fix {
                // A forged table with right checksums.
                let crc = crc32fast::hash(&disk[1024..1024 + ENTRIES * ENTRY_SIZE]);
                disk[512 + 88..512 + 92].copy_from_slice(&crc.to_le_bytes());
                disk[512 + 16..512 + 20].fill(0);
                let crc = crc32fast::hash(&disk[512..512 + HEADER_SIZE]);
                disk[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
            } else {
                disk[512..512 + 92].copy_from_slice(&header);
            }
            let _ = Table::read(&disk);
        }
    }
}
