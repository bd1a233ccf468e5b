//! Users, and settings that are no table of their own.

use super::{Read, Result, Write, now};
use rusqlite::{OptionalExtension, params};

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Row.
    pub id: i64,
    /// Name to sign in with.
    pub name: String,
    /// Argon2 hash in PHC form.
    pub password: String,
    /// Whether they may do everything (cloud administrator).
    pub administrator: bool,
}

impl Read<'_> {
    /// A user by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user(&self, name: &str) -> Result<Option<User>> {
        let found = self
            .0
            .prepare_cached("SELECT id, name, password, administrator FROM users WHERE name = ?1")?
            .query_row([name], |row| {
                Ok(User {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    password: row.get(2)?,
                    administrator: row.get(3)?,
                })
            })
            .optional()?;
        Ok(found)
    }

    /// A setting's bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .0
            .prepare_cached("SELECT value FROM settings WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?)
    }
}

impl Write<'_> {
    /// Makes a user, or gives the one of this name another password.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_user(&self, name: &str, password: &str, administrator: bool) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO users (name, password, administrator, created) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET password = excluded.password,
                    administrator = excluded.administrator",
            )?
            .execute(params![name, password, administrator, now()])?;
        Ok(())
    }

    /// Sets a setting.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_setting(&self, key: &str, value: &[u8]) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "INSERT INTO settings (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![key, value])?;
        Ok(())
    }
}
