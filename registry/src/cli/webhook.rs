//! `registry webhook`

use super::call::{self, part};
use super::{Common, password_of, table, when};
use crate::api::webhooks::{MadeWebhook, NewWebhook, Webhook as Found};
use anyhow::Result;
use clap::Subcommand;
use http::Method;
use std::path::PathBuf;

/// Who is told what happens in a project.
#[derive(Subcommand)]
pub(crate) enum Webhook {
    /// List a project's webhooks
    #[command(visible_alias = "list")]
    Ls {
        /// Project
        project: String,
    },
    /// Tell somebody of each push and each removal
    Add {
        /// Project
        project: String,
        /// http:// or https://
        url: String,
        /// File with the secret that signs what is sent; without it one is made and printed
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Remove a webhook with what waits for it
    #[command(visible_alias = "remove")]
    Rm {
        /// Project
        project: String,
        /// Its number
        id: i64,
    },
}

pub(crate) fn run(common: &Common, webhook: Webhook) -> Result<()> {
    let data = &common.data;
    let at = |project: &str| format!("/projects/{}/webhooks", part(project));
    match webhook {
        Webhook::Ls { project } => {
            let found: Vec<Found> = call::call(data, Method::GET, &at(&project), &())?;
            common.print(&found, |found| {
                let row = |w: &Found| {
                    let waiting = w.waiting.to_string();
                    vec![w.id.to_string(), w.url.clone(), when(w.created), waiting]
                };
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&["ID", "URL", "CREATED", "WAITING"], &rows)
            })
        }
        Webhook::Add {
            project,
            url,
            secret_file,
        } => {
            let secret = password_of(secret_file.as_ref())?;
            let given = secret.is_some();
            let new = NewWebhook { url, secret };
            let made: MadeWebhook = call::call(data, Method::POST, &at(&project), &new)?;
            common.print(&made, |made| match given {
                true => format!("webhook {}", made.id),
                false => format!("webhook {}\nsecret: {}", made.id, made.secret),
            })
        }
        Webhook::Rm { project, id } => {
            let path = format!("{}/{id}", at(&project));
            let () = call::call(data, Method::DELETE, &path, &())?;
            common.done("removed")
        }
    }
}
