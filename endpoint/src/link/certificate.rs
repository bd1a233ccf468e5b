//! The concentrator's certificate: made once, kept in the run folder, since the VMs' serial ports
//! name its thumbprint.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file in the run folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It could not be made or used.
    #[error(
        "the concentrator's certificate: {0}; delete it in the run folder to have a new one made"
    )]
    Unusable(String),
}

/// A server's TLS configuration and its certificate's thumbprint.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// For the listener.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, with colons.
    pub thumbprint: String,
}

impl Certificate {
    /// Loads the certificate of a run folder, or makes it.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn load_or_make(folder: &Path) -> Result<Self, CertificateError> {
        let (cert_path, key_path) = (folder.join("vspc-cert.der"), folder.join("vspc-key.der"));
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| CertificateError::File { path, source }
        };
        let unusable = |e: &dyn std::fmt::Display| CertificateError::Unusable(e.to_string());
        if !cert_path.exists() || !key_path.exists() {
            let made = rcgen::generate_simple_self_signed(vec!["mooring-vspc".to_owned()])
                .map_err(|e| unusable(&e))?;
            write(&key_path, &made.signing_key.serialize_der()).map_err(failed(&key_path))?;
            write(&cert_path, made.cert.der()).map_err(failed(&cert_path))?;
        }
        let cert = fs::read(&cert_path).map_err(failed(&cert_path))?;
        let key = fs::read(&key_path).map_err(failed(&key_path))?;
        let thumbprint = vim::Thumbprint::of(&cert).to_string();
        let key = PrivateKeyDer::try_from(key).map_err(|e| unusable(&e))?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| unusable(&e))?
                .with_no_client_auth()
                .with_single_cert(vec![CertificateDer::from(cert)], key)
                .map_err(|e| unusable(&e))?;
        Ok(Self {
            config: Arc::new(config),
            thumbprint,
        })
    }
}

/// Writes a file that only its owner reads: beside, synced, then in its place.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Certificate::load_or_make(folder.path()).unwrap();
        let second = Certificate::load_or_make(folder.path()).unwrap();
        assert_eq!(first.thumbprint, second.thumbprint);
        assert_eq!(first.thumbprint.len(), 95);
    }
}
