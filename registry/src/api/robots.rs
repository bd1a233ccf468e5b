//! `/projects/{project}/robots`: accounts of programs, with secrets that expire.

use super::json::Json;
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, secret};
use crate::audit;
use crate::metadata::{self, NewRobot as NewRow, now};
use crate::names::ProjectName;
use crate::registry::Registry;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Days that a secret is good for, if nothing else is asked for.
const DAYS: u32 = 30;
/// Most days.
const MOST_DAYS: u32 = 730;
const DAY: i64 = 24 * 3600 * 1000;
/// Begins a secret, so that one that was found somewhere is known for what it is.
const PREFIX: &str = "robot_";

/// A robot.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Robot {
    /// Its name in the project.
    pub name: String,
    /// What it signs in as, `PROJECT+NAME`.
    pub login: String,
    /// `pull`, `push`, `delete`.
    pub actions: Vec<String>,
    /// Milliseconds since 1970.
    pub expires: i64,
    /// May not sign in.
    pub disabled: bool,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Who made it.
    pub created_by: String,
}

/// A robot that is to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRobot {
    /// Lower-case letters, digits and separators (. _ __ -).
    pub name: String,
    /// What it may do in this project: `pull`, `push` (with `pull`), `delete`.
    pub actions: Vec<String>,
    /// Days that its secret is good for, 1 to 730; 30 if left out.
    pub days: Option<u32>,
}

/// A robot's secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MadeRobot {
    /// What it signs in as.
    pub login: String,
    /// Its secret: it is told once and kept nowhere.
    pub secret: String,
    /// Milliseconds since 1970.
    pub expires: i64,
}

/// A robot's next secret.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RenewedRobot {
    /// Days that it is good for.
    pub days: Option<u32>,
}

/// What of a robot is to change.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedRobot {
    /// `true`: may not sign in any more, and what was signed in ends.
    pub disabled: bool,
}

fn end(days: Option<u32>) -> Result<i64, Failure> {
    let days = days.unwrap_or(DAYS);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Failure::bad_request(format!(
            "a robot's secret is good for 1 to {MOST_DAYS} days"
        )));
    }
    Ok(now() + i64::from(days) * DAY)
}

/// What a robot may do, as it is kept: in order, each once, with what an action needs.
///
/// # Errors
/// 400 when there is none, or one that there is not.
pub(super) fn actions(mut actions: Vec<String>) -> Result<Vec<String>, Failure> {
    let known = |a: &String| matches!(a.as_str(), "pull" | "push" | "delete");
    if actions.is_empty() || !actions.iter().all(known) {
        return Err(Failure::bad_request(
            "a robot's actions are one or more of pull, push and delete",
        ));
    }
    if actions.iter().any(|a| a == "push") {
        // A push looks at what is there.
        actions.push("pull".into());
    }
    actions.sort();
    actions.dedup();
    Ok(actions)
}

/// Whether a secret that is taken over may be good until then; it may have expired.
///
/// # Errors
/// 400.
pub(super) fn check_end(expires: i64) -> Result<(), Failure> {
    // A day for clocks that differ.
    let most = now() + i64::from(MOST_DAYS + 1) * DAY;
    if !(0..=most).contains(&expires) {
        return Err(Failure::bad_request(format!(
            "its secret is good for more than {MOST_DAYS} days"
        )));
    }
    Ok(())
}

fn unknown(project: &str, name: &str) -> Failure {
    Failure::not_found(format!("there is no robot {name} in {project}"))
}

/// Lists a project's robots.
#[utoipa::path(get, path = "/projects/{project}/robots", tag = "robots", params(("project" = String, Path)),
    responses((status = 200, body = Vec<Robot>), (status = 403, body = ErrorBody)))]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<Robot>>, Failure> {
    let found = caller.project(Action::Robots, &project)?;
    let robots = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.robots(found.id))
        .await?;
    let robots = robots.into_iter().map(|r| Robot {
        login: format!("{project}+{}", r.name),
        name: r.name,
        actions: r.actions,
        expires: r.expires,
        disabled: r.disabled,
        created: r.created,
        created_by: r.created_by,
    });
    Ok(Json(robots.collect()))
}

