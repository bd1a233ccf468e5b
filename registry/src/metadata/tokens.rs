//! Keys that sign tokens, and refresh tokens.

use super::{Read, Result, Write, now};
use rusqlite::{OptionalExtension, Row, params};

/// A key that signs tokens, or did.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Its name in a token's header.
    pub id: String,
    /// Its bytes.
    pub secret: Vec<u8>,
    /// Milliseconds since 1970.
    pub created: i64,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never its secret.
        f.debug_struct("TokenKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TokenKey {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(TokenKey {
            id: row.get(0)?,
            secret: row.get(1)?,
            created: row.get(2)?,
        })
    }
}

/// Most refresh tokens of one user; the oldest goes when there are more.
const REFRESH_TOKENS: u32 = 100;

impl Read<'_> {
    /// A key by its name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn token_key(&self, id: &str) -> Result<Option<TokenKey>> {
        Ok(self
            .0
            .prepare_cached("SELECT id, secret, created FROM token_keys WHERE id = ?1")?
            .query_row([id], TokenKey::from_row)
            .optional()?)
    }

    /// The key that signs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn signing_key(&self) -> Result<Option<TokenKey>> {
        Ok(self
            .0
            .prepare_cached(
                "SELECT id, secret, created FROM token_keys WHERE retired IS NULL
                 ORDER BY created DESC LIMIT 1",
            )?
            .query_row([], TokenKey::from_row)
            .optional()?)
    }

    /// Whose refresh token has this hash, if it is still good.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refresh_token(&self, hash: &[u8]) -> Result<Option<i64>> {
        Ok(self
            .0
            .prepare_cached("SELECT user FROM refresh_tokens WHERE hash = ?1 AND expires > ?2")?
            .query_row(params![hash, now()], |row| row.get(0))
            .optional()?)
    }
}

impl Write<'_> {
    /// Lets a key sign in place of those before, and forgets those that were retired before a time.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_token_key(&self, key: &TokenKey, forget: i64) -> Result<()> {
        let db = self.0.0;
        db.execute(
            "UPDATE token_keys SET retired = ?1 WHERE retired IS NULL",
            [now()],
        )?;
        db.execute("DELETE FROM token_keys WHERE retired < ?1", [forget])?;
        db.execute(
            "INSERT INTO token_keys (id, secret, created) VALUES (?1, ?2, ?3)",
            params![key.id, key.secret, key.created],
        )?;
        Ok(())
    }

    /// Keeps a refresh token's hash; those that expired go, and so does a user's oldest when there are too many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_refresh_token(&self, hash: &[u8], user: i64, expires: i64) -> Result<()> {
        let db = self.0.0;
        db.prepare_cached("DELETE FROM refresh_tokens WHERE user = ?1 AND expires <= ?2")?
            .execute(params![user, now()])?;
        db.prepare_cached(
            "INSERT INTO refresh_tokens (hash, user, created, expires) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![hash, user, now(), expires])?;
        db.prepare_cached(
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens
             WHERE user = ?1 ORDER BY created DESC, hash LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![user, REFRESH_TOKENS])?;
        Ok(())
    }
}
