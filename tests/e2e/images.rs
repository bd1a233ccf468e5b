//! Images: pull from a real registry, load, list, inspect, tag, remove.

use crate::hosts::{BUSYBOX, Hosts, Link, alone, equal, holds, load, on};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::process::Command;
use std::sync::Arc;
use tests::docker::Docker;
use tests::registry::Registry;
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    let with_registry = |name: &str, test: fn(&Docker, &Registry) -> Result<()>| {
        let hosts2 = hosts.clone();
        on(hosts, Link::Vsock, name, move |docker| {
            test(docker, &*hosts2.registry()?)
        })
    };
    all.push(with_registry("images::pull_and_run", pull_and_run));
    all.push(with_registry(
        "images::pull_by_digest_and_platform",
        by_digest,
    ));
    all.push(with_registry(
        "images::pull_of_what_is_not_there",
        not_there,
    ));
    all.push(alone("images::pull_with_a_password", with_password));
    all.push(on(
        hosts,
        Link::Vsock,
        "images::list_inspect_tag_rmi",
        tag_and_remove,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "images::a_truncated_archive_is_refused_whole",
        truncated,
    ));
    all
}

fn pull_and_run(docker: &Docker, registry: &Registry) -> Result<()> {
    let reference = registry.push("many")?;
    let out = docker.ok(&["pull", &reference])?;
    holds(&out, "Status: Downloaded newer image for")?;
    holds(&out, "Digest: sha256:")?;
    holds(
        &docker.ok(&["pull", &reference])?,
        "Status: Image is up to date for",
    )?;
    // 127 layers: the last file of all, and what whiteouts of layers in between have removed.
    let seen = docker.ok(&["run", "--rm", &reference, "sh", "-c", "cat /layers/last; ls /layers | wc -l; test ! -e /layers/004 && test -e /layers/126 && echo gone"])?;
    equal("what the process sees", seen, "126\n86\ngone".into())
}

fn by_digest(docker: &Docker, registry: &Registry) -> Result<()> {
    let reference = registry.push("busybox")?;
    docker.ok(&["pull", "--platform", "linux/amd64", &reference])?;
    let digests = docker.ok(&[
        "image",
        "inspect",
        "--format",
        "{{index .RepoDigests 0}}",
        &reference,
    ])?;
    ensure!(digests.contains("@sha256:"), "RepoDigests: {digests}");
    docker.ok(&["pull", &digests])?;
    equal(
        "output",
        docker.ok(&["run", "--rm", &digests, "echo", "by digest"])?,
        "by digest".into(),
    )?;
    let out = docker
        .run(&["pull", "--platform", "linux/s390x", &reference])?
        .exits(1)?;
    ensure!(!out.errors().is_empty());
    Ok(())
}

fn not_there(docker: &Docker, registry: &Registry) -> Result<()> {
    let out = docker
        .run(&["pull", &format!("{}/no/such:image", registry.address)])?
        .exits(1)?;
    ensure!(
        out.errors().contains("not found") || out.errors().contains("manifest unknown"),
        "{}",
        out.errors()
    );
    let out = docker
        .run(&[
            "run",
            "--rm",
            &format!("{}/no/such:image", registry.address),
        ])?
        .exits(125)?;
    ensure!(!out.errors().is_empty());
    // Nothing listens there.
    let out = docker.run(&["pull", "127.0.0.1:1/no/such"])?.exits(1)?;
    holds(&out.errors(), "127.0.0.1:1")
}

