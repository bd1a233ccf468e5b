//! `registry project`

use super::call::{self, part};
use super::{Common, table, when};
use crate::access::Role;
use crate::api::projects::{ChangedProject, Member, NewProject, NewRole, Project as Found};
use anyhow::Result;
use clap::Subcommand;
use http::Method;

/// Projects and their members.
#[derive(Subcommand)]
pub(crate) enum Project {
    /// Make a project
    Add {
        /// The first part of its repositories' names
        name: String,
        /// Everybody may pull from it
        #[arg(long)]
        public: bool,
        /// User who is its first DevOps administrator
        #[arg(long, value_name = "USER")]
        administrator: Option<String>,
    },
    /// List projects
    #[command(visible_alias = "list")]
    Ls,
    /// Show a project
    Show {
        /// Name
        name: String,
    },
    /// Make a project public or private
    Set {
        /// Name
        name: String,
        /// Everybody may pull from it
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        public: bool,
    },
    /// Remove a project without repositories
    #[command(visible_alias = "remove")]
    Rm {
        /// Name
        name: String,
    },
    /// List a project's members
    Members {
        /// Project
        name: String,
    },
    /// Make a user a member, or change what they are
    Join {
        /// Project
        name: String,
        /// User
        user: String,
        /// viewer, developer or devops-admin
        #[arg(long)]
        role: Role,
    },
    /// Take a user out of a project
    Leave {
        /// Project
        name: String,
        /// User
        user: String,
    },
}

fn row(project: &Found) -> Vec<String> {
    let access = if project.public { "public" } else { "private" };
    vec![project.name.clone(), access.into(), when(project.created)]
}

const HEADS: [&str; 3] = ["NAME", "ACCESS", "CREATED"];

pub(crate) fn run(common: &Common, project: Project) -> Result<()> {
    let data = &common.data;
    let at = |name: &str| format!("/projects/{}", part(name));
    let member = |name: &str, user: &str| format!("{}/members/{}", at(name), part(user));
    match project {
        Project::Add {
            name,
            public,
            administrator,
        } => {
            let new = NewProject {
                name,
                public,
                administrator,
            };
            let made: Found = call::call(data, Method::POST, "/projects", &new)?;
            common.print(&made, |made| table(&HEADS, &[row(made)]))
        }
        Project::Ls => {
            let found: Vec<Found> = call::list(data, "/projects", |p: &Found| &p.name)?;
            common.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&HEADS, &rows)
            })
        }
        Project::Show { name } => {
            let found: Found = call::call(data, Method::GET, &at(&name), &())?;
            common.print(&found, |found| table(&HEADS, &[row(found)]))
        }
        Project::Set { name, public } => {
            let change = ChangedProject {
                public: Some(public),
            };
            let () = call::call(data, Method::PATCH, &at(&name), &change)?;
            common.done("changed")
        }
        Project::Rm { name } => {
            let () = call::call(data, Method::DELETE, &at(&name), &())?;
            common.done("removed")
        }
        Project::Members { name } => {
            let path = format!("{}/members", at(&name));
            let found: Vec<Member> = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let rows: Vec<_> = found
                    .iter()
                    .map(|m| vec![m.user.clone(), m.role.name().into(), when(m.added)])
                    .collect();
                table(&["USER", "ROLE", "ADDED"], &rows)
            })
        }
        Project::Join { name, user, role } => {
            let path = member(&name, &user);
            let () = call::call(data, Method::PUT, &path, &NewRole { role })?;
            common.done("joined")
        }
        Project::Leave { name, user } => {
            let () = call::call(data, Method::DELETE, &member(&name, &user), &())?;
            common.done("left")
        }
    }
}
