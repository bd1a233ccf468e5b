//! `registry user`

use super::call::{self, part};
use super::{Common, password_of, table, when};
use crate::api::users::{ChangedPassword, ChangedUser, MadeUser, NewUser, User as Found};
use anyhow::Result;
use clap::Subcommand;
use http::Method;
use std::path::PathBuf;

/// Local users.
#[derive(Subcommand)]
pub(crate) enum User {
    /// Make a user
    Add {
        /// Name to sign in with
        name: String,
        /// May do everything (cloud administrator)
        #[arg(long)]
        administrator: bool,
        /// File with the password [default: one is generated and printed]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List users
    #[command(visible_alias = "list")]
    Ls,
    /// Show a user and what they are a member of
    Show {
        /// Name
        name: String,
    },
    /// Make a user a cloud administrator or not, let them sign in or not
    Set {
        /// Name
        name: String,
        /// Cloud administrator
        #[arg(long, value_name = "true|false")]
        administrator: Option<bool>,
        /// May not sign in; what was signed in ends
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        /// Forget the failed sign-ins that slow the name down
        #[arg(long)]
        unlock: bool,
    },
    /// Give a user another password
    Password {
        /// Name
        name: String,
        /// File with the password [default: one is generated and printed]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Remove a user
    #[command(visible_alias = "remove")]
    Rm {
        /// Name
        name: String,
    },
}

fn told(made: &MadeUser) -> String {
    match &made.password {
        Some(password) => format!(
            "user: {}\npassword: {password}   (shown once, kept nowhere)",
            made.name
        ),
        None => format!("user: {}", made.name),
    }
}

fn row(user: &Found) -> Vec<String> {
    let what = match (user.administrator, user.disabled) {
        (_, true) => "disabled",
        (true, _) => "cloud administrator",
        _ => "",
    };
    vec![user.name.clone(), what.into(), when(user.created)]
}

pub(crate) fn run(common: &Common, user: User) -> Result<()> {
    let data = &common.data;
    let at = |name: &str| format!("/users/{}", part(name));
    match user {
        User::Add {
            name,
            administrator,
            password_file,
        } => {
            let new = NewUser {
                name,
                administrator,
                password: password_of(password_file.as_ref())?,
            };
            let made: MadeUser = call::call(data, Method::POST, "/users", &new)?;
            common.print(&made, told)
        }
        User::Ls => {
            let found: Vec<Found> = call::list(data, "/users", |u: &Found| &u.name)?;
            common.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&["NAME", "IS", "CREATED"], &rows)
            })
        }
        User::Show { name } => {
            let found: Found = call::call(data, Method::GET, &at(&name), &())?;
            common.print(&found, |found| {
                let mut text = table(&["NAME", "IS", "CREATED"], &[row(found)]);
                for m in &found.memberships {
                    text += &format!("\n{} in {}", m.role.name(), m.project);
                }
                text
            })
        }
        User::Set {
            name,
            administrator,
            disabled,
            unlock,
        } => {
            let change = ChangedUser {
                administrator,
                disabled,
                unlock: unlock.then_some(true),
            };
            let () = call::call(data, Method::PATCH, &at(&name), &change)?;
            common.done("changed")
        }
        User::Password {
            name,
            password_file,
        } => {
            let change = ChangedPassword {
                current: None,
                password: password_of(password_file.as_ref())?,
            };
            let path = format!("{}/password", at(&name));
            let made: MadeUser = call::call(data, Method::PUT, &path, &change)?;
            common.print(&made, told)
        }
        User::Rm { name } => {
            let () = call::call(data, Method::DELETE, &at(&name), &())?;
            common.done("removed")
        }
    }
}