fn with_password() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("htpasswd");
    // bcrypt of "sesame", cost 5.
    let made = Command::new("python3").args(["-c", "import crypt; print('robot:' + crypt.crypt('sesame', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=32)))"]).output()?;
    ensure!(
        made.status.success(),
        "bcrypt: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    // crypt(3) writes $2b$; Go's bcrypt reads it.
    std::fs::write(&file, made.stdout)?;
    let registry = Registry::with_password(&file)?;
    let reference = format!("{}/mooring-test/busybox:latest", registry.address);
    let mut push = Command::new("skopeo");
    push.args([
        "copy",
        "-q",
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--dest-creds",
        "robot:sesame",
    ]);
    push.arg(format!(
        "oci:{}:latest",
        tests::places::image("busybox").display()
    ))
    .arg(format!("docker://{reference}"));
    tests::command::run(push, b"", tests::command::DEADLINE)?.ok()?;

    let vch = Vch::start(Settings::link("auto"))?;
    let out = vch.docker.run(&["pull", &reference])?.exits(1)?;
    ensure!(
        out.errors().contains("unauthorized") || out.errors().contains("no basic auth"),
        "{}",
        out.errors()
    );
    let out = vch
        .docker
        .run_with_input(
            &[
                "login",
                "-u",
                "robot",
                "--password-stdin",
                &registry.address,
            ],
            b"wrong",
        )?
        .exits(1)?;
    ensure!(!out.errors().is_empty());
    vch.docker
        .run_with_input(
            &[
                "login",
                "-u",
                "robot",
                "--password-stdin",
                &registry.address,
            ],
            b"sesame",
        )?
        .ok()?;
    vch.docker.ok(&["pull", &reference])?;
    equal(
        "output",
        vch.docker.ok(&["run", "--rm", &reference, "echo", "in"])?,
        "in".into(),
    )
}

fn tag_and_remove(docker: &Docker) -> Result<()> {
    load(docker, "odd")?;
    let id = docker.ok(&["images", "-q", "--no-trunc", "mooring-test/odd"])?;
    ensure!(id.starts_with("sha256:"), "ID {id:?}");
    docker.ok(&["tag", "mooring-test/odd", "another/name:v1"])?;
    equal(
        "ID by the new name",
        docker.ok(&["images", "-q", "--no-trunc", "another/name:v1"])?,
        id.clone(),
    )?;
    equal(
        "filter",
        docker.ok(&[
            "images",
            "-q",
            "--no-trunc",
            "--filter",
            "reference=another/*",
        ])?,
        id.clone(),
    )?;
    let all: serde_json::Value = serde_json::from_str(&docker.ok(&["image", "inspect", &id])?)?;
    equal(
        "layers",
        all[0]["RootFS"]["Layers"].as_array().map(Vec::len),
        Some(3),
    )?;
    equal(
        "architecture",
        all[0]["Architecture"].as_str(),
        Some("amd64"),
    )?;
    holds(
        &docker.ok(&["rmi", "mooring-test/odd"])?,
        "Untagged: mooring-test/odd:latest",
    )?;
    let name = "e2e-rmi";
    let container = docker.container(name);
    docker.ok(&["create", "--name", name, "another/name:v1", "true"])?;
    let out = docker.run(&["rmi", "another/name:v1"])?.exits(1)?;
    holds(&out.errors(), "conflict")?;
    drop(container);
    holds(
        &docker.ok(&["rmi", "another/name:v1"])?,
        &format!("Deleted: {id}"),
    )?;
    let out = docker.run(&["image", "inspect", &id])?.exits(1)?;
    holds(&out.errors().to_lowercase(), "no such image")?;
    equal(
        "the other image",
        docker.ok(&["run", "--rm", BUSYBOX, "echo", "whole"])?,
        "whole".into(),
    )
}

fn truncated(docker: &Docker) -> Result<()> {
    let whole = std::fs::read(tests::places::archive("debian")).context("debian archive")?;
    let before = docker.ok(&["images", "-aq"])?;
    let out = docker.run_with_input(&["load"], &whole[..whole.len() / 3])?;
    ensure!(
        out.code != 0 || out.text().contains("rror") || out.errors().contains("rror"),
        "a truncated archive was taken: {}",
        out.text()
    );
    equal("images", docker.ok(&["images", "-aq"])?, before)
}
