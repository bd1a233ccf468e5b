//! Garbage collection beside everything else: no window in which only reads go, no lock that a push waits for.
//!
//! What is safe rests on the metadata, not on time: a manifest is only kept if all it refers to is in its repository at that
//! moment, and only what nothing refers to is removed, both decided by the one writer. The grace time is a courtesy to
//! pushes that are on their way: their blobs came (or were found to be there) before their manifest.

use crate::audit::{Draft, Source};
use crate::metadata::{self, Garbage, Place, Read, now};
use crate::registry::Registry;
use crate::settings::GcSettings;
use crate::{audit, blobs, retention, uploads};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Things looked for and removed in one go.
const BATCH: u32 = 500;

/// Why a collection ended early. What it removed before stays removed; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Metadata.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// Blobs.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// Idle uploads.
    #[error(transparent)]
    Uploads(#[from] uploads::Error),
}

/// What is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Milliseconds that something is left alone after a client wanted it.
    pub grace: i64,
    /// Milliseconds after which a manifest without a tag is garbage; `None`: never.
    pub untagged: Option<i64>,
    /// Only count.
    pub dry_run: bool,
}

impl From<&GcSettings> for Plan {
    fn from(settings: &GcSettings) -> Self {
        Plan {
            grace: i64::from(settings.grace_minutes) * 60_000,
            untagged: settings.untagged_hours.map(|h| i64::from(h) * 3_600_000),
            dry_run: false,
        }
    }
}

/// What a collection removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Report {
    /// Nothing was removed.
    pub dry_run: bool,
    /// Manifests without a tag.
    pub manifests: u64,
    /// Blobs taken away from repositories that did not need them.
    pub links: u64,
    /// Blobs deleted from the store.
    pub blobs: u64,
    /// Bytes freed.
    pub bytes: u64,
    /// Empty repositories.
    pub repositories: u64,
}

/// Collects garbage; waits for a collection that is under way.
///
/// # Errors
/// See [`Error`].
pub async fn collect(registry: &Arc<Registry>, plan: &Plan) -> Result<Report, Error> {
    let _one = registry.collecting.lock().await;
    let cutoff = now() - plan.grace;
    let untagged = plan.untagged.map(|age| now() - age);
    if plan.dry_run {
        let count = move |db: &Read<'_>| db.count_garbage(cutoff, untagged);
        let garbage: Garbage = registry
            .metadata
            .read_long::<_, metadata::Error>(count)
            .await?;
        return Ok(Report {
            dry_run: true,
            manifests: garbage.manifests,
            links: garbage.links,
            blobs: garbage.blobs,
            bytes: garbage.bytes,
            repositories: garbage.repositories,
        });
    }
    let mut report = Report::default();
    if let Some(untagged) = untagged {
        // The death of an index or a subject lets others die: until nothing changes.
        loop {
            let removed = walk(
                registry,
                move |db, after| db.dead_manifests(untagged, after, BATCH),
                move |db, found| db.remove_dead_manifests(untagged, found),
            )
            .await?;
            report.manifests += removed;
            if removed == 0 {
                break;
            }
        }
    }
    report.links = walk(
        registry,
        move |db, after| db.dead_links(cutoff, after, BATCH),
        move |db, found| db.remove_dead_links(cutoff, found),
    )
    .await?;
    let mut after = (i64::MIN, i64::MIN);
    while let Some((found, last)) = batch(registry, after, move |db, after| {
        db.dead_blobs(cutoff, after, BATCH)
    })
    .await?
    {
        let (count, bytes) = registry
            .metadata
            .write(move |db| db.remove_dead_blobs(&found))
            .await?;
        report.blobs += count;
        report.bytes += bytes;
        // Here and not at the end: it is the space that is wanted.
        empty_trash(registry, false).await?;
        after = last;
    }
    report.repositories = walk(
        registry,
        move |db, after| db.dead_repositories(cutoff, after, BATCH),
        move |db, found| db.remove_dead_repositories(cutoff, found),
    )
    .await?;
    empty_trash(registry, false).await?;
    registry.metrics.collected_blobs.inc_by(report.blobs);
    registry.metrics.collected_bytes.inc_by(report.bytes);
    let bytes = i64::try_from(report.bytes).unwrap_or(i64::MAX);
    registry.metrics.collected_last.set(bytes);
    registry.metrics.collected_at.set(now() / 1000);
    Ok(report)
}

