//! Repositories and manifests as people look at them: lists, labels, search.

use super::{ProjectId, Read, RepositoryId, Result, Write, size_out};
use crate::access::Sight;
use crate::digest::Digest;
use crate::names::RepositoryName;
use rusqlite::params;

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRow {
    /// Whole name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// How many tags it has.
    pub tags: u64,
}

/// A tag in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagDetail {
    /// Its name.
    pub name: String,
    /// The manifest's digest.
    pub digest: String,
    /// What the manifest is.
    pub media_type: String,
    /// When it was pushed last, milliseconds since 1970.
    pub updated: i64,
    /// Bytes of the manifest and its blobs (not of an index's children).
    pub size: u64,
    /// The manifest's labels.
    pub labels: Vec<String>,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// Its name.
    pub name: String,
    /// `#rrggbb`.
    pub color: String,
}

impl Read<'_> {
    /// At most `limit` repositories of a project after a whole name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn repositories_of(
        &self,
        project: ProjectId,
        last: &str,
        limit: u32,
    ) -> Result<Vec<RepositoryRow>> {
        let mut statement = self.0.prepare_cached(
            "SELECT name, created, (SELECT count(*) FROM tags t WHERE t.repository = r.id)
             FROM repositories r WHERE project = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )?;
        let rows = statement.query_map(params![project.0, last, limit], |row| {
            Ok(RepositoryRow {
                name: row.get(0)?,
                created: row.get(1)?,
                tags: size_out(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// At most `limit` tags after a name; only those whose manifest has the label, if one is given.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tag_details(
        &self,
        repository: RepositoryId,
        label: Option<&str>,
        last: &str,
        limit: u32,
    ) -> Result<Vec<TagDetail>> {
        let mut statement = self.0.prepare_cached(
            "SELECT t.name, m.digest, m.media_type, t.updated,
                m.size + (SELECT coalesce(sum(b.size), 0) FROM manifest_blobs x JOIN blobs b ON b.id = x.blob
                    WHERE x.manifest = m.id),
                (SELECT group_concat(l.name, ',') FROM manifest_labels ml JOIN labels l ON l.id = ml.label
                    WHERE ml.manifest = m.id)
             FROM tags t JOIN manifests m ON m.id = t.manifest
             WHERE t.repository = ?1 AND t.name > ?2 AND (?3 IS NULL OR EXISTS (SELECT 1 FROM manifest_labels ml
                JOIN labels l ON l.id = ml.label WHERE ml.manifest = m.id AND l.name = ?3))
             ORDER BY t.name LIMIT ?4",
        )?;
        let rows = statement.query_map(params![repository.0, last, label, limit], |row| {
            let labels: Option<String> = row.get(5)?;
            let mut labels: Vec<String> = labels
                .map(|l| l.split(',').map(str::to_owned).collect())
                .unwrap_or_default();
            labels.sort();
            Ok(TagDetail {
                name: row.get(0)?,
                digest: row.get(1)?,
                media_type: row.get(2)?,
                updated: row.get(3)?,
                size: size_out(row.get(4)?),
                labels,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// At most `limit` repositories after a whole name that hold a text in it, or a tag with that text; with whether the
    /// name or a tag it was.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn search(
        &self,
        sight: &Sight,
        text: &str,
        last: &str,
        limit: u32,
    ) -> Result<Vec<(String, Vec<String>)>> {
        let (all, member, own) = match sight {
            Sight::Everything => (true, (0, 0), None),
            Sight::Public { member, own } => (false, member.unwrap_or((0, 0)), own.as_deref()),
            Sight::Nothing => return Ok(Vec::new()),
        };
        let mut statement = self.0.prepare_cached(
            "SELECT r.name, (SELECT group_concat(name, ',') FROM (SELECT t.name FROM tags t
                WHERE t.repository = r.id AND instr(lower(t.name), lower(?1)) > 0 ORDER BY t.name LIMIT 20)) AS found
             FROM repositories r WHERE r.name > ?2 AND (?4 OR r.project IN (
                SELECT id FROM projects WHERE public OR name = ?7
                UNION SELECT project FROM members WHERE user = ?5 AND role >= ?6))
             AND (instr(r.name, lower(?1)) > 0 OR found IS NOT NULL)
             ORDER BY r.name LIMIT ?3",
        )?;
        let rows = statement.query_map(
            params![text, last, limit, all, member.0, member.1, own],
            |row| {
                let tags: Option<String> = row.get(1)?;
                let tags = tags.map(|t| t.split(',').map(str::to_owned).collect());
                Ok((row.get(0)?, tags.unwrap_or_default()))
            },
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// A project's labels.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn labels(&self, project: ProjectId) -> Result<Vec<LabelRow>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT name, color FROM labels WHERE project = ?1 ORDER BY name")?;
        let rows = statement.query_map([project.0], |row| {
            Ok(LabelRow {
                name: row.get(0)?,
                color: row.get(1)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Makes a label, or gives it another colour.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_label(&self, project: ProjectId, name: &str, color: &str) -> Result<()> {
        self.0.0.execute(
            "INSERT INTO labels (project, name, color) VALUES (?1, ?2, ?3)
             ON CONFLICT (project, name) DO UPDATE SET color = excluded.color",
            params![project.0, name, color],
        )?;
        Ok(())
    }

    /// Removes a label from the project and all its manifests; `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_label(&self, project: ProjectId, name: &str) -> Result<bool> {
        let removed = self.0.0.execute(
            "DELETE FROM labels WHERE project = ?1 AND name = ?2",
            params![project.0, name],
        )?;
        Ok(removed > 0)
    }

    /// Gives a manifest a label of its project, or takes it; `false` when there is no such manifest or label.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn label(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        label: &str,
        give: bool,
    ) -> Result<bool> {
        let sql = if give {
            "INSERT INTO manifest_labels (manifest, label)
             SELECT m.id, l.id FROM manifests m JOIN repositories r ON r.id = m.repository
             JOIN labels l ON l.project = r.project
             WHERE r.name = ?1 AND m.digest = ?2 AND l.name = ?3
             ON CONFLICT (manifest, label) DO UPDATE SET label = excluded.label"
        } else {
            "DELETE FROM manifest_labels WHERE (manifest, label) IN (
             SELECT m.id, l.id FROM manifests m JOIN repositories r ON r.id = m.repository
             JOIN labels l ON l.project = r.project
             WHERE r.name = ?1 AND m.digest = ?2 AND l.name = ?3)"
        };
        let changed = self
            .0
            .0
            .execute(sql, params![repository.as_str(), digest.as_str(), label])?;
        Ok(changed > 0)
    }

    /// Removes a repository with all that is in it. Its blobs stay until they are collected.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_repository(&self, repository: RepositoryId) -> Result<()> {
        let db = self.0.0;
        for sql in [
            "DELETE FROM manifest_children WHERE manifest IN (SELECT id FROM manifests WHERE repository = ?1)",
            "DELETE FROM manifests WHERE repository = ?1",
            "DELETE FROM blob_links WHERE repository = ?1",
            "DELETE FROM repositories WHERE id = ?1",
        ] {
            db.execute(sql, [repository.0])?;
        }
        Ok(())
    }
}
