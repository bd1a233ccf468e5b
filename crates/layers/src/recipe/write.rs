//! Writing a recipe.

use std::io::{self, Write};

use super::{END, EXTENT, FRAME, LITERAL, MAGIC, ZEROS};
use crate::digest::Digest;
use crate::tar::RawSink;

/// Longest run of bytes in one operation.
const LITERAL_MAX: usize = 64 * 1024;

/// Writes a recipe as the tar is read.
#[derive(Debug)]
pub struct RecipeWriter<W> {
    out: W,
    frame: Vec<u8>,
    literal: Vec<u8>,
    extent: Option<(u64, u64)>,
    len: u64,
}

impl<W: Write> RecipeWriter<W> {
    /// Starts a recipe.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self {
            out,
            frame: Vec::new(),
            literal: Vec::new(),
            extent: None,
            len: 0,
        })
    }

    /// The tar goes on with these bytes.
    pub fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.end_extent()?;
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let count = bytes.len().min(LITERAL_MAX - self.literal.len());
            self.literal.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.literal.len() == LITERAL_MAX {
                self.end_literal()?;
            }
        }
        Ok(())
    }

    /// The tar goes on with so many zeros.
    pub fn zeros(&mut self, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.end_literal()?;
        self.end_extent()?;
        self.len += count;
        self.operation(ZEROS, &[&count.to_le_bytes()])
    }

    /// The tar goes on with bytes of the partition.
    pub fn extent(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.end_literal()?;
        self.len += length;
        match &mut self.extent {
            Some((start, before)) if *start + *before == offset => *before += length,
            _ => {
                self.end_extent()?;
                self.extent = Some((offset, length));
            }
        }
        Ok(())
    }

    /// Ends the recipe of a tar with this digest; gives back what it was written to.
    pub fn finish(mut self, diff_id: &Digest) -> io::Result<W> {
        self.end_literal()?;
        self.end_extent()?;
        self.operation(END, &[&self.len.to_le_bytes(), diff_id.as_bytes()])?;
        self.end_frame()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_literal(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let literal = std::mem::take(&mut self.literal);
        self.operation(LITERAL, &[&(literal.len() as u32).to_le_bytes(), &literal])?;
        self.literal = literal;
        self.literal.clear();
        Ok(())
    }

    fn end_extent(&mut self) -> io::Result<()> {
        match self.extent.take() {
            Some((offset, length)) => {
                self.operation(EXTENT, &[&offset.to_le_bytes(), &length.to_le_bytes()])
            }
            None => Ok(()),
        }
    }

    fn operation(&mut self, kind: u8, fields: &[&[u8]]) -> io::Result<()> {
        if self.frame.len() + 1 + fields.iter().map(|field| field.len()).sum::<usize>() > FRAME {
            self.end_frame()?;
        }
        self.frame.push(kind);
        for field in fields {
            self.frame.extend_from_slice(field);
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.frame, 3)?;
        for number in [
            self.frame.len() as u32,
            packed.len() as u32,
            crc32c::crc32c(&packed),
        ] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        self.out.write_all(&packed)?;
        self.frame.clear();
        Ok(())
    }
}

impl<W: Write> RawSink for RecipeWriter<W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.literal(bytes)
    }
}
