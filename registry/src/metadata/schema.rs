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
