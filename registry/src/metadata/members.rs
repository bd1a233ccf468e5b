//! Members of projects.

use super::{ProjectId, Read, Result, Write, now};
use crate::access::Role;
use rusqlite::{OptionalExtension, params};

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user's name.
    pub user: String,
    /// What they are there.
    pub role: Role,
    /// Milliseconds since 1970.
    pub added: i64,
}

impl Read<'_> {
    /// What a user is in a project.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn role(&self, project: ProjectId, user: i64) -> Result<Option<Role>> {
        let number: Option<i64> = self
            .0
            .prepare_cached("SELECT role FROM members WHERE project = ?1 AND user = ?2")?
            .query_row([project.0, user], |row| row.get(0))
            .optional()?;
        Ok(number.and_then(Role::from_number))
    }

    /// A project's members, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn members(&self, project: ProjectId) -> Result<Vec<Member>> {
        let mut statement = self.0.prepare_cached(
            "SELECT u.name, m.role, m.added FROM members m JOIN users u ON u.id = m.user
             WHERE m.project = ?1 ORDER BY u.name",
        )?;
        let rows = statement.query_map([project.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        let mut members = Vec::new();
        for row in rows {
            let (user, number, added) = row?;
            // A role that a newer program wrote is none that we could grant.
            if let Some(role) = Role::from_number(number) {
                members.push(Member { user, role, added });
            }
        }
        Ok(members)
    }
}

impl Write<'_> {
    /// Makes a user a member, or changes what they are.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_member(&self, project: ProjectId, user: i64, role: Role) -> Result<()> {
        self.0.0.execute(
            "INSERT INTO members (project, user, role, added) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (project, user) DO UPDATE SET role = excluded.role",
            params![project.0, user, role.number(), now()],
        )?;
        Ok(())
    }

    /// Takes a user out of a project; `false` when they were no member.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_member(&self, project: ProjectId, user: i64) -> Result<bool> {
        let removed = self.0.0.execute(
            "DELETE FROM members WHERE project = ?1 AND user = ?2",
            [project.0, user],
        )?;
        Ok(removed > 0)
    }
}
