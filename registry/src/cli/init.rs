//! `registry init`

use super::Common;
use crate::access::{Role, password};
use crate::metadata::AuditEntry;
use crate::names::{DEFAULT_PROJECT, check_user};
use crate::registry::Registry;
use crate::server::tls::generate;
use crate::settings::{Settings, TlsSettings};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
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
    /// Also make three users to try it with, with generated passwords: cloud-admin, a cloud administrator; devops-admin and
    /// developer, which they are in default-project
    #[arg(long)]
    examples: bool,
    /// Address and port to serve on
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    listen: String,
    /// For this machine alone: a certificate for localhost and 127.0.0.1, and the administrator's password is kept, too, in
    /// init.json, for `registry guide`. Where there is a registry already, nothing is done
    #[arg(long, conflicts_with_all = ["certificate", "hosts"])]
    local: bool,
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

/// Seconds that a registry of one machine waits for transfers when it ends: who has it wants to go.
const LOCAL_PATIENCE: u32 = 20;

/// What was made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Made {
    data: PathBuf,
    pub(super) administrator: String,
    /// Only when it was generated: it is shown once and kept nowhere but, with `--local`, in a file.
    pub(super) password: Option<String>,
    /// The example users, if asked for.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    examples: Vec<Example>,
    /// Only when it was generated: clients have to trust it.
    pub(super) ca: Option<PathBuf>,
}

impl Made {
    /// The file that has it, where it is kept.
    pub(super) const FILE: &str = "init.json";
}

/// A user to try it with.
#[derive(Debug, Clone, Serialize)]
struct Example {
    name: &'static str,
    password: String,
    /// `None`: cloud administrator.
    role: Option<Role>,
    #[serde(skip)]
    hash: String,
}

fn example(name: &'static str, role: Option<Role>) -> Result<Example> {
    let password = password::generate()?;
    let hash = password::hash(&password)?;
    Ok(Example {
        name,
        password,
        role,
        hash,
    })
}

pub(crate) fn run(common: &Common, init: &Init) -> Result<()> {
    let folder = &common.data;
    let at = || folder.display().to_string();
    fs::create_dir_all(folder).with_context(at)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).with_context(at)?;
    let folder = &folder.canonicalize().with_context(at)?;
    let settings_path = folder.join(Settings::FILE);
    if init.local && settings_path.exists() {
        return common.done("it is there already");
    }
    ensure!(
        !settings_path.exists(),
        "{} is there already: this folder has a registry; `registry user` changes its users",
        settings_path.display()
    );
    check_user(&init.admin)?;
    let (password, generated) = match super::password_of(init.password_file.as_ref())? {
        Some(password) => (password, false),
        None => (password::generate()?, true),
    };
    password::check(&init.admin, &password)?;
    let mut examples = Vec::new();
    if init.examples {
        examples.push(example("cloud-admin", None)?);
        examples.push(example("devops-admin", Some(Role::DevopsAdmin))?);
        examples.push(example("developer", Some(Role::Developer))?);
    }
    let hash = password::hash(&password)?;
    let metadata = Registry::create(folder)?;
    let (name, users) = (init.admin.clone(), examples.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(metadata.write(move |db| {
        db.create_project(&DEFAULT_PROJECT.parse()?, true)?;
        db.set_user(&name, &hash, true)?;
        let project = db.project(DEFAULT_PROJECT)?.context("it was just made")?;
        for example in users {
            db.set_user(example.name, &example.hash, example.role.is_none())?;
            if let (Some(role), Some(user)) = (example.role, db.user(example.name)?) {
                db.set_member(project.id, user.id, role)?;
            }
        }
        db.add_audit(&AuditEntry {
            user: "console".into(),
            via: "console".into(),
            source: "console".into(),
            operation: "registry.init".into(),
            target: Some(name),
            status: 201,
            ..AuditEntry::default()
        })?;
        anyhow::Ok(())
    }))?;
    let (tls, ca) = tls(folder, init)?;
    let settings = Settings {
        listen: init.listen.clone(),
        tls,
        shutdown_seconds: match init.local {
            true => LOCAL_PATIENCE,
            false => Settings::default().shutdown_seconds,
        },
        ..Settings::default()
    };
    let made = Made {
        data: folder.clone(),
        administrator: init.admin.clone(),
        password: generated.then_some(password),
        examples,
        ca,
    };
    if init.local {
        let text = serde_json::to_string_pretty(&made)?;
        durably(&folder.join(Made::FILE), &text, 0o600)?;
    }
    // The last thing: a folder with settings is a whole registry.
    durably(&settings_path, &toml::to_string_pretty(&settings)?, 0o600)?;
    common.print(&made, |made| text(made, init.local))
}

fn text(made: &Made, local: bool) -> String {
    let mut text = format!("registry in {}\n", made.data.display());
    text += &format!("administrator: {}\n", made.administrator);
    if let Some(password) = &made.password {
        let kept = match local {
            true => format!("in {}", made.data.join(Made::FILE).display()),
            false => "nowhere".to_owned(),
        };
        text += &format!("password: {password}   (shown once, kept {kept})\n");
    }
    for user in &made.examples {
        let role = user.role.map_or("cloud administrator", Role::name);
        text += &format!("{} ({role}): {}\n", user.name, user.password);
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
    let hosts = match init.local {
        true => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        false => init.hosts.clone(),
    };
    if hosts.is_empty() {
        return Ok((None, None));
    }
    let made = generate::certificates(&hosts)?;
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
