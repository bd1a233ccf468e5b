//! Collectors: filters, versions, and waiting for changes without polling.

use super::select::{check, content, select};
use super::values::Scope;
use crate::host::Host;
use crate::session::Session;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use vim::types::*;
use vim::{Any, Fault, FaultKind};

/// Longest wait that a client can ask for.
const WAIT_MAX: Duration = Duration::from_secs(1800);

/// A property collector of a session.
#[derive(Debug, Default)]
pub struct Collector {
    inner: Mutex<Inner>,
    /// Woken when a filter is added, or a wait is to end.
    notify: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    filters: Vec<Filter>,
    /// Version of the last update given out.
    version: u64,
    /// The last update and the version that it was an answer to, in case its answer got lost.
    last: Option<(u64, UpdateSet)>,
    cancelled: u64,
    destroyed: bool,
}

#[derive(Debug)]
struct Filter {
    reference: ManagedObjectReference,
    spec: PropertyFilterSpec,
    /// Values as the client knows them.
    known: HashMap<ManagedObjectReference, Vec<(String, Any)>>,
    /// Up to which change they are right; `None`: nothing was told yet.
    seq: Option<u64>,
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a filter.
    ///
    /// # Errors
    /// `InvalidProperty`, `ManagedObjectNotFound`.
    pub fn add(
        &self,
        scope: &Scope<'_>,
        id: String,
        spec: PropertyFilterSpec,
    ) -> Result<ManagedObjectReference, Fault> {
        check(&spec)?;
        select(scope, &spec, false)?;
        let reference = ManagedObjectReference::new("PropertyFilter", id);
        let filter = Filter {
            reference: reference.clone(),
            spec,
            known: HashMap::new(),
            seq: None,
        };
        self.lock().filters.push(filter);
        self.notify.notify_waiters();
        Ok(reference)
    }

    /// Removes a filter; whether it was one of this collector's.
    pub fn remove(&self, reference: &ManagedObjectReference) -> bool {
        let mut inner = self.lock();
        let before = inner.filters.len();
        inner.filters.retain(|f| f.reference != *reference);
        inner.filters.len() != before
    }

    /// Ends the waits on it.
    pub fn cancel(&self) {
        self.lock().cancelled += 1;
        self.notify.notify_waiters();
    }

    /// Ends it.
    pub fn destroy(&self) {
        self.lock().destroyed = true;
        self.cancel();
    }

    /// The update after `version`; `None` where nothing has changed.
    fn update(
        &self,
        scope: &Scope<'_>,
        version: Option<&str>,
        max: usize,
    ) -> Result<Option<UpdateSet>, Fault> {
        let mut inner = self.lock();
        match version.filter(|v| !v.is_empty()) {
            None => {
                // From the start: the client knows nothing.
                inner.last = None;
                for filter in &mut inner.filters {
                    filter.known.clear();
                    filter.seq = None;
                }
            }
            Some(text) => {
                let given: Option<u64> = text.parse().ok();
                if let (Some(given), Some((before, set))) = (given, &inner.last)
                    && given == *before
                    && given != inner.version
                {
                    return Ok(Some(set.clone()));
                }
                if given != Some(inner.version) {
                    let message = format!("The version '{text}' is not one of this collector's");
                    return Err(Fault::new(FaultKind::InvalidCollectorVersion {}, message));
                }
            }
        }
        let mut set = UpdateSet::default();
        let mut left = max;
        for filter in &mut inner.filters {
            let (objects, more) = filter.changes(scope, left);
            left -= objects.len().min(left);
            if !objects.is_empty() {
                set.filter_set.push(PropertyFilterUpdate {
                    filter: filter.reference.clone(),
                    object_set: objects,
                });
            }
            if more {
                set.truncated = Some(true);
                break;
            }
        }
        if set.filter_set.is_empty() {
            return Ok(None);
        }
        let before = inner.version;
        inner.version += 1;
        set.version = inner.version.to_string();
        inner.last = Some((before, set.clone()));
        Ok(Some(set))
    }
}

