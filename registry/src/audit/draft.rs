//! The entry of a change, written in the transaction of the change: there is none without the other, whenever the power
//! goes.

use super::{Audit, Operation, Source, told, via};
use crate::access::Principal;
use crate::metadata::{
    AuditEntry, ChangeUser, Error, Metadata, Project, RemoveManifest, RemoveProject, Unlink, Write,
};
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What came of a change, as far as the log is concerned.
pub trait Happened {
    /// Whether something is another now. If not, the request is refused, and its entry written as that of a refusal.
    fn happened(&self) -> bool;
}

impl Happened for () {
    fn happened(&self) -> bool {
        true
    }
}

/// Whether there was what was to be changed.
impl Happened for bool {
    fn happened(&self) -> bool {
        *self
    }
}

/// The row of what was made.
impl Happened for i64 {
    fn happened(&self) -> bool {
        true
    }
}

impl Happened for Project {
    fn happened(&self) -> bool {
        true
    }
}

impl Happened for ChangeUser {
    fn happened(&self) -> bool {
        *self == ChangeUser::Done
    }
}

impl Happened for RemoveProject {
    fn happened(&self) -> bool {
        *self == RemoveProject::Done
    }
}

impl Happened for RemoveManifest {
    fn happened(&self) -> bool {
        *self == RemoveManifest::Done
    }
}

impl Happened for Unlink {
    fn happened(&self) -> bool {
        matches!(self, Unlink::Done)
    }
}

/// How many of something there are.
impl<T> Happened for Vec<T> {
    fn happened(&self) -> bool {
        !self.is_empty()
    }
}

/// It always happened, with this to be known of it.
#[derive(Debug)]
pub struct Done<T>(pub T);

impl<T> Happened for Done<T> {
    fn happened(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Inner {
    audit: Arc<Audit>,
    entry: AuditEntry,
    written: AtomicBool,
}

/// A request's entry before it is known what comes of it. Of what is only written down when it is forbidden, and of reads,
/// nothing is written with a change.
#[derive(Debug, Clone, Default)]
pub struct Draft(Option<Arc<Inner>>);

impl Draft {
    /// Of a request.
    #[must_use]
    pub fn new(
        audit: &Arc<Audit>,
        principal: &Principal,
        source: &Source,
        operation: &Operation,
    ) -> Self {
        if operation.reads || operation.quiet {
            return Draft(None);
        }
        Draft::of(audit, entry(principal, source, operation))
    }

    /// Of what the registry does by itself, in a project or as a whole.
    #[must_use]
    pub fn system(audit: &Arc<Audit>, operation: &str, project: Option<&str>) -> Self {
        let entry = AuditEntry {
            user: "system".into(),
            via: "none".into(),
            source: "system".into(),
            project: project.map(str::to_owned),
            operation: operation.into(),
            ..AuditEntry::default()
        };
        Draft::of(audit, entry)
    }

    fn of(audit: &Arc<Audit>, entry: AuditEntry) -> Self {
        Draft(Some(Arc::new(Inner {
            audit: audit.clone(),
            entry,
            written: AtomicBool::new(false),
        })))
    }

    /// Whether the entry is in the log.
    #[must_use]
    pub fn is_written(&self) -> bool {
        let written = |inner: &Arc<Inner>| inner.written.load(Ordering::Acquire);
        self.0.as_ref().is_some_and(written)
    }

    /// Makes a change as [`Metadata::write`] does, and writes its entry in the same transaction, if it happened. The
    /// entry has what was told until now; `change` may add what only it knows. One request may make several changes:
    /// each has an entry.
    ///
    /// # Errors
    /// Whatever `change` says, or that it and its entry could not be made durable.
    pub async fn commit<T, E>(
        &self,
        metadata: &Metadata,
        status: StatusCode,
        change: impl FnOnce(&Write<'_>, &mut AuditEntry) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Happened + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let Some(inner) = &self.0 else {
            return metadata
                .write(move |db| change(db, &mut AuditEntry::default()))
                .await;
        };
        // What was read before is in the log before, in the same commit.
        inner.audit.settle();
        let mut entry = inner.entry.clone();
        told::add_to(&mut entry);
        entry.status = status.as_u16();
        let done = metadata
            .write(move |db| {
                let done = change(db, &mut entry)?;
                if done.happened() {
                    db.add_audit(&entry)?;
                }
                Ok::<_, E>(done)
            })
            .await?;
        if done.happened() {
            inner.written.store(true, Ordering::Release);
        }
        Ok(done)
    }
}

/// An entry without what came of it.
pub(super) fn entry(principal: &Principal, source: &Source, operation: &Operation) -> AuditEntry {
    AuditEntry {
        user: principal.name().to_owned(),
        via: via(principal).to_owned(),
        source: source.0.to_string(),
        project: operation.project.clone(),
        repository: operation.repository.clone(),
        operation: operation.name.clone().into_owned(),
        target: operation.target.clone(),
        ..AuditEntry::default()
    }
}
