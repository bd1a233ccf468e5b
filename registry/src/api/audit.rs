//! `/audit`, `/projects/{project}/audit`: what was done. `/log`: the registry's own log.

use super::json::{Json, Query};
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, Target};
use crate::audit;
use crate::audit::export::{self, Format};
use crate::metadata::{self, AuditEntry, AuditFilter, ProjectId, now};
use crate::registry::Registry;
use crate::server::log as system;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const DAY: i64 = 86_400_000;

/// Which entries are wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams, clap::Args)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// Only of this user or robot
    #[arg(long)]
    pub user: Option<String>,
    /// Only in this project
    #[arg(long)]
    pub project: Option<String>,
    /// Only in this repository (whole name)
    #[arg(long)]
    pub repository: Option<String>,
    /// Only this operation (push), or a kind of them (member)
    #[arg(long)]
    pub operation: Option<String>,
    /// Not before this time (milliseconds since 1970)
    #[arg(long, value_name = "MILLISECONDS")]
    pub since: Option<i64>,
    /// Before this time (milliseconds since 1970)
    #[arg(long, value_name = "MILLISECONDS")]
    pub until: Option<i64>,
    /// Only with this text somewhere
    #[arg(long)]
    pub text: Option<String>,
    /// Only what was refused
    #[arg(long, default_value_t = false)]
    pub refused: bool,
    /// Only entries with a smaller ID: the next page
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
    /// Most entries, at most 1,000; 100 if left out
    #[arg(long)]
    pub limit: Option<u32>,
    /// Everything as a file in this form, in place of a page
    #[arg(skip)]
    pub format: Option<Format>,
}

impl Search {
    fn filter(self) -> (AuditFilter, u32, Option<Format>) {
        let limit = self.limit.unwrap_or(100).min(super::Page::MOST);
        let filter = AuditFilter {
            user: self.user,
            project: self.project,
            project_row: None,
            repository: self.repository,
            operation: self.operation,
            since: self.since,
            until: self.until,
            text: self.text,
            refused: self.refused,
            before: self.before,
        };
        (filter, limit, self.format)
    }
}

async fn answer(
    registry: &Registry,
    search: Search,
    project: Option<ProjectId>,
) -> Result<Response, Failure> {
    registry.audit.settled().await;
    let (mut filter, limit, format) = search.filter();
    filter.project_row = project;
    if let Some(format) = format {
        let body = export::stream(registry.metadata.clone(), filter, format);
        return Ok(([(CONTENT_TYPE, format.media_type())], body).into_response());
    }
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.audit(&filter, limit))
        .await?;
    Ok(Json(found).into_response())
}

/// Searches the whole audit log, the newest entries first; or gives it as a file.
#[utoipa::path(get, path = "/audit", tag = "audit", params(Search),
    responses((status = 200, body = Vec<AuditEntry>), (status = 403, body = ErrorBody)))]
pub(super) async fn search(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Query(search): Query<Search>,
) -> Result<Response, Failure> {
    caller.may(Action::Administer, Target::Registry)?;
    answer(&registry, search, None).await
}

/// Searches a project's audit log.
#[utoipa::path(get, path = "/projects/{project}/audit", tag = "audit", params(("project" = String, Path), Search),
    responses((status = 200, body = Vec<AuditEntry>), (status = 403, body = ErrorBody)))]
pub(super) async fn of_project(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
    Query(mut search): Query<Search>,
) -> Result<Response, Failure> {
    let project = caller.project(Action::Audit, &project)?;
    search.project = None;
    // One of the same name that was removed had other members.
    answer(&registry, search, Some(project.id)).await
}

/// What is to be forgotten.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Entries older than this go; at least 1.
    pub keep_days: u32,
}

/// What was forgotten.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Forgotten {
    /// Entries that were removed.
    pub entries: u64,
}

/// Removes old entries. That happens every hour by itself, as the settings have it.
#[utoipa::path(post, path = "/audit/forget", tag = "audit", request_body = Forget,
    responses((status = 200, body = Forgotten), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn forget(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Json(forget): Json<Forget>,
) -> Result<Json<Forgotten>, Failure> {
    audit::tell_change(&forget);
    caller.may(Action::Administer, Target::Registry)?;
    if forget.keep_days == 0 {
        return Err(Failure::bad_request("the audit log keeps at least one day"));
    }
    let days = forget.keep_days;
    let before = now() - i64::from(days) * DAY - 1;
    let detail = move |entries| format!("{entries} entries older than {days} days");
    let entries = audit::forget(&registry, before, &caller.draft, detail).await?;
    // For the entry of a time when there was none.
    audit::tell_detail(detail(entries));
    Ok(Json(Forgotten { entries }))
}

/// Which lines of the log are wanted.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Lines {
    /// Only lines with this text.
    pub text: Option<String>,
    /// Most lines, the last ones; 1,000 if left out.
    pub limit: Option<u32>,
}

/// The last lines of the registry's own log.
#[utoipa::path(get, path = "/log", tag = "audit", params(Lines),
    responses((status = 200, body = Vec<String>), (status = 403, body = ErrorBody)))]
pub(super) async fn log(
    caller: Caller,
    Query(lines): Query<Lines>,
) -> Result<Json<Vec<String>>, Failure> {
    caller.may(Action::Administer, Target::Registry)?;
    let most = lines.limit.unwrap_or(1000) as usize;
    Ok(Json(system::lines(lines.text.as_deref(), most)))
}
