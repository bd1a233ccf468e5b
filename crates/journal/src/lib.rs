//! The journal: a bounded ring of checksummed records in a raw partition, kept by the tether.
//!
//! [`Writer`] appends and syncs; [`Reader`] reads it while it is written (the tether, for
//! `docker logs`) or afterwards (the endpoint, on a stopped container's disk). A partition of
//! zeros is an empty journal. After a crash a journal is an exact prefix of what was appended,
//! and holds at least what was synced. A reader takes nothing on trust: every length is bounded,
//! every record checksummed.
//!
//! On disk: a superblock of 4 KiB, then from 64 KiB on segments of 256 KiB in a ring. Segment
//! number n is in slot n modulo their count; its header says the number, the epoch (one for each
//! opening by a writer), what tells the VM's run from others, how long the segment before it was, the highest time before it, and up to
//! where the journal was durable when it was begun. Records do not cross segments; their CRC-32
//! covers the journal's ID, the epoch and their position too, so that what an earlier lap left is
//! never taken for a record. A reader goes on into the next segment only if that one says that
//! this one ended where it did.
#![forbid(unsafe_code)]

use std::io;

mod format;
mod query;
mod reader;
mod storage;
mod writer;

pub use query::{Cursor, Pass, Search};
pub use reader::Reader;
pub use storage::{ReadAt, WriteAt};
pub use writer::Writer;

/// Most bytes in one output record; the writer splits longer output.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// The reason of an exit that a client asked for (`docker stop`, `kill`): whatever the restart
/// policy, it was the last run.
pub const STOPPED: &str = "stopped";

/// The reason of an exit that its VM's reset brought.
pub const RESET: &str = "its VM was reset";

/// The reason of a run's exit that another run follows: not the container's end.
pub const AGAIN: &str = "started again";

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
    /// The container's process ended. The last record of a boot, unless the process was started
    /// again in it: each run has its start and its exit.
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
    #[error("journal: the partition has {0} bytes, at least {min} are needed", min = format::SIZE_MIN)]
    TooSmall(u64),
    /// Not zeros, and not a journal.
    #[error("journal: the partition holds no journal ({0})")]
    NotAJournal(&'static str),
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
