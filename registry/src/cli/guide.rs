//! `registry guide`: how a registry is used.

use super::Common;
use super::init::Made;
use crate::settings::Settings;
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Tells how to log in, push and pull, with the password that `registry init --local` kept, as long as its file is there.
#[derive(Args)]
pub(crate) struct Guide {
    /// What clients call the registry by [default: the address that it is set to serve on]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The clients trust the registry's certificate already
    #[arg(long)]
    trusted: bool,
}

/// How a registry is used.
#[derive(Debug, Serialize)]
struct Told {
    address: String,
    administrator: String,
    password: Option<String>,
    /// The file that has it.
    password_file: PathBuf,
    ca: Option<PathBuf>,
    log_in: String,
    push: String,
    pull: String,
    /// What clients that trust no CA of ours are to do first.
    trust: Option<String>,
    without_docker: Option<String>,
}

pub(crate) fn run(common: &Common, guide: &Guide) -> Result<()> {
    let folder = &common.data;
    let folder = &folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    let settings = Settings::load(folder)?;
    let password_file = folder.join(Made::FILE);
    // Whoever has the password may delete it, as they are told to.
    let made: Option<Made> = match std::fs::read(&password_file) {
        Ok(text) => Some(
            serde_json::from_slice(&text).with_context(|| password_file.display().to_string())?,
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| password_file.display().to_string()),
    };
    let address = guide.address.clone().unwrap_or(settings.listen);
    let (administrator, password) = match made {
        Some(made) => (made.administrator, made.password),
        None => ("admin".to_owned(), None),
    };
    let ca = Some(folder.join("ca.crt")).filter(|ca| ca.exists());
    let image = format!("{address}/default-project/NAME");
    let told = Told {
        log_in: format!("docker login -u {administrator} {address}"),
        push: format!("docker tag IMAGE {image}; docker push {image}"),
        pull: format!("docker pull {image}"),
        trust: ca.as_ref().filter(|_| !guide.trusted).map(|ca| {
            let ca = ca.display();
            format!("sudo install -D -m 644 '{ca}' '/etc/docker/certs.d/{address}/ca.crt'")
        }),
        without_docker: ca.as_ref().map(|ca| {
            let certs = folder.join("certs");
            let certs = certs.display();
            format!(
                "mkdir -p '{certs}' && cp '{}' '{certs}/' && skopeo copy --dest-cert-dir '{certs}' \
                 --dest-creds {administrator}:PASSWORD oci:FOLDER:TAG docker://{image}",
                ca.display()
            )
        }),
        address,
        administrator,
        password,
        password_file,
        ca,
    };
    common.print(&told, text)
}

fn text(told: &Told) -> String {
    let password = match &told.password {
        Some(password) => format!(
            "{password}     (in {}; delete that file when you have it)",
            told.password_file.display()
        ),
        None => format!(
            "as you have it (`registry user password {}` makes another)",
            told.administrator
        ),
    };
    let ca = told.ca.as_ref().map(|ca| ca.display().to_string());
    let lines = [
        ("administrator:", Some(told.administrator.clone())),
        ("password:", Some(password)),
        ("CA:", ca),
        ("trust the CA (Docker):", told.trust.clone()),
        ("log in:", Some(told.log_in.clone())),
        ("push:", Some(told.push.clone())),
        ("pull:", Some(told.pull.clone())),
        ("without Docker:", told.without_docker.clone()),
    ];
    let lines = lines
        .into_iter()
        .filter_map(|(head, text)| Some((head, text?)));
    let lines: Vec<String> = lines
        .map(|(head, text)| format!("  {head:<23} {text}"))
        .collect();
    lines.join("\n")
}
