//! Webhooks, and what they are still to be told. An event is queued in the job that makes the change, so it is told of if
//! and only if it happened.

use super::{ProjectId, Read, Result, Write, now};
use rusqlite::{OptionalExtension, params};

/// Most that wait for one webhook; further events are not told to it until there is room.
pub const MOST_WAITING: u32 = 1000;

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Row.
    pub id: i64,
    /// Where to.
    pub url: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Events that wait for it.
    pub waiting: u32,
}

/// Something to tell.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Row; the same in each attempt.
    pub id: i64,
    /// To which webhook.
    pub webhook: i64,
    /// Where to.
    pub url: String,
    /// What signs it.
    pub secret: String,
    /// JSON.
    pub body: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never its secret.
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("webhook", &self.webhook)
            .finish_non_exhaustive()
    }
}

impl Read<'_> {
    /// A project's webhooks.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn webhooks(&self, project: ProjectId) -> Result<Vec<Webhook>> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, url, created, (SELECT count(*) FROM deliveries d WHERE d.webhook = w.id)
             FROM webhooks w WHERE project = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([project.0], |row| {
            Ok(Webhook {
                id: row.get(0)?,
                url: row.get(1)?,
                created: row.get(2)?,
                waiting: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The targets of a project's webhooks, with what signs what they are told.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn webhook_secrets(&self, project: ProjectId) -> Result<Vec<(String, String)>> {
        let sql = "SELECT url, secret FROM webhooks WHERE project = ?1 ORDER BY id";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map([project.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// When the next delivery is due after this time, in milliseconds since 1970; `None`: nothing is put off.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn next_delivery(&self, after: i64) -> Result<Option<i64>> {
        let sql = "SELECT min(next) FROM deliveries WHERE next > ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.query_row([after], |row| row.get(0))?)
    }

    /// What is to be told at this time: of each webhook the oldest, so that events come in their order and one that does not
    /// answer holds up no other.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn due_deliveries(&self, at: i64, limit: u32) -> Result<Vec<Delivery>> {
        let mut statement = self.0.prepare_cached(
            "SELECT d.id, d.webhook, w.url, w.secret, d.body, d.attempts
             FROM webhooks w JOIN deliveries d ON d.id = (SELECT min(id) FROM deliveries o WHERE o.webhook = w.id)
             WHERE d.next <= ?1 ORDER BY d.next LIMIT ?2",
        )?;
        let rows = statement.query_map(params![at, limit], |row| {
            Ok(Delivery {
                id: row.get(0)?,
                webhook: row.get(1)?,
                url: row.get(2)?,
                secret: row.get(3)?,
                body: row.get(4)?,
                attempts: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Write<'_> {
    /// Adds a webhook; its row.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_webhook(&self, project: ProjectId, url: &str, secret: &str) -> Result<i64> {
        self.0.0.execute(
            "INSERT INTO webhooks (project, url, secret, created) VALUES (?1, ?2, ?3, ?4)",
            params![project.0, url, secret, now()],
        )?;
        Ok(self.0.0.last_insert_rowid())
    }

    /// Removes a webhook with what waits for it; `false` when the project has none of this row.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_webhook(&self, project: ProjectId, id: i64) -> Result<bool> {
        let gone = self.0.0.execute(
            "DELETE FROM webhooks WHERE project = ?1 AND id = ?2",
            params![project.0, id],
        )?;
        Ok(gone > 0)
    }

    /// Queues an event for each webhook of a project that has room. `body` is asked for when there is one.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn queue_event(&self, project: ProjectId, body: impl FnOnce() -> String) -> Result<()> {
        let db = self.0.0;
        let any = db
            .prepare_cached("SELECT 1 FROM webhooks WHERE project = ?1 LIMIT 1")?
            .query_row([project.0], |_| Ok(()))
            .optional()?;
        if any.is_some() {
            db.prepare_cached(
                "INSERT INTO deliveries (webhook, body, next) SELECT id, ?2, ?3 FROM webhooks w WHERE project = ?1
                    AND (SELECT count(*) FROM deliveries d WHERE d.webhook = w.id) < ?4",
            )?
            .execute(params![project.0, body(), now(), MOST_WAITING])?;
        }
        Ok(())
    }

    /// It was told, or is given up.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn end_delivery(&self, id: i64) -> Result<()> {
        let end = "DELETE FROM deliveries WHERE id = ?1";
        self.0.0.prepare_cached(end)?.execute([id])?;
        Ok(())
    }

    /// It was not told; the next attempt is at this time.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn delay_delivery(&self, id: i64, next: i64) -> Result<()> {
        self.0
            .0
            .prepare_cached(
                "UPDATE deliveries SET attempts = attempts + 1, next = ?2 WHERE id = ?1",
            )?
            .execute([id, next])?;
        Ok(())
    }
}
