//! `/projects/{project}/immutable`, `/retention`: rules over a project's tags.

use super::json::Json;
use super::{Caller, ErrorBody, Failure};
use crate::access::Action;
use crate::audit::{self, Done};
use crate::glob;
use crate::metadata::{self, RetentionRule};
use crate::registry::Registry;
use crate::retention::{self, Removal};
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Most rules of one kind in a project.
const MOST: usize = 100;

fn everything() -> String {
    "*".into()
}

/// Tags that must not move and not go.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Immutable {
    /// Its number; given by the registry.
    #[serde(default)]
    pub id: i64,
    /// Which repositories, without the project: * stands for any characters, ? for one.
    #[serde(default = "everything")]
    pub repositories: String,
    /// Which tags.
    #[serde(default = "everything")]
    pub tags: String,
}

/// Tags that go, but for what this rule, or another one that is about them, keeps.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Its number; given by the registry.
    #[serde(default)]
    pub id: i64,
    /// Which repositories, without the project: * stands for any characters, ? for one.
    #[serde(default = "everything")]
    pub repositories: String,
    /// Which tags.
    #[serde(default = "everything")]
    pub tags: String,
    /// Keeps this many in each repository, those pushed last.
    pub keep_latest: Option<u32>,
    /// Keeps those pushed within this many days.
    pub keep_days: Option<u32>,
}

pub(super) fn check(patterns: [&str; 2], there: usize) -> Result<(), Failure> {
    if patterns.iter().any(|p| p.is_empty() || p.len() > glob::MAX) {
        return Err(Failure::bad_request(format!(
            "a pattern has 1 to {} bytes",
            glob::MAX
        )));
    }
    if there >= MOST {
        return Err(Failure::conflict(format!(
            "a project has at most {MOST} of these rules"
        )));
    }
    Ok(())
}

/// Whether a rule of retention says what it keeps.
///
/// # Errors
/// 400.
pub(super) fn keeps(latest: Option<u32>, days: Option<u32>) -> Result<(), Failure> {
    if latest.is_none() && days.is_none() {
        return Err(Failure::bad_request(
            "a rule says what it keeps: keep_latest, keep_days or both (keep_latest 0 keeps nothing)",
        ));
    }
    Ok(())
}

fn no_rule(id: i64) -> Failure {
    Failure::not_found(format!("there is no rule {id} in this project"))
}

