//! Maps of sparse files: where the data in the archive belongs in the file.

use super::header::{BLOCK, number, text};

/// Most pieces of one sparse file.
pub(super) const MOST: usize = 1 << 20;

/// Adds the (offset, length) pairs of a GNU header (old format): `count` of 24 bytes each, up to the first blank one.
pub(super) fn add_pairs(map: &mut Vec<(u64, u64)>, bytes: &[u8]) -> Result<(), String> {
    for pair in bytes.chunks_exact(24) {
        if text(&pair[..12]).is_empty() && pair[0] & 0x80 == 0 {
            break;
        }
        let read = |bytes| match number(bytes) {
            Ok(Some(value)) => u64::try_from(value).map_err(|_| ()),
            Ok(None) => Ok(0),
            Err(()) => Err(()),
        };
        let (Ok(offset), Ok(length)) = (read(&pair[..12]), read(&pair[12..])) else {
            return Err("its sparse map holds something that is no number".into());
        };
        push(map, (offset, length))?;
    }
    Ok(())
}

pub(super) fn push(map: &mut Vec<(u64, u64)>, pair: (u64, u64)) -> Result<(), String> {
    if map.len() >= MOST {
        return Err(format!("its sparse map has more than {MOST} pieces"));
    }
    map.push(pair);
    Ok(())
}

/// Reads the list of PAX format 0.1: `offset,length,offset,length…`.
pub(super) fn from_list(list: &[u8]) -> Result<Vec<(u64, u64)>, String> {
    let mut map = Vec::new();
    let mut numbers = list.split(|byte| *byte == b',').map(super::pax::decimal);
    while let Some(offset) = numbers.next() {
        match (offset, numbers.next()) {
            (Some(offset), Some(Some(length))) => push(&mut map, (offset, length))?,
            _ => return Err("its GNU.sparse.map is malformed".into()),
        }
    }
    Ok(map)
}

/// Collects the map of PAX format 1.0, which comes in blocks before the data: lines with the number of pieces, then
/// each one's offset and length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    digits: Vec<u8>,
    expected: Option<usize>,
    offset: Option<u64>,
    pub(super) map: Vec<(u64, u64)>,
}

impl Lines {
    /// Takes a block; true once the map is whole.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<bool, String> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err("its sparse map has a number that is too long".into());
                }
                continue;
            }
            let value = super::pax::decimal(&self.digits)
                .ok_or("its sparse map holds something that is no number")?;
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) => {
                    self.expected = Some(
                        usize::try_from(value)
                            .ok()
                            .filter(|count| *count <= MOST)
                            .ok_or("its sparse map is too long")?,
                    )
                }
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => push(&mut self.map, (offset, value))?,
            }
            if self.expected == Some(self.map.len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Refuses a map whose pieces overlap, leave the file, or do not add up to the data; drops empty pieces.
pub(super) fn check(map: Vec<(u64, u64)>, data: u64, size: u64) -> Result<Vec<(u64, u64)>, String> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (offset, length) in &map {
        let piece_end = offset
            .checked_add(*length)
            .filter(|piece_end| *offset >= end && *piece_end <= size);
        end = piece_end.ok_or("its sparse map overlaps itself or leaves the file")?;
        sum += length;
    }
    if sum != data {
        return Err(format!(
            "its sparse map is for {sum} bytes, but {data} follow"
        ));
    }
    Ok(map.into_iter().filter(|(_, length)| *length > 0).collect())
}
