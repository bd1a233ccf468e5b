//! `/projects/{project}/webhooks`: who is told what happens in a project. For cloud administrators, since the registry
//! sends requests there from where it is.

use super::json::Json;
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, secret};
use crate::registry::Registry;
use crate::{audit, metadata, webhooks};
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Most of one project.
const MOST: usize = 10;
/// Shortest and longest secret.
const SECRET: std::ops::RangeInclusive<usize> = 16..=256;
/// What a secret that is made here begins with.
pub(super) const PREFIX: &str = "hook_";

/// Whether a project that has `there` webhooks may have one more, of this target and secret.
///
/// # Errors
/// 400, or 409 when it has all it may have.
pub(super) fn check(url: &str, secret: Option<&str>, there: usize) -> Result<(), Failure> {
    if !webhooks::is_target(url) {
        return Err(Failure::bad_request(
            "a webhook's address is http://HOST… or https://HOST…, without name and password",
        ));
    }
    if secret.is_some_and(|secret| !SECRET.contains(&secret.len())) {
        return Err(Failure::bad_request("a secret has 16 to 256 bytes"));
    }
    if there >= MOST {
        return Err(Failure::conflict(format!(
            "a project has at most {MOST} webhooks"
        )));
    }
    Ok(())
}

/// Who is told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Number.
    pub id: i64,
    /// Where to.
    pub url: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Events that wait for it; at most 1,000 do, further ones are not told.
    pub waiting: u32,
}

/// Who is to be told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// `http://` or `https://`.
    pub url: String,
    /// Signs what is sent (`X-Mooring-Signature`), 16 to 256 bytes. Left out, one is made.
    pub secret: Option<String>,
}

/// A webhook that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MadeWebhook {
    /// Number.
    pub id: i64,
    /// Signs what is sent; told once.
    pub secret: String,
}

/// Lists a project's webhooks.
#[utoipa::path(get, path = "/projects/{project}/webhooks", tag = "webhooks", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Webhook>), (status = 403, body = ErrorBody)))]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<Webhook>>, Failure> {
    let project = caller.project(Action::Projects, &project)?;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.webhooks(project.id))
        .await?;
    let found = found.into_iter().map(|w| Webhook {
        id: w.id,
        url: w.url,
        created: w.created,
        waiting: w.waiting,
    });
    Ok(Json(found.collect()))
}

/// Adds a webhook: it is told of each push and each removal.
#[utoipa::path(post, path = "/projects/{project}/webhooks", tag = "webhooks", params(("project" = String, Path)),
    request_body = NewWebhook,
    responses((status = 201, body = MadeWebhook), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn add(
    caller: Caller,
    Path(project): Path<String>,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<MadeWebhook>), Failure> {
    // The path may be a secret of the target's.
    let host = new.url.parse::<http::Uri>().ok();
    audit::tell_detail(host.as_ref().and_then(|u| u.host()).unwrap_or_default());
    caller.project(Action::Projects, &project)?;
    check(&new.url, new.secret.as_deref(), 0)?;
    let secret = match new.secret {
        Some(secret) => secret,
        None => secret::generate(PREFIX)?,
    };
    let (url, kept) = (new.url, secret.clone());
    let status = StatusCode::CREATED;
    let id = caller
        .change_telling(
            Action::Projects,
            &project,
            status,
            move |db, project, entry| {
                check(&url, Some(&kept), db.webhooks(project.id)?.len())?;
                let id = db.add_webhook(project.id, &url, &kept)?;
                entry.target = Some(id.to_string());
                Ok::<_, Failure>(id)
            },
        )
        .await?;
    Ok((StatusCode::CREATED, Json(MadeWebhook { id, secret })))
}

/// Removes a webhook with what waits for it.
#[utoipa::path(delete, path = "/projects/{project}/webhooks/{webhook}", tag = "webhooks",
    params(("project" = String, Path), ("webhook" = i64, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove(
    caller: Caller,
    Path((project, id)): Path<(String, i64)>,
) -> Result<StatusCode, Failure> {
    let gone = caller
        .change(
            Action::Projects,
            &project,
            StatusCode::NO_CONTENT,
            move |db, project| db.remove_webhook(project.id, id),
        )
        .await?;
    gone.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| Failure::not_found(format!("there is no webhook {id} in this project")))
}
