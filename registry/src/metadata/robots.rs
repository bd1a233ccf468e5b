//! Robots: accounts of programs, each of one project, with a secret that expires.

use super::{ProjectId, Read, Result, Write, now};
use crate::access::{Action, Principal, tokens::action_name};
use rusqlite::{OptionalExtension, Row, params};

/// A robot.
#[derive(Clone, PartialEq, Eq)]
pub struct Robot {
    /// Row.
    pub id: i64,
    /// Its project's name.
    pub project: String,
    /// Its name there.
    pub name: String,
    /// SHA-256 of its secret.
    pub secret: Vec<u8>,
    /// What it may do, as tokens call it.
    pub actions: Vec<String>,
    /// Milliseconds since 1970.
    pub expires: i64,
    /// It may not sign in.
    pub disabled: bool,
    /// Counts its secrets.
    pub generation: i64,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Who made it.
    pub created_by: String,
}

impl std::fmt::Debug for Robot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never its secret.
        f.debug_struct("Robot")
            .field("project", &self.project)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Robot {
    /// Whether it may sign in at this time (milliseconds since 1970).
    #[must_use]
    pub fn is_good(&self, now: i64) -> bool {
        !self.disabled && now < self.expires
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let actions: String = row.get(4)?;
        Ok(Robot {
            id: row.get(0)?,
            project: row.get(1)?,
            name: row.get(2)?,
            secret: row.get(3)?,
            actions: actions.split(',').map(str::to_owned).collect(),
            expires: row.get(5)?,
            disabled: row.get(6)?,
            generation: row.get(7)?,
            created: row.get(8)?,
            created_by: row.get(9)?,
        })
    }
}

impl From<Robot> for Principal {
    fn from(robot: Robot) -> Self {
        let can = [Action::Pull, Action::Push, Action::Delete];
        let may = |action: &Action| {
            action_name(*action).is_some_and(|name| robot.actions.iter().any(|a| a == name))
        };
        Principal::Robot {
            id: robot.id,
            generation: robot.generation,
            name: format!("{}+{}", robot.project, robot.name),
            actions: can.into_iter().filter(may).collect(),
            project: robot.project,
        }
    }
}

const ROBOT: &str = "SELECT r.id, p.name, r.name, r.secret, r.actions, r.expires, r.disabled, r.generation, r.created,
    r.created_by FROM robots r JOIN projects p ON p.id = r.project";

impl Read<'_> {
    /// A robot by its project's name and its own.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn robot(&self, project: &str, name: &str) -> Result<Option<Robot>> {
        Ok(self
            .0
            .prepare_cached(&format!("{ROBOT} WHERE p.name = ?1 AND r.name = ?2"))?
            .query_row([project, name], Robot::from_row)
            .optional()?)
    }

    /// A robot by its row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn robot_by_id(&self, id: i64) -> Result<Option<Robot>> {
        Ok(self
            .0
            .prepare_cached(&format!("{ROBOT} WHERE r.id = ?1"))?
            .query_row([id], Robot::from_row)
            .optional()?)
    }

    /// A project's robots, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn robots(&self, project: ProjectId) -> Result<Vec<Robot>> {
        let mut statement = self
            .0
            .prepare_cached(&format!("{ROBOT} WHERE r.project = ?1 ORDER BY r.name"))?;
        let rows = statement.query_map([project.0], Robot::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// A robot that is to be made.
#[derive(Debug, Clone)]
pub struct NewRobot {
    /// Its name in its project.
    pub name: String,
    /// What it may do, as tokens call it.
    pub actions: Vec<String>,
    /// Milliseconds since 1970.
    pub expires: i64,
    /// Who makes it.
    pub created_by: String,
}

impl Write<'_> {
    /// Makes a robot whose secret has this hash; `false` when there is one of this name.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn create_robot(&self, project: ProjectId, new: &NewRobot, hash: &[u8]) -> Result<bool> {
        // Rows are used again: the generation of a new one is none that a token of an old one can have.
        let made = self.0.0.execute(
            "INSERT INTO robots (project, name, secret, actions, expires, created, created_by, generation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6) ON CONFLICT (project, name) DO NOTHING",
            params![
                project.0,
                new.name,
                hash,
                new.actions.join(","),
                new.expires,
                now(),
                new.created_by
            ],
        )?;
        Ok(made > 0)
    }

    /// Gives a robot another secret and end; what was signed in with the old one ends. `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn renew_robot(
        &self,
        project: ProjectId,
        name: &str,
        hash: &[u8],
        expires: i64,
    ) -> Result<bool> {
        let changed = self.0.0.execute(
            "UPDATE robots SET secret = ?3, expires = ?4, generation = generation + 1
             WHERE project = ?1 AND name = ?2",
            params![project.0, name, hash, expires],
        )?;
        Ok(changed > 0)
    }

    /// Lets a robot sign in, or not any more; `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn disable_robot(&self, project: ProjectId, name: &str, disabled: bool) -> Result<bool> {
        let changed = self.0.0.execute(
            "UPDATE robots SET disabled = ?3, generation = generation + 1
             WHERE project = ?1 AND name = ?2",
            params![project.0, name, disabled],
        )?;
        Ok(changed > 0)
    }

    /// Removes a robot; `false` when there is none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_robot(&self, project: ProjectId, name: &str) -> Result<bool> {
        let removed = self.0.0.execute(
            "DELETE FROM robots WHERE project = ?1 AND name = ?2",
            params![project.0, name],
        )?;
        Ok(removed > 0)
    }
}
