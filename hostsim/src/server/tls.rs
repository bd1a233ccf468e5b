//! The host's certificate: made at the first start, kept in the state folder.

use crate::datastore::write_durably;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use vim::Thumbprint;

/// Certificate with key, ready to serve.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For the acceptor.
    pub config: Arc<rustls::ServerConfig>,
    /// Of the certificate.
    pub thumbprint: Thumbprint,
}

impl Identity {
    /// Reads certificate and key from the state folder; makes them where they are missing.
    ///
    /// # Errors
    /// They cannot be read, written or used.
    pub fn open(state: &Path) -> io::Result<Identity> {
        // One file: certificate and key cannot come apart.
        let file = state.join("identity.pem");
        let pem = match std::fs::read(&file) {
            Ok(pem) => pem,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let names = [
                    "localhost".to_owned(),
                    "127.0.0.1".to_owned(),
                    "::1".to_owned(),
                ];
                let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
                let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
                write_durably(&file, pem.as_bytes(), 0o600)?;
                pem.into_bytes()
            }
            Err(e) => return Err(e),
        };
        let wrong = |e: String| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {e}", file.display()),
            )
        };
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))?;
        let thumbprint = Thumbprint::of(&certificate);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(|e| wrong(e.to_string()))?;
        Ok(Identity {
            config: Arc::new(config),
            thumbprint,
        })
    }
}
