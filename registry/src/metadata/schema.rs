//! The schema, step by step: a step that was released is never changed, only followed by another.

use super::{Error, Result};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// Step N brings a database from version N (its place here) to N + 1.
const STEPS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
];

/// Brings the database up to date, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let at = |source| Error::open(path, source);
    loop {
        let step = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at)?;
        let version: u32 = step
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(at)?;
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        if version > known {
            return Err(Error::Newer {
                path: path.to_owned(),
                found: version,
                known,
            });
        }
        let Some(sql) = STEPS.get(version as usize) else {
            return Ok(());
        };
        step.execute_batch(sql).map_err(at)?;
        step.pragma_update(None, "user_version", version + 1)
            .map_err(at)?;
        step.commit().map_err(at)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{AuditFilter, Metadata};

    #[tokio::test]
    async fn the_fifth_step_finds_whose_entries_were_whose_and_uses_no_row_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sqlite");
        let old = Connection::open(&path).unwrap();
        for sql in &STEPS[..4] {
            old.execute_batch(sql).unwrap();
        }
        old.execute_batch(
            "INSERT INTO projects (id, name, public, created) VALUES (7, 'p', 0, 1000);
             INSERT INTO audit (time, user, via, source, project, operation, status) VALUES
                (999, 'jo', 'password', 'x', 'p', 'push', 201), (1000, 'jo', 'password', 'x', 'p', 'push', 201);
             PRAGMA user_version = 4;",
        )
        .unwrap();
        drop(old);
        let metadata = Metadata::open(&path).unwrap();
        let project = metadata.read(|db| db.project("p")).unwrap().unwrap();
        let filter = AuditFilter {
            project_row: Some(project.id),
            ..AuditFilter::default()
        };
        let found = metadata.read(|db| db.audit(&filter, 10)).unwrap();
        assert_eq!((found.len(), found[0].time, found[0].count), (1, 1000, 1));
        let again = metadata.write(move |db| {
            db.remove_project("p")?;
            Ok::<_, Error>(db.create_project(&"p".parse().unwrap(), false)?.unwrap())
        });
        assert_ne!(again.await.unwrap(), project.id);
    }
}
