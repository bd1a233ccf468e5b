//! The audit log: rows are added, searched, and go only when they are older than what is kept. Triggers of the schema
//! refuse everything else.

use super::{ProjectId, Read, Result, Write, now};
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that was done or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Rises with each entry.
    pub id: i64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Who: a user, a robot (`PROJECT+NAME`), `anonymous`, or `console`.
    pub user: String,
    /// How they proved it: `password`, `token`, `secret`, `console`, or `none`.
    pub via: String,
    /// From where: an address, or `console`.
    pub source: String,
    /// In which project.
    pub project: Option<String>,
    /// In which repository (whole name).
    pub repository: Option<String>,
    /// What.
    pub operation: String,
    /// To what: a tag, a digest, a user, a rule.
    pub target: Option<String>,
    /// With which result: an HTTP status.
    pub status: u16,
    /// More on it.
    pub detail: Option<String>,
    /// How often. More than once: after an entry of the same kind, so often again within a minute.
    pub count: u32,
}

/// Which entries are wanted; what is left out is not looked at.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of this user.
    pub user: Option<String>,
    /// Only in this project.
    pub project: Option<String>,
    /// Only in the project of this row, whatever was called so before.
    pub project_row: Option<ProjectId>,
    /// Only in this repository.
    pub repository: Option<String>,
    /// Only this operation, or those that begin with it and a dot.
    pub operation: Option<String>,
    /// Not before this time.
    pub since: Option<i64>,
    /// Not at or after this time.
    pub until: Option<i64>,
    /// Only those that hold this text somewhere.
    pub text: Option<String>,
    /// Only those that were refused.
    pub refused: bool,
    /// Only entries with a smaller ID: the next page.
    pub before: Option<i64>,
}

impl AuditFilter {
    /// The condition, and its values.
    fn sql(&self) -> (String, Vec<Value>) {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut equal = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        };
        let texts = [
            ("user = ?", &self.user),
            ("project = ?", &self.project),
            ("repository = ?", &self.repository),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                equal(condition, value.clone().into());
            }
        }
        if let Some(operation) = &self.operation {
            equal(
                "(operation = ? OR substr(operation, 1, length(?) + 1) = ? || '.')",
                operation.clone().into(),
            );
        }
        let numbers = [
            ("time >= ?", self.since),
            ("time < ?", self.until),
            ("id < ?", self.before),
            ("project_row = ?", self.project_row.map(|p| p.0)),
        ];
        for (condition, value) in numbers {
            if let Some(value) = value {
                equal(condition, value.into());
            }
        }
        if let Some(text) = &self.text {
            // `instr` and not LIKE: nothing in the text has a meaning of its own.
            equal(
                "instr(lower(concat_ws(' ', user, source, repository, operation, target, detail)), lower(?)) > 0",
                text.clone().into(),
            );
        }
        if self.refused {
            conditions.push("status >= 400".into());
        }
        (conditions.join(" AND "), values)
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.get(0)?,
        time: row.get(1)?,
        user: row.get(2)?,
        via: row.get(3)?,
        source: row.get(4)?,
        project: row.get(5)?,
        repository: row.get(6)?,
        operation: row.get(7)?,
        target: row.get(8)?,
        status: row.get(9)?,
        detail: row.get(10)?,
        count: row.get(11)?,
    })
}

impl Read<'_> {
    /// At most `limit` entries, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn audit(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditEntry>> {
        let (condition, mut values) = filter.sql();
        values.push(limit.into());
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT id, time, user, via, source, project, repository, operation, target, status, detail,
                count
             FROM audit WHERE {condition} ORDER BY id DESC LIMIT ?{}",
            values.len()
        ))?;
        let rows = statement.query_map(params_from_iter(values), from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Read<'_> {
    /// When the newest entry was made, milliseconds since 1970.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn newest_audit(&self) -> Result<Option<i64>> {
        let mut statement = self.0.prepare_cached("SELECT max(time) FROM audit")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }
}

impl Read<'_> {
    /// How many entries there are from before a time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_audit(&self, before: i64) -> Result<u64> {
        let mut statement = self
            .0
            .prepare_cached("SELECT count(*) FROM audit WHERE time < ?1")?;
        Ok(super::size_out(
            statement.query_row([before], |row| row.get(0))?,
        ))
    }

    /// About how many entries there are: their numbers are without gaps, and the oldest ones go. Costs nothing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn audit_rows(&self) -> Result<u64> {
        let mut statement = self.0.prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM audit) - (SELECT min(id) FROM audit) + 1, 0)",
        )?;
        Ok(super::size_out(statement.query_row([], |row| row.get(0))?))
    }
}

