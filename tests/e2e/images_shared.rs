//! Pulls that break off, and pulls of the same at once.

use crate::hosts::{Hosts, alone, equal, holds};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use tests::registry::Registry;
use tests::relay::{Relay, Way};
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone("images::pulls_resume_and_share", pulls)]
}

/// The digests of a test image's layers, lowest first.
fn layers_of(image: &str) -> Result<Vec<String>> {
    let folder = tests::places::image(image);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"]
        .as_str()
        .context("a digest")?;
    let blob = folder.join("blobs").join(digest.replace(':', "/"));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(blob)?)?;
    let layers = manifest["layers"].as_array().context("layers")?.iter();
    let digests = layers.map(|l| Ok(l["digest"].as_str().context("a digest")?.to_owned()));
    digests.collect()
}

fn pulls() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    let registry = Registry::start()?;
    let relay = Relay::start(&registry.address)?;
    let one = registry
        .push_as("odd", "one/odd", None)?
        .replace(&registry.address, &relay.address);
    let two = registry
        .push_as("odd", "two/odd", None)?
        .replace(&registry.address, &relay.address);
    let layers = layers_of("odd")?;
    let blobs = || -> Vec<String> {
        relay
            .lines()
            .into_iter()
            .filter(|l| l.contains("/blobs/") || !l.contains("HTTP"))
            .collect()
    };

    // The connection breaks twice in the middle of a layer: the rest is asked for, and all of it is right.
    relay.cut(Way::Down, 600 << 10);
    relay.cut(Way::Down, 300 << 10);
    let out = docker.ok(&["pull", &one])?;
    equal("cuts to come", relay.cuts_left(), 0)?;
    holds(&out, "Retrying in")?;
    let lines = blobs();
    let ranges = lines
        .iter()
        .filter(|l| l.to_ascii_lowercase().starts_with("range: bytes="))
        .count();
    equal("requests for a rest", ranges, 2)?;
    docker.ok(&["rmi", &one])?;

    // Two pulls at once of images with the same layers: each blob is fetched once.
    relay.hold(600 << 10, &layers[0]);
    let mut first = docker.spawn(&["pull", &one])?;
    relay.wait_held(1);
    let mut second = docker.spawn(&["pull", &two])?;
    let mut told = BufReader::new(second.stdout.take().context("its output")?);
    let mut seen = String::new();
    while seen.matches("Pulling fs layer").count() < 3 {
        ensure!(told.read_line(&mut seen)? > 0, "the pull ended: {seen}");
    }
    relay.release();
    ensure!(first.wait()?.success(), "the first pull failed");
    told.read_to_string(&mut seen)?;
    ensure!(second.wait()?.success(), "the second pull failed");
    let fetched = blobs();
    // Three layers once, and the configuration for each.
    equal("blobs", fetched.len(), 5)?;
    equal(
        "output",
        docker.ok(&["run", "--rm", &two, "echo", "shared"])?,
        "shared".into(),
    )?;
    docker.ok(&["rmi", &one, &two])?;

    // A client that goes away: what had come by then is not fetched again.
    relay.hold(10 << 10, &layers[1]);
    let mut gone = docker.spawn(&["pull", &one])?;
    let mut told = BufReader::new(gone.stdout.take().context("its output")?);
    let mut seen = String::new();
    relay.wait_held(1);
    while seen.matches("Download complete").count() < 1 {
        ensure!(told.read_line(&mut seen)? > 0, "the pull ended: {seen}");
    }
    gone.kill()?;
    gone.wait()?;
    relay.release();
    let before = blobs().join("\n");
    holds(&before, &layers[0])?;
    docker.ok(&["pull", &one])?;
    let again = blobs().join("\n");
    holds(&again, &layers[1])?;
    ensure!(!again.contains(&layers[0]), "fetched again: {again}");
    equal(
        "output",
        docker.ok(&["run", "--rm", &one, "echo", "again"])?,
        "again".into(),
    )
}
