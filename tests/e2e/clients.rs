//! Docker's libraries for Python and Node, each as a program of its own in tests/clients (docker-py is in the differential
//! set), and the stock client as those of older versions are.

use crate::hosts::{BUSYBOX, Hosts, Link, equal, holds, load, logs_come_to_hold, on};
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
        on(hosts, Link::Vsock, "clients::of_older_versions", older),
    ]
}

/// A life of a container by versions of the API between which something changed: 1.24 is the oldest; from 1.25 on the
/// daemon removes, from 1.30 on a wait comes before the start, 1.40 is the last without wait's own condition for it.
fn older(docker: &Docker) -> Result<()> {
    for version in ["1.24", "1.25", "1.30", "1.40"] {
        let docker = docker.at_version(version);
        let here = |what: &str| format!("{what} at {version}");
        equal(
            &here("version"),
            docker.ok(&["version", "--format", "{{.Client.APIVersion}}"])?,
            version.into(),
        )?;
        let name = format!("older-{}", version.replace('.', "-"));
        let script = "trap 'echo bye; exit 3' TERM; echo begun; while :; do sleep 0.1; done";
        let args = [
            "run",
            "--rm",
            "-i",
            "--name",
            &name,
            BUSYBOX,
            "sh",
            "-c",
            "cat; exit 7",
        ];
        let out = docker.run_with_input(&args, b"word\n")?.exits(7)?;
        equal(&here("output"), out.text(), "word".into())?;
        // The name is free again: `--rm` removed that one.
        let _gone = docker.container(&name);
        docker.ok(&["run", "-d", "--name", &name, BUSYBOX, "sh", "-c", script])?;
        logs_come_to_hold(&docker, &name, "begun")?;
        let format = "{{.Names}} {{.State}}";
        let filter = format!("name=^/{name}$");
        equal(
            &here("ps"),
            docker.ok(&["ps", "--filter", &filter, "--format", format])?,
            format!("{name} running"),
        )?;
        let exec = ["exec", "-i", &name, "sh", "-c", "cat; exit 5"];
        let out = docker.run_with_input(&exec, b"beside\n")?.exits(5)?;
        equal(&here("exec"), out.text(), "beside".into())?;
        docker.ok(&["stop", &name])?;
        equal(&here("wait"), docker.ok(&["wait", &name])?, "3".into())?;
        equal(
            &here("logs"),
            docker.ok(&["logs", &name])?,
            "begun\nbye".into(),
        )?;
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.Config.Image}}";
        equal(
            &here("inspect"),
            docker.inspect(&name, format)?,
            format!("exited 3 {BUSYBOX}"),
        )?;
        docker.ok(&["rm", &name])?;
    }
    Ok(())
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
