//! Keys that sign tokens, and refresh tokens.

use super::users::{USER, User};
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
    /// When another one began to sign in its place, milliseconds since 1970.
    pub retired: Option<i64>,
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
            retired: row.get(3)?,
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
            .prepare_cached("SELECT id, secret, created, retired FROM token_keys WHERE id = ?1")?
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
                "SELECT id, secret, created, retired FROM token_keys WHERE retired IS NULL
                 ORDER BY created DESC LIMIT 1",
            )?
            .query_row([], TokenKey::from_row)
            .optional()?)
    }

    /// Whose refresh token has this hash, if it is still good.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refresh_token(&self, hash: &[u8]) -> Result<Option<User>> {
        // One statement: the token goes with the password, and must not be found beside the next one.
        Ok(self
            .0
            .prepare_cached(&format!(
                "{USER} WHERE NOT disabled AND id = (SELECT user FROM refresh_tokens WHERE hash = ?1 AND expires > ?2)"
            ))?
            .query_row(params![hash, now()], User::from_row)
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
            [key.created],
        )?;
        self.forget_token_keys(forget)?;
        db.execute(
            "INSERT INTO token_keys (id, secret, created) VALUES (?1, ?2, ?3)",
            params![key.id, key.secret, key.created],
        )?;
        Ok(())
    }

    /// Forgets keys that were retired before a time.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn forget_token_keys(&self, before: i64) -> Result<()> {
        let forget = "DELETE FROM token_keys WHERE retired < ?1";
        self.0.0.execute(forget, [before])?;
        Ok(())
    }

    /// Keeps a refresh token's hash; those that expired go, and so does a user's oldest when there are too many. `false`:
    /// the user is not in this generation any more, or is disabled.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_refresh_token(
        &self,
        hash: &[u8],
        user: i64,
        generation: i64,
        expires: i64,
    ) -> Result<bool> {
        let db = self.0.0;
        db.prepare_cached("DELETE FROM refresh_tokens WHERE user = ?1 AND expires <= ?2")?
            .execute(params![user, now()])?;
        let added = db
            .prepare_cached(
                "INSERT INTO refresh_tokens (hash, user, created, expires)
                 SELECT ?1, id, ?4, ?5 FROM users WHERE id = ?2 AND generation = ?3 AND NOT disabled",
            )?
            .execute(params![hash, user, generation, now(), expires])?;
        db.prepare_cached(
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens
             WHERE user = ?1 ORDER BY created DESC, hash LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![user, REFRESH_TOKENS])?;
        Ok(added > 0)
    }
}

#[cfg(test)]
mod tests {
    use crate::metadata::{Metadata, now};

    #[tokio::test]
    async fn no_refresh_token_is_kept_for_a_password_that_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&folder.path().join("m.sqlite")).unwrap();
        let later = now() + 60_000;
        let done = metadata.write(move |db| {
            db.set_user("jo", "first", false)?;
            let proved = db.user("jo")?.unwrap();
            let before = db.add_refresh_token(b"a", proved.id, proved.generation, later)?;
            assert_eq!(db.refresh_token(b"a")?.unwrap().name, "jo");
            // As the command line gives another one.
            db.set_user("jo", "second", false)?;
            assert!(db.refresh_token(b"a")?.is_none());
            let after = db.add_refresh_token(b"b", proved.id, proved.generation, later)?;
            assert!(db.refresh_token(b"b")?.is_none());
            Ok::<_, crate::metadata::Error>((before, after))
        });
        assert_eq!(done.await.unwrap(), (true, false));
    }
}
