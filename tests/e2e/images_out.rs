//! Images that leave: save and push.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tests::command::{DEADLINE, eventually, run};
use tests::docker::Docker;
use tests::own_registry::OwnRegistry;
use tests::registry::Registry;
use tests::relay::{Relay, Way};
use tests::vch::{Settings, Vch};

const ODD: &str = "mooring-test/odd";

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone("images::save_gives_what_load_took", save),
        alone("images::push_sends_what_is_missing", push),
    ]
}

fn ids(docker: &Docker, names: &[&str]) -> Result<Vec<String>> {
    names.iter().map(|n| docker.inspect(n, "{{.Id}}")).collect()
}

/// The files of a tar by name.
pub fn files(tar: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let mut c = Command::new("tar");
    c.args(["-x", "-C"]).arg(folder.path());
    run(c, tar, DEADLINE)?.ok()?;
    let mut all = BTreeMap::new();
    read(folder.path(), "", &mut all)?;
    Ok(all)
}

fn read(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{name}/"), all)?;
        } else {
            all.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn save() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    load(docker, "odd")?;
    load(docker, "busybox")?;
    docker.ok(&["tag", ODD, "mooring-test/odd:v2"])?;

    let out = docker.run(&["save", "no/such"])?.exits(1)?;
    holds(&out.errors(), "No such image: no/such")?;
    let out = docker
        .run(&["save", "--platform", "linux/s390x", ODD])?
        .exits(1)?;
    holds(&out.errors(), "does not match the specified platform")?;

    let before = ids(docker, &[ODD, BUSYBOX])?;
    let archive = docker
        .run(&["save", ODD, &format!("{BUSYBOX}:latest")])?
        .ok()?;
    let all = files(&archive.stdout)?;
    for (name, bytes) in &all {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            equal(name, layers::Digest::of(bytes).hex(), hex.to_owned())?;
        }
    }
    let manifest: serde_json::Value = serde_json::from_slice(&all["manifest.json"])?;
    // A repository without a tag is all of its tags; an image once.
    let mut tags: Vec<_> = manifest
        .as_array()
        .context("a list")?
        .iter()
        .map(|i| i["RepoTags"].to_string())
        .collect();
    tags.sort();
    equal(
        "tags",
        tags,
        vec![
            format!(r#"["{BUSYBOX}:latest"]"#),
            format!(r#"["{ODD}:latest","{ODD}:v2"]"#),
        ],
    )?;
    // Layers come out as the tars that went in.
    for image in ["odd", "busybox"] {
        let came = files(&std::fs::read(tests::places::archive(image))?)?;
        let came: serde_json::Value = serde_json::from_slice(&came["manifest.json"])?;
        ensure!(
            manifest.as_array().is_some_and(|m| m.iter().any(|i| {
                i["Layers"].as_array().map(Vec::len) == came[0]["Layers"].as_array().map(Vec::len)
            })),
            "{image}: {manifest}"
        );
    }
    // Another reader, of each form.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.tar");
    std::fs::write(&path, &archive.stdout)?;
    for source in [
        format!("docker-archive:{}:{ODD}:v2", path.display()),
        format!("oci-archive:{}:v2", path.display()),
    ] {
        let mut c = Command::new("skopeo");
        c.args(["copy", "-q", "--insecure-policy", &source]);
        c.arg(format!("dir:{}", folder.path().join("out").display()));
        run(c, b"", DEADLINE)?.ok()?;
    }

    // An image that is removed while it is saved comes out whole, and its files go then.
    let files_there =
        || -> Result<usize> { Ok(std::fs::read_dir(vch.vch_folder()?.join("layers"))?.count()) };
    let child = docker.spawn(&["save", ODD])?;
    let mut reading = child.stdout.context("its output")?;
    let mut all = vec![0; 1 << 20];
    reading.read_exact(&mut all)?;
    docker.ok(&["rmi", ODD, "mooring-test/odd:v2"])?;
    let during = files_there()?;
    reading.read_to_end(&mut all)?;
    files(&all)?;
    eventually("the files of the removed image are gone", || {
        Ok(files_there()? < during)
    })?;

    docker.ok(&["rmi", BUSYBOX])?;
    eventually("all files are gone", || Ok(files_there()? == 0))?;
    docker.ok(&["load", "-q", "-i", path.to_str().context("a path")?])?;
    equal("IDs", ids(docker, &[ODD, BUSYBOX])?, before.clone())?;
    equal(
        "the second tag",
        ids(docker, &["mooring-test/odd:v2"])?,
        vec![before[0].clone()],
    )?;
    // By ID: no name.
    let named = docker.run(&["save", &before[1]])?.ok()?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&files(&named.stdout)?["manifest.json"])?;
    equal("tags", manifest[0]["RepoTags"].is_null(), true)?;
    equal(
        "output",
        docker.ok(&["run", "--rm", BUSYBOX, "echo", "back"])?,
        "back".into(),
    )
}