impl Write<'_> {
    /// Adds an entry; its ID and, when they are 0, its time and count are given here.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_audit(&self, entry: &AuditEntry) -> Result<()> {
        let time = if entry.time == 0 { now() } else { entry.time };
        self.0
            .0
            .prepare_cached(
                "INSERT INTO audit (time, user, via, source, project, repository, operation, target, status, detail, count,
                    project_row)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, (SELECT id FROM projects WHERE name = ?5))",
            )?
            .execute(params![
                time,
                entry.user,
                entry.via,
                entry.source,
                entry.project,
                entry.repository,
                entry.operation,
                entry.target,
                entry.status,
                entry.detail,
                entry.count.max(1)
            ])?;
        Ok(())
    }

    /// Removes at most `limit` entries from before a time; how many. What is younger than a day is never removed.
    ///
    /// # Errors
    /// When the database cannot be written, or the time is less than a day ago.
    pub fn forget_audit(&self, before: i64, limit: u32) -> Result<u64> {
        let db = self.0.0;
        db.execute("UPDATE audit_floor SET time = ?1 WHERE time < ?1", [before])?;
        let removed = db.execute(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE time < ?1 ORDER BY time LIMIT ?2)",
            params![before, limit],
        )?;
        Ok(removed as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    fn entry(time: i64, operation: &str) -> AuditEntry {
        AuditEntry {
            id: 0,
            time,
            user: "jo".into(),
            via: "password".into(),
            source: "127.0.0.1".into(),
            project: Some("p".into()),
            repository: None,
            operation: operation.into(),
            target: Some("100%_v1".into()),
            status: 200,
            detail: None,
            count: 0,
        }
    }

    #[tokio::test]
    async fn entries_must_not_be_changed_or_removed_before_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&folder.path().join("m.sqlite")).unwrap();
        let day = 86_400_000;
        metadata
            .write(move |db| {
                db.add_audit(&entry(now() - 3 * day, "old"))?;
                db.add_audit(&entry(0, "new"))
            })
            .await
            .unwrap();
        for sql in [
            "UPDATE audit SET user = 'somebody else'",
            "DELETE FROM audit",
            "REPLACE INTO audit (id, time, user, via, source, operation, status)
             SELECT id, time, 'x', via, source, operation, status FROM audit",
            "DELETE FROM audit WHERE operation = 'old'",
            "UPDATE audit_floor SET time = 1 << 60",
            "DELETE FROM audit_floor",
        ] {
            let tried = metadata
                .write(move |db| Ok::<_, crate::metadata::Error>(db.0.0.execute(sql, [])?))
                .await;
            let message = tried.unwrap_err().to_string();
            assert!(message.contains("the audit log"), "{sql}: {message}");
        }
        let forget = |before| metadata.write(move |db| db.forget_audit(before, 10));
        assert!(forget(now() - day / 2).await.is_err());
        assert_eq!(forget(now() - 2 * day).await.unwrap(), 1);
        // The floor does not sink again.
        assert_eq!(forget(now() - 5 * day).await.unwrap(), 0);
        let left = metadata
            .read(|db| db.audit(&AuditFilter::default(), 10))
            .unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].operation, "new");
    }

    #[tokio::test]
    async fn each_filter_finds_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&folder.path().join("m.sqlite")).unwrap();
        metadata
            .write(|db| {
                db.add_audit(&entry(1000, "user.create"))?;
                db.add_audit(&entry(2000, "user"))?;
                db.add_audit(&entry(3000, "userland"))
            })
            .await
            .unwrap();
        let found = |filter: AuditFilter| {
            let list = metadata.read(|db| db.audit(&filter, 10)).unwrap();
            list.iter().map(|e| e.id).collect::<Vec<_>>()
        };
        let all = AuditFilter::default();
        assert_eq!(found(all.clone()), [3, 2, 1]);
        let f = AuditFilter {
            operation: Some("user".into()),
            ..all.clone()
        };
        assert_eq!(found(f), [2, 1]);
        let f = AuditFilter {
            since: Some(2000),
            until: Some(3000),
            ..all.clone()
        };
        assert_eq!(found(f), [2]);
        let f = AuditFilter {
            text: Some("0%_V".into()),
            ..all.clone()
        };
        assert_eq!(found(f), [3, 2, 1]);
        let f = AuditFilter {
            text: Some("%user%".into()),
            ..all.clone()
        };
        assert_eq!(found(f), [0; 0]);
        let f = AuditFilter {
            project: Some("p".into()),
            user: Some("jo".into()),
            before: Some(3),
            ..all.clone()
        };
        assert_eq!(found(f), [2, 1]);
        let f = AuditFilter {
            refused: true,
            ..all
        };
        assert_eq!(found(f), [0; 0]);
    }
}
