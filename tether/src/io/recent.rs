//! The end of the journal in memory: what followers of the log read, as long as they keep up.

use bytes::Bytes;
use journal::{Position, Stream};
use std::collections::VecDeque;

/// Bytes that are kept.
const BYTES: usize = 1 << 20;
/// Records that are kept: small ones cost more than their bytes.
const RECORDS: usize = 1024;

/// An output record that was written.
#[derive(Debug, Clone)]
pub struct RecentRecord {
    /// The journal's end before it.
    pub after: Position,
    /// The journal's end behind it.
    pub next: Position,
    /// Which stream.
    pub stream: Stream,
    /// ns since 1970.
    pub at: u64,
    /// What was written.
    pub bytes: Bytes,
}

/// The last records.
#[derive(Debug, Default)]
pub struct Recent {
    records: VecDeque<RecentRecord>,
    bytes: usize,
}

impl Recent {
    /// Adds the record that was just written; the oldest ones make room.
    pub fn push(&mut self, record: RecentRecord) {
        self.bytes += record.bytes.len();
        self.records.push_back(record);
        while self.bytes > BYTES || self.records.len() > RECORDS {
            // Not empty: it was just added to.
            let gone = self.records.pop_front();
            self.bytes -= gone.map_or(0, |record| record.bytes.len());
        }
    }

    /// The record behind a position.
    #[must_use]
    pub fn at(&self, at: Position) -> Option<RecentRecord> {
        let index = self.records.binary_search_by_key(&at, |r| r.after).ok()?;
        self.records.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(after: u64, len: usize) -> RecentRecord {
        RecentRecord {
            after: Position(after),
            next: Position(after + 20 + len as u64),
            stream: Stream::Stdout,
            at: after,
            bytes: vec![0; len].into(),
        }
    }

    #[test]
    fn the_last_records_are_found_by_where_they_begin_and_no_more_than_the_limit_is_kept() {
        let mut recent = Recent::default();
        let mut end = 64;
        for _ in 0..3 * RECORDS {
            recent.push(record(end, 1));
            end += 21;
        }
        assert_eq!(recent.records.len(), RECORDS);
        assert_eq!(recent.at(Position(end - 21)).unwrap().at, end - 21);
        for absent in [64, end - 20, end] {
            assert!(recent.at(Position(absent)).is_none(), "{absent}");
        }
        for _ in 0..40 {
            recent.push(record(end, 65_536));
            end += 65_556;
        }
        assert!(recent.bytes <= BYTES && recent.records.len() == 16);
    }
}
