//! `/archive`: users, roles, robots and projects with what was set for them, as one document, to be taken into a registry
//! that is empty. For cloud administrators: it has the hashes of all passwords.

mod check;
mod form;

pub use form::{
    Archive, ArchivedImmutable, ArchivedLabel, ArchivedMember, ArchivedProject, ArchivedRetention,
    ArchivedRobot, ArchivedUser, ArchivedWebhook, FORMAT, VERSION,
};

use super::json::{Json, Query};
use super::{Caller, ErrorBody, Failure};
use crate::access::{Action, Sight, Target, secret};
use crate::audit::Done;
use crate::bodies;
use crate::metadata::{self, NewRobot, Read, RetentionRule, Write, now};
use crate::names::DEFAULT_PROJECT;
use crate::registry::Registry;
use axum::body::Body;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Longest archive that is taken, in bytes: more than a hundred thousand users.
pub const MOST: usize = 64 << 20;

/// How many rows are asked for at once.
const BATCH: u32 = 1000;

/// What an archive is to have.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The webhooks' secrets, too: who has them can tell the webhooks' targets anything.
    pub secrets: bool,
}

/// A webhook that got another secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewSecret {
    /// Of which project.
    pub project: String,
    /// Who is told.
    pub url: String,
    /// What signs what is told: to be given to whoever checks it. Told once.
    pub secret: String,
}

/// What was taken in.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Users.
    pub users: usize,
    /// Projects.
    pub projects: usize,
    /// Robots.
    pub robots: usize,
    /// Webhooks whose secrets were not in the archive.
    pub new_secrets: Vec<NewSecret>,
}

/// Gives users (with the hashes of their passwords), roles, robots (with the hashes of their secrets), and projects with
/// quotas, rules, labels and webhooks, all as of one moment. Repositories, keys of tokens and the audit log are not in it.
#[utoipa::path(get, path = "/archive", tag = "registry", params(Wanted),
    responses((status = 200, body = Archive), (status = 403, body = ErrorBody)))]
pub(super) async fn export(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Archive>, Failure> {
    caller.may(Action::Administer, Target::Registry)?;
    let archive = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.at_once(|db| collect(db, wanted.secrets)))
        .await?;
    Ok(Json(archive))
}

fn collect(db: &Read<'_>, secrets: bool) -> metadata::Result<Archive> {
    let (mut users, mut projects) = (Vec::new(), Vec::new());
    let mut last = String::new();
    loop {
        let batch = db.users_after(&last, BATCH)?;
        let Some(end) = batch.last() else { break };
        last.clone_from(&end.name);
        users.extend(batch.into_iter().map(|user| ArchivedUser {
            name: user.name,
            password_hash: user.password,
            administrator: user.administrator,
            disabled: user.disabled,
        }));
    }
    last.clear();
    loop {
        let batch = db.projects_after(&last, BATCH)?;
        let Some(end) = batch.last() else { break };
        last.clone_from(&end.name);
        for project in batch {
            projects.push(of_project(db, project, secrets)?);
        }
    }
    Ok(Archive {
        format: FORMAT.into(),
        version: VERSION,
        time: now(),
        users,
        projects,
    })
}

fn of_project(
    db: &Read<'_>,
    project: metadata::Project,
    secrets: bool,
) -> metadata::Result<ArchivedProject> {
    let id = project.id;
    let members = db.members(id)?.into_iter().map(|m| ArchivedMember {
        user: m.user,
        role: m.role,
    });
    let robots = db.robots(id)?.into_iter().map(|r| ArchivedRobot {
        name: r.name,
        secret_hash: hex::encode(r.secret),
        actions: r.actions,
        expires: r.expires,
        disabled: r.disabled,
        created_by: r.created_by,
    });
    let immutable = db.immutable_rules(id)?.into_iter();
    let immutable = immutable.map(|r| ArchivedImmutable {
        repositories: r.repositories,
        tags: r.tags,
    });
    let retention = db.retention_rules(id)?.into_iter();
    let retention = retention.map(|r| ArchivedRetention {
        repositories: r.repositories,
        tags: r.tags,
        keep_latest: r.keep_latest,
        keep_days: r.keep_days,
    });
    let labels = db.labels(id)?.into_iter().map(|l| ArchivedLabel {
        name: l.name,
        color: l.color,
    });
    let webhooks = db.webhook_secrets(id)?.into_iter();
    let webhooks = webhooks.map(|(url, secret)| ArchivedWebhook {
        url,
        secret: secrets.then_some(secret),
    });
    Ok(ArchivedProject {
        name: project.name,
        public: project.public,
        quota: db.usage(id)?.1,
        members: members.collect(),
        robots: robots.collect(),
        immutable: immutable.collect(),
        retention: retention.collect(),
        labels: labels.collect(),
        webhooks: webhooks.collect(),
    })
}

/// Takes an archive into a registry that has no repository and no project but default-project, as a whole or not at all.
/// A user who is there and in the archive is from then on as in the archive; others stay.
#[utoipa::path(post, path = "/archive", tag = "registry", request_body = Archive,
    responses((status = 200, body = Imported), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody)))]
