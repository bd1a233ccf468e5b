//! The registry as a whole: a folder, opened by one process at a time.

use crate::access::tokens::Tokens;
use crate::access::{Credentials, password};
use crate::audit::Audit;
use crate::blobs::{self, Folder, Objects, Store};
use crate::metadata::{self, Metadata};
use crate::server::metrics::Metrics;
use crate::settings::{Settings, SettingsError};
use crate::uploads::{self, Uploads};
use http::{HeaderMap, HeaderValue, Uri, header};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Why a registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the registry in {0} is in use by another process")]
    InUse(PathBuf),
    /// A file of the folder.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Metadata.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// Blobs.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    /// What a crash left.
    #[error(transparent)]
    Uploads(#[from] uploads::Error),
    /// No randomness.
    #[error(transparent)]
    Password(#[from] password::PasswordError),
}

/// An open registry: what all requests share.
#[derive(Debug)]
pub struct Registry {
    /// Its folder.
    pub folder: PathBuf,
    /// Its settings.
    pub settings: Settings,
    /// Metadata.
    pub metadata: Arc<Metadata>,
    /// Blobs.
    pub store: Arc<Store>,
    /// Blobs on their way in.
    pub uploads: Arc<Uploads>,
    /// Who may sign in.
    pub credentials: Credentials,
    /// Tokens of the distribution API.
    pub tokens: Arc<Tokens>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Counters.
    pub metrics: Metrics,
    /// Requests that are being answered, whether their clients still wait or not. The end waits for them.
    pub work: TaskTracker,
    /// Something was queued for a webhook.
    pub queued: tokio::sync::Notify,
    /// One collection at a time.
    pub collecting: tokio::sync::Mutex<()>,
    _lock: File,
}

/// Name of the file that is locked while the registry is open.
const LOCK: &str = "lock";
/// Name of the metadata's file.
const METADATA: &str = "metadata.sqlite";

impl Registry {
    /// The private socket of a registry that serves.
    #[must_use]
    pub fn control_socket(folder: &Path) -> PathBuf {
        folder.join("control.sock")
    }

    /// Opens a registry's folder, and finishes what a crash left. Takes no longer for many blobs than for few.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path) -> Result<Arc<Self>, OpenError> {
        Self::open_at(folder, None)
    }

    /// As [`Registry::open`], to be served at another address than the settings say.
    ///
    /// # Errors
    /// As there.
    pub fn open_at(folder: &Path, listen: Option<&str>) -> Result<Arc<Self>, OpenError> {
        // Of all that speaks TLS outwards; the first one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut settings = Settings::load(folder)?;
        if let Some(listen) = listen {
            settings.listen = listen.to_owned();
        }
        let lock = Self::lock(folder)?;
        let metadata = Arc::new(Metadata::open(&folder.join(METADATA))?);
        let staging = Folder::open_at(folder)?;
        let store = Arc::new(match &settings.s3 {
            Some(s3) => Store::Objects(Objects::s3(s3, staging)?),
            None => Store::Folder(staging),
        });
        let uploads = Uploads::new(metadata.clone(), store.clone());
        uploads.recover()?;
        let tokens = Arc::new(Tokens::new(metadata.clone()));
        let audit = Arc::new(Audit::new(metadata.clone()));
        Ok(Arc::new(Registry {
            folder: folder.to_owned(),
            settings,
            credentials: Credentials::new(metadata.clone(), tokens.clone(), audit.clone())?,
            tokens,
            audit,
            metadata,
            store,
            uploads,
            metrics: Metrics::default(),
            work: TaskTracker::new(),
            queued: tokio::sync::Notify::new(),
            collecting: tokio::sync::Mutex::default(),
            _lock: lock,
        }))
    }

    /// Makes the folder's files but for the settings, or adds what is missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn create(folder: &Path) -> Result<Metadata, OpenError> {
        Folder::create(folder)?;
        Ok(Metadata::open(&folder.join(METADATA))?)
    }

    fn lock(folder: &Path) -> Result<File, OpenError> {
        let path = folder.join(LOCK);
        let at = |source| OpenError::File {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(folder.to_owned())),
            Err(e) => Err(at(e.into())),
        }
    }

    /// What a 401 says on how to sign in: where a token can be had for this scope. Without an address that can be told,
    /// that a password will do.
    #[must_use]
    pub fn challenge(
        &self,
        asked: &Asked,
        scope: Option<&str>,
        error: Option<&str>,
    ) -> HeaderValue {
        const BASIC: HeaderValue =
            HeaderValue::from_static("Basic realm=\"registry\", charset=\"UTF-8\"");
        let base = match (&self.settings.url, &asked.0) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(host)) if self.settings.tls.is_some() => format!("https://{host}"),
            (None, Some(host)) => format!("http://{host}"),
            (None, None) => return BASIC,
        };
        let Ok(service) = self.tokens.service() else {
            return BASIC;
        };
        let mut text = format!("Bearer realm=\"{base}/token\",service=\"{service}\"");
        for (key, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                text += &format!(",{key}=\"{value}\"");
            }
        }
        HeaderValue::from_str(&text).unwrap_or(BASIC)
    }
}

/// The address that a client asked for, if it can be told back to it.
#[derive(Debug, Clone, Default)]
pub struct Asked(Option<String>);

impl Asked {
    /// From a request's URI (HTTP/2) or `Host`.
    #[must_use]
    pub fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let plain = |host: &&str| {
            !host.is_empty()
                && host.len() <= 300
                && host.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']')
                })
        };
        Asked(authority.or(host).filter(plain).map(str::to_owned))
    }
}
