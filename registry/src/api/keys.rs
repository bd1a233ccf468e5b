//! `/keys/rotate`: another key signs the tokens.

use super::json::Json;
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, Target};
use crate::audit;
use crate::registry::Registry;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How keys are changed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// Tokens that the old keys signed are no good any more; else they are for their five minutes.
    pub revoke: bool,
}

/// Lets another key sign tokens from now on. That happens every 30 days by itself.
#[utoipa::path(post, path = "/keys/rotate", tag = "registry", request_body = Rotate,
    responses((status = 204), (status = 403, body = ErrorBody)))]
pub(super) async fn rotate(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Json(rotate): Json<Rotate>,
) -> Result<StatusCode, Failure> {
    audit::tell_change(&rotate);
    caller.may(Action::Administer, Target::Registry)?;
    registry.tokens.rotate(rotate.revoke, &caller.draft).await?;
    Ok(StatusCode::NO_CONTENT)
}
