//! Where records go.

use std::io::{self, Write};
use wire::files::{PIECE_MAX, Record, piece_header, put};

/// Records and pieces of files, gathered to writes of 64 KiB and more.
#[derive(Debug)]
pub struct Output<W> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> Output<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self {
            to,
            buffer: Vec::with_capacity(PIECE_MAX),
        }
    }

    /// Where it writes to.
    pub fn to(&self) -> &W {
        &self.to
    }

    /// Writes a record.
    ///
    /// # Errors
    /// Where nobody reads any more, or the record is too long.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        put(record, &mut self.buffer).map_err(io::Error::other)?;
        self.flush_full()
    }

    /// Writes a piece of a file, of at most [`PIECE_MAX`] bytes.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(&piece_header(bytes.len()));
        self.buffer.extend_from_slice(bytes);
        self.flush_full()
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= PIECE_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands on what waits.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
