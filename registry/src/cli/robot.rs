//! `registry robot`

use super::call::{self, part};
use super::{Common, table, when};
use crate::api::robots::{ChangedRobot, MadeRobot, NewRobot, RenewedRobot, Robot as Found};
use anyhow::Result;
use clap::Subcommand;
use http::Method;

/// Accounts of programs, each of one project.
#[derive(Subcommand)]
pub(crate) enum Robot {
    /// Make a robot, and print its secret
    Add {
        /// Project
        project: String,
        /// Name in the project
        name: String,
        /// What it may do: pull, push, delete
        #[arg(long, value_delimiter = ',', default_value = "pull")]
        actions: Vec<String>,
        /// Days that its secret is good for [default: 30]
        #[arg(long)]
        days: Option<u32>,
    },
    /// List a project's robots
    #[command(visible_alias = "list")]
    Ls {
        /// Project
        project: String,
    },
    /// Print another secret for a robot; the old one is no good any more
    Renew {
        /// Project
        project: String,
        /// Name in the project
        name: String,
        /// Days that it is good for [default: 30]
        #[arg(long)]
        days: Option<u32>,
    },
    /// Let a robot sign in, or not
    Set {
        /// Project
        project: String,
        /// Name in the project
        name: String,
        /// May not sign in
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        disabled: bool,
    },
    /// Remove a robot
    #[command(visible_alias = "remove")]
    Rm {
        /// Project
        project: String,
        /// Name in the project
        name: String,
    },
}

fn told(made: &MadeRobot) -> String {
    format!(
        "login: {}\nsecret: {}   (shown once, kept nowhere)\nexpires: {}",
        made.login,
        made.secret,
        when(made.expires)
    )
}

pub(crate) fn run(common: &Common, robot: Robot) -> Result<()> {
    let data = &common.data;
    let all = |project: &str| format!("/projects/{}/robots", part(project));
    let one = |project: &str, name: &str| format!("{}/{}", all(project), part(name));
    match robot {
        Robot::Add {
            project,
            name,
            actions,
            days,
        } => {
            let new = NewRobot {
                name,
                actions,
                days,
            };
            let made: MadeRobot = call::call(data, Method::POST, &all(&project), &new)?;
            common.print(&made, told)
        }
        Robot::Ls { project } => {
            let found: Vec<Found> = call::call(data, Method::GET, &all(&project), &())?;
            common.print(&found, |found| {
                let rows: Vec<_> = found
                    .iter()
                    .map(|r| {
                        let state = if r.disabled { "disabled" } else { "" };
                        vec![
                            r.login.clone(),
                            r.actions.join(","),
                            when(r.expires),
                            state.into(),
                        ]
                    })
                    .collect();
                table(&["LOGIN", "ACTIONS", "EXPIRES", "STATE"], &rows)
            })
        }
        Robot::Renew {
            project,
            name,
            days,
        } => {
            let path = format!("{}/secret", one(&project, &name));
            let made: MadeRobot = call::call(data, Method::POST, &path, &RenewedRobot { days })?;
            common.print(&made, told)
        }
        Robot::Set {
            project,
            name,
            disabled,
        } => {
            let path = one(&project, &name);
            let () = call::call(data, Method::PATCH, &path, &ChangedRobot { disabled })?;
            common.done("changed")
        }
        Robot::Rm { project, name } => {
            let () = call::call(data, Method::DELETE, &one(&project, &name), &())?;
            common.done("removed")
        }
    }
}
