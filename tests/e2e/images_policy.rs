//! What the administrator says of registries: which, with which proof, by which way, with which signatures.

use crate::hosts::{Hosts, alone, equal, holds, load};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;
use tests::docker::Docker;
use tests::notary::Notary;
use tests::registry::Registry;
use tests::relay::Relay;
use tests::signing::Signer;
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone("images::registries_as_the_administrator_says", policy),
        alone("images::only_signed_images_where_it_is_asked_for", signed),
    ]
}

/// A certificate for loopback in files (certificate, key) of a folder.
fn certificate(folder: &Path) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

fn policy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cert, key) = certificate(folder.path())?;
    let secure = Registry::with_tls(&cert, &key)?;
    secure.push("busybox")?;
    let mirror = Registry::start()?;
    mirror.push_as("odd", "library/e2e-mirrored", None)?;
    mirror.push_as("busybox", "behind/proxy", None)?;
    // Go's HTTP server takes requests in a proxy's form, so a relay in front of it is one.
    let proxy = Relay::start(&mirror.address)?;

    let mut settings = Settings::link("auto");
    settings.more = [
        "--registry-allow=docker.io".to_owned(),
        "--registry-allow=127.0.0.1".to_owned(),
        "--registry-allow=localhost".to_owned(),
        "--registry-allow=*.test".to_owned(),
        format!("--registry-mirror=http://{}", mirror.address),
        format!("--registry-ca={}={}", secure.address, cert.display()),
        "--insecure-registry=plain.test:5000".to_owned(),
        "--insecure-registry=10.0.0.0/8".to_owned(),
        format!("--http-proxy=http://someone:secret@{}", proxy.address),
        format!("--https-proxy=http://{}", proxy.address),
        "--no-proxy=direct.test".to_owned(),
    ]
    .into();
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;

    // What is not on the list is not even spoken to.
    for args in [
        vec!["pull", "127.0.0.2:1/x"],
        vec!["login", "-u", "a", "-p", "b", "127.0.0.2:1"],
        vec!["import", "http://127.0.0.2:1/x.tar"],
        vec!["search", "127.0.0.2:1/x"],
    ] {
        let out = docker.run(&args)?.exits(1)?;
        holds(&out.errors(), "is not among those that this host may use")?;
        holds(&out.errors(), "--registry-allow")?;
    }

    // Docker Hub's images come from the mirror, under Docker Hub's name; what it lacks is asked for at home.
    let out = docker.ok(&["pull", "e2e-mirrored"])?;
    holds(&out, "docker.io/library/e2e-mirrored:latest")?;
    holds(
        &docker.inspect("e2e-mirrored", "{{.RepoDigests}}")?,
        "[e2e-mirrored@sha256:",
    )?;
    let out = docker.run(&["pull", "e2e-missing"])?.exits(1)?;
    holds(&out.errors(), "registry-1.docker.io")?;

    // Its own authority for one registry, by that name only.
    let reference = format!("{}/mooring-test/busybox", secure.address);
    docker.ok(&["pull", "-q", &reference])?;
    let elsewhere = reference.replace("127.0.0.1", "localhost");
    docker.run(&["pull", "-q", &elsewhere])?.exits(1)?;

    // A name that only the proxy knows, without TLS; the way to the others is not through the proxy.
    let lines = proxy.lines();
    ensure!(
        lines.iter().all(|l| l.contains("docker.io")),
        "what the proxy was asked: {lines:?}"
    );
    docker.ok(&["pull", "-q", "plain.test:5000/behind/proxy"])?;
    let lines = proxy.lines().join("\n");
    holds(
        &lines,
        "GET http://plain.test:5000/v2/behind/proxy/manifests/latest",
    )?;
    let out = docker
        .run(&["pull", "-q", "direct.test:5000/x"])?
        .exits(1)?;
    holds(&out.errors(), "direct.test:5000")?;
    ensure!(!proxy.lines().join("\n").contains("direct.test"));

    let info: serde_json::Value =
        serde_json::from_str(&docker.ok(&["info", "--format", "{{json .}}"])?)?;
    let config = &info["RegistryConfig"];
    equal(
        "mirrors",
        config["Mirrors"][0].as_str(),
        Some(&*format!("http://{}/", mirror.address)),
    )?;
    equal(
        "secure",
        config["IndexConfigs"]["plain.test:5000"]["Secure"].as_bool(),
        Some(false),
    )?;
    holds(&config["InsecureRegistryCIDRs"].to_string(), "10.0.0.0/8")?;
    holds(&info["HttpProxy"].to_string(), "someone:xxxxx@")?;
    equal("no proxy", info["NoProxy"].as_str(), Some("direct.test"))
}

