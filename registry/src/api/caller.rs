//! Who calls the administration API.

use super::Failure;
use crate::access::{Action, Principal, Target, Verdict, authorise};
use crate::audit::{Operation, Source, Told};
use crate::metadata::Project;
use crate::registry::Registry;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use std::sync::Arc;

/// The authenticated caller; an extractor that each handler takes.
#[derive(Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// From where.
    pub source: Source,
    registry: Arc<Registry>,
}

/// Finds out who calls, and writes down what came of it.
pub(super) async fn watch(
    State(registry): State<Arc<Registry>>,
    matched: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let source = request.extensions().get::<Source>().cloned();
    let source = source.unwrap_or_default();
    let given = request.extensions().get::<Principal>().cloned();
    let principal = match given {
        Some(principal) => principal,
        None => {
            let headers = request.headers();
            match registry.credentials.authenticate(headers, &source).await {
                Ok(principal) => principal,
                Err(e) => return Failure::from(e).into_response(),
            }
        }
    };
    let operation = Operation::of_api(matched.as_str(), request.uri().path(), request.method());
    request.extensions_mut().insert(principal.clone());
    let audit = registry.clone();
    // On a task of its own: a client that hangs up must not leave a change without its entry.
    let answer = registry.work.spawn(async move {
        let response = next.run(request).await;
        let told = response.extensions().get::<Told>();
        let status = response.status();
        audit
            .audit
            .write(&principal, &source, operation, status, told)
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
        let source = parts.extensions.get::<Source>().cloned();
        let source = source.unwrap_or_default();
        let principal = match parts.extensions.get::<Principal>() {
            Some(principal) => principal.clone(),
            None => {
                let headers = &parts.headers;
                registry.credentials.authenticate(headers, &source).await?
            }
        };
        Ok(Caller {
            principal,
            source,
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
            .ok_or_else(|| Failure::not_found(format!("there is no project {name}")))
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
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::SignIn => Err(Failure::sign_in("sign in first")),
            Verdict::Scope => Err(Failure::denied()),
            Verdict::Denied => Err(Failure::denied()),
        }
    }
}
