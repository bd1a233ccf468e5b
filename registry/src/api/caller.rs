//! Who calls the administration API.

use super::Failure;
use crate::access::{Action, Principal, Target, Verdict, authorise};
use crate::audit::{self, Draft, Happened, Operation, Source};
use crate::metadata::{AuditEntry, Project, Write};
use crate::registry::Registry;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use std::sync::Arc;

/// The authenticated caller; an extractor that each handler takes.
#[derive(Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// From where.
    pub source: Source,
    /// What is written down with a change.
    pub draft: Draft,
    registry: Arc<Registry>,
}

/// Finds out who calls, and writes down what came of it.
pub(super) async fn watch(
    State(registry): State<Arc<Registry>>,
    matched: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = registry
        .credentials
        .identify(request.extensions(), request.headers());
    let (principal, source) = asked.await;
    let principal = match principal {
        Ok(principal) => principal,
        Err(e) => return Failure::from(e).into_response(),
    };
    let mut operation = Operation::of_api(matched.as_str(), request.uri().path(), request.method());
    let query = request.uri().query().unwrap_or_default();
    if operation.name == "audit.read" && query.split('&').any(|p| p.starts_with("format=")) {
        // The whole log leaves the registry.
        operation.name = "audit.export".into();
        operation.quiet = false;
    }
    if operation.name == "archive.read" {
        // So do the hashes of all passwords.
        operation.name = "archive.export".into();
        operation.quiet = false;
    }
    let draft = Draft::new(&registry.audit, &principal, &source, &operation);
    request.extensions_mut().insert(draft.clone());
    request.extensions_mut().insert(principal.clone());
    let log = registry.audit.clone();
    // On a task of its own: a client that hangs up must not leave a change without its entry.
    let answer = registry.work.spawn(async move {
        let (response, told) = audit::listen(next.run(request)).await;
        let status = response.status();
        log.write(&draft, &principal, &source, operation, status, told)
            .await;
        response
    });
    answer
        .await
        .unwrap_or_else(|e| Failure::broken(&e).into_response())
}

impl FromRequestParts<Arc<Registry>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        registry: &Arc<Registry>,
    ) -> Result<Self, Failure> {
        let asked = registry
            .credentials
            .identify(&parts.extensions, &parts.headers);
        let (principal, source) = asked.await;
        Ok(Caller {
            principal: principal?,
            source,
            draft: parts.extensions.get().cloned().unwrap_or_default(),
            registry: registry.clone(),
        })
    }
}

impl Caller {
    /// Whether the caller may.
    ///
    /// # Errors
    /// When that cannot be looked up.
    pub fn can(&self, action: Action, target: Target<'_>) -> Result<bool, Failure> {
        let verdict = self
            .registry
            .metadata
            .read(|db| authorise(db, &self.principal, action, target))?;
        Ok(verdict == Verdict::Allowed)
    }

    /// The project of this name, if the caller may do this there. Who may not is not told whether it exists.
    ///
    /// # Errors
    /// 401, 403, or 404 for those who may know.
    pub fn project(&self, action: Action, name: &str) -> Result<Project, Failure> {
        self.may(action, Target::Project(name))?;
        self.registry
            .metadata
            .read(|db| db.project(name))?
            .ok_or_else(|| no_project(name))
    }

    /// Makes a change in a project, if the caller may when it is made; its entry is written with it, with this status.
    ///
    /// # Errors
    /// As [`Caller::project`], and what the change says.
    pub async fn change<T, E>(
        &self,
        action: Action,
        name: &str,
        status: StatusCode,
        change: impl FnOnce(&Write<'_>, Project) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Happened + Send + 'static,
        E: Into<Failure>,
    {
        self.change_telling(action, name, status, |db, project, _| change(db, project))
            .await
    }

    /// As [`Caller::change`], for a change that has something to add to its entry.
    ///
    /// # Errors
    /// As there.
    pub async fn change_telling<T, E>(
        &self,
        action: Action,
        name: &str,
        status: StatusCode,
        change: impl FnOnce(&Write<'_>, Project, &mut AuditEntry) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Happened + Send + 'static,
        E: Into<Failure>,
    {
        let (principal, name) = (self.principal.clone(), name.to_owned());
        let change = move |db: &Write<'_>, entry: &mut AuditEntry| {
            let verdict = authorise(db, &principal, action, Target::Project(&name))?;
            allowed(verdict)?;
            let project = db.project(&name)?.ok_or_else(|| no_project(&name))?;
            change(db, project, entry).map_err(Into::into)
        };
        let metadata = &self.registry.metadata;
        self.draft.commit(metadata, status, change).await
    }

    /// Makes a change of the registry, if the caller may when it is made; with its entry, as [`Caller::change`].
    ///
    /// # Errors
    /// As [`Caller::may`], and what the change says.
    pub async fn change_registry<T, E>(
        &self,
        action: Action,
        status: StatusCode,
        change: impl FnOnce(&Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Happened + Send + 'static,
        E: Into<Failure>,
    {
        let principal = self.principal.clone();
        let change = move |db: &Write<'_>, _: &mut AuditEntry| {
            allowed(authorise(db, &principal, action, Target::Registry)?)?;
            change(db).map_err(Into::into)
        };
        let metadata = &self.registry.metadata;
        self.draft.commit(metadata, status, change).await
    }

    /// Refuses what the caller may not do.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn may(&self, action: Action, target: Target<'_>) -> Result<(), Failure> {
        let verdict = self
            .registry
            .metadata
            .read(|db| authorise(db, &self.principal, action, target))?;
        allowed(verdict)
    }
}

fn no_project(name: &str) -> Failure {
    Failure::not_found(format!("there is no project {name}"))
}

fn allowed(verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::SignIn => Err(Failure::sign_in("sign in first")),
        Verdict::Scope | Verdict::Denied => Err(Failure::denied()),
    }
}
