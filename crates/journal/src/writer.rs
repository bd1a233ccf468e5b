//! Appending to a journal.

use crate::format::{
    Geometry, KIND_EXIT, KIND_START, KIND_STDERR, KIND_STDOUT, PAGE, RECORD_HEADER, SEGMENT,
    SEGMENT_HEADER, SegmentHeader, exit_payload, position, record_header,
};
use crate::reader::Reader;
use crate::{Exit, JournalError, OUTPUT_MAX, Position, Stream, WriteAt};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Output is not split for less room than this at a segment's end.
const SPLIT_MIN: usize = 4096;

/// Appends to a journal.
#[derive(Debug)]
pub struct Writer<S> {
    storage: S,
    geometry: Geometry,
    /// The segment being filled, whole.
    segment: Vec<u8>,
    header: SegmentHeader,
    /// Bytes of `segment` in use, and how many of them were written.
    fill: usize,
    written: usize,
    max_at: u64,
    durable: Position,
    dirty_since: Option<Instant>,
    /// The run that it was opened in before.
    previous_run: Option<u64>,
}

impl<S: WriteAt> Writer<S> {
    /// Opens the journal and finds its end; makes one of a partition that holds none. Begins a
    /// segment of its own, so that what a crash left behind the end is never taken up again. `run` tells the VM's
    /// run from others; the next opening is told it.
    pub fn open(storage: S, run: u64) -> Result<Writer<S>, JournalError> {
        let mut previous_run = None;
        let (geometry, header, max_at) = match Geometry::read(&storage)? {
            Some(geometry) => match Reader::over(&storage, geometry).end()? {
                Some(end) => {
                    previous_run = Some(end.header.run);
                    let header = SegmentHeader {
                        number: end.header.number + 1,
                        epoch: end.header.epoch.saturating_add(1),
                        max_at: end.max_at,
                        durable: end.position.0,
                        previous_len: (end.position.0 % SEGMENT) as u32,
                        run,
                    };
                    (geometry, header, end.max_at)
                }
                None => (geometry, empty(run), 0),
            },
            None => {
                let size = storage.size().map_err(|source| JournalError::Io {
                    what: "finding its size",
                    source,
                })?;
                // Distinguishes it from what the partition may have held before.
                let id = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(1, |d| d.as_nanos() as u64);
                let geometry = Geometry::new(size, id)?;
                write_at(&storage, 0, &geometry.encode())?;
                (geometry, empty(run), 0)
            }
        };
        let mut writer = Writer {
            storage,
            geometry,
            segment: vec![0; SEGMENT as usize],
            header,
            fill: 0,
            written: 0,
            max_at,
            durable: Position(header.durable),
            dirty_since: None,
            previous_run,
        };
        writer.begin();
        // The epoch must be durable before it is used: the next opening takes a higher one.
        writer.sync()?;
        Ok(writer)
    }

