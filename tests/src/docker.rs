//! The stock Docker client, pointed at one endpoint.

use crate::command::{self, DEADLINE, Outcome};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A Docker client for one Docker host.
#[derive(Debug, Clone)]
pub struct Docker {
    host: String,
    config: PathBuf,
    /// What every command begins with.
    options: Vec<String>,
    /// The version of the API that it speaks, where that is not the newest that both know.
    version: Option<&'static str>,
}

impl Docker {
    /// A client for `host` (a DOCKER_HOST), with its configuration in `config`, so that none of the machine's is used.
    pub fn new(host: impl Into<String>, config: &Path) -> Self {
        Docker {
            host: host.into(),
            config: config.to_owned(),
            options: Vec::new(),
            version: None,
        }
    }

    /// The same client, but it speaks this version of the API, as one of that time does.
    pub fn at_version(&self, version: &'static str) -> Self {
        Docker {
            version: Some(version),
            ..self.clone()
        }
    }

    /// A client for a host on TCP: files of the authority that it trusts, of the certificate that it shows, and of its key.
    pub fn with_tls(
        host: impl Into<String>,
        config: &Path,
        [authority, certificate, key]: [&str; 3],
    ) -> Self {
        let mut docker = Docker::new(host, config);
        docker.options = vec![
            "--tlsverify".to_owned(),
            format!("--tlscacert={authority}"),
            format!("--tlscert={certificate}"),
            format!("--tlskey={key}"),
        ];
        docker
    }

    /// The Docker host's address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The folder of its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The path of its unix socket, where it has one.
    pub fn socket(&self) -> Option<&Path> {
        self.host.strip_prefix("unix://").map(Path::new)
    }

    /// A command line, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("docker");
        c.env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config);
        c.env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CERT_PATH");
        c.envs(self.version.map(|version| ("DOCKER_API_VERSION", version)));
        c.args(&self.options).args(args);
        c
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes too long. A non-zero exit is an [`Outcome`].
    pub fn run(&self, args: &[&str]) -> Result<Outcome> {
        command::run(self.command(args), b"", DEADLINE)
    }

    /// Runs a command that may take long.
    ///
    /// # Errors
    /// As [`Docker::run`].
    pub fn run_within(&self, args: &[&str], deadline: Duration) -> Result<Outcome> {
        command::run(self.command(args), b"", deadline)
    }

    /// Runs a command with this standard input.
    ///
    /// # Errors
    /// As [`Docker::run`].
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Result<Outcome> {
        command::run(self.command(args), input, DEADLINE)
    }

    /// Runs a command that must exit with 0, and gives its standard output as text.
    ///
    /// # Errors
    /// When it does not.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(self.run(args)?.ok()?.text())
    }

    /// Starts a command with pipes to all three files.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut c = self.command(args);
        c.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        c.spawn().with_context(|| format!("{c:?}"))
    }

    /// One value of `docker inspect`.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn inspect(&self, object: &str, format: &str) -> Result<String> {
        self.ok(&["inspect", "--format", format, object])
    }

    /// A container that is removed, with force, when this goes out of scope.
    pub fn container(&self, name: &str) -> Container {
        Container {
            docker: self.clone(),
            name: name.to_owned(),
        }
    }
}

/// Removes a container when it goes out of scope, so that a failed test leaves none behind.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    /// Its name.
    pub name: String,
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may be gone already, as it should.
        let _ = self.docker.run(&["rm", "-f", &self.name]);
    }
}
