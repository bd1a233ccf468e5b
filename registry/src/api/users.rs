//! `/users`: local users. All of it is for cloud administrators, but that everybody may read who they are and change
//! their own password.

use super::json::{Json, Query};
use super::{Caller, ErrorBody, Failure, Page};
use crate::access::{Action, Principal, Role, Target, password};
use crate::audit;
use crate::metadata::{self, AuditEntry, ChangeUser, Write};
use crate::names::check_user;
use crate::registry::Registry;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Name to sign in with.
    pub name: String,
    /// Cloud administrator: may do everything.
    pub administrator: bool,
    /// May not sign in.
    pub disabled: bool,
    /// Milliseconds since 1970.
    pub created: i64,
    /// The projects that they are members of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<Membership>,
}

/// What a user is in a project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// The project's name.
    pub project: String,
    /// The role there.
    pub role: Role,
}

/// A user who is to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Name to sign in with.
    pub name: String,
    /// 10 to 256 bytes, at least 5 different characters, without the name. Left out, one is made and told once.
    pub password: Option<String>,
    /// Cloud administrator.
    #[serde(default)]
    pub administrator: bool,
}

/// A user who was made, or has another password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MadeUser {
    /// Name to sign in with.
    pub name: String,
    /// The password, if it was made here: it is told once and kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// What of a user is to change.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangedUser {
    /// Cloud administrator or not.
    pub administrator: Option<bool>,
    /// `true`: may not sign in any more, and what was signed in ends.
    pub disabled: Option<bool>,
    /// `true`: forgets the failed sign-ins that slow the name down.
    pub unlock: Option<bool>,
}

/// Another password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedPassword {
    /// The password of now; a cloud administrator need not know it, but for their own.
    pub current: Option<String>,
    /// Left out, one is made and told once.
    pub password: Option<String>,
}

fn user(found: metadata::User) -> User {
    User {
        name: found.name,
        administrator: found.administrator,
        disabled: found.disabled,
        created: found.created,
        memberships: Vec::new(),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::not_found(format!("there is no user {name}"))
}

fn changed(done: ChangeUser, name: &str) -> Result<(), Failure> {
    match done {
        ChangeUser::Done => Ok(()),
        ChangeUser::Unknown => Err(unknown(name)),
        ChangeUser::LastAdministrator => Err(Failure::conflict(format!(
            "{name} is the last cloud administrator who may sign in; name another one first"
        ))),
    }
}

/// A password's hash; and the password, if it had to be made.
async fn hashed(
    registry: &Registry,
    caller: &Caller,
    name: &str,
    given: Option<String>,
) -> Result<(String, Option<String>), Failure> {
    let (password, made) = match given {
        Some(password) => (password, false),
        None => (password::generate()?, true),
    };
    password::check(name, &password)?;
    let hash = registry.credentials.hash(&password, &caller.source).await?;
    Ok((hash, made.then_some(password)))
}

/// Lists users, by name.
#[utoipa::path(get, path = "/users", tag = "users", params(Page),
    responses((status = 200, body = Vec<User>), (status = 403, body = ErrorBody)))]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Vec<User>>, Failure> {
    caller.may(Action::Users, Target::Registry)?;
    let found = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| db.users_after(page.after(), page.limit()))
        .await?;
    Ok(Json(found.into_iter().map(user).collect()))
}