/// One batch of candidates, and where the next one begins.
async fn batch(
    registry: &Arc<Registry>,
    after: Place,
    find: impl Fn(&Read<'_>, Place) -> metadata::Result<Vec<Place>> + Send + 'static,
) -> Result<Option<(Vec<Place>, Place)>, Error> {
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| find(db, after))
        .await?;
    Ok(found.last().copied().map(|last| (found, last)))
}

async fn walk(
    registry: &Arc<Registry>,
    find: impl Fn(&Read<'_>, Place) -> metadata::Result<Vec<Place>> + Send + Copy + 'static,
    remove: impl Fn(&metadata::Write<'_>, &[Place]) -> metadata::Result<u64> + Send + Copy + 'static,
) -> Result<u64, Error> {
    let mut removed = 0;
    let mut after = (i64::MIN, i64::MIN);
    while let Some((found, last)) = batch(registry, after, find).await? {
        removed += registry
            .metadata
            .write(move |db| remove(db, &found))
            .await?;
        after = last;
    }
    Ok(removed)
}

/// Deletes the objects that were thrown away. `all`: those too that were being written when the process before ended.
async fn empty_trash(registry: &Arc<Registry>, all: bool) -> Result<(), Error> {
    loop {
        let trash = registry.metadata.read(|db| db.trash(all, BATCH))?;
        if trash.is_empty() {
            return Ok(());
        }
        for object in &trash {
            registry.store.delete(&object.key).await?;
        }
        registry
            .metadata
            .write(move |db| trash.iter().try_for_each(|object| db.take_out(&object.key)))
            .await?;
    }
}

/// Collects as the settings have it, and lets idle uploads go, until `stop`.
pub(crate) async fn schedule(registry: Arc<Registry>, stop: CancellationToken) {
    let plan = Plan::from(&registry.settings.gc);
    let work = async {
        if let Err(e) = empty_trash(&registry, true).await {
            tracing::error!("what an earlier run left cannot be removed: {e}");
        }
        if registry.settings.gc.at_start {
            collect_and_tell(&registry, &plan).await;
        }
        let minutes = |n: u64| tokio::time::interval(Duration::from_secs(n.max(1) * 60));
        let every = u64::from(registry.settings.gc.every_hours);
        let (mut idle, mut due, mut hourly) = (minutes(1), minutes(every * 60), minutes(60));
        due.tick().await; // the first one is at once
        loop {
            tokio::select! {
                _ = idle.tick() => {
                    registry.audit.flush();
                    expire(&registry).await;
                }
                _ = due.tick(), if every > 0 => collect_and_tell(&registry, &plan).await,
                _ = hourly.tick() => {
                    forget_old_entries(&registry).await;
                    if let Err(e) = registry.tokens.forget_keys().await {
                        tracing::error!("old keys of tokens cannot be removed: {e}");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn expire(registry: &Arc<Registry>) {
    let idle = i64::from(registry.settings.upload_idle_minutes) * 60_000;
    match registry.uploads.expire(idle).await {
        Ok(0) => {}
        Ok(n) => tracing::info!("{n} uploads were idle for too long and are gone"),
        Err(e) => tracing::error!("idle uploads cannot be removed: {e}"),
    }
}

async fn forget_old_entries(registry: &Arc<Registry>) {
    let Some(days) = registry.settings.audit.keep_days else {
        return;
    };
    let before = now() - i64::from(days.max(1)) * 86_400_000 - 1;
    let draft = Draft::system(&registry.audit, "audit.forget.create", None);
    let detail = move |n| format!("{n} entries older than {days} days");
    match audit::forget(registry, before, &draft, detail).await {
        Ok(0) => {}
        Ok(n) => tracing::info!("{n} entries of the audit log were older than {days} days"),
        Err(e) => tracing::error!("old entries of the audit log cannot be removed: {e}"),
    }
}

async fn collect_and_tell(registry: &Arc<Registry>, plan: &Plan) {
    match retention::run_all(registry).await {
        Ok(0) => {}
        Ok(n) => tracing::info!("retention: {n} tags were removed"),
        Err(e) => tracing::error!("retention: {e}"),
    }
    match collect(registry, plan).await {
        Ok(r) => {
            let text = format!(
                "{} blobs, {} bytes, {} manifests, {} repositories",
                r.blobs, r.bytes, r.manifests, r.repositories
            );
            tracing::info!("garbage collection: {text}");
            note(registry, "gc.create", text);
        }
        Err(e) => tracing::error!("garbage collection: {e}"),
    }
}

/// What is done without anybody who asks for it.
fn note(registry: &Registry, operation: &str, detail: String) {
    let audit = &registry.audit;
    audit.note(
        "system",
        &Source("system".into()),
        operation,
        None,
        Some(detail),
    );
}
