//! Objects of the store that are to be deleted. A row is written with what makes the object useless, and goes when the
//! object is gone, so a crash in between leaves neither a dangling blob nor a lost file.

use super::{Read, Result, Write, size_in, size_out};
use rusqlite::params;

/// An object without a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trash {
    /// Its key in the store.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

impl Read<'_> {
    /// At most `limit` objects that may be deleted. `writing`: those too that were being written; right only when nothing
    /// is written, at the start.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn trash(&self, writing: bool, limit: u32) -> Result<Vec<Trash>> {
        let mut statement = self.0.prepare_cached(
            "SELECT key, size FROM trash WHERE writing = 0 OR ?1 ORDER BY key LIMIT ?2",
        )?;
        let rows = statement.query_map(params![writing, limit], |row| {
            Ok(Trash {
                key: row.get(0)?,
                size: size_out(row.get(1)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Says that an object is about to be written (`writing`), or is not needed any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn throw_away(&self, key: &str, size: u64, writing: bool) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO trash (key, size, writing) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET writing = excluded.writing",
            )?
            .execute(params![key, size_in(size), writing])?;
        Ok(())
    }

    /// Says that an object is a blob now, or is gone.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn take_out(&self, key: &str) -> Result<()> {
        self.0
            .0
            .prepare_cached("DELETE FROM trash WHERE key = ?1")?
            .execute([key])?;
        Ok(())
    }
}