/// Lists a project's rules of immutable tags.
#[utoipa::path(get, path = "/projects/{project}/immutable", tag = "rules", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Immutable>), (status = 403, body = ErrorBody)))]
pub(super) async fn immutable(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<Immutable>>, Failure> {
    let project = caller.project(Action::Configure, &project)?;
    let rules = registry
        .metadata
        .read(|db| db.immutable_rules(project.id))?;
    let rules = rules.into_iter().map(|r| Immutable {
        id: r.id,
        repositories: r.repositories,
        tags: r.tags,
    });
    Ok(Json(rules.collect()))
}

/// Makes tags immutable: what they point at stays, and they are not removed.
#[utoipa::path(post, path = "/projects/{project}/immutable", tag = "rules", params(("project" = String, Path)),
    request_body = Immutable,
    responses((status = 201, body = Immutable), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn add_immutable(
    caller: Caller,
    Path(project): Path<String>,
    Json(mut rule): Json<Immutable>,
) -> Result<(StatusCode, Json<Immutable>), Failure> {
    audit::tell_change(&rule);
    caller.project(Action::Configure, &project)?;
    let (repositories, tags) = (rule.repositories.clone(), rule.tags.clone());
    let status = StatusCode::CREATED;
    rule = caller
        .change_telling(
            Action::Configure,
            &project,
            status,
            move |db, project, entry| {
                check(
                    [&repositories, &tags],
                    db.immutable_rules(project.id)?.len(),
                )?;
                rule.id = db.add_immutable_rule(project.id, &repositories, &tags)?;
                entry.detail = Some(audit::of_change(&rule));
                Ok::<_, Failure>(Done(rule))
            },
        )
        .await?
        .0;
    Ok((StatusCode::CREATED, Json(rule)))
}

/// Removes a rule of immutable tags.
#[utoipa::path(delete, path = "/projects/{project}/immutable/{rule}", tag = "rules",
    params(("project" = String, Path), ("rule" = i64, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_immutable(
    caller: Caller,
    Path((project, id)): Path<(String, i64)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Configure, &project)?;
    let done = caller
        .change(
            Action::Configure,
            &project,
            StatusCode::NO_CONTENT,
            move |db, project| db.remove_immutable_rule(project.id, id),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| no_rule(id))
}

/// Lists a project's rules of retention.
#[utoipa::path(get, path = "/projects/{project}/retention", tag = "rules", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Retention>), (status = 403, body = ErrorBody)))]
pub(super) async fn retention(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<Retention>>, Failure> {
    let project = caller.project(Action::Configure, &project)?;
    let rules = registry
        .metadata
        .read(|db| db.retention_rules(project.id))?;
    let rules = rules.into_iter().map(|r| Retention {
        id: r.id,
        repositories: r.repositories,
        tags: r.tags,
        keep_latest: r.keep_latest,
        keep_days: r.keep_days,
    });
    Ok(Json(rules.collect()))
}

/// Adds a rule of retention. It counts from the next run on.
#[utoipa::path(post, path = "/projects/{project}/retention", tag = "rules", params(("project" = String, Path)),
    request_body = Retention,
    responses((status = 201, body = Retention), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn add_retention(
    caller: Caller,
    Path(project): Path<String>,
    Json(mut rule): Json<Retention>,
) -> Result<(StatusCode, Json<Retention>), Failure> {
    audit::tell_change(&rule);
    caller.project(Action::Configure, &project)?;
    keeps(rule.keep_latest, rule.keep_days)?;
    let row = RetentionRule {
        id: 0,
        repositories: rule.repositories.clone(),
        tags: rule.tags.clone(),
        keep_latest: rule.keep_latest,
        keep_days: rule.keep_days,
    };
    let status = StatusCode::CREATED;
    rule = caller
        .change_telling(
            Action::Configure,
            &project,
            status,
            move |db, project, entry| {
                check(
                    [&row.repositories, &row.tags],
                    db.retention_rules(project.id)?.len(),
                )?;
                rule.id = db.add_retention_rule(project.id, &row)?;
                entry.detail = Some(audit::of_change(&rule));
                Ok::<_, Failure>(Done(rule))
            },
        )
        .await?
        .0;
    Ok((StatusCode::CREATED, Json(rule)))
}

/// Removes a rule of retention.
#[utoipa::path(delete, path = "/projects/{project}/retention/{rule}", tag = "rules",
    params(("project" = String, Path), ("rule" = i64, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_retention(
    caller: Caller,
    Path((project, id)): Path<(String, i64)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Configure, &project)?;
    let done = caller
        .change(
            Action::Configure,
            &project,
            StatusCode::NO_CONTENT,
            move |db, project| db.remove_retention_rule(project.id, id),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| no_rule(id))
}

/// How retention is run.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRetention {
    /// Only say what would go.
    pub dry_run: bool,
}

/// Removes the tags that the rules do not keep, and tells which; it does so by itself before each scheduled collection.
#[utoipa::path(post, path = "/projects/{project}/retention/run", tag = "rules", params(("project" = String, Path)),
    request_body = RunRetention,
    responses((status = 200, body = Vec<Removal>), (status = 403, body = ErrorBody)))]
pub(super) async fn run_retention(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
    Json(run): Json<RunRetention>,
) -> Result<Json<Vec<Removal>>, Failure> {
    audit::tell_change(&run);
    let project = caller.project(Action::Configure, &project)?;
    if !run.dry_run {
        // Who changes the rules may delete, too; asked for by its name all the same.
        caller.project(Action::Delete, &project.name)?;
        let gone = retention::run(&registry, project, &caller.draft).await?;
        // For the entry of a run that removed none; the others' say what went.
        audit::tell_detail(format!("{} tags removed", gone.len()));
        return Ok(Json(gone));
    }
    let plan = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| retention::plan(db, &project))
        .await?;
    Ok(Json(plan))
}
