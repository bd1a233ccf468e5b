//! Docker's content trust: Debian's notary-server on loopback, which keeps what it is told in memory.

use crate::command::{self, DEADLINE, Outcome};
use crate::docker::Docker;
use anyhow::{Context, Result};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running server; ended when this goes out of scope.
#[derive(Debug)]
pub struct Notary {
    child: Child,
    /// `127.0.0.1:PORT`.
    address: String,
    folder: TempDir,
}

impl Notary {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (cert, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        // The port is free now; the server cannot be told to choose one itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = folder.path().join("server.json");
        let settings = serde_json::json!({
            "server": { "http_addr": address, "tls_cert_file": cert, "tls_key_file": key },
            "trust_service": { "type": "local" },
            "storage": { "backend": "memory" },
        });
        std::fs::write(&config, settings.to_string())?;
        let child = Command::new("notary-server")
            .arg("-config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start notary-server (Debian package notary)")?;
        let notary = Notary {
            child,
            address,
            folder,
        };
        command::eventually("notary-server answers", || {
            Ok(TcpStream::connect(&notary.address).is_ok())
        })?;
        Ok(notary)
    }

    /// Runs a command of the Docker client that trusts what this server names, and nothing else.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub fn run(&self, docker: &Docker, args: &[&str]) -> Result<Outcome> {
        let trusted = docker.config().join("tls").join(&self.address);
        std::fs::create_dir_all(&trusted)?;
        std::fs::copy(self.folder.path().join("cert.pem"), trusted.join("ca.crt"))?;
        let mut c = docker.command(args);
        c.env("DOCKER_CONTENT_TRUST", "1")
            .env(
                "DOCKER_CONTENT_TRUST_SERVER",
                format!("https://{}", self.address),
            )
            .env("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "of the root key")
            .env("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "of the other");
        command::run(c, b"", DEADLINE)
    }
}

impl Drop for Notary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