    /// Appends output, split over records where it is long; no copy but into the segment being
    /// filled. Not written before the segment is full or [`Writer::flush`] is called.
    pub fn output(
        &mut self,
        stream: Stream,
        at: u64,
        mut bytes: &[u8],
    ) -> Result<(), JournalError> {
        while !bytes.is_empty() {
            let count = self.output_record(stream, at, bytes)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Appends one record with as many of the bytes (at least one) as it takes, and returns how many
    /// that were: for a caller who wants to know where records begin and end. Else as
    /// [`Writer::output`].
    pub fn output_record(
        &mut self,
        stream: Stream,
        at: u64,
        bytes: &[u8],
    ) -> Result<usize, JournalError> {
        let kind = match stream {
            Stream::Stdout => KIND_STDOUT,
            Stream::Stderr => KIND_STDERR,
        };
        loop {
            let room = (self.segment.len() - self.fill).saturating_sub(RECORD_HEADER);
            let mut count = bytes.len().min(OUTPUT_MAX);
            if count > room {
                if room < SPLIT_MIN {
                    self.roll()?;
                    continue;
                }
                count = room;
            }
            self.append(kind, at, &bytes[..count])?;
            return Ok(count);
        }
    }

    /// Appends a start record.
    pub fn start(&mut self, at: u64, boot: u64) -> Result<(), JournalError> {
        self.append(KIND_START, at, &boot.to_le_bytes())
    }

    /// Appends an exit record.
    pub fn exit(&mut self, exit: &Exit) -> Result<(), JournalError> {
        self.append(KIND_EXIT, exit.at, &exit_payload(exit))
    }

    /// Writes what was appended, so that readers see it. Cheap; call it after each batch.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if self.fill == self.written {
            return Ok(());
        }
        let from = self.written - self.written % PAGE;
        let to = self.fill.next_multiple_of(PAGE);
        // What the segment before this one left there belongs to nobody.
        self.segment[self.fill..to].fill(0);
        let offset = self.geometry.offset(self.header.number) + from as u64;
        write_at(&self.storage, offset, &self.segment[from..to])?;
        self.written = self.fill;
        Ok(())
    }

    /// [`Writer::flush`], and [`WriteAt::sync`].
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.storage.sync().map_err(|source| JournalError::Io {
            what: "syncing",
            source,
        })?;
        self.durable = self.end();
        self.dirty_since = None;
        Ok(())
    }

    /// Since when there is something that no [`Writer::sync`] was called for.
    pub fn dirty_since(&self) -> Option<Instant> {
        self.dirty_since
    }

    /// The run in which the journal was opened before; `None` for a new journal.
    pub fn previous_run(&self) -> Option<u64> {
        self.previous_run
    }

    /// Where the next record will be.
    pub fn end(&self) -> Position {
        position(self.header.number, self.fill as u64)
    }

    /// What was appended and is not written yet, and where it will be; with what was written already of the same page.
    pub fn unwritten(&self) -> (u64, &[u8]) {
        let from = self.written - self.written % PAGE;
        let offset = self.geometry.offset(self.header.number) + from as u64;
        (offset, &self.segment[from..self.fill])
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    fn append(&mut self, kind: u8, at: u64, payload: &[u8]) -> Result<(), JournalError> {
        if self.segment.len() - self.fill < RECORD_HEADER + payload.len() {
            self.roll()?;
        }
        let header = record_header(
            &self.geometry,
            self.header.epoch,
            self.end(),
            kind,
            at,
            payload,
        );
        let (from, to) = (
            self.fill + RECORD_HEADER,
            self.fill + RECORD_HEADER + payload.len(),
        );
        self.segment[self.fill..from].copy_from_slice(&header);
        self.segment[from..to].copy_from_slice(payload);
        self.fill = to;
        self.max_at = self.max_at.max(at);
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Ends the segment and begins the next.
    fn roll(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.header = SegmentHeader {
            number: self.header.number + 1,
            epoch: self.header.epoch,
            run: self.header.run,
            max_at: self.max_at,
            durable: self.durable.0,
            previous_len: self.fill as u32, // At most a segment.
        };
        self.begin();
        Ok(())
    }

    fn begin(&mut self) {
        self.segment[..SEGMENT_HEADER].copy_from_slice(&self.header.encode(&self.geometry));
        self.fill = SEGMENT_HEADER;
        self.written = 0;
    }
}

/// The header of a new journal's first segment.
fn empty(run: u64) -> SegmentHeader {
    SegmentHeader {
        number: 0,
        epoch: 1,
        max_at: 0,
        durable: SEGMENT_HEADER as u64,
        previous_len: 0,
        run,
    }
}

fn write_at(storage: &impl WriteAt, offset: u64, data: &[u8]) -> Result<(), JournalError> {
    storage
        .write_at(offset, data)
        .map_err(|source| JournalError::Io {
            what: "writing",
            source,
        })
}