/// Makes a robot. Who makes it cannot give it more than a project has: it never leaves its project.
#[utoipa::path(post, path = "/projects/{project}/robots", tag = "robots", params(("project" = String, Path)),
    request_body = NewRobot,
    responses((status = 201, body = MadeRobot), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn create(
    caller: Caller,
    Path(project): Path<String>,
    Json(new): Json<NewRobot>,
) -> Result<(StatusCode, Json<MadeRobot>), Failure> {
    audit::tell_target(&new.name);
    audit::tell_change(&new);
    caller.project(Action::Robots, &project)?;
    // Of the same form as a project's.
    let name: ProjectName = new.name.parse()?;
    let actions = actions(new.actions)?;
    let expires = end(new.days)?;
    let row = NewRow {
        name: name.as_str().to_owned(),
        actions,
        expires,
        created_by: caller.principal.name().to_owned(),
    };
    let text = secret::generate(PREFIX)?;
    let hash = secret::hash(&text);
    let made = caller
        .change(
            Action::Robots,
            &project,
            StatusCode::CREATED,
            move |db, found| db.create_robot(found.id, &row, &hash),
        )
        .await?;
    if !made {
        return Err(Failure::conflict(format!(
            "there is a robot {name} in {project} already"
        )));
    }
    let made = MadeRobot {
        login: format!("{project}+{name}"),
        secret: text,
        expires,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Gives a robot another secret. The old one, and what was signed in with it, ends.
#[utoipa::path(post, path = "/projects/{project}/robots/{robot}/secret", tag = "robots",
    params(("project" = String, Path), ("robot" = String, Path)), request_body = RenewedRobot,
    responses((status = 200, body = MadeRobot), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn renew(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    Json(renewed): Json<RenewedRobot>,
) -> Result<Json<MadeRobot>, Failure> {
    audit::tell_change(&renewed);
    caller.project(Action::Robots, &project)?;
    let expires = end(renewed.days)?;
    let text = secret::generate(PREFIX)?;
    let hash = secret::hash(&text);
    let wanted = name.clone();
    let done = caller
        .change(
            Action::Robots,
            &project,
            StatusCode::OK,
            move |db, found| db.renew_robot(found.id, &wanted, &hash, expires),
        )
        .await?;
    if !done {
        return Err(unknown(&project, &name));
    }
    Ok(Json(MadeRobot {
        login: format!("{project}+{name}"),
        secret: text,
        expires,
    }))
}

/// Lets a robot sign in, or not.
#[utoipa::path(patch, path = "/projects/{project}/robots/{robot}", tag = "robots",
    params(("project" = String, Path), ("robot" = String, Path)), request_body = ChangedRobot,
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn change(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    Json(change): Json<ChangedRobot>,
) -> Result<StatusCode, Failure> {
    audit::tell_change(&change);
    caller.project(Action::Robots, &project)?;
    let wanted = name.clone();
    let done = caller
        .change(
            Action::Robots,
            &project,
            StatusCode::NO_CONTENT,
            move |db, found| db.disable_robot(found.id, &wanted, change.disabled),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| unknown(&project, &name))
}

/// Removes a robot.
#[utoipa::path(delete, path = "/projects/{project}/robots/{robot}", tag = "robots",
    params(("project" = String, Path), ("robot" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove(
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    caller.project(Action::Robots, &project)?;
    let wanted = name.clone();
    let done = caller
        .change(
            Action::Robots,
            &project,
            StatusCode::NO_CONTENT,
            move |db, found| db.remove_robot(found.id, &wanted),
        )
        .await?;
    done.then_some(StatusCode::NO_CONTENT)
        .ok_or_else(|| unknown(&project, &name))
}
