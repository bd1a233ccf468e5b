//! `registry quota`, `immutable`, `retention`: what a project may hold, and the rules over its tags.

use super::call::{self, part};
use super::{Common, table, when};
use crate::api::projects::{Project, Quota as Body};
use crate::api::rules::{Immutable as Rule, Retention as Keep, RunRetention};
use crate::retention::Removal;
use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;

/// How much a project may hold.
#[derive(Subcommand)]
pub(crate) enum Quota {
    /// Show what a project holds and may hold
    Show {
        /// Project
        project: String,
    },
    /// Say how much a project may hold
    Set {
        /// Project
        project: String,
        /// Bytes of manifests and blobs, each blob once
        bytes: u64,
    },
    /// Let a project hold as much as there is room for
    Unset {
        /// Project
        project: String,
    },
}

/// Which tags of which repositories.
#[derive(Args)]
pub(crate) struct Patterns {
    /// Which repositories, without the project: * stands for any characters, ? for one
    #[arg(long, default_value = "*")]
    repositories: String,
    /// Which tags
    #[arg(long, default_value = "*")]
    tags: String,
}

/// Tags that must not move and not go.
#[derive(Subcommand)]
pub(crate) enum Immutable {
    /// List a project's rules
    #[command(visible_alias = "list")]
    Ls {
        /// Project
        project: String,
    },
    /// Make tags immutable
    Add {
        /// Project
        project: String,
        #[command(flatten)]
        patterns: Patterns,
    },
    /// Remove a rule
    #[command(visible_alias = "remove")]
    Rm {
        /// Project
        project: String,
        /// The rule's number
        id: i64,
    },
}

/// Which tags are kept, and which go.
#[derive(Subcommand)]
pub(crate) enum Retention {
    /// List a project's rules
    #[command(visible_alias = "list")]
    Ls {
        /// Project
        project: String,
    },
    /// Let tags go but for those that are kept
    Add {
        /// Project
        project: String,
        #[command(flatten)]
        patterns: Patterns,
        /// Keep this many in each repository, those pushed last
        #[arg(long, value_name = "N", required_unless_present = "keep_days")]
        keep_latest: Option<u32>,
        /// Keep those pushed within this many days
        #[arg(long, value_name = "DAYS")]
        keep_days: Option<u32>,
    },
    /// Remove a rule
    #[command(visible_alias = "remove")]
    Rm {
        /// Project
        project: String,
        /// The rule's number
        id: i64,
    },
    /// Remove what the rules let go (before each scheduled collection this happens by itself)
    Run {
        /// Project
        project: String,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

fn of(project: &str, what: &str) -> String {
    format!("/projects/{}/{what}", part(project))
}

pub(crate) fn quota(common: &Common, quota: Quota) -> Result<()> {
    let data = &common.data;
    let set = |project: &str, bytes| -> Result<()> {
        let () = call::call(data, Method::PUT, &of(project, "quota"), &Body { bytes })?;
        common.done("changed")
    };
    match quota {
        Quota::Show { project } => {
            let path = format!("/projects/{}", part(&project));
            let found: Project = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let bytes = |n: Option<u64>| n.map_or("no limit".into(), |n| n.to_string());
                let row = vec![found.name.clone(), bytes(found.used), bytes(found.quota)];
                table(&["PROJECT", "USED", "QUOTA"], &[row])
            })
        }
        Quota::Set { project, bytes } => set(&project, Some(bytes)),
        Quota::Unset { project } => set(&project, None),
    }
}

pub(crate) fn immutable(common: &Common, immutable: Immutable) -> Result<()> {
    let data = &common.data;
    let row = |r: &Rule| vec![r.id.to_string(), r.repositories.clone(), r.tags.clone()];
    let heads = ["ID", "REPOSITORIES", "TAGS"];
    match immutable {
        Immutable::Ls { project } => {
            let path = of(&project, "immutable");
            let found: Vec<Rule> = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&heads, &rows)
            })
        }
        Immutable::Add { project, patterns } => {
            let rule = Rule {
                id: 0,
                repositories: patterns.repositories,
                tags: patterns.tags,
            };
            let path = of(&project, "immutable");
            let made: Rule = call::call(data, Method::POST, &path, &rule)?;
            common.print(&made, |made| table(&heads, &[row(made)]))
        }
        Immutable::Rm { project, id } => {
            let path = of(&project, &format!("immutable/{id}"));
            let () = call::call(data, Method::DELETE, &path, &())?;
            common.done("removed")
        }
    }
}

pub(crate) fn retention(common: &Common, retention: Retention) -> Result<()> {
    let data = &common.data;
    let row = |r: &Keep| {
        let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        let (latest, days) = (number(r.keep_latest), number(r.keep_days));
        let (repositories, tags) = (r.repositories.clone(), r.tags.clone());
        vec![r.id.to_string(), repositories, tags, latest, days]
    };
    let heads = ["ID", "REPOSITORIES", "TAGS", "KEEP LATEST", "KEEP DAYS"];
    match retention {
        Retention::Ls { project } => {
            let path = of(&project, "retention");
            let found: Vec<Keep> = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&heads, &rows)
            })
        }
        Retention::Add {
            project,
            patterns,
            keep_latest,
            keep_days,
        } => {
            let rule = Keep {
                id: 0,
                repositories: patterns.repositories,
                tags: patterns.tags,
                keep_latest,
                keep_days,
            };
            let path = of(&project, "retention");
            let made: Keep = call::call(data, Method::POST, &path, &rule)?;
            common.print(&made, |made| table(&heads, &[row(made)]))
        }
        Retention::Rm { project, id } => {
            let path = of(&project, &format!("retention/{id}"));
            let () = call::call(data, Method::DELETE, &path, &())?;
            common.done("removed")
        }
        Retention::Run { project, dry_run } => {
            let path = of(&project, "retention/run");
            let run = RunRetention { dry_run };
            let gone: Vec<Removal> = call::call(data, Method::POST, &path, &run)?;
            common.print(&gone, |gone| {
                let row = |r: &Removal| vec![r.repository.clone(), r.tag.clone(), when(r.pushed)];
                let rows: Vec<_> = gone.iter().map(row).collect();
                table(&["REPOSITORY", "TAG", "PUSHED"], &rows)
            })
        }
    }
}
