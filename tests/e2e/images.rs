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
    all.push(on(
        hosts,
        Link::Vsock,
        "images::rmi_force_leaves_the_container_whole_and_sizes_are_real",
        forced,
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
    let name = "mooring-test/truncated:latest";
    let folder = tempfile::tempdir()?;
    let whole = std::fs::read(variant(folder.path(), name)?)?;
    let id = layers::Digest::of(&std::fs::read(folder.path().join("config.json"))?).to_string();
    for part in [1, 2] {
        let out = docker.run_with_input(&["load"], &whole[..whole.len() / 3 * part])?;
        ensure!(
            out.code != 0 || out.text().contains("rror") || out.errors().contains("rror"),
            "a truncated archive was taken: {}",
            out.text()
        );
        // By its name: other tests load other images at the same time.
        equal(
            "images",
            docker.ok(&["images", "-aq", name])?,
            String::new(),
        )?;
        docker.run(&["image", "inspect", &id])?.exits(1)?;
    }
    // It was the cut that was refused, not the archive.
    docker.run_with_input(&["load", "-q"], &whole)?.ok()?;
    docker.ok(&["rmi", name]).map(drop)
}

/// The busybox image under another ID: its configuration has one label more.
fn variant(folder: &std::path::Path, reference: &str) -> Result<std::path::PathBuf> {
    let tar = |args: &[&std::ffi::OsStr]| {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).args(args);
        tests::command::run(tar, b"", tests::command::DEADLINE)?.ok()
    };
    let archive = tests::places::archive("busybox");
    tar(&["-xf".as_ref(), archive.as_os_str()])?;
    let path = folder.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let config = folder.join(manifest[0]["Config"].as_str().context("Config")?);
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    value["config"]["Labels"]["variant"] = reference.into();
    std::fs::write(&config, serde_json::to_vec(&value)?)?;
    // The file is named after its digest, which is another one now.
    std::fs::rename(&config, folder.join("config.json"))?;
    manifest[0]["Config"] = "config.json".into();
    manifest[0]["RepoTags"] = serde_json::json!([reference]);
    std::fs::write(&path, serde_json::to_vec(&manifest)?)?;
    let out = folder.join("variant.tar");
    tar(&[
        "--exclude=variant.tar".as_ref(),
        "-cf".as_ref(),
        out.as_os_str(),
        ".".as_ref(),
    ])?;
    Ok(out)
}

fn forced(docker: &Docker) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let reference = "e2e/forced:latest";
    let archive = variant(folder.path(), reference)?;
    docker.ok(&["load", "-i", archive.to_str().context("its path")?])?;
    let id = docker.ok(&["images", "-q", "--no-trunc", reference])?;
    // The steps that made layers are as large as the image.
    let sizes = docker.ok(&[
        "history",
        "--human=false",
        "--format",
        "{{.Size}}",
        reference,
    ])?;
    let steps = sizes
        .lines()
        .map(str::parse::<u64>)
        .collect::<Result<Vec<_>, _>>()?;
    let whole = docker.inspect(reference, "{{.Size}}")?.parse::<u64>()?;
    ensure!(whole > 500_000, "the image has {whole} bytes");
    equal("bytes of all steps", steps.iter().sum::<u64>(), whole)?;

    let name = "e2e-forced";
    let _gone = docker.container(name);
    docker.ok(&["create", "--name", name, reference, "echo", "whole"])?;
    let size = docker.ok(&[
        "ps",
        "-as",
        "-f",
        "name=^e2e-forced$",
        "--format",
        "{{.Size}}",
    ])?;
    let (own, all) = size.split_once(" (virtual ").context("a size")?;
    ensure!(own != "0B" && all.ends_with("MB)"), "size {size:?}");
    let out = docker.run(&["rmi", reference])?.exits(1)?;
    holds(&out.errors(), "(must force) - container")?;
    holds(
        &docker.ok(&["rmi", "-f", reference])?,
        &format!("Untagged: {reference}"),
    )?;
    docker.run(&["image", "inspect", reference])?.exits(1)?;
    equal("output", docker.ok(&["start", "-a", name])?, "whole".into())?;
    docker.ok(&["rm", name])?;
    // Nothing uses it now.
    holds(&docker.ok(&["rmi", &id])?, &format!("Deleted: {id}"))?;
    let hardware = docker.ok(&["info", "--format", "{{.NCPU}} {{.MemTotal}}"])?;
    let (cpus, memory) = hardware.split_once(' ').context("two figures")?;
    ensure!(
        cpus.parse::<u64>()? > 0 && memory.parse::<u64>()? > 256 << 20,
        "CPUs and memory {hardware}"
    );
    Ok(())
}
