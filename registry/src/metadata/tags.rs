//! Tags: names that point at a manifest of their repository.

use super::{Read, RepositoryId, Result, Write};
use crate::names::Tag;
use rusqlite::params;

impl Read<'_> {
    /// At most `limit` tags after `last`, sorted by their bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags_after(
        &self,
        repository: RepositoryId,
        last: &str,
        limit: u32,
    ) -> Result<Vec<String>> {
        let mut statement = self.0.prepare_cached(
            "SELECT name FROM tags WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )?;
        let rows = statement.query_map(params![repository.0, last, limit], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Removes a tag; the manifest stays. `false` when there was none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_tag(&self, repository: RepositoryId, tag: &Tag) -> Result<bool> {
        let removed = self
            .0
            .0
            .prepare_cached("DELETE FROM tags WHERE repository = ?1 AND name = ?2")?
            .execute(params![repository.0, tag.as_str()])?;
        Ok(removed > 0)
    }
}