impl Filter {
    /// At most `max` changes since what the client knows; whether there are more.
    fn changes(&mut self, scope: &Scope<'_>, max: usize) -> (Vec<ObjectUpdate>, bool) {
        let state = scope.state;
        let changed = self.seq.and_then(|seq| state.changed_since(seq));
        let same_objects = self.seq.is_some_and(|seq| state.structure <= seq);
        let mut updates = Vec::new();
        let candidates: Vec<ManagedObjectReference> = match (&changed, same_objects) {
            (Some(changed), true) => changed
                .iter()
                .copied()
                .filter(|o| self.known.contains_key(*o))
                .cloned()
                .collect(),
            _ => {
                let now = select(scope, &self.spec, true).unwrap_or_default();
                let present: HashSet<&ManagedObjectReference> = now.iter().collect();
                let gone: Vec<_> = self
                    .known
                    .keys()
                    .filter(|o| !present.contains(o))
                    .cloned()
                    .collect();
                for object in gone {
                    if updates.len() == max {
                        return (updates, true);
                    }
                    self.known.remove(&object);
                    updates.push(ObjectUpdate {
                        kind: ObjectUpdateKind::Leave,
                        obj: object,
                        ..ObjectUpdate::default()
                    });
                }
                match &changed {
                    // Only those that came or changed need to be looked at.
                    Some(changed) => {
                        let changed: HashSet<&ManagedObjectReference> =
                            changed.iter().copied().collect();
                        let known = &self.known;
                        now.into_iter()
                            .filter(|o| !known.contains_key(o) || changed.contains(o))
                            .collect()
                    }
                    None => now,
                }
            }
        };
        for object in candidates {
            if updates.len() == max {
                // What is left is found again by looking at everything.
                self.seq = None;
                return (updates, true);
            }
            let Some(content) = content(scope, &self.spec, &object) else {
                continue;
            };
            updates.extend(self.compare(object, content));
        }
        self.seq = Some(state.seq);
        (updates, false)
    }

    fn compare(
        &mut self,
        object: ManagedObjectReference,
        content: ObjectContent,
    ) -> Option<ObjectUpdate> {
        let now: Vec<(String, Any)> = content
            .prop_set
            .into_iter()
            .map(|p| (p.name, p.val))
            .collect();
        let known = self.known.get(&object);
        let kind = if known.is_some() {
            ObjectUpdateKind::Modify
        } else {
            ObjectUpdateKind::Enter
        };
        let empty = Vec::new();
        let before = known.unwrap_or(&empty);
        let mut changes: Vec<PropertyChange> = now
            .iter()
            .filter(|entry| !before.contains(entry))
            .map(|(name, val)| PropertyChange {
                name: name.clone(),
                op: PropertyChangeOp::Assign,
                val: Some(val.clone()),
            })
            .collect();
        for (name, _) in before {
            if !now.iter().any(|(n, _)| n == name) {
                changes.push(PropertyChange {
                    name: name.clone(),
                    op: PropertyChangeOp::IndirectRemove,
                    val: None,
                });
            }
        }
        if changes.is_empty() && kind == ObjectUpdateKind::Modify {
            return None;
        }
        self.known.insert(object.clone(), now);
        Some(ObjectUpdate {
            kind,
            obj: object,
            change_set: changes,
            missing_set: Vec::new(),
        })
    }
}

fn max_of(options: Option<&WaitOptions>) -> usize {
    options
        .and_then(|o| o.max_object_updates)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0)
        .unwrap_or(usize::MAX)
}

/// The update after `version`, without waiting.
///
/// # Errors
/// `InvalidCollectorVersion`.
pub fn check_for_updates(
    host: &Host,
    session: &Session,
    collector: &Collector,
    version: Option<&str>,
) -> Result<Option<UpdateSet>, Fault> {
    let state = host.state();
    collector.update(&Scope::new(host, &state, session), version, usize::MAX)
}

/// The update after `version`; waits until there is one or the time is over.
///
/// # Errors
/// `InvalidCollectorVersion`, `RequestCanceled`; `NotAuthenticated` where the session ended.
pub async fn wait_for_updates(
    host: &Host,
    session: &Arc<Session>,
    collector: &Collector,
    version: Option<&str>,
    options: Option<&WaitOptions>,
) -> Result<Option<UpdateSet>, Fault> {
    let limit = match options.and_then(|o| o.max_wait_seconds) {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(WAIT_MAX),
        None => WAIT_MAX,
    };
    let deadline = tokio::time::Instant::now() + limit;
    let mut changes = host.subscribe();
    let cancelled = collector.lock().cancelled;
    loop {
        // Registered before looking, so that nothing in between is missed.
        let notified = collector.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        changes.borrow_and_update();
        let found = {
            let state = host.state();
            let scope = Scope::new(host, &state, session);
            collector.update(&scope, version, max_of(options))?
        };
        if found.is_some() {
            return Ok(found);
        }
        {
            let inner = collector.lock();
            if inner.destroyed || inner.cancelled != cancelled {
                return Err(Fault::new(
                    FaultKind::RequestCanceled {},
                    "The wait was cancelled",
                ));
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return Err(Fault::new(FaultKind::RequestCanceled {}, "The host shuts down"));
                }
            }
            () = &mut notified => {}
            () = session.ended.cancelled() => return Err(crate::session::not_authenticated()),
            () = tokio::time::sleep_until(deadline) => return Ok(None),
        }
    }
}
