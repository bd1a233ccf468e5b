//! Local users.

use super::{Read, Result, Write, now};
use crate::access::Role;
use rusqlite::{OptionalExtension, Row, params};

/// A local user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Row.
    pub id: i64,
    /// Name to sign in with.
    pub name: String,
    /// Argon2 hash in PHC form.
    pub password: String,
    /// Whether they may do everything (cloud administrator).
    pub administrator: bool,
    /// They may not sign in.
    pub disabled: bool,
    /// Counts what ends tokens: a new password, a user who was disabled.
    pub generation: i64,
    /// Milliseconds since 1970.
    pub created: i64,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password's hash.
        f.debug_struct("User")
            .field("name", &self.name)
            .field("administrator", &self.administrator)
            .finish_non_exhaustive()
    }
}

impl User {
    /// Whether what was proved in this generation still holds.
    #[must_use]
    pub fn is_good(&self, generation: i64) -> bool {
        !self.disabled && self.generation == generation
    }

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(User {
            id: row.get(0)?,
            name: row.get(1)?,
            password: row.get(2)?,
            administrator: row.get(3)?,
            disabled: row.get(4)?,
            generation: row.get(5)?,
            created: row.get(6)?,
        })
    }
}

/// How the change of a user went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeUser {
    /// It is so now.
    Done,
    /// There is no such user.
    Unknown,
    /// It would leave no cloud administrator who may sign in.
    LastAdministrator,
}

pub(super) const USER: &str =
    "SELECT id, name, password, administrator, disabled, generation, created FROM users";

impl Read<'_> {
    /// A user by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user(&self, name: &str) -> Result<Option<User>> {
        Ok(self
            .0
            .prepare_cached(&format!("{USER} WHERE name = ?1"))?
            .query_row([name], User::from_row)
            .optional()?)
    }

    /// A user by row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user_by_id(&self, id: i64) -> Result<Option<User>> {
        Ok(self
            .0
            .prepare_cached(&format!("{USER} WHERE id = ?1"))?
            .query_row([id], User::from_row)
            .optional()?)
    }

    /// At most `limit` users after a name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn users_after(&self, last: &str, limit: u32) -> Result<Vec<User>> {
        let mut statement = self
            .0
            .prepare_cached(&format!("{USER} WHERE name > ?1 ORDER BY name LIMIT ?2"))?;
        let rows = statement.query_map(params![last, limit], User::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The projects that a user is a member of, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn memberships(&self, user: i64) -> Result<Vec<(String, Role)>> {
        let mut statement = self.0.prepare_cached(
            "SELECT p.name, m.role FROM members m JOIN projects p ON p.id = m.project
             WHERE m.user = ?1 ORDER BY p.name",
        )?;
        let rows = statement.query_map([user], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut found = Vec::new();
        for row in rows {
            let (project, number) = row?;
            if let Some(role) = Role::from_number(number) {
                found.push((project, role));
            }
        }
        Ok(found)
    }

    /// Whether somebody else than this user administers the registry and may sign in.
    fn others_administer(&self, id: i64) -> Result<bool> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT 1 FROM users WHERE administrator AND NOT disabled AND id <> ?1 LIMIT 1",
            )?
            .exists([id])?)
    }
}

impl Write<'_> {
    /// Makes a user, or gives the one of this name another password.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_user(&self, name: &str, password: &str, administrator: bool) -> Result<()> {
        let row = self.next_row("user")?;
        self.0
            .0
            .prepare_cached(
                "INSERT INTO users (id, name, password, administrator, created, generation)
                 VALUES (?5, ?1, ?2, ?3, ?4, ?4)
                 ON CONFLICT (name) DO UPDATE SET password = excluded.password,
                    administrator = excluded.administrator, generation = generation + 1",
            )?
            .execute(params![name, password, administrator, now(), row])?;
        self.0.0.execute(
            "DELETE FROM refresh_tokens WHERE user = (SELECT id FROM users WHERE name = ?1)",
            [name],
        )?;
        Ok(())
    }

    /// Makes a user; `false` when there is one of this name.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn create_user(&self, name: &str, password: &str, administrator: bool) -> Result<bool> {
        if self.user(name)?.is_some() {
            return Ok(false);
        }
        self.set_user(name, password, administrator)?;
        Ok(true)
    }

    /// Gives a user another password; tokens and sign-ins from before end.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_password(&self, name: &str, password: &str) -> Result<ChangeUser> {
        let Some(user) = self.user(name)? else {
            return Ok(ChangeUser::Unknown);
        };
        let db = self.0.0;
        db.execute(
            "UPDATE users SET password = ?2, generation = generation + 1 WHERE id = ?1",
            params![user.id, password],
        )?;
        db.execute("DELETE FROM refresh_tokens WHERE user = ?1", [user.id])?;
        Ok(ChangeUser::Done)
    }

    /// Makes a user a cloud administrator or not, lets them sign in or not.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn change_user(
        &self,
        name: &str,
        administrator: Option<bool>,
        disabled: Option<bool>,
    ) -> Result<ChangeUser> {
        let Some(user) = self.user(name)? else {
            return Ok(ChangeUser::Unknown);
        };
        let administrator = administrator.unwrap_or(user.administrator);
        let disabled = disabled.unwrap_or(user.disabled);
        if (!administrator || disabled) && !self.others_administer(user.id)? {
            return Ok(ChangeUser::LastAdministrator);
        }
        let ends = disabled && !user.disabled;
        let db = self.0.0;
        db.execute(
            "UPDATE users SET administrator = ?2, disabled = ?3, generation = generation + ?4
             WHERE id = ?1",
            params![user.id, administrator, disabled, ends],
        )?;
        if ends {
            db.execute("DELETE FROM refresh_tokens WHERE user = ?1", [user.id])?;
        }
        Ok(ChangeUser::Done)
    }

    /// Removes a user with their memberships.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_user(&self, name: &str) -> Result<ChangeUser> {
        let Some(user) = self.user(name)? else {
            return Ok(ChangeUser::Unknown);
        };
        if !self.others_administer(user.id)? {
            return Ok(ChangeUser::LastAdministrator);
        }
        self.0
            .0
            .execute("DELETE FROM users WHERE id = ?1", [user.id])?;
        Ok(ChangeUser::Done)
    }
}
