//! Whom to trust: a certificate authority, or one certificate by its thumbprint.

use super::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What makes a server's certificate acceptable.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The SHA-256 of the certificate (DER).
    Thumbprint([u8; 32]),
    /// Certificates of authorities, PEM.
    Ca(Vec<u8>),
}

impl Trust {
    /// Parses a SHA-256 thumbprint, with colons or without.
    ///
    /// # Errors
    /// Where it has not 64 hex digits.
    pub fn thumbprint(text: &str) -> Result<Trust, Error> {
        let bad = || Error::Config {
            what: "the thumbprint",
            why: format!("{text:?} is no SHA-256 in 64 hex digits, with or without colons"),
        };
        let digits: Vec<u8> = text.trim().bytes().filter(|&b| b != b':').collect();
        if digits.len() != 64 {
            return Err(bad());
        }
        let mut print = [0u8; 32];
        for (byte, pair) in print.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Trust::Thumbprint(print))
    }
}

/// The client's TLS configuration for a trust.
pub(super) fn config(trust: &Trust) -> Result<Arc<rustls::ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |why: String| Error::Config {
        what: "the certificate authority",
        why,
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    let config = match trust {
        Trust::Thumbprint(print) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                print: *print,
                provider,
            }))
            .with_no_client_auth(),
        Trust::Ca(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("it has no PEM certificate".into()));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Arc::new(config))
}

/// Accepts one certificate and no other; the handshake's signatures are checked as ever.
#[derive(Debug)]
struct Pinned {
    print: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let print: [u8; 32] = Sha256::digest(end_entity).into();
        if print == self.print {
            return Ok(ServerCertVerified::assertion());
        }
        let hex: Vec<String> = print.iter().map(|b| format!("{b:02X}")).collect();
        Err(rustls::Error::General(format!(
            "the server's certificate has the SHA-256 thumbprint {}, which is not the pinned one",
            hex.join(":")
        )))
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
