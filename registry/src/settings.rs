//! `registry.toml` in the registry's folder.

use crate::blobs::S3Settings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}; is this the folder of a registry (registry init makes one)?")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("{path}: {source}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port to serve on.
    pub listen: String,
    /// `https://HOST[:PORT]` as clients reach it, where that is not what they ask for (behind a proxy): tokens are had there.
    pub url: Option<String>,
    /// Certificate chain and key, PEM; relative to the folder. Without them it speaks plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Address and port for `/metrics`, `/healthz` and `/readyz` without TLS and sign-in.
    pub metrics: Option<String>,
    /// Minutes after which an upload that got no byte is gone.
    pub upload_idle_minutes: u32,
    /// Seconds that a shutdown waits for transfers.
    pub shutdown_seconds: u32,
    /// Garbage collection.
    pub gc: GcSettings,
    /// The audit log.
    pub audit: AuditSettings,
    /// How webhooks are told.
    pub webhooks: WebhookSettings,
    /// Blobs in an S3-compatible service instead of the folder.
    pub s3: Option<S3Settings>,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// When garbage is collected, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcSettings {
    /// Hours between collections; 0: only on demand.
    pub every_hours: u32,
    /// Whether one runs at the start.
    pub at_start: bool,
    /// Minutes that a blob is left alone after a client said that it wants it.
    pub grace_minutes: u32,
    /// Hours after which a manifest without a tag is garbage; none: never.
    pub untagged_hours: Option<u32>,
}

/// How webhooks are told what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Attempts after which an event is given up.
    pub attempts: u32,
    /// Seconds before the second one; twice as many each time, an hour at most.
    pub retry_seconds: u32,
    /// Seconds that an answer may take.
    pub timeout_seconds: u32,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        WebhookSettings {
            attempts: 10,
            retry_seconds: 10,
            timeout_seconds: 10,
        }
    }
}

/// How long the audit log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Days, at least one; none: for ever.
    pub keep_days: Option<u32>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        AuditSettings {
            keep_days: Some(365),
        }
    }
}

impl Default for GcSettings {
    fn default() -> Self {
        GcSettings {
            every_hours: 24,
            at_start: false,
            grace_minutes: 60,
            untagged_hours: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: "127.0.0.1:5000".into(),
            url: None,
            tls: None,
            metrics: None,
            upload_idle_minutes: 60,
            shutdown_seconds: 600,
            gc: GcSettings::default(),
            audit: AuditSettings::default(),
            webhooks: WebhookSettings::default(),
            s3: None,
        }
    }
}

impl Settings {
    /// The file's name.
    pub const FILE: &str = "registry.toml";

    /// Reads them from a registry's folder.
    ///
    /// # Errors
    /// When they are not there or not understood.
    pub fn load(folder: &Path) -> Result<Self, SettingsError> {
        let path = folder.join(Self::FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| SettingsError::File {
            path: path.clone(),
            source,
        })?;
        let mut settings: Settings =
            toml::from_str(&text).map_err(|source| SettingsError::Form {
                path,
                source: Box::new(source),
            })?;
        if let Some(tls) = &mut settings.tls {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
        }
        Ok(settings)
    }
}
