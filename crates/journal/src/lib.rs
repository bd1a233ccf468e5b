//! The journal: a bounded ring of checksummed records in a raw partition, kept by the tether.
//!
//! [`Writer`] appends and syncs; [`Reader`] reads it while it is written (the tether, for
//! `docker logs`) or afterwards (the endpoint, on a stopped container's disk). A partition of
//! zeros is an empty journal. After a crash a journal is an exact prefix of what was appended,
//! and holds at least what was synced. A reader takes nothing on trust: every length is bounded,
//! every record checksummed.
#![forbid(unsafe_code)]

use std::io;
use std::time::Instant;

/// Most bytes in one output record; the writer splits longer output.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// Something that can be read at an offset: a partition, a file, a part of a VMDK.
pub trait ReadAt {
    /// Fills `buf` from `offset` on; an error where that is not possible.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// Something that can also be written. Methods take `&self`, as those of a file.
pub trait WriteAt: ReadAt {
    /// Writes all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns once everything written is durable.
    fn sync(&self) -> io::Result<()>;
}

/// Which stream output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; all output of a PTY.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The container's process was started.
    Start {
        /// ns since 1970.
        at: u64,
        /// Number of the VM's boot.
        boot: u64,
    },
    /// Output as it was read.
    Output {
        /// From which stream.
        stream: Stream,
        /// ns since 1970.
        at: u64,
        /// The bytes; at most [`OUTPUT_MAX`].
        bytes: Vec<u8>,
    },
    /// The container's process ended. The last record of a boot.
    Exit(Exit),
}

/// How the container's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The OOM killer had a hand in it.
    pub oom: bool,
    /// ns since 1970.
    pub at: u64,
    /// Why, where there is more to say; at most 4,096 bytes, cut if longer.
    pub reason: String,
}

/// A place in the journal: where a record begins. Grows with time, over wraparound too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The partition failed.
    #[error("journal: {what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Too small to hold one.
    #[error("journal: the partition has {0} bytes, at least {min} are needed", min = 1 << 20)]
    TooSmall(u64),
    /// Not zeros, and not a journal.
    #[error("journal: the partition holds no journal ({0})")]
    NotAJournal(&'static str),
}

/// Appends to a journal.
#[derive(Debug)]
pub struct Writer<S> {
    _s: S,
}

impl<S: WriteAt> Writer<S> {
    /// Opens the journal and finds its end; makes one of a partition that holds none.
    pub fn open(storage: S) -> Result<Writer<S>, JournalError> {
        let _ = storage;
        unimplemented!()
    }

    /// Appends output, split over records where it is long; no copy but into the block being
    /// filled. Not written before the block is full or [`Writer::flush`] is called.
    pub fn output(&mut self, stream: Stream, at: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let _ = (stream, at, bytes);
        unimplemented!()
    }

    /// Appends a start record.
    pub fn start(&mut self, at: u64, boot: u64) -> Result<(), JournalError> {
        let _ = (at, boot);
        unimplemented!()
    }

    /// Appends an exit record.
    pub fn exit(&mut self, exit: &Exit) -> Result<(), JournalError> {
        let _ = exit;
        unimplemented!()
    }

    /// Writes what was appended, so that readers see it. Cheap; call it after each batch.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        unimplemented!()
    }

    /// [`Writer::flush`], and returns once it is durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        unimplemented!()
    }

    /// Since when there is something that [`Writer::sync`] has not made durable.
    pub fn dirty_since(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Where the next record will be.
    pub fn end(&self) -> Position {
        unimplemented!()
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self._s
    }
}

/// Reads a journal.
#[derive(Debug)]
pub struct Reader<S> {
    _s: S,
}

/// What a reader finds at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A record, and where the next one is.
    Record(Record, Position),
    /// Records at this position were overwritten: at least so many bytes of the ring are lost.
    Lost {
        /// Bytes of journal, headers included.
        bytes: u64,
        /// The oldest record that is left.
        next: Position,
    },
    /// Nothing more (yet): read again from here later.
    End(Position),
}

/// What to read of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Want stdout.
    pub stdout: bool,
    /// Want stderr.
    pub stderr: bool,
    /// Only output at or after this time (ns since 1970); 0: all.
    pub since: u64,
    /// Ends at the first output after this time (ns since 1970); 0: never.
    pub until: u64,
    /// Only the last lines, so many; `None`: all.
    pub tail: Option<u64>,
}

impl<S: ReadAt> Reader<S> {
    /// A reader of the journal in `storage`. A partition of zeros is an empty journal; a live one
    /// may become a journal later.
    pub fn open(storage: S) -> Result<Reader<S>, JournalError> {
        let _ = storage;
        unimplemented!()
    }

    /// The oldest record.
    pub fn first(&self) -> Result<Position, JournalError> {
        unimplemented!()
    }

    /// What is at a position.
    pub fn read(&mut self, position: Position) -> Result<Step, JournalError> {
        let _ = position;
        unimplemented!()
    }

    /// Begins a query: finds where to start without reading all where it can.
    pub fn query(&mut self, query: &Query) -> Result<Cursor, JournalError> {
        let _ = query;
        unimplemented!()
    }

    /// The next output of a query: `Output` records only, filtered, and cut at the front where
    /// `tail` begins inside a record.
    pub fn next(&mut self, cursor: &mut Cursor) -> Result<Found, JournalError> {
        let _ = cursor;
        unimplemented!()
    }

    /// The exit record, if the journal ends with one.
    pub fn exit(&mut self) -> Result<Option<Exit>, JournalError> {
        unimplemented!()
    }
}

/// Where a query stands.
#[derive(Debug, Clone)]
pub struct Cursor {
    _p: (),
}

/// What the next step of a query gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Output.
    Output {
        /// From which stream.
        stream: Stream,
        /// ns since 1970.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// So many bytes of the ring were overwritten before they were read.
    Lost(u64),
    /// The end of what is written so far; ask again after more was flushed.
    End,
    /// The query is over: `until` was passed.
    Over,
}
