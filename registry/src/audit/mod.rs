//! What is written into the audit log, and when. A change is answered when its entry is durable. A read is answered at
//! once, and its entry follows with the next commit: a crash can lose the entries of reads of its last moment.
//!
//! Steps of an upload (but its end) and looking at what is there (`HEAD`, lists) are written only when they are forbidden;
//! refusals of those who did not say who they are never: they could fill the disk. What comes again within a minute is
//! counted ([`recent`]).

pub mod export;
mod operations;
mod recent;
mod told;

pub use operations::Operation;
pub use told::{Told, listen, tell_change, tell_detail, tell_project, tell_target};

use crate::access::Principal;
use crate::metadata::{self, AuditEntry, Metadata, now};
use crate::registry::Registry;
use recent::Recent;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Semaphore;

/// Most entries of reads that wait to be written; more make the reads wait.
const WAITING: usize = 10_000;

/// Days without any entry after which the clock is doubted.
const IDLE_DAYS: i64 = 30;

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Source(pub Arc<str>);

impl Default for Source {
    fn default() -> Self {
        Source("console".into())
    }
}

/// Writes entries.
#[derive(Debug)]
pub struct Audit {
    metadata: Arc<Metadata>,
    waiting: Arc<Semaphore>,
    recent: Mutex<Recent>,
}

impl Audit {
    /// Into this log.
    #[must_use]
    pub fn new(metadata: Arc<Metadata>) -> Self {
        Audit {
            metadata,
            waiting: Arc::new(Semaphore::new(WAITING)),
            recent: Mutex::default(),
        }
    }

    /// Writes down what came of an operation.
    pub async fn write(
        &self,
        principal: &Principal,
        source: &Source,
        operation: Operation,
        status: http::StatusCode,
        told: Told,
    ) {
        let refused = status.is_client_error() || status.is_server_error();
        if refused && *principal.subject() == Principal::Anonymous {
            return;
        }
        if operation.quiet && status != http::StatusCode::FORBIDDEN {
            return;
        }
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
            count: 0,
        };
        let mut again = Vec::new();
        let entry = if operation.reads || refused {
            let mut recent = self.recent();
            if recent.is_full() {
                again = recent.take();
            }
            recent.see(entry)
        } else {
            Some(entry)
        };
        self.write_later(again);
        let Some(entry) = entry else { return };
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
    /// Writes down what somebody did beside requests of the API, or the registry by itself (`system`); it is in the log
    /// with the next commit.
    pub fn note(
        &self,
        user: &str,
        source: &Source,
        operation: &str,
        target: Option<&str>,
        detail: Option<String>,
    ) {
        let entry = AuditEntry {
            user: user.into(),
            via: "none".into(),
            source: source.0.to_string(),
            operation: operation.into(),
            target: target.map(str::to_owned),
            status: 200,
            detail,
            ..AuditEntry::default()
        };
        let entry = self.recent().see(entry);
        self.write_later(entry.into_iter().collect());
    }

    /// Ends the minute: writes down how often things came again.
    pub fn flush(&self) {
        let again = self.recent().take();
        self.write_later(again);
    }

    fn write_later(&self, entries: Vec<AuditEntry>) {
        if !entries.is_empty() {
            self.metadata
                .write_later(move |db| entries.iter().try_for_each(|entry| db.add_audit(entry)));
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // A panic while it was held loses a count at most.
        self.recent.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Why old entries stay.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It would take all of them.
    #[error(
        "the newest entry of the audit log is {0} days old: is the clock right? Nothing is removed before there is a newer one"
    )]
    Clock(i64),
    /// The metadata cannot be written, or the time is less than a day ago.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

/// Removes entries from before a time, in small jobs; how many.
///
/// # Errors
/// See [`ForgetError`].
pub async fn forget(registry: &Registry, before: i64) -> Result<u64, ForgetError> {
    const BATCH: u32 = 1000;
    const DAY: i64 = 86_400_000;
    // A clock that was set far ahead makes everything old.
    let newest = registry.metadata.read(|db| db.newest_audit())?;
    let days = newest.map_or(0, |newest| (now() - newest) / DAY);
    if days > IDLE_DAYS {
        return Err(ForgetError::Clock(days));
    }
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
