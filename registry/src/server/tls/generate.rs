//! A CA of one's own, for those who have none.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// PEM texts.
#[derive(Debug)]
pub struct Generated {
    /// Certificate of the CA, which clients must trust.
    pub ca: String,
    /// Its key.
    pub ca_key: String,
    /// The server's certificate, followed by the CA's.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A CA (10 years) and a server's certificate by it (825 days) for these names and addresses.
///
/// # Errors
/// When a name is none.
pub fn certificates(hosts: &[String]) -> Result<Generated, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "Mooring registry CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = now - Duration::days(1);
    ca.not_after = now + Duration::days(3650);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::from_params(&ca, &ca_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(hosts.to_vec())?;
    server.distinguished_name.push(
        DnType::CommonName,
        hosts.first().map_or("registry", String::as_str),
    );
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.not_before = now - Duration::days(1);
    server.not_after = now + Duration::days(825);
    let certificate = server.signed_by(&key, &issuer)?;
    Ok(Generated {
        certificate: certificate.pem() + &ca_certificate.pem(),
        key: key.serialize_pem(),
        ca: ca_certificate.pem(),
        ca_key: ca_key.serialize_pem(),
    })
}
