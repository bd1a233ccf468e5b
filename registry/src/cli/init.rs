//! `registry init`

use super::Common;
use crate::access::password;
use crate::names::DEFAULT_PROJECT;
use crate::registry::Registry;
use crate::server::tls::generate;
use crate::settings::{Settings, TlsSettings};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes a registry's folder: metadata, the public project default-project, an administrator. What is there stays.
#[derive(Args)]
pub(crate) struct Init {
    /// The administrator's name
    #[arg(long, default_value = "admin", value_name = "NAME")]
    admin: String,
    /// File with the administrator's password [default: one is generated and printed]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Address and port to serve on
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    listen: String,
    /// Generate a CA and a certificate for these names and addresses (repeatable)
    #[arg(long = "generate-certificate", value_name = "HOST")]
    hosts: Vec<String>,
    /// Certificate chain, PEM
    #[arg(long, requires = "key", conflicts_with = "hosts", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, requires = "certificate", value_name = "FILE")]
    key: Option<PathBuf>,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    data: PathBuf,
    administrator: String,
    /// Only when it was generated: it is shown once and kept nowhere.
    password: Option<String>,
    /// Only when it was generated: clients have to trust it.
    ca: Option<PathBuf>,
}

pub(crate) fn run(common: &Common, init: &Init) -> Result<()> {
    let folder = &common.data;
    let at = || folder.display().to_string();
    fs::create_dir_all(folder).with_context(at)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).with_context(at)?;
    let folder = &folder.canonicalize().with_context(at)?;
    let settings_path = folder.join(Settings::FILE);
    ensure!(
        !settings_path.exists(),
        "{} is there already: this folder has a registry; its users are changed with the API",
        settings_path.display()
    );
    let (password, generated) = match &init.password_file {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            (text.trim_end_matches(['\r', '\n']).to_owned(), false)
        }
        None => (password::generate()?, true),
    };
    let hash = password::hash(&password)?;
    let metadata = Registry::create(folder)?;
    let name = init.admin.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(metadata.write(move |db| {
        db.create_project(&DEFAULT_PROJECT.parse()?, true)?;
        db.set_user(&name, &hash, true)?;
        anyhow::Ok(())
    }))?;
    let (tls, ca) = tls(folder, init)?;
    let settings = Settings {
        listen: init.listen.clone(),
        tls,
        ..Settings::default()
    };
    // The last thing: a folder with settings is a whole registry.
    durably(&settings_path, &toml::to_string_pretty(&settings)?, 0o600)?;
    let made = Made {
        data: folder.clone(),
        administrator: init.admin.clone(),
        password: generated.then_some(password),
        ca,
    };
    common.print(&made, text)
}

fn text(made: &Made) -> String {
    let mut text = format!("registry in {}\n", made.data.display());
    text += &format!("administrator: {}\n", made.administrator);
    if let Some(password) = &made.password {
        text += &format!("password: {password}   (shown once, kept nowhere)\n");
    }
    if let Some(ca) = &made.ca {
        text += &format!("CA that clients must trust: {}\n", ca.display());
    }
    text + &format!("next: registry serve --data {}", made.data.display())
}

fn tls(folder: &Path, init: &Init) -> Result<(Option<TlsSettings>, Option<PathBuf>)> {
    if let (Some(certificate), Some(key)) = (&init.certificate, &init.key) {
        let absolute = |p: &Path| p.canonicalize().with_context(|| p.display().to_string());
        let tls = TlsSettings {
            certificate: absolute(certificate)?,
            key: absolute(key)?,
        };
        return Ok((Some(tls), None));
    }
    if init.hosts.is_empty() {
        return Ok((None, None));
    }
    let made = generate::certificates(&init.hosts)?;
    durably(&folder.join("ca.key"), &made.ca_key, 0o600)?;
    durably(&folder.join("ca.crt"), &made.ca, 0o644)?;
    durably(&folder.join("server.key"), &made.key, 0o600)?;
    durably(&folder.join("server.crt"), &made.certificate, 0o644)?;
    let tls = TlsSettings {
        certificate: "server.crt".into(),
        key: "server.key".into(),
    };
    Ok((Some(tls), Some(folder.join("ca.crt"))))
}

fn durably(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().with_context(|| path.display().to_string())
}