pub(super) async fn import(caller: Caller, body: Body) -> Result<Json<Imported>, Failure> {
    // Before so many bytes are read.
    caller.may(Action::Administer, Target::Registry)?;
    let read = bodies::in_time(axum::body::to_bytes(body, MOST)).await;
    let slow = || Failure::with_status(StatusCode::REQUEST_TIMEOUT, bodies::SLOW.into());
    let bytes = read.ok_or_else(slow)?.map_err(|e| {
        let text = format!("an archive has at most {MOST} bytes, and comes whole: {e}");
        Failure::with_status(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    // Checking takes as long as the archive is.
    let parsed = tokio::task::spawn_blocking(move || check::parse(&bytes)).await;
    let archive = parsed.map_err(|e| Failure::broken(&e))??;
    crate::audit::tell_detail(format!(
        "{} users, {} projects",
        archive.users.len(),
        archive.projects.len()
    ));
    let take = move |db: &Write<'_>| take_in(db, &archive).map(Done);
    let Done(imported) = caller
        .change_registry(Action::Administer, StatusCode::OK, take)
        .await?;
    Ok(Json(imported))
}

/// Whether nothing was made here yet that an archive could meet.
fn is_empty(db: &Read<'_>) -> metadata::Result<bool> {
    let projects = db.projects_after("", 2)?;
    if projects.iter().any(|p| p.name != DEFAULT_PROJECT) {
        return Ok(false);
    }
    for project in projects {
        let id = project.id;
        let set = !db.robots(id)?.is_empty()
            || !db.webhooks(id)?.is_empty()
            || !db.labels(id)?.is_empty()
            || !db.immutable_rules(id)?.is_empty()
            || !db.retention_rules(id)?.is_empty();
        if set {
            return Ok(false);
        }
    }
    let repositories = db.visible_repositories(&Sight::Everything, "", 1)?;
    Ok(repositories.is_empty())
}

fn take_in(db: &Write<'_>, archive: &Archive) -> Result<Imported, Failure> {
    if !is_empty(db)? {
        return Err(Failure::conflict(
            "an archive is taken into an empty registry: this one has repositories, projects, or something that was set for them",
        ));
    }
    let mut imported = Imported::default();
    for user in &archive.users {
        db.set_user(&user.name, &user.password_hash, user.administrator)?;
    }
    // After all of them: one administrator who may sign in is there then.
    for user in &archive.users {
        db.change_user(&user.name, Some(user.administrator), Some(user.disabled))?;
    }
    for project in &archive.projects {
        let name = project.name.parse()?;
        db.create_project(&name, project.public)?;
        let gone = || Failure::not_found("the project is gone");
        let id = db.project(&project.name)?.ok_or_else(gone)?.id;
        db.set_public(&project.name, project.public)?;
        db.set_quota(id, project.quota)?;
        fill(db, id, project, &mut imported)?;
    }
    imported.users = archive.users.len();
    imported.projects = archive.projects.len();
    Ok(imported)
}

fn fill(
    db: &Write<'_>,
    id: metadata::ProjectId,
    project: &ArchivedProject,
    imported: &mut Imported,
) -> Result<(), Failure> {
    let user = |name: &str| {
        let none = || Failure::not_found(format!("there is no user {name}"));
        db.user(name)?.ok_or_else(none)
    };
    for member in db.members(id)? {
        db.remove_member(id, user(&member.user)?.id)?;
    }
    for member in &project.members {
        db.set_member(id, user(&member.user)?.id, member.role)?;
    }
    for robot in &project.robots {
        let new = NewRobot {
            name: robot.name.clone(),
            actions: robot.actions.clone(),
            expires: robot.expires,
            created_by: robot.created_by.clone(),
        };
        db.create_robot(id, &new, &check::secret(robot)?)?;
        db.disable_robot(id, &robot.name, robot.disabled)?;
        imported.robots += 1;
    }
    for rule in &project.immutable {
        db.add_immutable_rule(id, &rule.repositories, &rule.tags)?;
    }
    for rule in &project.retention {
        let rule = RetentionRule {
            id: 0,
            repositories: rule.repositories.clone(),
            tags: rule.tags.clone(),
            keep_latest: rule.keep_latest,
            keep_days: rule.keep_days,
        };
        db.add_retention_rule(id, &rule)?;
    }
    for label in &project.labels {
        db.set_label(id, &label.name, &label.color)?;
    }
    for webhook in &project.webhooks {
        let kept = match &webhook.secret {
            Some(secret) => secret.clone(),
            None => {
                let secret = secret::generate(super::webhooks::PREFIX)?;
                imported.new_secrets.push(NewSecret {
                    project: project.name.clone(),
                    url: webhook.url.clone(),
                    secret: secret.clone(),
                });
                secret
            }
        };
        db.add_webhook(id, &webhook.url, &kept)?;
    }
    Ok(())
}
