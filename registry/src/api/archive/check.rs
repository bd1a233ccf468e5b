//! Whether an archive holds nothing that could not have been made by the other ways into the registry.

use super::form::{Archive, ArchivedProject, ArchivedRobot, FORMAT, Head, VERSION};
use crate::access::password;
use crate::api::{Failure, repositories, robots, rules, webhooks};
use crate::names::{ProjectName, check_user};
use std::collections::HashSet;

/// Reads an archive of a version that is known.
///
/// # Errors
/// 400 with what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Archive, Failure> {
    let bad = |e: serde_json::Error| Failure::bad_request(format!("this is no archive: {e}"));
    let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
    if head.format != FORMAT {
        return Err(Failure::bad_request(format!(
            "this is no archive of a registry's access: its format is not {FORMAT}"
        )));
    }
    if head.version != VERSION {
        return Err(Failure::bad_request(format!(
            "the archive has version {}, this program knows {VERSION}",
            head.version
        )));
    }
    let archive: Archive = serde_json::from_slice(bytes).map_err(bad)?;
    whole(&archive)?;
    Ok(archive)
}

fn whole(archive: &Archive) -> Result<(), Failure> {
    let mut users = HashSet::new();
    for user in &archive.users {
        let at = |e: Failure| e.at(&format!("user {:?}", user.name));
        check_user(&user.name).map_err(Failure::from).map_err(at)?;
        if !password::is_hash(&user.password_hash) {
            let text = "its password's hash is not one that is made here";
            return Err(at(Failure::bad_request(text)));
        }
        once(&mut users, &user.name).map_err(at)?;
    }
    if !archive.users.iter().any(|u| u.administrator && !u.disabled) {
        return Err(Failure::bad_request(
            "the archive has no cloud administrator who may sign in",
        ));
    }
    let mut projects = HashSet::new();
    for project in &archive.projects {
        let at = |e: Failure| e.at(&format!("project {:?}", project.name));
        once(&mut projects, &project.name).map_err(at)?;
        of_project(project, &users).map_err(at)?;
    }
    Ok(())
}

fn once<'a>(seen: &mut HashSet<&'a str>, name: &'a str) -> Result<(), Failure> {
    match seen.insert(name) {
        true => Ok(()),
        false => Err(Failure::bad_request(format!("{name} is there twice"))),
    }
}

fn of_project(project: &ArchivedProject, users: &HashSet<&str>) -> Result<(), Failure> {
    project.name.parse::<ProjectName>()?;
    let mut names = HashSet::new();
    for member in &project.members {
        once(&mut names, &member.user)?;
        if !users.contains(member.user.as_str()) {
            return Err(Failure::bad_request(format!(
                "member {:?} is no user of the archive",
                member.user
            )));
        }
    }
    names.clear();
    for robot in &project.robots {
        once(&mut names, &robot.name)?;
        of_robot(robot).map_err(|e| e.at(&format!("robot {:?}", robot.name)))?;
    }
    names.clear();
    for label in &project.labels {
        once(&mut names, &label.name)?;
        repositories::check_label(&label.name, &label.color)?;
    }
    for (n, rule) in project.immutable.iter().enumerate() {
        rules::check([&rule.repositories, &rule.tags], n)?;
    }
    for (n, rule) in project.retention.iter().enumerate() {
        rules::check([&rule.repositories, &rule.tags], n)?;
        rules::keeps(rule.keep_latest, rule.keep_days)?;
    }
    for (n, webhook) in project.webhooks.iter().enumerate() {
        webhooks::check(&webhook.url, webhook.secret.as_deref(), n)?;
    }
    Ok(())
}

fn of_robot(robot: &ArchivedRobot) -> Result<(), Failure> {
    robot.name.parse::<ProjectName>()?;
    if robots::actions(robot.actions.clone())? != robot.actions {
        return Err(Failure::bad_request("its actions are not in order"));
    }
    robots::check_end(robot.expires)?;
    secret(robot).map(|_| ())
}

/// The bytes of a robot's kept secret.
///
/// # Errors
/// 400 when they are none.
pub(super) fn secret(robot: &ArchivedRobot) -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(&robot.secret_hash, &mut bytes)
        .map_err(|_| Failure::bad_request("its secret's hash is no SHA-256"))?;
    Ok(bytes)
}
