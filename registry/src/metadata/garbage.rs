//! What nothing refers to. Found by readers; removed in small jobs of the writer that look again, so that a push, mount or
//! tag in between is never undone, and nobody waits for a whole collection.

use super::{Read, Result, Write, size_out};
use rusqlite::params;

/// How much garbage there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Manifests without a tag, that no index and no subject keeps.
    pub manifests: u64,
    /// Blobs that a repository does not need any more.
    pub links: u64,
    /// Blobs that no repository has.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories with nothing in them.
    pub repositories: u64,
}

/// A place in a walk, and what was found there.
pub type Place = (i64, i64);

/// `m` is not tagged, in no index, and not said of a manifest that is here.
const DEAD_MANIFEST: &str = "m.touched <= ?1
    AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest = m.id)
    AND NOT EXISTS (SELECT 1 FROM manifest_children c WHERE c.child = m.id)
    AND (m.subject IS NULL OR NOT EXISTS (
        SELECT 1 FROM manifests s WHERE s.repository = m.repository AND s.digest = m.subject))";

/// `l` is needed by no manifest of its repository.
const DEAD_LINK: &str = "l.touched <= ?1 AND NOT EXISTS (
    SELECT 1 FROM manifest_blobs x WHERE x.repository = l.repository AND x.blob = l.blob)";

/// `b` is in no repository.
const DEAD_BLOB: &str = "NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.blob = b.id)";

/// `r` has nothing in it.
const DEAD_REPOSITORY: &str = "r.created <= ?1
    AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.repository = r.id)
    AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)";

impl Read<'_> {
    /// At most `limit` dead manifests after a place. `touched`: only what was not touched since.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_manifests(&self, touched: i64, after: Place, limit: u32) -> Result<Vec<Place>> {
        self.places(
            &format!(
                "SELECT m.id, 0 FROM manifests m WHERE m.id > ?2 AND ?3 = ?3 AND {DEAD_MANIFEST}
                 ORDER BY m.id LIMIT ?4"
            ),
            touched,
            after,
            limit,
        )
    }

    /// At most `limit` dead links of blobs to repositories after a place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_links(&self, touched: i64, after: Place, limit: u32) -> Result<Vec<Place>> {
        self.places(
            &format!(
                "SELECT l.repository, l.blob FROM blob_links l
                 WHERE (l.repository, l.blob) > (?2, ?3) AND {DEAD_LINK}
                 ORDER BY l.repository, l.blob LIMIT ?4"
            ),
            touched,
            after,
            limit,
        )
    }

    /// At most `limit` dead blobs after a place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_blobs(&self, touched: i64, after: Place, limit: u32) -> Result<Vec<Place>> {
        self.places(
            &format!(
                "SELECT b.id, 0 FROM blobs b WHERE b.id > ?2 AND ?1 = ?1 AND ?3 = ?3 AND {DEAD_BLOB}
                 ORDER BY b.id LIMIT ?4"
            ),
            touched,
            after,
            limit,
        )
    }

    /// At most `limit` empty repositories after a place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_repositories(&self, touched: i64, after: Place, limit: u32) -> Result<Vec<Place>> {
        self.places(
            &format!(
                "SELECT r.id, 0 FROM repositories r WHERE r.id > ?2 AND ?3 = ?3 AND {DEAD_REPOSITORY}
                 ORDER BY r.id LIMIT ?4"
            ),
            touched,
            after,
            limit,
        )
    }

    fn places(&self, sql: &str, touched: i64, after: Place, limit: u32) -> Result<Vec<Place>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params![touched, after.0, after.1, limit], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What a collection would remove, exactly, without removing it: played through on one view in temporary tables.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_garbage(&self, touched: i64, untagged: Option<i64>) -> Result<Garbage> {
        // The file is open for reading only; this lets temporary tables be written.
        self.0
            .execute_batch("PRAGMA query_only = OFF; BEGIN DEFERRED;")?;
        let counted = self.play_through(touched, untagged);
        self.0.execute_batch("ROLLBACK; PRAGMA query_only = ON;")?;
        counted
    }

    fn play_through(&self, touched: i64, untagged: Option<i64>) -> Result<Garbage> {
        let db = self.0;
        db.execute_batch(
            "CREATE TEMP TABLE dead_manifests (id INTEGER PRIMARY KEY);
             CREATE TEMP TABLE dead_links (repository, blob, PRIMARY KEY (repository, blob)) WITHOUT ROWID;
             CREATE TEMP TABLE dead_blobs (id INTEGER PRIMARY KEY, size);",
        )?;
        let mut garbage = Garbage::default();
        if let Some(untagged) = untagged {
            // The death of an index or a subject lets others die: until nothing changes.
            let mut pass = db.prepare(
                "INSERT OR IGNORE INTO dead_manifests SELECT m.id FROM manifests m
                 WHERE m.touched <= ?1
                   AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest = m.id)
                   AND NOT EXISTS (SELECT 1 FROM manifest_children c WHERE c.child = m.id
                        AND c.manifest NOT IN (SELECT id FROM dead_manifests))
                   AND (m.subject IS NULL OR NOT EXISTS (SELECT 1 FROM manifests s
                        WHERE s.repository = m.repository AND s.digest = m.subject
                          AND s.id NOT IN (SELECT id FROM dead_manifests)))",
            )?;
            loop {
                let more = pass.execute([untagged])? as u64;
                garbage.manifests += more;
                if more == 0 {
                    break;
                }
            }
        }
        garbage.links = db.execute(
            "INSERT INTO dead_links SELECT l.repository, l.blob FROM blob_links l
             WHERE l.touched <= ?1 AND NOT EXISTS (SELECT 1 FROM manifest_blobs x
                WHERE x.repository = l.repository AND x.blob = l.blob
                  AND x.manifest NOT IN (SELECT id FROM dead_manifests))",
            [touched],
        )? as u64;
        garbage.blobs = db.execute(
            "INSERT INTO dead_blobs SELECT b.id, b.size FROM blobs b
             WHERE NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.blob = b.id
                AND NOT EXISTS (SELECT 1 FROM dead_links d WHERE d.repository = l.repository AND d.blob = l.blob))",
            [],
        )? as u64;
        let bytes = db.query_row("SELECT coalesce(sum(size), 0) FROM dead_blobs", [], |row| {
            row.get(0)
        })?;
        garbage.bytes = size_out(bytes);
        let repositories = db.query_row(
            "SELECT count(*) FROM repositories r WHERE r.created <= ?1
                AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.repository = r.id
                    AND NOT EXISTS (SELECT 1 FROM dead_links d WHERE d.repository = l.repository AND d.blob = l.blob))
                AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id
                    AND m.id NOT IN (SELECT id FROM dead_manifests))",
            [touched],
            |row| row.get(0),
        )?;
        garbage.repositories = size_out(repositories);
        Ok(garbage)
    }
}

