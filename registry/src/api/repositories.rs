//! `/projects/{project}/repositories`, `/labels`, `/search`. A repository is named without its project, with `%2F` for `/`.

use super::json::{Json, Query};
use super::{Caller, ErrorBody, Failure, Page};
use crate::access::{Action, sight};
use crate::audit;
use crate::digest::Digest;
use crate::metadata;
use crate::names::RepositoryName;
use crate::registry::Registry;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A repository.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// Whole name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// How many tags it has.
    pub tags: u64,
}

/// A tag.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// The manifest's digest.
    pub digest: String,
    /// What the manifest is.
    pub media_type: String,
    /// When it was pushed last, milliseconds since 1970.
    pub pushed: i64,
    /// Bytes of the manifest and its blobs.
    pub size: u64,
    /// The manifest's labels.
    pub labels: Vec<String>,
}

/// A label.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// `#rrggbb`.
    pub color: String,
}

/// What a label looks like.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLabel {
    /// `#rrggbb`.
    pub color: String,
}

/// Which tags.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Tags {
    /// Only of manifests with this label.
    pub label: Option<String>,
    /// Most entries, at most 1,000; 100 if left out.
    pub limit: Option<u32>,
    /// Only what comes after this name.
    pub after: Option<String>,
}

/// What is searched for.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Words {
    /// In names of repositories and tags; at least one character.
    pub text: String,
    /// Most repositories, at most 1,000; 100 if left out.
    pub limit: Option<u32>,
    /// Only what comes after this name.
    pub after: Option<String>,
}

/// A repository that was found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// Whole name.
    pub repository: String,
    /// Its tags that hold the text, at most 20.
    pub tags: Vec<String>,
}

fn whole(project: &str, name: &str) -> Result<RepositoryName, Failure> {
    Ok(format!("{project}/{name}").parse()?)
}

fn no_repository(name: &RepositoryName) -> Failure {
    Failure::not_found(format!("there is no repository {name}"))
}

/// Lists a project's repositories.
#[utoipa::path(get, path = "/projects/{project}/repositories", tag = "repositories",
    params(("project" = String, Path), Page),
    responses((status = 200, body = Vec<Repository>), (status = 403, body = ErrorBody)))]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Repository>>, Failure> {
    let project = caller.project(Action::See, &project)?;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| {
            db.repositories_of(project.id, page.after(), page.limit())
        })
        .await?;
    let found = found.into_iter().map(|r| Repository {
        name: r.name,
        created: r.created,
        tags: r.tags,
    });
    Ok(Json(found.collect()))
}