/// The last line about each layer.
fn ends(out: &str) -> BTreeMap<String, String> {
    out.lines()
        .filter_map(|l| l.split_once(": "))
        .filter(|(id, _)| id.len() == 12)
        .map(|(id, what)| (id.to_owned(), what.to_owned()))
        .collect()
}

fn all_are(out: &str, what: &str) -> Result<()> {
    let ends = ends(out);
    ensure!(
        ends.len() == 3 && ends.values().all(|e| e == what),
        "not all {what:?}: {out}"
    );
    Ok(())
}

fn digest_of(out: &str) -> Result<String> {
    let digest = out
        .split("digest: ")
        .nth(1)
        .and_then(|t| t.split(' ').next());
    Ok(digest.context("a digest")?.to_owned())
}

fn push() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    let registry = Registry::start()?;
    let relay = Relay::start(&registry.address)?;
    load(docker, "odd")?;
    let first = format!("{}/a/odd", relay.address);

    let out = docker.run(&["push", &first])?.exits(1)?;
    holds(
        &out.errors(),
        &format!("An image does not exist locally with the tag: {first}"),
    )?;
    docker.ok(&["tag", ODD, &first])?;
    let out = docker.run(&["push", &format!("{first}:x")])?.exits(1)?;
    holds(&out.errors(), &format!("tag does not exist: {first}:x"))?;
    docker.ok(&["tag", ODD, "127.0.0.1:1/x"])?;
    let out = docker.run(&["push", "127.0.0.1:1/x"])?.exits(1)?;
    holds(&out.errors(), "127.0.0.1:1")?;

    // The connection breaks in the middle of a layer. Debian's registry does not know that upload any more: a new one.
    relay.cut(Way::Up, 600 << 10);
    let out = docker.ok(&["push", &first])?;
    equal("cuts to come", relay.cuts_left(), 0)?;
    all_are(&out, "Pushed")?;
    holds(&out, "Retrying in 1 seconds")?;
    let digest = digest_of(&out)?;
    relay.lines();

    // The endpoint is killed in the middle of a push: the registry has no image that is not whole, and all goes on.
    let torn = format!("{}/torn/odd", relay.address);
    docker.ok(&["tag", ODD, &torn])?;
    relay.hold(0, "PUT /v2/torn/odd/manifests/");
    let mut pushing = docker.spawn(&["push", &torn])?;
    relay.wait_held(1);
    vch.kill("endpoint")?;
    pushing.wait()?;
    relay.release();
    vch.up()?;
    let out = docker.ok(&["push", &torn])?;
    all_are(&out, "Mounted from a/odd").or_else(|_| all_are(&out, "Layer already exists"))?;
    equal("digest", digest_of(&out)?, digest.clone())?;
    relay.lines();

    let out = docker.ok(&["push", &first])?;
    all_are(&out, "Layer already exists")?;
    equal("digest", digest_of(&out)?, digest.clone())?;
    equal(
        "uploads of layers that are there",
        relay
            .lines()
            .iter()
            .filter(|l| l.starts_with("POST "))
            .count(),
        0,
    )?;
    let second = format!("{}/b/odd:1", relay.address);
    docker.ok(&["tag", ODD, &second])?;
    docker.ok(&["tag", ODD, &second.replace("odd:1", "odd:2")])?;
    let out = docker.ok(&["push", "-a", second.trim_end_matches(":1")])?;
    holds(&out, "Mounted from a/odd")?;
    holds(&out, "1: digest: ")?;
    holds(&out, "2: digest: ")?;
    let digests = docker.inspect(&second, "{{.RepoDigests}}")?;
    holds(&digests, &format!("/b/odd@{digest}"))?;

    // All tags of a repository; a signature or another artifact among them would end it.
    docker.ok(&["rmi", &second, &second.replace("odd:1", "odd:2")])?;
    docker.ok(&["pull", "-a", second.trim_end_matches(":1")])?;
    docker.ok(&["inspect", &second, &second.replace("odd:1", "odd:2")])?;
    docker
        .run(&["pull", "-a", &format!("{}/no/such", relay.address)])?
        .exits(1)?;

    // What was pulled goes back to the byte.
    let came = registry
        .push("odd")?
        .replace(&registry.address, &relay.address);
    docker.ok(&["rmi", "-f", &docker.inspect(ODD, "{{.Id}}")?])?;
    let pulled = docker.ok(&["pull", &came])?;
    let third = format!("{}/c/odd", relay.address);
    docker.ok(&["tag", &came, &third])?;
    let out = docker.ok(&["push", &third])?;
    holds(&out, "Mounted from mooring-test/odd")?;
    holds(&pulled, &format!("Digest: {}", digest_of(&out)?))?;
    // A skopeo that believes nothing takes it.
    let folder = tempfile::tempdir()?;
    for reference in [&first, &third] {
        let mut c = Command::new("skopeo");
        c.args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"]);
        c.arg(format!("docker://{reference}"));
        c.arg(format!("dir:{}", folder.path().join("out").display()));
        run(c, b"", DEADLINE)?.ok()?;
    }

    // Our own registry, which wants a password.
    let data = tempfile::tempdir()?;
    let own = OwnRegistry::start(&data)?;
    let relay = Relay::start(&own.address)?;
    let name = format!("{}/default-project/odd", relay.address);
    docker.ok(&["tag", &came, &name])?;
    let out = docker.run(&["push", &name])?.exits(1)?;
    ensure!(
        out.errors().contains("unauthorized") || out.errors().contains("denied"),
        "{}",
        out.errors()
    );
    let login = ["login", "-u", "admin", "--password-stdin", &relay.address];
    docker
        .run_with_input(&login, own.password.as_bytes())?
        .ok()?;
    // It goes on with an upload that broke off: one for each layer, and the configuration's.
    relay.lines();
    relay.cut(Way::Up, 600 << 10);
    let out = docker.ok(&["push", &name])?;
    all_are(&out, "Pushed")?;
    equal("cuts to come", relay.cuts_left(), 0)?;
    let lines = relay.lines().join("\n");
    ensure!(lines.matches("POST ").count() == 4, "uploads: {lines}");
    ensure!(lines.to_lowercase().contains("content-range: "), "{lines}");
    // Into another repository there: nothing is sent again.
    let other = format!("{}/default-project/other", relay.address);
    docker.ok(&["tag", &name, &other])?;
    let out = docker.ok(&["push", &other])?;
    all_are(&out, "Mounted from default-project/odd")?;
    docker.ok(&["rmi", "-f", &docker.inspect(&name, "{{.Id}}")?])?;
    // Its public project is for everybody to pull from, with nobody's password.
    docker.ok(&["logout", &relay.address])?;
    docker.ok(&["pull", &name])?;
    let out = docker.run(&["push", &name])?.exits(1)?;
    ensure!(
        out.errors().contains("unauthorized") || out.errors().contains("denied"),
        "{}",
        out.errors()
    );
    equal(
        "output",
        docker.ok(&["run", "--rm", &name, "echo", "there and back"])?,
        "there and back".into(),
    )
}
