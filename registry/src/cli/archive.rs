//! `registry archive`

use super::Common;
use super::call;
use crate::api::archive::{Imported, MOST};
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use http::Method;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Users, roles, robots, and projects with quotas, rules, labels and webhooks, in one file; no repositories.
#[derive(Subcommand)]
pub(crate) enum Archive {
    /// Write them into a file. It has the hashes of all passwords and robots' secrets
    Export {
        /// A file that is not there yet
        file: PathBuf,
        /// With the webhooks' secrets; without, the import makes others
        #[arg(long)]
        secrets: bool,
    },
    /// Take them into a registry that is empty
    Import {
        /// The file
        file: PathBuf,
    },
}

pub(crate) fn run(common: &Common, archive: Archive) -> Result<()> {
    let data = &common.data;
    match archive {
        Archive::Export { file, secrets } => {
            let at = || file.display().to_string();
            let mut bytes = Vec::new();
            call::copy(data, &format!("/archive?secrets={secrets}"), &mut bytes)?;
            let mut options = std::fs::File::options();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut out = options.open(&file).with_context(at)?;
            out.write_all(&bytes).with_context(at)?;
            out.sync_all().with_context(at)?;
            common.done(&format!("written to {}", file.display()))
        }
        Archive::Import { file } => {
            let at = || file.display().to_string();
            let mut bytes = Vec::new();
            let open = std::fs::File::open(&file).with_context(at)?;
            open.take(MOST as u64 + 1)
                .read_to_end(&mut bytes)
                .with_context(at)?;
            ensure!(bytes.len() <= MOST, "an archive has at most {MOST} bytes");
            let archive: Value = serde_json::from_slice(&bytes).with_context(at)?;
            let made: Imported = call::call(data, Method::POST, "/archive", &archive)?;
            common.print(&made, told)
        }
    }
}

fn told(made: &Imported) -> String {
    let mut text = format!(
        "{} users, {} projects, {} robots",
        made.users, made.projects, made.robots
    );
    for new in &made.new_secrets {
        text += &format!(
            "\nwebhook {} of {} has another secret: {}   (shown once)",
            new.url, new.project, new.secret
        );
    }
    text
}
