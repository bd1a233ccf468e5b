//! The journal's layout on disk. All numbers little-endian.

use crate::{Exit, JournalError, OUTPUT_MAX, Position, ReadAt, Record, Stream};
use crc32fast::Hasher;

/// Bytes of a segment.
pub(crate) const SEGMENT: u64 = 256 * 1024;
/// Where the first segment begins.
pub(crate) const SEGMENTS_AT: u64 = 64 * 1024;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 20;
/// Longest record, header included.
pub(crate) const RECORD_MAX: usize = RECORD_HEADER + OUTPUT_MAX;
/// Longest reason of an exit record.
pub(crate) const REASON_MAX: usize = 4096;
/// Writes are whole multiples of this, so that the page cache never has to read first.
pub(crate) const PAGE: usize = 4096;
/// Smallest partition.
pub(crate) const SIZE_MIN: u64 = 1 << 20;
/// Bytes of the superblock.
pub(crate) const SUPERBLOCK: usize = 4096;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"MOORJRNL";
const SUPERBLOCK_USED: usize = 36;
const SEGMENT_MAGIC: u32 = 0x6765_734d;
const VERSION: u32 = 1;

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Distinguishes this journal from one that was in the partition before.
    pub(crate) id: u64,
    /// Segments in the ring.
    pub(crate) slots: u64,
}

impl Geometry {
    /// A new journal in a partition of this size.
    pub(crate) fn new(size: u64, id: u64) -> Result<Geometry, JournalError> {
        if size < SIZE_MIN {
            return Err(JournalError::TooSmall(size));
        }
        Ok(Geometry {
            id,
            slots: (size - SEGMENTS_AT) / SEGMENT,
        })
    }

    /// The superblock's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; SUPERBLOCK];
        block[..8].copy_from_slice(SUPERBLOCK_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
        block[16..24].copy_from_slice(&self.slots.to_le_bytes());
        block[24..32].copy_from_slice(&self.id.to_le_bytes());
        let crc = crc32fast::hash(&block[..32]);
        block[32..SUPERBLOCK_USED].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the superblock; `None`: zeros, or one that was torn while it was made.
    pub(crate) fn read(storage: &impl ReadAt) -> Result<Option<Geometry>, JournalError> {
        let size = storage.size().map_err(|source| JournalError::Io {
            what: "finding its size",
            source,
        })?;
        if size < SIZE_MIN {
            return Err(JournalError::TooSmall(size));
        }
        let mut block = [0; SUPERBLOCK_USED];
        read_at(storage, 0, &mut block)?;
        if block == [0; SUPERBLOCK_USED] {
            return Ok(None);
        }
        if &block[..8] != SUPERBLOCK_MAGIC {
            return Err(JournalError::NotAJournal("it begins with something else"));
        }
        if crc32fast::hash(&block[..32]) != u32_at(&block, 32) {
            return Ok(None);
        }
        if u32_at(&block, 8) != VERSION {
            return Err(JournalError::NotAJournal("its version is unknown"));
        }
        let slots = u64_at(&block, 16);
        if u64::from(u32_at(&block, 12)) != SEGMENT
            || slots < 2
            || slots > (size - SEGMENTS_AT) / SEGMENT
        {
            return Err(JournalError::NotAJournal(
                "its geometry does not fit the partition",
            ));
        }
        Ok(Some(Geometry {
            id: u64_at(&block, 24),
            slots,
        }))
    }

    /// Where segment `number` is.
    pub(crate) fn offset(&self, number: u64) -> u64 {
        SEGMENTS_AT + number % self.slots * SEGMENT
    }

    /// The header in a slot, if a valid one is there.
    pub(crate) fn header(
        &self,
        storage: &impl ReadAt,
        slot: u64,
    ) -> Result<Option<SegmentHeader>, JournalError> {
        let mut bytes = [0; SEGMENT_HEADER];
        read_at(storage, self.offset(slot), &mut bytes)?;
        Ok(SegmentHeader::decode(&bytes, self).filter(|h| h.number % self.slots == slot))
    }

    /// The header of segment `number`, if that is what its slot holds.
    pub(crate) fn segment(
        &self,
        storage: &impl ReadAt,
        number: u64,
    ) -> Result<Option<SegmentHeader>, JournalError> {
        Ok(self
            .header(storage, number % self.slots)?
            .filter(|h| h.number == number))
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Number of the segment, from 0, counted over all laps.
    pub(crate) number: u64,
    /// Number of the writer's opening.
    pub(crate) epoch: u64,
    /// The highest time of any record before this segment.
    pub(crate) max_at: u64,
    /// Up to where the journal was durable when this segment was begun.
    pub(crate) durable: u64,
    /// Where the records of the segment before this one end, within it.
    pub(crate) previous_len: u32,
    /// What tells the writer's run from others; 0 where nothing was told.
    pub(crate) run: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self, geometry: &Geometry) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&geometry.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.max_at.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.previous_len.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.run.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SEGMENT_HEADER], geometry: &Geometry) -> Option<SegmentHeader> {
        if u32_at(bytes, 0) != SEGMENT_MAGIC
            || u32_at(bytes, 4) != crc32fast::hash(&bytes[8..])
            || u64_at(bytes, 8) != geometry.id
        {
            return None;
        }
        let number = u64_at(bytes, 16);
        // A number whose positions do not fit is nobody's.
        number.checked_add(2)?.checked_mul(SEGMENT)?;
        Some(SegmentHeader {
            number,
            epoch: u64_at(bytes, 24),
            max_at: u64_at(bytes, 32),
            durable: u64_at(bytes, 40),
            previous_len: u32_at(bytes, 48),
            run: u64_at(bytes, 52),
        })
    }

    /// The position of this segment's first record.
    pub(crate) fn first(&self) -> Position {
        position(self.number, SEGMENT_HEADER as u64)
    }

    /// Whether `next` goes on where this segment's records end, at `end` within it.
    pub(crate) fn goes_on(&self, end: u64, next: &SegmentHeader) -> bool {
        let previous_len = u64::from(next.previous_len);
        next.number == self.number + 1
            && (next.epoch == self.epoch && previous_len == end
                || next.epoch > self.epoch && previous_len <= end)
    }
}