fn signed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, other) = (Signer::new()?, Signer::new()?);
    let key = folder.path().join("key.pub");
    std::fs::write(&key, "no key")?;
    let (strict, free) = (Registry::start()?, Registry::start()?);
    let mut settings = Settings::link("auto");
    settings.more = vec![format!(
        "--require-signed={}={}",
        strict.address,
        key.display()
    )];

    let error = Vch::start(settings.clone())
        .err()
        .context("a key that is none was taken")?;
    holds(&format!("{error:#}"), "--require-signed")?;

    std::fs::write(&key, ours.public())?;
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    let reference = strict.push("busybox")?;
    let name = reference.trim_end_matches(":latest");
    let refused = |why: &str| -> Result<()> {
        let out = docker.run(&["pull", &reference])?.exits(1)?;
        holds(
            &out.errors(),
            "is not signed with a key that this host asks for",
        )
        .context(why.to_owned())?;
        docker.run(&["image", "inspect", &reference])?.exits(1)?;
        Ok(())
    };
    refused("no signature")?;
    // The digest, from another registry's pull of the same image.
    let elsewhere = free.push("busybox")?;
    docker.ok(&["pull", "-q", &elsewhere])?;
    let digest = docker.inspect(&elsewhere, "{{index .RepoDigests 0}}")?;
    let digest = digest.split('@').nth(1).context("a digest")?;
    refused("no signature, though the image is there")?;
    other.sign(name, digest)?;
    refused("another key's signature")?;
    ours.sign(name, digest)?;
    docker.ok(&["pull", &reference])?;
    // A signature, where it need not be signed itself, is no image.
    ours.sign(&format!("{}/signatures", free.address), digest)?;
    let signature = format!(
        "{}/signatures:{}.sig",
        free.address,
        digest.replace(':', "-")
    );
    let out = docker.run(&["pull", &signature])?.exits(1)?;
    holds(&out.errors(), "not a container image but an artifact")?;
    holds(&out.errors(), "simplesigning")?;
    // By the digest that is signed, it needs no tag.
    let by_digest = format!("{name}@{digest}");
    docker.ok(&["pull", "-q", &by_digest])?;
    trusted(docker, &free, &elsewhere)
}

/// The client's own content trust: what it asks its notary for, it wants of the endpoint by digest.
fn trusted(docker: &Docker, registry: &Registry, image: &str) -> Result<()> {
    let notary = Notary::start()?;
    let ours = format!("{}/e2e/trusted", registry.address);
    let (signed, unsigned) = (format!("{ours}:signed"), format!("{ours}:unsigned"));
    docker.ok(&["tag", image, &signed])?;
    docker.ok(&["tag", image, &unsigned])?;
    let out = notary.run(docker, &["push", &signed])?.ok()?;
    holds(&out.text(), "Successfully signed")?;
    docker.ok(&["push", &unsigned])?;
    docker.ok(&["rmi", &signed, &unsigned])?;

    let out = notary.run(docker, &["pull", &unsigned])?.exits(1)?;
    holds(&out.errors(), "No valid trust data for unsigned")?;
    docker.run(&["image", "inspect", &unsigned])?.exits(1)?;
    let out = notary.run(docker, &["pull", &signed])?.ok()?;
    holds(&out.text(), &format!("Pull (1 of 1): {signed}@sha256:"))?;
    equal(
        "IDs",
        docker.inspect(&signed, "{{.Id}}")?,
        docker.inspect(image, "{{.Id}}")?,
    )?;
    // Somebody moves the tag: the client goes on having what was signed.
    load(docker, "odd")?;
    docker.ok(&["tag", "mooring-test/odd", &signed])?;
    docker.ok(&["push", "-q", &signed])?;
    docker.ok(&["rmi", &signed])?;
    notary.run(docker, &["pull", "-q", &signed])?.ok()?;
    equal(
        "IDs once the tag has moved",
        docker.inspect(&signed, "{{.Id}}")?,
        docker.inspect(image, "{{.Id}}")?,
    )
}
