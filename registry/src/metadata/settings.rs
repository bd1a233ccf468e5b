//! Settings that are no table of their own.

use super::{Read, Result, Write};
use rusqlite::{OptionalExtension, params};

impl Read<'_> {
    /// A setting's bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .0
            .prepare_cached("SELECT value FROM settings WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?)
    }
}

impl Write<'_> {
    /// Sets a setting.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_setting(&self, key: &str, value: &[u8]) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO settings (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![key, value])?;
        Ok(())
    }

    /// A row that nothing of this kind (`project`, `user`) ever had.
    pub(super) fn next_row(&self, kind: &str) -> Result<i64> {
        Ok(self
            .0
            .0
            .prepare_cached("UPDATE last_rows SET row = row + 1 WHERE kind = ?1 RETURNING row")?
            .query_row([kind], |row| row.get(0))?)
    }
}
