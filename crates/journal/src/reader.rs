//! Reading a journal, also while it is written.

use crate::format::{
    Geometry, RECORD_HEADER, RECORD_MAX, Raw, RecordHeader, SEGMENT, SegmentHeader, read_at,
};
use std::ops::Range;

use crate::{Exit, JournalError, Position, ReadAt, Record, Step};

/// Bytes that one read takes.
const READ: u64 = 128 * 1024;
const _: () = assert!(READ >= RECORD_MAX as u64, "one read must hold any record");

/// Reads a journal.
#[derive(Debug)]
pub struct Reader<S> {
    storage: S,
    geometry: Option<Geometry>,
    /// The segment that was read from last.
    current: Option<SegmentHeader>,
    /// What was read of it, and where that begins.
    window: Vec<u8>,
    window_at: u64,
    /// See [`Reader::limit`].
    limit: Option<Position>,
}

/// Where a journal ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// The last segment.
    pub(crate) header: SegmentHeader,
    /// Behind the last record.
    pub(crate) position: Position,
    /// The highest time of any record.
    pub(crate) max_at: u64,
}

/// What is at a place, its payload still in the window.
enum Entry {
    Record {
        raw: Raw,
        payload: Range<usize>,
        next: Position,
    },
    Lost {
        next: Position,
    },
    End(Position),
}

/// A visited record: place, what it is, payload.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Position, Raw, &[u8]);

impl<S: ReadAt> Reader<S> {
    /// A reader of the journal in `storage`. A partition of zeros is an empty journal; a live one
    /// may become a journal later.
    pub fn open(storage: S) -> Result<Reader<S>, JournalError> {
        let geometry = Geometry::read(&storage)?;
        Ok(Reader {
            storage,
            geometry,
            current: None,
            window: Vec::new(),
            window_at: 0,
            limit: None,
        })
    }

    pub(crate) fn over(storage: S, geometry: Geometry) -> Reader<S> {
        Reader {
            storage,
            geometry: Some(geometry),
            current: None,
            window: Vec::new(),
            window_at: 0,
            limit: None,
        }
    }

    /// Tells a live reader where the writer's flushed end is: it reads no further, and spares
    /// itself the looking. To be told again after each flush.
    pub fn limit(&mut self, end: Position) {
        self.limit = Some(end);
    }

    /// The oldest record.
    pub fn first(&mut self) -> Result<Position, JournalError> {
        Ok(self
            .first_segment()?
            .map_or(Position(crate::format::SEGMENT_HEADER as u64), |h| {
                h.first()
            }))
    }

    /// What is at a position.
    pub fn read(&mut self, at: Position) -> Result<Step, JournalError> {
        Ok(match self.entry(at)? {
            Entry::Record { raw, payload, next } => {
                Step::Record(raw.with(&self.window[payload]), next)
            }
            Entry::Lost { next } => Step::Lost {
                bytes: next.0.saturating_sub(at.0),
                next,
            },
            Entry::End(position) => Step::End(position),
        })
    }

    /// What told the last writer's run from others; `None` for an empty journal.
    pub fn run(&mut self) -> Result<Option<u64>, JournalError> {
        Ok(self.end()?.map(|end| end.header.run))
    }

    /// The exit record, if the journal ends with one.
    pub fn exit(&mut self) -> Result<Option<Exit>, JournalError> {
        let Some(end) = self.end()? else {
            return Ok(None);
        };
        let first = self
            .first_segment()?
            .map_or(end.header.number, |h| h.number);
        for number in (first..=end.header.number).rev() {
            let mut last = None;
            self.visit(number, end.position, &mut |_, raw, payload| {
                last = Some(raw.with(payload))
            })?;
            match last {
                Some(Record::Exit(exit)) => return Ok(Some(exit)),
                Some(_) => return Ok(None),
                None => {} // A writer opened the journal and appended nothing.
            }
        }
        Ok(None)
    }

