//! What a project may hold. What it holds is counted by the schema's triggers, within the job that changes it.

use super::{Error, ProjectId, Read, Result, Write, size_in, size_out};
use rusqlite::params;

/// The change would make the project hold more than it may.
#[derive(Debug, thiserror::Error)]
#[error(
    "this would make the project hold {used} bytes, and its quota is {quota}; remove what is not needed and collect garbage, or ask a cloud administrator for more"
)]
pub struct QuotaExceeded {
    /// Bytes that it may hold.
    pub quota: u64,
    /// Bytes that it would hold.
    pub used: u64,
}

impl Read<'_> {
    /// Bytes that a project holds, and that it may hold (`None`: without limit).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn usage(&self, project: ProjectId) -> Result<(u64, Option<u64>)> {
        Ok(self
            .0
            .prepare_cached("SELECT used, quota FROM projects WHERE id = ?1")?
            .query_row([project.0], |row| {
                let quota: Option<i64> = row.get(1)?;
                Ok((size_out(row.get(0)?), quota.map(size_out)))
            })?)
    }

    /// What a project holds, counted anew; for tests and doubts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn recount(&self, project: ProjectId) -> Result<u64> {
        let bytes = self.0.query_row(
            "SELECT (SELECT coalesce(sum(size), 0) FROM blobs WHERE id IN (SELECT l.blob FROM blob_links l
                    JOIN repositories r ON r.id = l.repository WHERE r.project = ?1))
                + (SELECT coalesce(sum(m.size), 0) FROM manifests m JOIN repositories r ON r.id = m.repository
                    WHERE r.project = ?1)",
            [project.0],
            |row| row.get(0),
        )?;
        Ok(size_out(bytes))
    }
}

impl Write<'_> {
    /// Says how much a project may hold. It keeps what it has when that is more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_quota(&self, project: ProjectId, quota: Option<u64>) -> Result<()> {
        self.0.0.execute(
            "UPDATE projects SET quota = ?2 WHERE id = ?1",
            params![project.0, quota.map(size_in)],
        )?;
        Ok(())
    }

    /// Does a change, and refuses it when it makes the project hold more than before and more than it may. The error
    /// undoes the whole job.
    ///
    /// # Errors
    /// Those of the change, and [`QuotaExceeded`].
    pub fn charged<T, E>(
        &self,
        project: ProjectId,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error> + From<QuotaExceeded>,
    {
        let (before, _) = self.usage(project)?;
        let done = change()?;
        match self.usage(project)? {
            (used, Some(quota)) if used > before && used > quota => {
                Err(QuotaExceeded { quota, used }.into())
            }
            _ => Ok(done),
        }
    }
}
