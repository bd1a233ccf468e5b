//! Debian's docker-registry on loopback, filled by skopeo.

use crate::places;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running registry; ended when this goes out of scope.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Its storage, for looking at.
    pub storage: TempDir,
}

impl Registry {
    /// Starts one without authentication.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        Self::start_with("", None)
    }

    /// The same inside a network namespace, on its loopback; none: the machine's.
    ///
    /// # Errors
    /// When it does not start.
    pub fn inside(namespace: Option<&str>) -> Result<Self> {
        Self::start_with("", namespace)
    }

    /// Starts one that wants basic authentication (user `robot`, this password).
    ///
    /// # Errors
    /// When it does not start, or no bcrypt hash can be made.
    pub fn with_password(htpasswd: &std::path::Path) -> Result<Self> {
        Self::start_with(
            &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                htpasswd.display()
            ),
            None,
        )
    }

    /// Starts one that wants tokens of a token server.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_tokens(server: &crate::tokens::TokenServer) -> Result<Self> {
        Self::start_with(
            &format!(
                "auth:\n  token:\n    realm: http://{}/token\n    service: {}\n    issuer: {}\n    rootcertbundle: {}\n",
                server.address,
                crate::tokens::SERVICE,
                crate::tokens::ISSUER,
                server.certificate().display()
            ),
            None,
        )
    }

    /// Starts one that speaks TLS with this certificate and key (PEM).
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_tls(certificate: &std::path::Path, key: &std::path::Path) -> Result<Self> {
        // It goes on with the section that the address is in.
        Self::start_with(
            &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            ),
            None,
        )
    }

    fn start_with(auth: &str, namespace: Option<&str>) -> Result<Self> {
        let storage = tempfile::tempdir()?;
        // The port is free now; Debian's registry cannot be told to choose one itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = storage.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{auth}",
                storage.path().join("data").display()
            ),
        )?;
        let mut command = match namespace {
            Some(name) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/var/run/netns/{name}"));
                command.arg("docker-registry");
                command
            }
            None => Command::new("docker-registry"),
        };
        let mut child = command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start docker-registry (Debian package docker-registry)")?;
        let mut log = BufReader::new(child.stderr.take().context("its log")?);
        let mut line = String::new();
        loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                bail!("docker-registry ended before it listened");
            }
            if line.contains("listening on") {
                break;
            }
        }
        // Its log must be read on, or it would block.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Registry {
            child,
            address,
            storage,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Pushes a test image with skopeo; returns its reference.
    ///
    /// # Errors
    /// When skopeo fails.
    pub fn push(&self, image: &str) -> Result<String> {
        self.push_as(image, &format!("mooring-test/{image}"), None)
    }

    /// Pushes a test image to a repository, with `user:password` where they are wanted; returns its reference.
    ///
    /// # Errors
    /// When skopeo fails.
    pub fn push_as(&self, image: &str, repository: &str, user: Option<&str>) -> Result<String> {
        let reference = format!("{}/{repository}:latest", self.address);
        let mut c = Command::new("skopeo");
        c.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]);
        if let Some(user) = user {
            c.args(["--dest-creds", user]);
        }
        c.arg(format!("oci:{}:latest", places::image(image).display()));
        c.arg(format!("docker://{reference}"));
        crate::command::run(c, b"", crate::command::DEADLINE)?.ok()?;
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
