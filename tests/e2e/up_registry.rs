//! The registry that `vch up --registry` starts beside the endpoint.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::{self, DEADLINE};
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone("registry::beside_the_endpoint", beside)]
}

/// What `vch up` says after a word.
fn told<'a>(guide: &'a str, head: &str) -> Result<&'a str> {
    let line = guide
        .lines()
        .find_map(|l| l.trim().strip_prefix(head))
        .with_context(|| format!("no {head:?} in {guide}"))?;
    Ok(line.trim())
}

/// A host, a registry, one VM from it; then each of them ends, by itself and by force.
fn beside() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.more = [
        "--registry=0".to_owned(),
        "--registry-allow=docker.io".to_owned(),
    ]
    .into();
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    // Said each time.
    let guide = vch.up()?.errors();
    let log_in = told(&guide, "log in:")?;
    let password = told(&guide, "password:")?
        .split(' ')
        .next()
        .context("a password")?
        .to_owned();
    let words: Vec<&str> = log_in.split(' ').collect();
    let [_, "login", "-u", user, address] = words[..] else {
        anyhow::bail!("how to log in: {log_in}");
    };
    holds(address, "localhost:")?;
    let image = format!("{address}/default-project/busybox");
    holds(
        told(&guide, "push:")?,
        &format!("docker push {address}/default-project/"),
    )?;
    let status = vch.status()?;
    let serves = |status: &serde_json::Value| {
        let parts = status["parts"].as_array();
        let own = parts.and_then(|all| all.iter().find(|p| p["name"] == "registry"));
        own.map(|p| (p["state"].clone(), p["serves"].clone()))
    };
    let wanted = (
        serde_json::json!("running"),
        serde_json::json!(format!("https://{address}")),
    );
    equal(
        "the registry's status",
        serves(&status),
        Some(wanted.clone()),
    )?;

    load(docker, "busybox")?;
    docker.ok(&["tag", BUSYBOX, &image])?;
    // Without a sign-in nothing is taken, with a wrong password neither.
    docker.run(&["push", "-q", &image])?.exits(1)?;
    docker
        .run(&["login", "-u", user, "-p", "wrong password", address])?
        .exits(1)?;
    docker.ok(&["login", "-u", user, "-p", &password, address])?;
    docker.ok(&["push", "-q", &image])?;

    // Killed, it comes back where it was; so it does with the whole host.
    let before = vch.pid("registry")?;
    vch.kill("registry")?;
    ensure!(
        vch.status()?["up"] == false,
        "a registry that was killed is missed"
    );
    vch.up()?;
    ensure!(vch.pid("registry")? != before, "another process serves");
    docker.ok(&["rmi", &image, BUSYBOX])?;
    docker.ok(&["pull", "-q", &image])?;
    vch.down()?;
    let state = serves(&vch.status()?).map(|(state, _)| state);
    equal(
        "the registry after vch down",
        state,
        Some(serde_json::json!("dead")),
    )?;

    // Another CA than that of its certificate: the endpoint pulls nothing from it.
    let ca = vch.state().join("registry/data/ca.crt");
    let right = std::fs::read(&ca)?;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(&ca, other.cert.pem())?;
    vch.up()?;
    equal(
        "where it is after another start",
        serves(&vch.status()?),
        Some(wanted),
    )?;
    docker.ok(&["rmi", &image])?;
    let refused = docker.run(&["pull", "-q", &image])?.exits(1)?;
    holds(&refused.errors().to_lowercase(), "certificate")?;
    vch.down()?;
    std::fs::write(&ca, right)?;
    vch.up()?;
    let out = docker.ok(&["run", "--rm", &image, "echo", "from the registry"])?;
    equal("what it says", out.trim(), "from the registry")?;

    let help = command::run(
        {
            let mut c = std::process::Command::new(tests::places::programs().join("vch"));
            c.args(["up", "--help"]);
            c
        },
        b"",
        DEADLINE,
    )?;
    holds(&help.ok()?.text(), "--registry[=<PORT>]")
}
