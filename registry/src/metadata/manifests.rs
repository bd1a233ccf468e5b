//! Manifests, byte for byte, and what they refer to.

use super::{Read, RepositoryId, Result, Write, now, size_in, size_out};
use crate::digest::Digest;
use crate::names::{Reference, RepositoryName, Tag};
use rusqlite::{OptionalExtension, params};

/// A manifest as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `ALGORITHM:HEX` over the body.
    pub digest: String,
    /// What it was pushed as.
    pub media_type: String,
    /// The bytes that were pushed; empty when only the head was asked for.
    pub body: Vec<u8>,
    /// Bytes of the body.
    pub size: u64,
}

/// A manifest that is to be kept; parsed and checked but for what it refers to.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// Digest of the body.
    pub digest: Digest,
    /// What it is pushed as.
    pub media_type: String,
    /// The bytes.
    pub body: Vec<u8>,
    /// What it refers to (it need not exist).
    pub subject: Option<Digest>,
    /// For the referrers' list.
    pub artifact_type: Option<String>,
    /// For the referrers' list: a JSON object of strings.
    pub annotations: Option<String>,
    /// Blobs that must be in the repository.
    pub blobs: Vec<Digest>,
    /// Blobs that may lie elsewhere (foreign layers): kept if they are here.
    pub optional_blobs: Vec<Digest>,
    /// Manifests that must be in the repository.
    pub children: Vec<Digest>,
}

/// How a push of a manifest went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutManifest {
    /// It is there, and the tag points at it.
    Done,
    /// These are not in the repository.
    Missing(Vec<Digest>),
}

/// How the removal of a manifest went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoveManifest {
    /// It and its tags are gone.
    Done,
    /// There was none.
    Unknown,
    /// An index of the repository (this digest) needs it.
    Needed(String),
}

/// An entry of the referrers' list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Where the next page goes on.
    pub position: i64,
    /// Digest of the referring manifest.
    pub digest: String,
    /// What it was pushed as.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// Its artifact type.
    pub artifact_type: Option<String>,
    /// A JSON object of strings.
    pub annotations: Option<String>,
}

impl Read<'_> {
    /// A manifest by tag or digest, with its body if `body`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        body: bool,
    ) -> Result<Option<Manifest>> {
        let (by, key) = match reference {
            Reference::Tag(tag) => (
                "JOIN tags t ON t.repository = r.id AND t.name = ?2 JOIN manifests m ON m.id = t.manifest",
                tag.as_str(),
            ),
            Reference::Digest(digest) => (
                "JOIN manifests m ON m.repository = r.id AND m.digest = ?2",
                digest.as_str(),
            ),
        };
        let (column, join) = if body {
            ("b.body", "JOIN manifest_bodies b ON b.manifest = m.id")
        } else {
            ("x''", "")
        };
        let found = self
            .0
            .prepare_cached(&format!(
                "SELECT m.digest, m.media_type, m.size, {column} FROM repositories r {by} {join} WHERE r.name = ?1"
            ))?
            .query_row([repository.as_str(), key], |row| {
                Ok(Manifest {
                    digest: row.get(0)?,
                    media_type: row.get(1)?,
                    size: size_out(row.get(2)?),
                    body: row.get(3)?,
                })
            })
            .optional()?;
        Ok(found)
    }

    /// At most `limit` manifests whose subject is this one, after `position`, in the order of their arrival.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn referrers(
        &self,
        repository: RepositoryId,
        subject: &Digest,
        artifact_type: Option<&str>,
        position: i64,
        limit: u32,
    ) -> Result<Vec<Descriptor>> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, digest, media_type, size, artifact_type, annotations FROM manifests
             WHERE repository = ?1 AND subject = ?2 AND id > ?3 AND (?4 IS NULL OR artifact_type = ?4)
             ORDER BY id LIMIT ?5",
        )?;
        let rows = statement.query_map(
            params![
                repository.0,
                subject.as_str(),
                position,
                artifact_type,
                limit
            ],
            |row| {
                Ok(Descriptor {
                    position: row.get(0)?,
                    digest: row.get(1)?,
                    media_type: row.get(2)?,
                    size: size_out(row.get(3)?),
                    artifact_type: row.get(4)?,
                    annotations: row.get(5)?,
                })
            },
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a manifest names this subject; `None` when the repository does not have it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refers_to(
        &self,
        repository: RepositoryId,
        digest: &Digest,
        subject: &Digest,
    ) -> Result<Option<bool>> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT subject IS ?3 FROM manifests WHERE repository = ?1 AND digest = ?2",
            )?
            .query_row(
                params![repository.0, digest.as_str(), subject.as_str()],
                |row| row.get(0),
            )
            .optional()?)
    }

    fn manifest_id(&self, repository: RepositoryId, digest: &Digest) -> Result<Option<i64>> {
        Ok(self
            .0
            .prepare_cached("SELECT id FROM manifests WHERE repository = ?1 AND digest = ?2")?
            .query_row(params![repository.0, digest.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// Row of a blob that the repository may read.
    fn linked(&self, repository: RepositoryId, digest: &Digest) -> Result<Option<i64>> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT b.id FROM blobs b JOIN blob_links l ON l.blob = b.id AND l.repository = ?1
                 WHERE b.digest = ?2",
            )?
            .query_row(params![repository.0, digest.as_str()], |row| row.get(0))
            .optional()?)
    }
}