/// Makes a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = MadeUser), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn create(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<MadeUser>), Failure> {
    audit::tell_target(&new.name);
    audit::tell_detail(format!(r#"{{"administrator":{}}}"#, new.administrator));
    caller.may(Action::Users, Target::Registry)?;
    check_user(&new.name)?;
    let (hash, password) = hashed(&registry, &caller, &new.name, new.password).await?;
    let name = new.name.clone();
    let made = caller
        .change_registry(Action::Users, StatusCode::CREATED, move |db| {
            db.create_user(&name, &hash, new.administrator)
        })
        .await?;
    if !made {
        return Err(Failure::conflict(format!(
            "there is a user {} already",
            new.name
        )));
    }
    let made = MadeUser {
        name: new.name,
        password,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// A user, with their memberships. Everybody may ask for themselves.
#[utoipa::path(get, path = "/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = User), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn show(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<User>, Failure> {
    if !is_self(&caller, &name) {
        caller.may(Action::Users, Target::Registry)?;
    }
    let found = registry.metadata.read(|db| {
        let Some(found) = db.user(&name)? else {
            return Ok(None);
        };
        let memberships = db.memberships(found.id)?;
        Ok::<_, metadata::Error>(Some((found, memberships)))
    })?;
    let (found, memberships) = found.ok_or_else(|| unknown(&name))?;
    let mut answer = user(found);
    answer.memberships = memberships
        .into_iter()
        .map(|(project, role)| Membership { project, role })
        .collect();
    Ok(Json(answer))
}

fn is_self(caller: &Caller, name: &str) -> bool {
    matches!(&caller.principal, Principal::User { name: own, .. } if own == name)
}

/// Makes a user a cloud administrator or not, lets them sign in or not, forgets their failed sign-ins.
#[utoipa::path(patch, path = "/users/{user}", tag = "users", params(("user" = String, Path)), request_body = ChangedUser,
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn change(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(change): Json<ChangedUser>,
) -> Result<StatusCode, Failure> {
    audit::tell_change(&change);
    caller.may(Action::Users, Target::Registry)?;
    let wanted = name.clone();
    let done = caller
        .change_registry(Action::Users, StatusCode::NO_CONTENT, move |db| {
            db.change_user(&wanted, change.administrator, change.disabled)
        })
        .await?;
    changed(done, &name)?;
    if change.unlock == Some(true) {
        registry.credentials.unlock(&name);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a user another password. What was signed in with the old one ends.
#[utoipa::path(put, path = "/users/{user}/password", tag = "users", params(("user" = String, Path)),
    request_body = ChangedPassword,
    responses((status = 200, body = MadeUser), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(super) async fn set_password(
    State(registry): State<Arc<Registry>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(change): Json<ChangedPassword>,
) -> Result<Json<MadeUser>, Failure> {
    let proved = if is_self(&caller, &name) {
        // Who found a browser open does not get the account with it.
        let current = change.current.unwrap_or_default();
        let (credentials, source) = (&registry.credentials, &caller.source);
        Some(credentials.sign_in(&name, &current, source).await?)
    } else {
        caller.may(Action::Users, Target::Registry)?;
        None
    };
    let (hash, password) = hashed(&registry, &caller, &name, change.password).await?;
    let wanted = name.clone();
    let done = match proved {
        Some(Principal::User { generation, .. }) => {
            let change = move |db: &Write<'_>, _: &mut AuditEntry| {
                let still = db.user(&wanted)?.is_some_and(|u| u.is_good(generation));
                if !still {
                    return Err(Failure::sign_in("the password was changed meanwhile"));
                }
                Ok(db.set_password(&wanted, &hash)?)
            };
            let status = StatusCode::OK;
            caller
                .draft
                .commit(&registry.metadata, status, change)
                .await?
        }
        _ => {
            caller
                .change_registry(Action::Users, StatusCode::OK, move |db| {
                    db.set_password(&wanted, &hash)
                })
                .await?
        }
    };
    changed(done, &name)?;
    registry.credentials.unlock(&name);
    Ok(Json(MadeUser { name, password }))
}

/// Removes a user with their memberships.
#[utoipa::path(delete, path = "/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn remove(
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    caller.may(Action::Users, Target::Registry)?;
    let wanted = name.clone();
    let done = caller
        .change_registry(Action::Users, StatusCode::NO_CONTENT, move |db| {
            db.remove_user(&wanted)
        })
        .await?;
    changed(done, &name)?;
    Ok(StatusCode::NO_CONTENT)
}