impl Write<'_> {
    /// Removes those that are still dead; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_dead_manifests(&self, touched: i64, found: &[Place]) -> Result<u64> {
        self.remove(
            &format!("DELETE FROM manifests AS m WHERE m.id = ?2 AND ?3 = ?3 AND {DEAD_MANIFEST}"),
            touched,
            found,
        )
    }

    /// Takes blobs away from repositories that still do not need them; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_dead_links(&self, touched: i64, found: &[Place]) -> Result<u64> {
        self.remove(
            &format!(
                "DELETE FROM blob_links AS l WHERE l.repository = ?2 AND l.blob = ?3 AND {DEAD_LINK}"
            ),
            touched,
            found,
        )
    }

    /// Throws away the objects of blobs that are still in no repository; how many and how many bytes.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_dead_blobs(&self, found: &[Place]) -> Result<(u64, u64)> {
        let connection = self.0.0;
        let mut remove = connection.prepare_cached(&format!(
            "DELETE FROM blobs AS b WHERE b.id = ?1 AND {DEAD_BLOB} RETURNING key, size"
        ))?;
        let (mut count, mut bytes) = (0, 0);
        for (id, _) in found {
            let removed = remove
                .query_map([id], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for (key, size) in removed {
                let size = size_out(size);
                self.throw_away(&key, size, false)?;
                count += 1;
                bytes += size;
            }
        }
        Ok((count, bytes))
    }

    /// Removes repositories that are still empty; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_dead_repositories(&self, touched: i64, found: &[Place]) -> Result<u64> {
        self.remove(
            &format!(
                "DELETE FROM repositories AS r WHERE r.id = ?2 AND ?3 = ?3 AND {DEAD_REPOSITORY}"
            ),
            touched,
            found,
        )
    }

    fn remove(&self, sql: &str, touched: i64, found: &[Place]) -> Result<u64> {
        let mut statement = self.0.0.prepare_cached(sql)?;
        let mut removed = 0;
        for (first, second) in found {
            removed += statement.execute(params![touched, first, second])? as u64;
        }
        Ok(removed)
    }
}
