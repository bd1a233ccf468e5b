//! Who calls the administration API.

use super::Failure;
use crate::access::{Action, Principal, Target, Verdict, authorise};
use crate::registry::Registry;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::sync::Arc;

/// The authenticated caller; an extractor that each handler takes.
#[derive(Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    registry: Arc<Registry>,
}

impl FromRequestParts<Arc<Registry>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        registry: &Arc<Registry>,
    ) -> Result<Self, Failure> {
        let principal = match parts.extensions.get::<Principal>() {
            Some(principal) => principal.clone(),
            None => registry
                .credentials
                .authenticate(&parts.headers)
                .await
                .map_err(|e| Failure::sign_in(e.to_string()))?,
        };
        Ok(Caller {
            principal,
            registry: registry.clone(),
        })
    }
}

impl Caller {
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
            Verdict::Denied => Err(Failure::denied()),
        }
    }
}
