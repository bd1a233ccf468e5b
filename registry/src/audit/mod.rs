//! What is written into the audit log, and when. A change and its entry are one transaction ([`Draft`]). A read is
//! answered at once, and its entry follows with the next change's commit, or with those of the other reads of its
//! tenth of a second: a crash can lose the entries of reads of that last moment, and a full disk those of the reads
//! that go on meanwhile.
//!
//! Steps of an upload (but its end) and looking at what is there (`HEAD`, lists) are written only when they are forbidden;
//! refusals of those who did not say who they are never: they could fill the disk. What comes again within a minute is
//! counted ([`recent`]).

mod draft;
pub mod export;
mod operations;
mod recent;
mod told;

pub use draft::{Done, Draft, Happened};
pub use operations::Operation;
pub use told::{Told, listen, tell_change, tell_detail, tell_project, tell_target};
pub(crate) use told::{bounded, of_change};

use crate::access::Principal;
use crate::metadata::{self, AuditEntry, Metadata, now};
use crate::registry::Registry;
use recent::Recent;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most entries of reads that wait to be written; more make the reads wait.
const WAITING: usize = 10_000;

/// How long the entry of a read waits for others, so that they share a commit.
const GATHER: Duration = Duration::from_millis(100);

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
    /// Entries of reads that were not handed in yet.
    gathered: Mutex<Vec<(AuditEntry, OwnedSemaphorePermit)>>,
    recent: Mutex<Recent>,
}

impl Audit {
    /// Into this log.
    #[must_use]
    pub fn new(metadata: Arc<Metadata>) -> Self {
        Audit {
            metadata,
            waiting: Arc::new(Semaphore::new(WAITING)),
            gathered: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// Writes down what came of an operation, unless that was done with its change.
    pub async fn write(
        self: &Arc<Self>,
        draft: &Draft,
        principal: &Principal,
        source: &Source,
        operation: Operation,
        status: http::StatusCode,
        told: Told,
    ) {
        if draft.is_written() {
            return;
        }
        let refused = status.is_client_error() || status.is_server_error();
        if refused && *principal.subject() == Principal::Anonymous {
            return;
        }
        if operation.quiet && status != http::StatusCode::FORBIDDEN {
            return;
        }
        let mut entry = draft::entry(principal, source, &operation);
        told.complete(&mut entry);
        entry.status = status.as_u16();
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
            self.gather(entry, permit);
            return;
        }
        self.settle();
        let lost = format!("{} {} by {}", entry.operation, entry.status, entry.user);
        if let Err(e) = self.metadata.write(move |db| db.add_audit(&entry)).await {
            // It was done, and is answered as such; the log of the system has it then.
            tracing::error!("the audit log could not be written ({lost}): {e}");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // The writer finishes what it was handed.
        self.settle();
    }
}

impl Audit {
    /// Keeps a read's entry until there are others, or a change. Of now: it is written later.
    fn gather(self: &Arc<Self>, mut entry: AuditEntry, permit: OwnedSemaphorePermit) {
        entry.time = now();
        let mut gathered = self.gathered();
        gathered.push((entry, permit));
        if gathered.len() > 1 {
            return;
        }
        drop(gathered);
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            if let Some(this) = this.upgrade() {
                this.settle();
            }
        });
    }

    /// Hands in the entries of reads that were answered until now: they are in the log before what is handed in after.
    pub fn settle(&self) {
        let gathered = std::mem::take(&mut *self.gathered());
        if gathered.is_empty() {
            return;
        }
        self.metadata.write_later(move |db| {
            // The permits go with their entries: reads wait for a log that does not follow.
            gathered
                .iter()
                .try_for_each(|(entry, _permit)| db.add_audit(entry))
        });
    }

    /// Waits until all that was answered before is in the log, or cannot be.
    pub async fn settled(&self) {
        self.settle();
        // Behind what was handed in. That changes nothing, so no disk is waited for; who reads a log that cannot be
        // written reads what there is.
        let _ = self.metadata.write::<_, metadata::Error>(|_| Ok(())).await;
    }

    fn gathered(&self) -> MutexGuard<'_, Vec<(AuditEntry, OwnedSemaphorePermit)>> {
        // A panic while it was held leaves the list whole: it is pushed to and taken, no more.
        self.gathered.lock().unwrap_or_else(|e| e.into_inner())
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
        self.settle();
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

/// Removes entries from before a time, in small jobs; how many. That this was done, of how many, is written with the first
/// of them.
///
/// # Errors
/// See [`ForgetError`].
pub async fn forget(
    registry: &Registry,
    before: i64,
    draft: &Draft,
    detail: impl Fn(u64) -> String + Send + 'static,
) -> Result<u64, ForgetError> {
    const BATCH: u32 = 1000;
    const DAY: i64 = 86_400_000;
    // A clock that was set far ahead makes everything old.
    let newest = registry.metadata.read(|db| db.newest_audit())?;
    let days = newest.map_or(0, |newest| (now() - newest) / DAY);
    if days > IDLE_DAYS {
        return Err(ForgetError::Clock(days));
    }
    let first = move |db: &metadata::Write<'_>, entry: &mut AuditEntry| {
        entry.detail = Some(detail(db.count_audit(before)?));
        db.forget_audit(before, BATCH).map(Forgotten)
    };
    let Forgotten(mut removed) = draft
        .commit(&registry.metadata, http::StatusCode::OK, first)
        .await?;
    if removed < u64::from(BATCH) {
        return Ok(removed);
    }
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

/// How many entries went.
#[derive(Debug)]
struct Forgotten(u64);

impl Happened for Forgotten {
    fn happened(&self) -> bool {
        self.0 > 0
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
