//! Docker Compose, the real program, on projects of tests/compose.

use crate::command;
use crate::docker::Docker;
use crate::places;
use crate::registry::Registry;
use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long one step of a project may take: a database's first start is minutes on a busy machine.
const STEP: Duration = Duration::from_secs(420);

/// The folder of all projects: each is a folder with a `compose.yaml`, and a `check` that is run once it is up.
pub fn folder() -> PathBuf {
    places::root().join("tests/compose")
}

/// The names of all projects, sorted.
///
/// # Errors
/// When their folder cannot be read.
pub fn all() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let entry = entry?;
        if entry.path().join("compose.yaml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The test images that were pushed to a registry.
#[derive(Debug, Default)]
pub struct Pushed(Mutex<HashSet<(String, String)>>);

impl Pushed {
    fn push(&self, registry: &Registry, image: &str) -> Result<()> {
        let mut pushed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (registry.address.clone(), image.to_owned());
        if !pushed.contains(&key) {
            registry.push(image)?;
            pushed.insert(key);
        }
        Ok(())
    }
}

/// A project on a Docker host; taken down when this goes out of scope, so that a failed one leaves nothing.
#[derive(Debug)]
pub struct Project<'a> {
    docker: &'a Docker,
    folder: PathBuf,
    name: String,
    registry: String,
}

impl<'a> Project<'a> {
    /// The project of this folder, with its images in the registry; not yet up.
    ///
    /// # Errors
    /// When an image cannot be pushed.
    pub fn new(
        docker: &'a Docker,
        registry: &Registry,
        pushed: &Pushed,
        name: &str,
    ) -> Result<Self> {
        let plugins = docker.config().join("cli-plugins");
        std::fs::create_dir_all(&plugins)?;
        let program = places::client("docker-compose");
        match std::os::unix::fs::symlink(program, plugins.join("docker-compose")) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).context("cli-plugins");
            }
            _ => {}
        }
        let project = Project {
            docker,
            folder: folder().join(name),
            name: format!("e2e-{name}"),
            registry: registry.address.clone(),
        };
        for image in project.images()? {
            pushed.push(registry, &image)?;
        }
        Ok(project)
    }

    /// The test images that its services name.
    fn images(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.folder.join("compose.yaml"))?;
        let mut found: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once("${REGISTRY}/"))
            .map(|(_, image)| image.trim().to_owned())
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn prepared(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.folder)
            .env("DOCKER_HOST", self.docker.host())
            .env("DOCKER_CONFIG", self.docker.config())
            .env("REGISTRY", format!("{}/mooring-test", self.registry))
            .env("COMPOSE_FILE", self.folder.join("compose.yaml"))
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("COMPOSE_PROGRESS", "plain")
            .env("COMPOSE_MENU", "false");
        command
    }

    /// `docker compose` with these arguments; its standard output.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub fn compose(&self, args: &[&str]) -> Result<String> {
        let mut c = self.docker.command(&["compose"]);
        c.args(args);
        Ok(command::run(self.prepared(c), b"", STEP)?.ok()?.text())
    }

    /// Brings it up and waits until all of it is healthy.
    ///
    /// # Errors
    /// When it is not.
    pub fn up(&self) -> Result<()> {
        self.compose(&["up", "--detach", "--wait", "--quiet-pull"])
            .map(drop)
            .with_context(|| self.state())
    }

    /// Runs its check.
    ///
    /// # Errors
    /// What it found wrong.
    pub fn check(&self) -> Result<()> {
        let mut c = Command::new("bash");
        c.args(["-c", "source ../lib.sh; source ./check"]);
        command::run(self.prepared(c), b"", STEP)?
            .ok()
            .map(drop)
            .with_context(|| self.state())
    }

    /// Its containers and the ends of their logs, for messages.
    pub fn state(&self) -> String {
        let text = |args: &[&str]| self.compose(args).unwrap_or_else(|e| format!("{e:#}"));
        let containers = text(&["ps", "--all"]);
        let logs = text(&["logs", "--no-color", "--tail", "20"]);
        format!("{containers}\n{logs}")
    }

    /// Takes it down, and finds nothing left of it.
    ///
    /// # Errors
    /// When something is.
    pub fn down(&self) -> Result<()> {
        self.take_down()?;
        let label = format!("label=com.docker.compose.project={}", self.name);
        for list in [
            &["ps", "--all"] as &[&str],
            &["network", "ls"],
            &["volume", "ls"],
        ] {
            let left = self
                .docker
                .ok(&[list, &["--quiet", "--filter", &label]].concat())?;
            ensure!(left.is_empty(), "{list:?} behind `compose down`: {left}");
        }
        Ok(())
    }

    fn take_down(&self) -> Result<()> {
        self.compose(&[
            "--profile",
            "*",
            "down",
            "--volumes",
            "--remove-orphans",
            "--timeout",
            "10",
        ])
        .map(drop)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        // It may be down already, as it should.
        let _ = self.take_down();
    }
}
