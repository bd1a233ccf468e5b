//! `/projects`: projects and their members.

use super::json::{Json, Query};
use super::{Caller, ErrorBody, Failure, Page};
use crate::access::{Action, Role, Target, sight};
use crate::audit;
use crate::metadata::{self, RemoveProject};
use crate::names::{DEFAULT_PROJECT, ProjectName};
use crate::registry::Registry;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// Its name, the first part of its repositories' names.
    pub name: String,
    /// Whether everybody may pull.
    pub public: bool,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Bytes of its manifests and blobs, each blob once; only told of one project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Bytes that it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

impl From<metadata::Project> for Project {
    fn from(project: metadata::Project) -> Self {
        Project {
            name: project.name,
            public: project.public,
            created: project.created,
            used: None,
            quota: None,
        }
    }
}

/// A project that is to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// Lower-case letters, digits and separators (. _ __ -).
    pub name: String,
    /// Whether everybody may pull.
    #[serde(default)]
    pub public: bool,
    /// The user who is its first DevOps administrator.
    pub administrator: Option<String>,
}

/// What of a project is to change.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangedProject {
    /// Whether everybody may pull.
    pub public: Option<bool>,
}

/// A member of a project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The user's name.
    pub user: String,
    /// What they are in the project.
    pub role: Role,
    /// Milliseconds since 1970.
    pub added: i64,
}

/// What a user is to be in a project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// The role.
    pub role: Role,
}

/// Lists the projects that the caller may see, by name.
#[utoipa::path(get, path = "/projects", tag = "projects", params(Page), responses((status = 200, body = Vec<Project>)))]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Project>>, Failure> {
    let principal = caller.principal;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| {
            let sight = sight(db, &principal, Action::See)?;
            let found = db.visible_projects(&sight, page.after(), page.limit())?;
            Ok(found.into_iter().map(Project::from).collect())
        })
        .await?;
    Ok(Json(found))
}

/// Makes a project, with its first DevOps administrator.
#[utoipa::path(post, path = "/projects", tag = "projects", request_body = NewProject,
    responses((status = 201, body = Project), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn create(
    caller: Caller,
    Json(new): Json<NewProject>,
) -> Result<(StatusCode, Json<Project>), Failure> {
    audit::tell_project(&new.name);
    audit::tell_change(&new);
    caller.may(Action::Projects, Target::Registry)?;
    let name: ProjectName = new.name.parse()?;
    let made = caller
        .change_registry(Action::Projects, StatusCode::CREATED, move |db| {
            let id = db
                .create_project(&name, new.public)?
                .ok_or_else(|| Failure::conflict(format!("there is a project {name} already")))?;
            if let Some(user) = new.administrator {
                let found = db.user(&user)?.ok_or_else(|| no_user(&user))?;
                db.set_member(id, found.id, Role::DevopsAdmin)?;
            }
            db.project(name.as_str())?
                .ok_or_else(|| Failure::not_found("the project is gone"))
        })
        .await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

fn no_user(name: &str) -> Failure {
    Failure::not_found(format!("there is no user {name}"))
}

/// A project.
#[utoipa::path(get, path = "/projects/{project}", tag = "projects", params(("project" = String, Path)),
    responses((status = 200, body = Project), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn show(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Project>, Failure> {
    let found = caller.project(Action::See, &name)?;
    let (used, quota) = registry.metadata.read(|db| db.usage(found.id))?;
    Ok(Json(Project {
        used: Some(used),
        quota,
        ..found.into()
    }))
}

/// How much a project may hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes of manifests and blobs, each blob once; null: without limit.
    pub bytes: Option<u64>,
}

/// Says how much a project may hold. It keeps what it has when that is more.
#[utoipa::path(put, path = "/projects/{project}/quota", tag = "projects", params(("project" = String, Path)),
    request_body = Quota,
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn set_quota(
    caller: Caller,
    Path(name): Path<String>,
    Json(quota): Json<Quota>,
) -> Result<StatusCode, Failure> {
    audit::tell_change(&quota);
    caller.project(Action::Projects, &name)?;
    caller
        .change(
            Action::Projects,
            &name,
            StatusCode::NO_CONTENT,
            move |db, project| db.set_quota(project.id, quota.bytes),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a project public or private, at once.
#[utoipa::path(patch, path = "/projects/{project}", tag = "projects", params(("project" = String, Path)),
    request_body = ChangedProject,
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn change(
    caller: Caller,
    Path(name): Path<String>,
    Json(change): Json<ChangedProject>,
) -> Result<StatusCode, Failure> {
    audit::tell_change(&change);
    caller.project(Action::Configure, &name)?;
    if let Some(public) = change.public {
        caller
            .change(
                Action::Configure,
                &name,
                StatusCode::NO_CONTENT,
                move |db, project| db.set_public(&project.name, public),
            )
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a project without repositories, with its members and robots.
#[utoipa::path(delete, path = "/projects/{project}", tag = "projects", params(("project" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn remove(
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    caller.may(Action::Projects, Target::Project(&name))?;
    if name == DEFAULT_PROJECT {
        return Err(Failure::conflict(format!(
            "{DEFAULT_PROJECT} is always there"
        )));
    }
    let wanted = name.clone();
    match caller
        .change(
            Action::Projects,
            &name,
            StatusCode::NO_CONTENT,
            move |db, _project| db.remove_project(&wanted),
        )
        .await?
    {
        RemoveProject::Done => Ok(StatusCode::NO_CONTENT),
        RemoveProject::Unknown => Err(Failure::not_found(format!("there is no project {name}"))),
        RemoveProject::NotEmpty => Err(Failure::conflict(format!(
            "{name} has repositories; remove them first"
        ))),
    }
}

/// Lists a project's members.
#[utoipa::path(get, path = "/projects/{project}/members", tag = "members", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Member>), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn members(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<Member>>, Failure> {
    let project = caller.project(Action::Members, &name)?;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.members(project.id))
        .await?;
    let members = found.into_iter().map(|m| Member {
        user: m.user,
        role: m.role,
        added: m.added,
    });
    Ok(Json(members.collect()))
}

/// Makes a user a member of a project, or changes what they are there.
#[utoipa::path(put, path = "/projects/{project}/members/{user}", tag = "members",
    params(("project" = String, Path), ("user" = String, Path)), request_body = NewRole,
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn set_member(
    caller: Caller,
    Path((name, user)): Path<(String, String)>,
    Json(new): Json<NewRole>,
) -> Result<StatusCode, Failure> {
    audit::tell_detail(new.role.name());
    caller.project(Action::Members, &name)?;
    caller
        .change(
            Action::Members,
            &name,
            StatusCode::NO_CONTENT,
            move |db, project| {
                let found = db.user(&user)?.ok_or_else(|| no_user(&user))?;
                Ok::<_, Failure>(db.set_member(project.id, found.id, new.role)?)
            },
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a user out of a project.
#[utoipa::path(delete, path = "/projects/{project}/members/{user}", tag = "members",
    params(("project" = String, Path), ("user" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_member(
    caller: Caller,
    Path((name, user)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Members, &name)?;
    caller
        .change(
            Action::Members,
            &name,
            StatusCode::NO_CONTENT,
            move |db, project| {
                let found = db.user(&user)?.ok_or_else(|| no_user(&user))?;
                if db.remove_member(project.id, found.id)? {
                    return Ok(());
                }
                let name = project.name;
                Err(Failure::not_found(format!("{user} is no member of {name}")))
            },
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
