//! Docker's libraries for Python and Node: each as a program of its own in tests/clients. docker-py is in the
//! differential set.

use crate::hosts::{Hosts, Link, holds, load, on};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tests::command::{self, DEADLINE};
use tests::docker::Docker;
use tests::places;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let h = hosts.clone();
    vec![
        on(hosts, Link::Vsock, "clients::python_on_whales", |docker| {
            let python = installed("bin/python3")?;
            runs(docker, Command::new(python), "on_whales.py", "")
        }),
        on(hosts, Link::Vsock, "clients::dockerode", move |docker| {
            let reference = h.registry()?.push("busybox")?;
            runs(docker, Command::new("node"), "dockerode.mjs", &reference)
        }),
        on(hosts, Link::Vsock, "clients::testcontainers", |docker| {
            load(docker, "debian")?;
            runs(docker, Command::new("node"), "testcontainers.mjs", "")
        }),
    ]
}

/// A path below target/clients.
fn installed(path: &str) -> Result<std::path::PathBuf> {
    let path = places::target().join("clients").join(path);
    ensure!(
        path.exists(),
        "no {}; `make clients` gets it",
        path.display()
    );
    Ok(path)
}

/// Runs one of the programs against a host; it says at its end that all was good.
fn runs(docker: &Docker, mut program: Command, name: &str, reference: &str) -> Result<()> {
    let modules = installed("node")?;
    program
        .arg(places::root().join("tests/clients").join(name))
        .env("DOCKER_HOST", docker.host())
        .env("NODE_PATH", Path::new(&modules))
        .env("REFERENCE", reference)
        // Its reaper is an image of the Docker Hub.
        .env("TESTCONTAINERS_RYUK_DISABLED", "true")
        .env("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
        .env_remove("DOCKER_CONTEXT");
    let outcome = command::run(program, b"", DEADLINE)?.ok()?;
    holds(&outcome.text(), "all good")
}
