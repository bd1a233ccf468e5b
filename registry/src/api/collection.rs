//! `POST /gc`: collects garbage now.

use super::json::Json;
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, Target};
use crate::audit;
use crate::gc::{self, Plan, Report};
use crate::registry::Registry;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// What is asked for; what is left out is as the settings have it.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CollectRequest {
    /// Only say what would go.
    pub dry_run: bool,
    /// Minutes that a blob is left alone after a client said that it wants it.
    pub grace_minutes: Option<u32>,
    /// Hours after which a manifest without a tag goes.
    pub untagged_hours: Option<u32>,
}

/// Collects garbage now, beside whatever else is done.
#[utoipa::path(post, path = "/gc", tag = "registry", request_body = CollectRequest,
    responses((status = 200, body = Report), (status = 403, body = ErrorBody)))]
pub(super) async fn collect(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Json(request): Json<CollectRequest>,
) -> Result<Json<Report>, Failure> {
    audit::tell_change(&request);
    caller.may(Action::Administer, Target::Registry)?;
    let mut plan = Plan::from(&registry.settings.gc);
    plan.dry_run = request.dry_run;
    if let Some(minutes) = request.grace_minutes {
        plan.grace = i64::from(minutes) * 60_000;
    }
    if let Some(hours) = request.untagged_hours {
        plan.untagged = Some(i64::from(hours) * 3_600_000);
    }
    Ok(Json(gc::collect(&registry, &plan).await?))
}
