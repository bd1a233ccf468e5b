//! Projects of real programs under Docker Compose: up, really answering, down, nothing left. A project is a folder of
//! tests/compose with a `compose.yaml` and a `check`, which is run once it is up.

use crate::hosts::{Hosts, Link, equal};
use anyhow::{Context, Result};
use libtest_mimic::Trial;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tests::command;
use tests::docker::Docker;
use tests::places;
use tests::random::Random;

/// How long one step of a project may take: a database's first start is minutes on a busy machine.
const STEP: Duration = Duration::from_secs(420);
/// Projects of a run that is no soak.
const SAMPLE: usize = 5;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let pushed = Arc::new(Mutex::new(HashSet::new()));
    chosen()
        .into_iter()
        .map(|name| {
            let (hosts, pushed) = (hosts.clone(), pushed.clone());
            Trial::test(format!("compose::{name}"), move || {
                run(&hosts, &pushed, &name).map_err(|e| format!("{e:#}").into())
            })
        })
        .collect()
}

/// All projects in a soak, or where one is asked for by its name; else a sample by the seed.
fn chosen() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| folder().join(name).join("compose.yaml").is_file())
        .collect();
    all.sort();
    let asked = std::env::args().any(|a| a.contains("compose::"));
    if asked || std::env::var_os("MOORING_SOAK").is_some() {
        return all;
    }
    let sample = Random::seeded(4, |mut random| {
        while all.len() > SAMPLE {
            let index = random.below(all.len() as u64);
            all.remove(usize::try_from(index)?);
        }
        Ok(all)
    });
    // A seed that is no number: no test has run yet, and the ones that use it say so.
    sample.unwrap_or_default()
}

fn folder() -> PathBuf {
    places::root().join("tests/compose")
}

/// A project; taken down when this goes out of scope, so that a failed one leaves nothing.
struct Project<'a> {
    docker: &'a Docker,
    folder: PathBuf,
    name: String,
    registry: String,
}

impl Project<'_> {
    fn prepared(&self, mut command: Command) -> Command {
        let config = self.docker.config().display().to_string();
        command
            .current_dir(&self.folder)
            .env("DOCKER_HOST", self.docker.host())
            .env("DOCKER_CONFIG", config)
            .env("REGISTRY", format!("{}/mooring-test", self.registry))
            .env("COMPOSE_FILE", self.folder.join("compose.yaml"))
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("COMPOSE_PROGRESS", "plain")
            .env("COMPOSE_MENU", "false");
        command
    }

    fn compose(&self, args: &[&str]) -> Result<String> {
        let mut c = self.docker.command(&["compose"]);
        c.args(args);
        Ok(command::run(self.prepared(c), b"", STEP)?.ok()?.text())
    }

    fn check(&self) -> Result<()> {
        let mut c = Command::new("bash");
        c.args(["-c", "source ../lib.sh; source ./check"]);
        command::run(self.prepared(c), b"", STEP)?.ok().map(drop)
    }

    fn down(&self) -> Result<()> {
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
        let _ = self.down();
    }
}

fn run(hosts: &Hosts, pushed: &Mutex<HashSet<String>>, name: &str) -> Result<()> {
    let host = hosts.get(Link::Vsock)?;
    let docker = &host.docker;
    let registry = hosts.registry()?;
    plug_in(docker)?;
    let project = Project {
        docker,
        folder: folder().join(name),
        name: format!("e2e-{name}"),
        registry: registry.address.clone(),
    };
    for image in images(&project.folder)? {
        let mut pushed = pushed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !pushed.contains(&image) {
            registry.push(&image)?;
            pushed.insert(image);
        }
    }
    project
        .compose(&["up", "--detach", "--wait", "--quiet-pull"])
        .and_then(|_| project.check())
        .with_context(|| {
            let logs = project.compose(&["logs", "--no-color", "--tail", "30"]);
            let all = project.compose(&["ps", "--all"]);
            format!("{all:?}\n{logs:?}")
        })?;
    project.down()?;
    let label = format!("label=com.docker.compose.project={}", project.name);
    for list in [
        &["ps", "--all"] as &[&str],
        &["network", "ls"],
        &["volume", "ls"],
    ] {
        let args = [list, &["--quiet", "--filter", &label]].concat();
        equal(
            &format!("what is left by {list:?}"),
            docker.ok(&args)?,
            String::new(),
        )?;
    }
    Ok(())
}

/// The test images that a project's services name.
fn images(folder: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(folder.join("compose.yaml"))?;
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once("${REGISTRY}/"))
        .map(|(_, image)| image.trim().to_owned())
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Makes the client know Compose.
fn plug_in(docker: &Docker) -> Result<()> {
    let plugins = docker.config().join("cli-plugins");
    std::fs::create_dir_all(&plugins)?;
    let program = places::client("docker-compose");
    match std::os::unix::fs::symlink(&program, plugins.join("docker-compose")) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e).context("cli-plugins"),
        _ => Ok(()),
    }
}
