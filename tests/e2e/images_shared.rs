//! Pulls that break off, and pulls of the same at once.

use crate::hosts::{Hosts, alone, equal, holds};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use tests::command::eventually;
use tests::registry::Registry;
use tests::relay::{Relay, Way};
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone("images::pulls_resume_and_share", pulls)]
}

/// Digests and sizes of a test image's layers, lowest first.
fn layers_of(image: &str) -> Result<Vec<(String, u64)>> {
    let folder = tests::places::image(image);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"]
        .as_str()
        .context("a digest")?;
    let blob = folder.join("blobs").join(digest.replace(':', "/"));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(blob)?)?;
    let layers = manifest["layers"].as_array().context("layers")?.iter();
    layers
        .map(|layer| {
            let digest = layer["digest"].as_str().context("a digest")?;
            Ok((digest.to_owned(), layer["size"].as_u64().context("a size")?))
        })
        .collect()
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
    relay.hold(600 << 10, &layers[0].0);
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
    relay.hold(10 << 10, &layers[1].0);
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
    holds(&before, &layers[0].0)?;
    docker.ok(&["pull", &one])?;
    let again = blobs().join("\n");
    ensure!(!again.contains(&layers[0].0), "fetched again: {again}");
    equal(
        "output",
        docker.ok(&["run", "--rm", &one, "echo", "again"])?,
        "again".into(),
    )?;
    docker.ok(&["rmi", &one])?;
    killed(&vch, &relay, &one, &layers)
}

/// An endpoint that is killed in the middle of a pull: its next one goes on where that was.
fn killed(vch: &Vch, relay: &Relay, image: &str, layers: &[(String, u64)]) -> Result<()> {
    let docker = &vch.docker;
    let kept = vch.state().join("endpoint/spool/kept");
    let file = |layer: &str| kept.join(layer.trim_start_matches("sha256:"));
    let came = |layer: &str| file(layer).metadata().map_or(0, |file| file.len());
    let is_empty = || -> Result<bool> { Ok(std::fs::read_dir(&kept)?.next().is_none()) };
    ensure!(is_empty()?, "an image has all of it, and it is kept");
    let ((first, first_size), others) = layers.split_first().context("layers")?;

    // One layer in half, the others whole.
    relay.hold(600 << 10, first);
    let mut gone = docker.spawn(&["pull", image])?;
    relay.wait_held(1);
    eventually("the other layers are there", || {
        Ok(others.iter().all(|(layer, size)| came(layer) == *size) && came(first) > 0)
    })?;
    vch.kill("endpoint")?;
    ensure!(!gone.wait()?.success(), "the pull came to its end");
    relay.release();
    relay.lines();
    let half = came(first);
    vch.up()?;
    relay.came_down();
    docker.ok(&["pull", image])?;
    let (lines, down) = (relay.lines().join("\n"), relay.came_down());
    for (layer, _) in others {
        ensure!(!lines.contains(layer), "{layer} is fetched again: {lines}");
    }
    holds(&lines.to_lowercase(), &format!("range: bytes={half}-"))?;
    // The rest, the manifest and the configuration.
    ensure!(down < first_size - half + (20 << 10), "{down} bytes came");
    ensure!(is_empty()?, "what the image has is kept");
    equal(
        "output",
        docker.ok(&["run", "--rm", image, "echo", "up again"])?,
        "up again".into(),
    )?;
    docker.ok(&["rmi", image])?;

    // What is kept and is not right costs another request, and no more.
    std::fs::write(file(first), [7; 1000])?;
    docker.ok(&["pull", image])?;
    let lines = relay.lines().join("\n");
    holds(&lines.to_lowercase(), "range: bytes=1000-")?;
    equal("requests for it", lines.matches(first).count(), 2)?;
    ensure!(is_empty()?, "what is not right is kept");
    Ok(())
}
