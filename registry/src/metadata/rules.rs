//! Rules over a project's tags: which must not move, and which may go.

use super::{ProjectId, Read, RepositoryId, Result, Write};
use crate::digest::Digest;
use crate::glob;
use crate::names::RepositoryName;
use rusqlite::{OptionalExtension, params};

/// Tags that must not move and not go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImmutableRule {
    /// Row.
    pub id: i64,
    /// Pattern of repositories, without the project.
    pub repositories: String,
    /// Pattern of tags.
    pub tags: String,
}

/// Tags that go unless this or another rule keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// Row.
    pub id: i64,
    /// Pattern of repositories, without the project.
    pub repositories: String,
    /// Pattern of tags.
    pub tags: String,
    /// Keeps this many, those pushed last.
    pub keep_latest: Option<u32>,
    /// Keeps those pushed within this many days.
    pub keep_days: Option<u32>,
}

/// A tag, as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// Its name.
    pub name: String,
    /// The manifest's digest.
    pub digest: String,
    /// When it was pushed last, milliseconds since 1970.
    pub updated: i64,
}

/// The part of a repository's name that patterns are over.
pub(super) fn local(name: &RepositoryName) -> &str {
    name.as_str().split_once('/').map_or("", |(_, rest)| rest)
}

impl Read<'_> {
    /// A project's rules of immutable tags.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn immutable_rules(&self, project: ProjectId) -> Result<Vec<ImmutableRule>> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, repositories, tags FROM immutable_rules WHERE project = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([project.0], |row| {
            Ok(ImmutableRule {
                id: row.get(0)?,
                repositories: row.get(1)?,
                tags: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a tag must not move.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_immutable(
        &self,
        project: ProjectId,
        repository: &RepositoryName,
        tag: &str,
    ) -> Result<bool> {
        let rules = self.immutable_rules(project)?;
        Ok(rules.iter().any(|r| {
            glob::matches(&r.repositories, local(repository)) && glob::matches(&r.tags, tag)
        }))
    }

    /// A project's rules of retention.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn retention_rules(&self, project: ProjectId) -> Result<Vec<RetentionRule>> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, repositories, tags, keep_latest, keep_days FROM retention_rules
             WHERE project = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([project.0], |row| {
            Ok(RetentionRule {
                id: row.get(0)?,
                repositories: row.get(1)?,
                tags: row.get(2)?,
                keep_latest: row.get(3)?,
                keep_days: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// A repository's tags, those pushed last first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags_by_age(&self, repository: RepositoryId) -> Result<Vec<TagRow>> {
        let mut statement = self.0.prepare_cached(
            "SELECT t.name, m.digest, t.updated FROM tags t JOIN manifests m ON m.id = t.manifest
             WHERE t.repository = ?1 ORDER BY t.updated DESC, t.name DESC",
        )?;
        let rows = statement.query_map([repository.0], |row| {
            Ok(TagRow {
                name: row.get(0)?,
                digest: row.get(1)?,
                updated: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The digest that a tag points at, and when it was pushed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tag(&self, repository: RepositoryId, tag: &str) -> Result<Option<TagRow>> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT t.name, m.digest, t.updated FROM tags t JOIN manifests m ON m.id = t.manifest
                 WHERE t.repository = ?1 AND t.name = ?2",
            )?
            .query_row(params![repository.0, tag], |row| {
                Ok(TagRow {
                    name: row.get(0)?,
                    digest: row.get(1)?,
                    updated: row.get(2)?,
                })
            })
            .optional()?)
    }

    /// The tags that point at a manifest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags_of(&self, repository: RepositoryId, digest: &Digest) -> Result<Vec<String>> {
        let mut statement = self.0.prepare_cached(
            "SELECT t.name FROM tags t JOIN manifests m ON m.id = t.manifest
             WHERE m.repository = ?1 AND m.digest = ?2 ORDER BY t.name",
        )?;
        let rows = statement.query_map(params![repository.0, digest.as_str()], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Adds a rule of immutable tags; its row.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_immutable_rule(
        &self,
        project: ProjectId,
        repositories: &str,
        tags: &str,
    ) -> Result<i64> {
        Ok(self.0.0.query_row(
            "INSERT INTO immutable_rules (project, repositories, tags) VALUES (?1, ?2, ?3) RETURNING id",
            params![project.0, repositories, tags],
            |row| row.get(0),
        )?)
    }

    /// Removes one; `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_immutable_rule(&self, project: ProjectId, id: i64) -> Result<bool> {
        let removed = self.0.0.execute(
            "DELETE FROM immutable_rules WHERE project = ?1 AND id = ?2",
            [project.0, id],
        )?;
        Ok(removed > 0)
    }

    /// Adds a rule of retention (its ID is given here); its row.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_retention_rule(&self, project: ProjectId, rule: &RetentionRule) -> Result<i64> {
        Ok(self.0.0.query_row(
            "INSERT INTO retention_rules (project, repositories, tags, keep_latest, keep_days)
             VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
            params![
                project.0,
                rule.repositories,
                rule.tags,
                rule.keep_latest,
                rule.keep_days
            ],
            |row| row.get(0),
        )?)
    }

    /// Removes one; `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_retention_rule(&self, project: ProjectId, id: i64) -> Result<bool> {
        let removed = self.0.0.execute(
            "DELETE FROM retention_rules WHERE project = ?1 AND id = ?2",
            [project.0, id],
        )?;
        Ok(removed > 0)
    }
}