    /// Like [`Reader::read`], without making a record: what, its bytes, and what is next.
    pub(crate) fn raw(&mut self, at: Position) -> Result<RawStep<'_>, JournalError> {
        Ok(match self.entry(at)? {
            Entry::Record { raw, payload, next } => RawStep::Record {
                raw,
                payload: &self.window[payload],
                next,
            },
            Entry::Lost { next } => RawStep::Lost {
                bytes: next.0.saturating_sub(at.0),
                next,
            },
            Entry::End(position) => RawStep::End(position),
        })
    }

    /// Visits the records of a segment that are before `end`; returns the place behind the last.
    pub(crate) fn visit(
        &mut self,
        number: u64,
        end: Position,
        visit: Visit<'_>,
    ) -> Result<Option<Position>, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(None);
        };
        let Some(header) = geometry.segment(&self.storage, number)? else {
            return Ok(None);
        };
        self.current = Some(header);
        self.window.clear();
        let mut at = header.first();
        while at < end {
            let Some((raw, payload, next)) = self.record(&geometry, &header, at)? else {
                break;
            };
            visit(at, raw, &self.window[payload]);
            at = next;
        }
        Ok(Some(at))
    }

    /// Where the journal ends; `None`: no segment was ever begun.
    pub(crate) fn end(&mut self) -> Result<Option<End>, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(None);
        };
        let Some(newest) = self.newest()? else {
            return Ok(None);
        };
        // Behind what was durable, segments may be there or not in any order: walk through them.
        let from = (newest.durable / SEGMENT).clamp(
            (newest.number + 1).saturating_sub(geometry.slots),
            newest.number,
        );
        let mut header = match geometry.segment(&self.storage, from)? {
            Some(header) => header,
            None => newest,
        };
        let mut max_at = header.max_at;
        // At most once round: a live journal may grow while this walks.
        for _ in 0..geometry.slots {
            let mut seen = max_at;
            let number = header.number;
            let end = self.visit(number, Position(u64::MAX), &mut |_, raw, _| {
                seen = seen.max(raw.at)
            })?;
            let position = end.unwrap_or(header.first());
            max_at = seen;
            match geometry.segment(&self.storage, number + 1)? {
                Some(next) if header.goes_on(position.0 - number * SEGMENT, &next) => {
                    max_at = max_at.max(next.max_at);
                    header = next;
                }
                _ => {
                    return Ok(Some(End {
                        header,
                        position,
                        max_at,
                    }));
                }
            }
        }
        Ok(Some(End {
            header,
            position: header.first(),
            max_at,
        }))
    }

    /// The oldest segment that is left.
    pub(crate) fn first_segment(&mut self) -> Result<Option<SegmentHeader>, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(None);
        };
        let Some(newest) = self.newest()? else {
            return Ok(None);
        };
        let oldest = (newest.number + 1).saturating_sub(geometry.slots);
        for number in oldest..=newest.number {
            if let Some(header) = geometry.segment(&self.storage, number)? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// The first segment, from the oldest on, behind which nothing is older than `since`: where a
    /// reader that wants records from `since` on may begin.
    pub(crate) fn segment_since(
        &mut self,
        since: u64,
    ) -> Result<Option<SegmentHeader>, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(None);
        };
        let (Some(mut found), Some(newest)) = (self.first_segment()?, self.newest()?) else {
            return Ok(None);
        };
        let (mut low, mut high) = (found.number, newest.number);
        while low < high {
            let middle = high - (high - low) / 2;
            match geometry.segment(&self.storage, middle)? {
                Some(header) if header.max_at < since => {
                    found = header;
                    low = middle;
                }
                _ => high = middle - 1,
            }
        }
        Ok(Some(found))
    }

    pub(crate) fn geometry(&mut self) -> Result<Option<Geometry>, JournalError> {
        if self.geometry.is_none() {
            self.geometry = Geometry::read(&self.storage)?;
        }
        Ok(self.geometry)
    }

    /// A segment at the head of the ring: in it, or in what was not yet durable around it, the
    /// journal ends. Binary search: slots up to the head are of the lap that slot 0 is of.
    fn newest(&mut self) -> Result<Option<SegmentHeader>, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(None);
        };
        let Some(first) = geometry.header(&self.storage, 0)? else {
            return self.newest_of_all(&geometry);
        };
        let lap = first.number / geometry.slots;
        let (mut newest, mut low, mut high) = (first, 0, geometry.slots - 1);
        while low < high {
            let middle = high - (high - low) / 2;
            match geometry.header(&self.storage, middle)? {
                Some(header) if header.number / geometry.slots == lap => {
                    newest = header;
                    low = middle;
                }
                _ => high = middle - 1,
            }
        }
        Ok(Some(newest))
    }

    /// By looking at every slot, for a journal whose first slot was torn.
    fn newest_of_all(&self, geometry: &Geometry) -> Result<Option<SegmentHeader>, JournalError> {
        let mut newest: Option<SegmentHeader> = None;
        for slot in 0..geometry.slots {
            if let Some(header) = geometry.header(&self.storage, slot)?
                && newest.is_none_or(|n| header.number > n.number)
            {
                newest = Some(header);
            }
        }
        Ok(newest)
    }

    fn entry(&mut self, mut at: Position) -> Result<Entry, JournalError> {
        let Some(geometry) = self.geometry()? else {
            return Ok(Entry::End(at));
        };
        // Segments may be empty, one for each opening by a writer; at most once round.
        for _ in 0..=geometry.slots {
            let number = at.0 / SEGMENT;
            let header = match self.current {
                Some(header) if header.number == number => header,
                _ => match geometry.segment(&self.storage, number)? {
                    Some(header) => {
                        self.current = Some(header);
                        self.window.clear();
                        header
                    }
                    None => return self.missing(&geometry, at),
                },
            };
            at = at.max(header.first());
            if self.limit.is_some_and(|limit| at >= limit) {
                return Ok(Entry::End(at));
            }
            if let Some((raw, payload, next)) = self.record(&geometry, &header, at)? {
                return Ok(Entry::Record { raw, payload, next });
            }
            match geometry.segment(&self.storage, number + 1)? {
                Some(next) if header.goes_on(at.0 - number * SEGMENT, &next) => at = next.first(),
                _ => {
                    // The header as it is now: the segment may have been overwritten, or written
                    // by another epoch since.
                    match geometry.segment(&self.storage, number)? {
                        Some(now) if now == header => return Ok(Entry::End(at)),
                        Some(now) => {
                            self.current = Some(now);
                            self.window.clear();
                        }
                        None => return self.missing(&geometry, at),
                    }
                }
            }
        }
        Ok(Entry::End(at))
    }

    /// The segment of `at` is not in its slot: overwritten, or not written yet.
    fn missing(&mut self, geometry: &Geometry, at: Position) -> Result<Entry, JournalError> {
        self.current = None;
        let overwritten = match geometry.header(&self.storage, at.0 / SEGMENT % geometry.slots)? {
            Some(header) => header.number > at.0 / SEGMENT,
            None => false,
        };
        match self.first_segment()? {
            Some(first) if overwritten || first.first() > at => Ok(Entry::Lost {
                next: first.first(),
            }),
            _ => Ok(Entry::End(at)),
        }
    }

    /// The record at `at` in a segment: what, where in the window its payload is, and what is
    /// next. What the window holds may be older than what was written since, so it is read again
    /// before a record is called invalid.
    fn record(
        &mut self,
        geometry: &Geometry,
        header: &SegmentHeader,
        at: Position,
    ) -> Result<Option<(Raw, Range<usize>, Position)>, JournalError> {
        if let Some(found) = self.parse(geometry, header, at) {
            return Ok(Some(found));
        }
        let in_segment = at.0 - header.number * SEGMENT;
        let mut count = SEGMENT.saturating_sub(in_segment).min(READ);
        if let Some(limit) = self.limit {
            count = count.min(limit.0.saturating_sub(at.0));
        }
        if count < RECORD_HEADER as u64 {
            return Ok(None);
        }
        self.window.resize(count as usize, 0); // At most READ.
        self.window_at = at.0;
        read_at(
            &self.storage,
            geometry.offset(header.number) + in_segment,
            &mut self.window,
        )?;
        Ok(self.parse(geometry, header, at))
    }

    /// The record at `at`, if the window holds it whole and it is valid.
    fn parse(
        &self,
        geometry: &Geometry,
        header: &SegmentHeader,
        at: Position,
    ) -> Option<(Raw, Range<usize>, Position)> {
        let from = usize::try_from(at.0.checked_sub(self.window_at)?).ok()?;
        let record = RecordHeader::decode(self.window.get(from..)?)?;
        let to = from + RECORD_HEADER + record.len;
        let raw = record.record(geometry, header.epoch, at, self.window.get(from..to)?)?;
        Some((
            raw,
            from + RECORD_HEADER..to,
            Position(self.window_at + to as u64),
        ))
    }
}

/// See [`Reader::raw`].
pub(crate) enum RawStep<'a> {
    Record {
        raw: Raw,
        payload: &'a [u8],
        next: Position,
    },
    Lost {
        bytes: u64,
        next: Position,
    },
    End(Position),
}
