//! What is written into the audit log, and when. A change is answered when its entry is durable. A read is answered at
//! once, and its entry follows with the next commit: a crash can lose the entries of reads of its last moment.
//!
//! Steps of an upload (but its end) and looking at what is there (`HEAD`, lists) are written only when they are forbidden;
//! refusals of those who did not say who they are never: they could fill the disk.

pub mod export;
mod operations;

pub use operations::Operation;

use crate::access::Principal;
use crate::metadata::{self, AuditEntry, Metadata};
use crate::registry::Registry;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most entries of reads that wait to be written; more make the reads wait.
const WAITING: usize = 10_000;

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Source(pub Arc<str>);

impl Default for Source {
    fn default() -> Self {
        Source("console".into())
    }
}

/// What a handler adds to its entry; set as an extension of its answer.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// What was done to, where the path does not tell.
    pub target: Option<String>,
    /// The project, where the path does not tell.
    pub project: Option<String>,
    /// What was changed.
    pub detail: Option<String>,
}

impl Told {
    /// Of something new.
    pub fn target(name: impl Into<String>) -> axum::Extension<Self> {
        axum::Extension(Told {
            target: Some(name.into()),
            ..Told::default()
        })
    }

    /// Of a change.
    pub fn detail(detail: impl Into<String>) -> axum::Extension<Self> {
        axum::Extension(Told {
            detail: Some(detail.into()),
            ..Told::default()
        })
    }
}

/// Writes entries.
#[derive(Debug)]
pub struct Audit {
    metadata: Arc<Metadata>,
    waiting: Arc<Semaphore>,
}

impl Audit {
    /// Into this log.
    #[must_use]
    pub fn new(metadata: Arc<Metadata>) -> Self {
        Audit {
            metadata,
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Writes down what came of an operation.
    pub async fn write(
        &self,
        principal: &Principal,
        source: &Source,
        operation: Operation,
        status: http::StatusCode,
        told: Option<&Told>,
    ) {
        let refused = status.is_client_error() || status.is_server_error();
        if refused && *principal.subject() == Principal::Anonymous {
            return;
        }
        if operation.quiet && status != http::StatusCode::FORBIDDEN {
            return;
        }
        let told = told.cloned().unwrap_or_default();
        let entry = AuditEntry {
            id: 0,
            time: 0,
            user: principal.name().to_owned(),
            via: via(principal).to_owned(),
            source: source.0.to_string(),
            project: operation.project.or(told.project),
            repository: operation.repository,
            operation: operation.name.into_owned(),
            target: operation.target.or(told.target),
            status: status.as_u16(),
            detail: told.detail,
        };
        if operation.reads {
            let Ok(permit) = self.waiting.clone().acquire_owned().await else {
                return; // it is never closed
            };
            self.metadata.write_later(move |db| {
                drop(permit);
                db.add_audit(&entry)
            });
            return;
        }
        let lost = format!("{} {} by {}", entry.operation, entry.status, entry.user);
        if let Err(e) = self.metadata.write(move |db| db.add_audit(&entry)).await {
            // It was done, and is answered as such; the log of the system has it then.
            tracing::error!("the audit log could not be written ({lost}): {e}");
        }
    }
}

impl Audit {
    /// Writes down what happened beside requests; it is in the log with the next commit.
    pub fn note(
        &self,
        user: &str,
        source: &Source,
        operation: &str,
        target: &str,
        detail: Option<String>,
    ) {
        let entry = AuditEntry {
            id: 0,
            time: 0,
            user: user.into(),
            via: "none".into(),
            source: source.0.to_string(),
            project: None,
            repository: None,
            operation: operation.into(),
            target: Some(target.into()),
            status: 200,
            detail,
        };
        self.metadata.write_later(move |db| db.add_audit(&entry));
    }
}

/// Removes entries from before a time, in small jobs; how many.
///
/// # Errors
/// When the metadata cannot be written, or the time is less than a day ago.
pub async fn forget(registry: &Registry, before: i64) -> metadata::Result<u64> {
    const BATCH: u32 = 1000;
    let mut removed = 0;
    loop {
        let more = registry
            .metadata
            .write(move |db| db.forget_audit(before, BATCH))
            .await?;
        removed += more;
        if more < u64::from(BATCH) {
            return Ok(removed);
        }
    }
}

fn via(principal: &Principal) -> &'static str {
    match principal {
        Principal::Anonymous => "none",
        Principal::User { .. } => "password",
        Principal::Robot { .. } => "secret",
        Principal::Token { .. } => "token",
        Principal::Console => "console",
    }
}
