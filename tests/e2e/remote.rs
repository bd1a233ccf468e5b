//! The Docker API on TCP: TLS, and nobody without a certificate of the right authority.

use crate::hosts::{Hosts, alone, equal, holds};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::command::Outcome;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};
use time::{Duration, OffsetDateTime};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone(
        "remote::tls_lets_nobody_in_without_the_right_certificate",
        certificates,
    )]
}

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority(folder: &Path, name: &str) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(folder.join(format!("{name}.pem")), authority.pem())?;
    Ok(authority)
}

/// Writes a certificate and its key, `NAME.pem` and `NAME.key`.
pub(crate) fn certificate(
    folder: &Path,
    name: &str,
    issuer: &Authority,
    usage: ExtendedKeyUsagePurpose,
    ends: OffsetDateTime,
) -> Result<()> {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![usage];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
    params.not_after = ends;
    let key = KeyPair::generate()?;
    let made = params.signed_by(&key, issuer)?;
    std::fs::write(folder.join(format!("{name}.pem")), made.pem())?;
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

/// A client on TCP that trusts one authority, and shows a certificate where it has one.
struct Client {
    docker: Docker,
    options: Vec<String>,
}

impl Client {
    fn new(folder: &Path, at: &str, trusts: &str, shows: Option<&str>) -> Self {
        let file = |name: String| folder.join(name).display().to_string();
        let mut options = vec![
            "--tlsverify".to_owned(),
            format!("--tlscacert={}", file(format!("{trusts}.pem"))),
        ];
        // Without these two the client would look into its configuration folder, which has none.
        if let Some(name) = shows {
            options.push(format!("--tlscert={}", file(format!("{name}.pem"))));
            options.push(format!("--tlskey={}", file(format!("{name}.key"))));
        }
        Client {
            docker: Docker::new(at, folder),
            options,
        }
    }

    fn run(&self, args: &[&str]) -> Result<Outcome> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.docker.run(&[options.as_slice(), args].concat())
    }
}

/// Where the endpoint serves TCP, as its log says.
fn address(vch: &Vch) -> Result<String> {
    let log = std::fs::read_to_string(vch.state().join("endpoint/log"))?;
    let from = log
        .find("tcp://127.0.0.1:")
        .context("no address in the log")?;
    let end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '.'));
    Ok(log[from..].split(end).next().unwrap_or_default().to_owned())
}

fn certificates() -> Result<()> {
    let made = tempfile::tempdir()?;
    let folder: PathBuf = made.path().to_owned();
    let (ours, foreign) = (authority(&folder, "ca")?, authority(&folder, "foreign-ca")?);
    let now = OffsetDateTime::now_utc();
    let (later, past) = (now + Duration::days(9), now - Duration::days(1));
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    certificate(&folder, "server", &ours, server, later)?;
    certificate(&folder, "right", &ours, client.clone(), later)?;
    certificate(&folder, "expired", &ours, client.clone(), past)?;
    certificate(&folder, "foreign", &foreign, client, later)?;

    let mut settings = Settings::link("auto");
    for (option, file) in [
        ("--docker", "tcp://127.0.0.1:0".to_owned()),
        (
            "--tls-cert",
            folder.join("server.pem").display().to_string(),
        ),
        ("--tls-key", folder.join("server.key").display().to_string()),
        ("--tls-ca", folder.join("ca.pem").display().to_string()),
    ] {
        settings.more.extend([option.to_owned(), file]);
    }
    let vch = Vch::start(settings)?;
    crate::hosts::load(&vch.docker, "busybox")?;
    let at = address(&vch)?;

    let right = Client::new(&folder, &at, "ca", Some("right"));
    let version = ["version", "--format", "{{.Server.APIVersion}}"];
    equal(
        "API version",
        right.run(&version)?.ok()?.text(),
        "1.50".into(),
    )?;
    // The connection is taken over for output, through TLS as well.
    let run = ["run", "--rm", crate::hosts::BUSYBOX, "echo", "over TLS"];
    equal("output", right.run(&run)?.ok()?.text(), "over TLS".into())?;

    for shows in [None, Some("foreign"), Some("expired")] {
        let out = Client::new(&folder, &at, "ca", shows)
            .run(&version)?
            .exits(1);
        let words = out?.errors().to_lowercase();
        ensure!(
            words.contains("certificate") || words.contains("tls"),
            "{shows:?}: {words}"
        );
    }
    // A server that the client does not trust.
    let out = Client::new(&folder, &at, "foreign-ca", Some("right"))
        .run(&version)?
        .exits(1)?;
    holds(&out.errors(), "certificate")?;
    // Without TLS nothing is answered that could be HTTP.
    let mut plain = TcpStream::connect(at.trim_start_matches("tcp://"))?;
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")?;
    let mut answer = Vec::new();
    // It may be closed with a reset, which is as good as an end.
    let _ = plain.read_to_end(&mut answer);
    ensure!(
        !answer.starts_with(b"HTTP") && !answer.ends_with(b"OK"),
        "plain HTTP was answered: {}",
        String::from_utf8_lossy(&answer)
    );
    // And those who are let in still are.
    right.run(&version)?.ok().map(drop)
}
