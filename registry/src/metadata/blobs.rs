//! Blobs, and which repository may read which.

use super::{Read, RepositoryId, Result, Write, now, size_in, size_out};
use crate::digest::Digest;
use crate::names::RepositoryName;
use rusqlite::{OptionalExtension, Row, params};

/// A blob in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub(super) id: i64,
    /// Bytes.
    pub size: u64,
    /// Its object in the store.
    pub key: String,
}

impl Blob {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Blob {
            id: row.get(0)?,
            size: size_out(row.get(1)?),
            key: row.get(2)?,
        })
    }
}

/// How the removal of a link went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlink {
    /// The repository does not have it any more.
    Done,
    /// It did not have it.
    Unknown,
    /// A manifest of the repository (this digest) needs it.
    Needed(String),
}

impl Read<'_> {
    /// A blob that this repository may read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Blob>> {
        let found = self
            .0
            .prepare_cached(
                "SELECT b.id, b.size, b.key FROM blobs b
                 JOIN repositories r ON r.name = ?1
                 JOIN blob_links l ON l.repository = r.id AND l.blob = b.id
                 WHERE b.digest = ?2",
            )?
            .query_row([repository.as_str(), digest.as_str()], Blob::from_row)
            .optional()?;
        Ok(found)
    }

    /// A blob whoever may read it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn stored_blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        let found = self
            .0
            .prepare_cached("SELECT id, size, key FROM blobs WHERE digest = ?1")?
            .query_row([digest.as_str()], Blob::from_row)
            .optional()?;
        Ok(found)
    }

    /// Whether a blob is in the repository, and no client has said since `time` that it wants it there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn blob_untouched_since(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        time: i64,
    ) -> Result<bool> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT 1 FROM blobs b JOIN repositories r ON r.name = ?1
                 JOIN blob_links l ON l.repository = r.id AND l.blob = b.id
                 WHERE b.digest = ?2 AND l.touched <= ?3",
            )?
            .exists(params![repository.as_str(), digest.as_str(), time])?)
    }

    /// Whether a blob's object has this key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_stored(&self, key: &str) -> Result<bool> {
        Ok(self
            .0
            .prepare_cached("SELECT 1 FROM blobs WHERE key = ?1")?
            .exists([key])?)
    }
}

impl Write<'_> {
    /// Takes a blob into a repository: the object of this key, or the one that already has the digest. In the second case
    /// (`false`) the caller's object is not needed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_blob(
        &self,
        repository: RepositoryId,
        digest: &Digest,
        size: u64,
        key: &str,
    ) -> Result<bool> {
        let (blob, new) = match self.stored_blob(digest)? {
            Some(blob) => (blob.id, false),
            None => {
                let id = self
                    .0
                    .0
                    .prepare_cached(
                        "INSERT INTO blobs (digest, size, key, created) VALUES (?1, ?2, ?3, ?4)
                         RETURNING id",
                    )?
                    .query_row(params![digest.as_str(), size_in(size), key, now()], |row| {
                        row.get(0)
                    })?;
                (id, true)
            }
        };
        self.link(repository, blob)?;
        Ok(new)
    }

    /// Lets a repository read a blob that another one has; `false` when that one has not.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn mount_blob(
        &self,
        repository: RepositoryId,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool> {
        let Some(blob) = self.blob(from, digest)? else {
            return Ok(false);
        };
        self.link(repository, blob.id)?;
        Ok(true)
    }

    /// Notes that a client wants the blob here; `false` when it is not here.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn touch_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        let touched = self
            .0
            .0
            .prepare_cached(
                "UPDATE blob_links SET touched = ?3
                 WHERE repository = (SELECT id FROM repositories WHERE name = ?1)
                   AND blob = (SELECT id FROM blobs WHERE digest = ?2)",
            )?
            .execute(params![repository.as_str(), digest.as_str(), now()])?;
        Ok(touched > 0)
    }

    /// Says of all blobs that they were last wanted at this time (milliseconds since 1970), so that the next collection
    /// takes what is not needed, whatever its grace time; how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn backdate_blobs(&self, time: i64) -> Result<u64> {
        let changed = self
            .0
            .0
            .prepare_cached("UPDATE blob_links SET touched = ?1")?
            .execute([time])?;
        Ok(changed as u64)
    }

    /// Takes a blob away from a repository, unless a manifest there needs it. The object stays until it is collected.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn unlink_blob(&self, repository: RepositoryId, digest: &Digest) -> Result<Unlink> {
        let Some(blob) = self.stored_blob(digest)? else {
            return Ok(Unlink::Unknown);
        };
        let needed: Option<String> = self
            .0
            .0
            .prepare_cached(
                "SELECT m.digest FROM manifest_blobs x JOIN manifests m ON m.id = x.manifest
                 WHERE x.repository = ?1 AND x.blob = ?2 LIMIT 1",
            )?
            .query_row([repository.0, blob.id], |row| row.get(0))
            .optional()?;
        if let Some(manifest) = needed {
            return Ok(Unlink::Needed(manifest));
        }
        let removed = self
            .0
            .0
            .prepare_cached("DELETE FROM blob_links WHERE repository = ?1 AND blob = ?2")?
            .execute([repository.0, blob.id])?;
        Ok(if removed > 0 {
            Unlink::Done
        } else {
            Unlink::Unknown
        })
    }

    /// The one place where a repository gets a blob.
    fn link(&self, repository: RepositoryId, blob: i64) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO blob_links (repository, blob, touched) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, blob) DO UPDATE SET touched = excluded.touched",
            )?
            .execute(params![repository.0, blob, now()])?;
        Ok(())
    }
}