impl Write<'_> {
    /// Keeps a manifest whose references are all in the repository, and points a tag at it. Pushing one again changes
    /// what it is pushed as, no more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_manifest(
        &self,
        repository: RepositoryId,
        new: &NewManifest,
        tag: Option<&Tag>,
    ) -> Result<PutManifest> {
        let mut missing = Vec::new();
        let mut blobs = Vec::new();
        for digest in &new.blobs {
            match self.linked(repository, digest)? {
                Some(id) => blobs.push(id),
                None => missing.push(digest.clone()),
            }
        }
        for digest in &new.optional_blobs {
            blobs.extend(self.linked(repository, digest)?);
        }
        let mut children = Vec::new();
        for digest in &new.children {
            match self.manifest_id(repository, digest)? {
                Some(id) => children.push(id),
                None => missing.push(digest.clone()),
            }
        }
        if !missing.is_empty() {
            return Ok(PutManifest::Missing(missing));
        }
        let id = self.insert_manifest(repository, new)?;
        let connection = self.0.0;
        let mut refer = connection.prepare_cached(
            "INSERT OR IGNORE INTO manifest_blobs (manifest, repository, blob) VALUES (?1, ?2, ?3)",
        )?;
        for blob in blobs {
            refer.execute(params![id, repository.0, blob])?;
        }
        let mut refer = connection.prepare_cached(
            "INSERT OR IGNORE INTO manifest_children (manifest, child) VALUES (?1, ?2)",
        )?;
        for child in children {
            refer.execute(params![id, child])?;
        }
        if let Some(tag) = tag {
            connection
                .prepare_cached(
                    "INSERT INTO tags (repository, name, manifest, updated) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (repository, name) DO UPDATE SET manifest = excluded.manifest,
                        updated = excluded.updated",
                )?
                .execute(params![repository.0, tag.as_str(), id, now()])?;
        }
        Ok(PutManifest::Done)
    }

    fn insert_manifest(&self, repository: RepositoryId, new: &NewManifest) -> Result<i64> {
        let id: i64 = self
            .0
            .0
            .prepare_cached(
                "INSERT INTO manifests
                    (repository, digest, media_type, size, subject, artifact_type, annotations, touched)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type,
                    touched = excluded.touched
                 RETURNING id",
            )?
            .query_row(
                params![
                    repository.0,
                    new.digest.as_str(),
                    new.media_type,
                    size_in(new.body.len() as u64),
                    new.subject.as_ref().map(Digest::as_str),
                    new.artifact_type,
                    new.annotations,
                    now()
                ],
                |row| row.get(0),
            )?;
        self.0
            .0
            .prepare_cached(
                "INSERT OR IGNORE INTO manifest_bodies (manifest, body) VALUES (?1, ?2)",
            )?
            .execute(params![id, new.body])?;
        Ok(id)
    }

    /// Removes a manifest with its tags, unless an index needs it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_manifest(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<RemoveManifest> {
        let Some(id) = self.manifest_id(repository, digest)? else {
            return Ok(RemoveManifest::Unknown);
        };
        let needed: Option<String> = self
            .0
            .0
            .prepare_cached(
                "SELECT m.digest FROM manifest_children c JOIN manifests m ON m.id = c.manifest
                 WHERE c.child = ?1 LIMIT 1",
            )?
            .query_row([id], |row| row.get(0))
            .optional()?;
        if let Some(index) = needed {
            return Ok(RemoveManifest::Needed(index));
        }
        self.0
            .0
            .prepare_cached("DELETE FROM manifests WHERE id = ?1")?
            .execute([id])?;
        Ok(RemoveManifest::Done)
    }
}
