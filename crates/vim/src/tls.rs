//! One certificate that is trusted by its thumbprint, as vSphere does it between its own parts:
//! the API's client pins the server's, a serial port's `telnets` proxy URI pins the proxy's.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// SHA-256 of a certificate (DER). Its text is upper-case hex with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint(pub [u8; 32]);

/// A text is no thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no SHA-256 in 64 hex digits, with or without colons")]
pub struct ThumbprintError(String);

impl Thumbprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Thumbprint {
        Thumbprint(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    /// Reads 64 hex digits, with colons or without.
    fn from_str(text: &str) -> Result<Thumbprint, ThumbprintError> {
        let wrong = || ThumbprintError(text.chars().take(128).collect());
        let digits: Vec<u8> = text
            .trim()
            .bytes()
            .filter(|&b| b != b':')
            .map(|b| {
                char::from(b)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut print = [0; 32];
        for (byte, pair) in print.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Thumbprint(print))
    }
}

/// A client's TLS configuration that accepts the certificate with this thumbprint and no other,
/// whatever it says about itself. The handshake's signatures are checked as ever.
///
/// # Errors
/// rustls has no protocol version in common with its provider: a fault of the build.
pub fn pinned(thumbprint: Thumbprint) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned {
            thumbprint,
            provider,
        }))
        .with_no_client_auth())
}

#[derive(Debug)]
struct Pinned {
    thumbprint: Thumbprint,
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
        let has = Thumbprint::of(end_entity);
        if has == self.thumbprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!(
            "the server's certificate has the SHA-256 thumbprint {has}, which is not the pinned one"
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_read_as_it_is_written_and_without_colons() {
        let print = Thumbprint::of(b"certificate");
        let text = print.to_string();
        assert_eq!(text.len(), 95);
        assert_eq!(text.parse(), Ok(print));
        assert_eq!(text.replace(':', "").to_lowercase().parse(), Ok(print));
    }

    #[test]
    fn what_has_not_64_hex_digits_is_no_thumbprint() {
        let long = "A".repeat(66);
        let signed = "+A".repeat(32);
        for wrong in ["", "AB", &long, &signed, &"ä".repeat(64)] {
            assert!(wrong.parse::<Thumbprint>().is_err(), "{wrong}");
        }
    }
}