/// A place in a segment as a position.
pub(crate) fn position(number: u64, offset: u64) -> Position {
    Position(number * SEGMENT + offset)
}

/// What a record's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    crc: u32,
    /// Bytes behind the header.
    pub(crate) len: usize,
    at: u64,
    kind: u8,
}

pub(crate) const KIND_STDOUT: u8 = 1;
pub(crate) const KIND_STDERR: u8 = 2;
pub(crate) const KIND_START: u8 = 3;
pub(crate) const KIND_EXIT: u8 = 4;

/// The header of a record at `place`, in a journal and epoch.
pub(crate) fn record_header(
    geometry: &Geometry,
    epoch: u64,
    place: Position,
    kind: u8,
    at: u64,
    payload: &[u8],
) -> [u8; RECORD_HEADER] {
    let mut bytes = [0; RECORD_HEADER];
    bytes[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&at.to_le_bytes());
    bytes[16] = kind;
    let crc = record_crc(geometry, epoch, place, &bytes[4..], payload);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn record_crc(
    geometry: &Geometry,
    epoch: u64,
    place: Position,
    header: &[u8],
    payload: &[u8],
) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&geometry.id.to_le_bytes());
    hasher.update(&epoch.to_le_bytes());
    hasher.update(&place.0.to_le_bytes());
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

impl RecordHeader {
    /// Reads a header of which nothing is verified but the bounds of its length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        if bytes.len() < RECORD_HEADER {
            return None;
        }
        let header = RecordHeader {
            crc: u32_at(bytes, 0),
            len: u32_at(bytes, 4) as usize,
            at: u64_at(bytes, 8),
            kind: bytes[16],
        };
        (header.len <= OUTPUT_MAX && (KIND_STDOUT..=KIND_EXIT).contains(&header.kind))
            .then_some(header)
    }

    /// The record of this header; `bytes` are header and payload. `None` if the checksum or the
    /// payload is not what it should be.
    pub(crate) fn record(
        &self,
        geometry: &Geometry,
        epoch: u64,
        place: Position,
        bytes: &[u8],
    ) -> Option<Raw> {
        let (header, payload) = bytes.split_at_checked(RECORD_HEADER)?;
        if record_crc(geometry, epoch, place, &header[4..], payload) != self.crc {
            return None;
        }
        match self.kind {
            KIND_START if payload.len() != 8 => None,
            KIND_EXIT if payload.len() < 5 || payload.len() > 5 + REASON_MAX => None,
            kind => Some(Raw { kind, at: self.at }),
        }
    }
}

/// A record that was verified, without its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw {
    pub(crate) kind: u8,
    pub(crate) at: u64,
}

impl Raw {
    /// The stream of an output record.
    pub(crate) fn stream(&self) -> Option<Stream> {
        match self.kind {
            KIND_STDOUT => Some(Stream::Stdout),
            KIND_STDERR => Some(Stream::Stderr),
            _ => None,
        }
    }

    /// The record with its payload, whose length was verified.
    pub(crate) fn with(&self, payload: &[u8]) -> Record {
        let at = self.at;
        match (self.stream(), self.kind) {
            (Some(stream), _) => Record::Output {
                stream,
                at,
                bytes: payload.to_vec(),
            },
            (None, KIND_START) => Record::Start {
                at,
                boot: u64_at(payload, 0),
            },
            _ => Record::Exit(Exit {
                code: u32_at(payload, 0) as i32,
                oom: payload[4] != 0,
                at,
                reason: String::from_utf8_lossy(&payload[5..]).into_owned(),
            }),
        }
    }
}

/// The payload of an exit record.
pub(crate) fn exit_payload(exit: &Exit) -> Vec<u8> {
    let mut reason = exit.reason.as_str();
    if reason.len() > REASON_MAX {
        reason = &reason[..reason.floor_char_boundary(REASON_MAX)];
    }
    let mut payload = exit.code.to_le_bytes().to_vec();
    payload.push(u8::from(exit.oom));
    payload.extend_from_slice(reason.as_bytes());
    payload
}

pub(crate) fn read_at(
    storage: &impl ReadAt,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), JournalError> {
    storage
        .read_at(offset, buf)
        .map_err(|source| JournalError::Io {
            what: "reading",
            source,
        })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
