//! Pull with Docker's token authentication: Debian's registry, which judges the tokens, and a token server.

use crate::hosts::{Hosts, Link, alone, equal, holds};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::docker::Docker;
use tests::registry::Registry;
use tests::tokens::{ACCOUNT, Mood, TokenServer};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let hosts = hosts.clone();
    vec![alone("images::pull_with_tokens", move || {
        pull(&hosts.get(Link::Vsock)?.docker)
    })]
}

fn login(docker: &Docker, registry: &Registry, password: &str) -> Result<tests::command::Outcome> {
    let args = [
        "login",
        "-u",
        "robot",
        "--password-stdin",
        &registry.address,
    ];
    docker.run_with_input(&args, password.as_bytes())
}

fn pull(shared: &Docker) -> Result<()> {
    // A client of its own, which knows no password yet.
    let config = tempfile::tempdir()?;
    let docker = &Docker::new(shared.host(), config.path());
    let server = TokenServer::start()?;
    let registry = Registry::with_tokens(&server)?;
    let open = registry.push_as("odd", "public/odd", Some(ACCOUNT))?;
    let closed = registry.push_as("odd", "private/odd", Some(ACCOUNT))?;
    server.asked();

    // Without a password: a token all the same, for what is public.
    docker.ok(&["pull", "-q", &open])?;
    let asked = server.asked();
    ensure!(
        !asked.is_empty() && asked.iter().all(|a| a.authorization.is_none()),
        "asked: {asked:?}"
    );
    holds(&asked[0].target, "service=registry.test")?;
    holds(&asked[0].target, "scope=repository%3Apublic%2Fodd%3Apull")?;
    docker.ok(&["rmi", &open])?;
    let out = docker.run(&["pull", "-q", &closed])?.exits(1)?;
    holds(&out.errors(), "unauthorized")?;

    let out = login(docker, &registry, "wrong")?.exits(1)?;
    holds(&out.errors(), "incorrect username or password")?;
    let out = docker.run(&["pull", "-q", &closed])?.exits(1)?;
    holds(&out.errors(), "unauthorized")?;
    login(docker, &registry, "sesame")?.ok()?;
    docker.ok(&["pull", "-q", &closed])?;
    // Out again into another repository: one token for both, and nothing is sent.
    let other = format!("{}/private/other", registry.address);
    docker.ok(&["tag", &closed, &other])?;
    server.asked();
    let out = docker.ok(&["push", &other])?;
    holds(&out, "Mounted from private/odd")?;
    let asked = server.asked();
    holds(
        &asked[0].target,
        "scope=repository%3Aprivate%2Fother%3Apull%2Cpush&scope=repository%3Aprivate%2Fodd%3Apull",
    )?;
    equal("tokens that were asked for", asked.len(), 1)?;
    docker.ok(&["rmi", &closed, &other])?;

    // The registry refuses the first token, as it does with one that has expired since: another one is fetched.
    server.asked();
    server.be(Mood::ExpiredOnce);
    docker.ok(&["pull", "-q", &closed])?;
    equal("tokens that were asked for", server.asked().len(), 2)?;
    docker.ok(&["rmi", &closed])?;

    // A token server that sends its clients to another host: the password does not go there.
    let stranger = TokenServer::start()?;
    let port = stranger.address.rsplit(':').next().unwrap_or_default();
    server.be(Mood::Elsewhere(format!("localhost:{port}")));
    let out = docker.run(&["pull", "-q", &closed])?.exits(1)?;
    holds(&out.errors(), "unauthorized")?;
    let told = server.asked();
    ensure!(
        told.iter().all(|a| a.authorization.is_some()),
        "the token server was told {told:?}"
    );
    let told = stranger.asked();
    ensure!(
        !told.is_empty() && told.iter().all(|a| a.authorization.is_none()),
        "the other host was told {told:?}"
    );
    Ok(())
}
