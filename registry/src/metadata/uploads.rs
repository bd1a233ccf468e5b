//! Uploads that are on their way, as far as they are durable.

use super::{Read, Result, Write, now, size_in, size_out};
use rusqlite::{OptionalExtension, params};

/// An upload: `received` bytes of its staged file are on the disk, and `state` is the hash over exactly these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Its ID, which is also the key of the object that it becomes.
    pub id: String,
    /// Name of the repository that it was begun in; the repository itself is made when the first blob is there.
    pub repository: String,
    /// Name of the hash's algorithm.
    pub algorithm: String,
    /// Durable bytes.
    pub received: u64,
    /// The hash's saved state.
    pub state: Vec<u8>,
}

impl Read<'_> {
    /// How many uploads were begun and not ended.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn open_uploads(&self) -> Result<u64> {
        let mut statement = self.0.prepare_cached("SELECT count(*) FROM uploads")?;
        Ok(size_out(statement.query_row([], |row| row.get(0))?))
    }

    /// An upload by its ID.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn upload(&self, id: &str) -> Result<Option<UploadRow>> {
        let found = self
            .0
            .prepare_cached(
                "SELECT id, repository, algorithm, received, state FROM uploads WHERE id = ?1",
            )?
            .query_row([id], |row| {
                Ok(UploadRow {
                    id: row.get(0)?,
                    repository: row.get(1)?,
                    algorithm: row.get(2)?,
                    received: size_out(row.get(3)?),
                    state: row.get(4)?,
                })
            })
            .optional()?;
        Ok(found)
    }

    /// IDs of uploads that got nothing since this time (milliseconds since 1970).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn uploads_untouched_since(&self, time: i64) -> Result<Vec<String>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT id FROM uploads WHERE touched <= ?1 ORDER BY touched")?;
        let rows = statement.query_map([time], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Records a new upload, or how far an old one has come.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn record_upload(&self, upload: &UploadRow) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO uploads (id, repository, algorithm, received, state, touched)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET received = excluded.received,
                    state = excluded.state, touched = excluded.touched",
            )?
            .execute(params![
                upload.id,
                upload.repository,
                upload.algorithm,
                size_in(upload.received),
                upload.state,
                now()
            ])?;
        Ok(())
    }

    /// Forgets an upload; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn forget_upload(&self, id: &str) -> Result<bool> {
        let removed = self
            .0
            .0
            .prepare_cached("DELETE FROM uploads WHERE id = ?1")?
            .execute([id])?;
        Ok(removed > 0)
    }
}
