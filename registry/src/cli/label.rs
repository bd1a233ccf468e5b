//! `registry label`

use super::call::{self, part};
use super::{Common, table};
use crate::api::repositories::{Label as Found, NewLabel};
use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;

/// A manifest, and a label.
#[derive(Args)]
pub(crate) struct On {
    /// Project
    project: String,
    /// Label
    name: String,
    /// Repository, without the project
    repository: String,
    /// The manifest's digest
    digest: String,
}

/// Labels of what is in a project.
#[derive(Subcommand)]
pub(crate) enum Label {
    /// List a project's labels
    #[command(visible_alias = "list")]
    Ls {
        /// Project
        project: String,
    },
    /// Make a label, or give it another colour
    Set {
        /// Project
        project: String,
        /// Name
        name: String,
        /// #rrggbb
        #[arg(long, default_value = "#808080")]
        color: String,
    },
    /// Remove a label, and take it from what has it
    #[command(visible_alias = "remove")]
    Rm {
        /// Project
        project: String,
        /// Name
        name: String,
    },
    /// Give a manifest a label
    Give(On),
    /// Take a label from a manifest
    Take(On),
}

impl On {
    fn path(&self) -> String {
        format!(
            "/projects/{}/repositories/{}/manifests/{}/labels/{}",
            part(&self.project),
            part(&self.repository),
            part(&self.digest),
            part(&self.name)
        )
    }
}

pub(crate) fn run(common: &Common, label: Label) -> Result<()> {
    let data = &common.data;
    let one = |project: &str, name: &str| {
        let (project, name) = (part(project), part(name));
        format!("/projects/{project}/labels/{name}")
    };
    match label {
        Label::Ls { project } => {
            let path = format!("/projects/{}/labels", part(&project));
            let found: Vec<Found> = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let row = |l: &Found| vec![l.name.clone(), l.color.clone()];
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&["NAME", "COLOR"], &rows)
            })
        }
        Label::Set {
            project,
            name,
            color,
        } => {
            let path = one(&project, &name);
            let () = call::call(data, Method::PUT, &path, &NewLabel { color })?;
            common.done("changed")
        }
        Label::Rm { project, name } => {
            let () = call::call(data, Method::DELETE, &one(&project, &name), &())?;
            common.done("removed")
        }
        Label::Give(on) => {
            let () = call::call(data, Method::PUT, &on.path(), &())?;
            common.done("given")
        }
        Label::Take(on) => {
            let () = call::call(data, Method::DELETE, &on.path(), &())?;
            common.done("taken")
        }
    }
}
