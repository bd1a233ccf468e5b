//! Whom to trust: a certificate authority, or one certificate by its thumbprint.

use super::Error;
use crate::tls::{Thumbprint, pinned};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;

/// What makes a server's certificate acceptable.
#[derive(Debug, Clone)]
pub enum Trust {
    /// It has this thumbprint.
    Thumbprint(Thumbprint),
    /// Certificates of authorities, PEM.
    Ca(Vec<u8>),
}

impl Trust {
    /// Parses a SHA-256 thumbprint, with colons or without.
    ///
    /// # Errors
    /// Where it has not 64 hex digits.
    pub fn thumbprint(text: &str) -> Result<Trust, Error> {
        text.parse()
            .map(Trust::Thumbprint)
            .map_err(|e| wrong("the thumbprint", &e))
    }
}

fn wrong(what: &'static str, why: &dyn std::fmt::Display) -> Error {
    Error::Config {
        what,
        why: why.to_string(),
    }
}

/// The client's TLS configuration for a trust.
pub(super) fn config(trust: &Trust) -> Result<Arc<rustls::ClientConfig>, Error> {
    let config = match trust {
        Trust::Thumbprint(print) => pinned(*print).map_err(|e| wrong("the TLS provider", &e))?,
        Trust::Ca(pem) => with_authorities(pem)?,
    };
    Ok(Arc::new(config))
}

fn with_authorities(pem: &[u8]) -> Result<rustls::ClientConfig, Error> {
    let wrong = |why: &dyn std::fmt::Display| wrong("the certificate authority", why);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| wrong(&e))?;
        roots.add(certificate).map_err(|e| wrong(&e))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"it has no PEM certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
