//! Projects and the repositories in them.

use super::{Read, Result, Write, now};
use crate::names::{ProjectName, RepositoryName};
use rusqlite::{OptionalExtension, Row, params};

/// A project's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProjectId(pub(super) i64);

/// A repository's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryId(pub(super) i64);

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its row.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// Whether anyone may pull.
    pub public: bool,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
}

/// How the removal of a project went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveProject {
    /// It is gone, with its members and robots.
    Done,
    /// There was none.
    Unknown,
    /// There is something in it.
    NotEmpty,
}

/// A repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repository {
    /// Its row.
    pub id: RepositoryId,
    /// Its project.
    pub project: ProjectId,
}

const PROJECT: &str = "SELECT id, name, public, created FROM projects";

impl Project {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Project {
            id: ProjectId(row.get(0)?),
            name: row.get(1)?,
            public: row.get(2)?,
            created: row.get(3)?,
        })
    }
}

impl Read<'_> {
    /// A project by name.
    ///
    /// # Errors
    /// When the database cannot be read; so everywhere in this layer.
    pub fn project(&self, name: &str) -> Result<Option<Project>> {
        Ok(self
            .0
            .prepare_cached(&format!("{PROJECT} WHERE name = ?1"))?
            .query_row([name], Project::from_row)
            .optional()?)
    }

    /// At most `limit` projects after a name.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn projects_after(&self, last: &str, limit: u32) -> Result<Vec<Project>> {
        let mut statement = self
            .0
            .prepare_cached(&format!("{PROJECT} WHERE name > ?1 ORDER BY name LIMIT ?2"))?;
        let rows = statement.query_map(params![last, limit], Project::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// A repository by its whole name.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn repository(&self, name: &RepositoryName) -> Result<Option<Repository>> {
        let found = self
            .0
            .prepare_cached("SELECT id, project FROM repositories WHERE name = ?1")?
            .query_row([name.as_str()], |row| {
                Ok(Repository {
                    id: RepositoryId(row.get(0)?),
                    project: ProjectId(row.get(1)?),
                })
            })
            .optional()?;
        Ok(found)
    }
}

impl Write<'_> {
    /// Makes a project; `None` when there is one of this name.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn create_project(&self, name: &ProjectName, public: bool) -> Result<Option<ProjectId>> {
        let row = self.next_row("project")?;
        let id = self
            .0
            .0
            .prepare_cached(
                "INSERT INTO projects (id, name, public, created) VALUES (?4, ?1, ?2, ?3)
                 ON CONFLICT (name) DO NOTHING RETURNING id",
            )?
            .query_row(params![name.as_str(), public, now(), row], |row| row.get(0))
            .optional()?;
        Ok(id.map(ProjectId))
    }

    /// Makes a project public or private; `false` when there is none of this name.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn set_public(&self, name: &str, public: bool) -> Result<bool> {
        let changed = self
            .0
            .0
            .prepare_cached("UPDATE projects SET public = ?2 WHERE name = ?1")?
            .execute(params![name, public])?;
        Ok(changed > 0)
    }

    /// Removes an empty project with its members and robots.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn remove_project(&self, name: &str) -> Result<RemoveProject> {
        let Some(project) = self.project(name)? else {
            return Ok(RemoveProject::Unknown);
        };
        let full = self
            .0
            .0
            .prepare_cached("SELECT 1 FROM repositories WHERE project = ?1 LIMIT 1")?
            .exists([project.id.0])?;
        if full {
            return Ok(RemoveProject::NotEmpty);
        }
        self.0
            .0
            .execute("DELETE FROM projects WHERE id = ?1", [project.id.0])?;
        Ok(RemoveProject::Done)
    }

    /// The repository of this name, made if it is new; `None` when its project does not exist.
    ///
    /// # Errors
    /// See [`Read::project`].
    pub fn ensure_repository(&self, name: &RepositoryName) -> Result<Option<Repository>> {
        if let Some(found) = self.repository(name)? {
            return Ok(Some(found));
        }
        let Some(project) = self.project(name.project())? else {
            return Ok(None);
        };
        let id = self
            .0
            .0
            .prepare_cached(
                "INSERT INTO repositories (project, name, created) VALUES (?1, ?2, ?3) RETURNING id",
            )?
            .query_row(params![project.id.0, name.as_str(), now()], |row| row.get(0))?;
        Ok(Some(Repository {
            id: RepositoryId(id),
            project: project.id,
        }))
    }
}