/// Removes a repository with all its tags and manifests.
#[utoipa::path(delete, path = "/projects/{project}/repositories/{repository}", tag = "repositories",
    params(("project" = String, Path), ("repository" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn remove(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Delete, &project)?;
    let name = whole(&project, &name)?;
    caller
        .change(
            Action::Delete,
            &project,
            StatusCode::NO_CONTENT,
            move |db, _project| {
                let found = db.repository(&name)?.ok_or_else(|| no_repository(&name))?;
                for tag in db.tags_by_age(found.id)? {
                    if db.is_immutable(found.project, &name, &tag.name)? {
                        let tag = tag.name;
                        return Err(Failure::conflict(format!(
                            "tag {tag} of {name} is immutable"
                        )));
                    }
                }
                Ok(db.remove_repository(found.id)?)
            },
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a repository's tags.
#[utoipa::path(get, path = "/projects/{project}/repositories/{repository}/tags", tag = "repositories",
    params(("project" = String, Path), ("repository" = String, Path), Tags),
    responses((status = 200, body = Vec<Tag>), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn tags(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    Query(wanted): Query<Tags>,
) -> Result<Json<Vec<Tag>>, Failure> {
    caller.project(Action::See, &project)?;
    let name = whole(&project, &name)?;
    let found = registry
        .metadata
        .read_long(move |db| {
            let found = db.repository(&name)?.ok_or_else(|| no_repository(&name))?;
            let after = wanted.after.unwrap_or_default();
            let limit = wanted.limit.unwrap_or(100).min(Page::MOST);
            Ok::<_, Failure>(db.tag_details(found.id, wanted.label.as_deref(), &after, limit)?)
        })
        .await?;
    let found = found.into_iter().map(|t| Tag {
        name: t.name,
        digest: t.digest,
        media_type: t.media_type,
        pushed: t.updated,
        size: t.size,
        labels: t.labels,
    });
    Ok(Json(found.collect()))
}

async fn set(
    caller: &Caller,
    project: &str,
    name: &str,
    digest: &str,
    label: &str,
    give: bool,
) -> Result<StatusCode, Failure> {
    let name = whole(project, name)?;
    let digest: Digest = digest.parse()?;
    audit::tell_detail(format!("on {digest}"));
    let label = label.to_owned();
    let done = caller
        .change(
            Action::Label,
            project,
            StatusCode::NO_CONTENT,
            move |db, _project| db.label(&name, &digest, &label, give),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| Failure::not_found("there is no such manifest or no such label here"))
}

/// Gives a manifest a label of its project.
#[utoipa::path(put, path = "/projects/{project}/repositories/{repository}/manifests/{digest}/labels/{label}",
    tag = "labels",
    params(("project" = String, Path), ("repository" = String, Path), ("digest" = String, Path), ("label" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn label(
    caller: Caller,
    Path((project, name, digest, label)): Path<(String, String, String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Label, &project)?;
    set(&caller, &project, &name, &digest, &label, true).await
}

/// Takes a label from a manifest.
#[utoipa::path(delete, path = "/projects/{project}/repositories/{repository}/manifests/{digest}/labels/{label}",
    tag = "labels",
    params(("project" = String, Path), ("repository" = String, Path), ("digest" = String, Path), ("label" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn unlabel(
    caller: Caller,
    Path((project, name, digest, label)): Path<(String, String, String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Label, &project)?;
    set(&caller, &project, &name, &digest, &label, false).await
}

/// Lists a project's labels.
#[utoipa::path(get, path = "/projects/{project}/labels", tag = "labels", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Label>), (status = 403, body = ErrorBody)))]
pub(super) async fn labels(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<Label>>, Failure> {
    let project = caller.project(Action::See, &project)?;
    let found = registry.metadata.read(|db| db.labels(project.id))?;
    let found = found.into_iter().map(|l| Label {
        name: l.name,
        color: l.color,
    });
    Ok(Json(found.collect()))
}

/// Whether a label may be called and look so.
///
/// # Errors
/// 400 with what would be right.
pub(super) fn check_label(name: &str, color: &str) -> Result<(), Failure> {
    // A comma would divide it in lists.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Failure::bad_request(
            "a label's name is 1 to 64 letters, digits, spaces, . _ and -",
        ));
    }
    let digits = color.strip_prefix('#').unwrap_or_default();
    if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::bad_request("a colour is #rrggbb"));
    }
    Ok(())
}

/// Makes a label, or gives it another colour.
#[utoipa::path(put, path = "/projects/{project}/labels/{label}", tag = "labels",
    params(("project" = String, Path), ("label" = String, Path)), request_body = NewLabel,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn set_label(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    Json(new): Json<NewLabel>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Configure, &project)?;
    check_label(&name, &new.color)?;
    caller
        .change(
            Action::Configure,
            &project,
            StatusCode::NO_CONTENT,
            move |db, project| db.set_label(project.id, &name, &new.color),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a label from the project and its manifests.
#[utoipa::path(delete, path = "/projects/{project}/labels/{label}", tag = "labels",
    params(("project" = String, Path), ("label" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_label(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Configure, &project)?;
    let wanted = name.clone();
    let done = caller
        .change(
            Action::Configure,
            &project,
            StatusCode::NO_CONTENT,
            move |db, project| db.remove_label(project.id, &wanted),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| Failure::not_found(format!("there is no label {name}")))
}

/// Searches names of repositories and tags that the caller may see.
#[utoipa::path(get, path = "/search", tag = "repositories", params(Words),
    responses((status = 200, body = Vec<Found>), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn search(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Query(words): Query<Words>,
) -> Result<Json<Vec<Found>>, Failure> {
    if words.text.is_empty() || words.text.len() > 255 {
        return Err(Failure::bad_request("search for 1 to 255 bytes of text"));
    }
    let principal = caller.principal;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| {
            let sight = sight(db, &principal, Action::See)?;
            let limit = words.limit.unwrap_or(100).min(Page::MOST);
            let last = words.after.unwrap_or_default();
            let found = db.search(&sight, &words.text, &last, limit)?;
            let found = found.into_iter();
            Ok(found
                .map(|(repository, tags)| Found { repository, tags })
                .collect())
        })
        .await?;
    Ok(Json(found))
}
