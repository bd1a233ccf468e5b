//! `kill -9` at random moments of pull, create and remove: nothing half-made is visible, nothing leaks.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, load};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tests::random::{Random, times};
use tests::registry::Registry;
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone(
            "leaks::kill_9_at_random_moments_of_pull_create_and_remove",
            || Random::seeded(5, random_moments),
        ),
        alone(
            "leaks::a_start_must_not_sweep_a_create_in_flight_away",
            in_flight,
        ),
    ]
}

/// A record's name (`name.N.json`) without its generation, which changes; any other name as it is.
fn without_generation(name: &str) -> String {
    let generation = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    match name.strip_suffix(".json").and_then(|n| n.rsplit_once('.')) {
        Some((record, n)) if generation(n) => format!("{record}.json"),
        _ => name.to_owned(),
    }
}

/// Every file of the datastore, records by their names alone.
fn files(datastore: &Path) -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, root: &Path, all: &mut BTreeSet<String>) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, root, all)?;
            } else {
                let name = path.strip_prefix(root)?.to_string_lossy();
                all.insert(without_generation(&name));
            }
        }
        Ok(())
    }
    let mut all = BTreeSet::new();
    walk(datastore, datastore, &mut all)?;
    Ok(all)
}

fn random_moments(mut random: Random) -> Result<()> {
    let registry = Registry::start()?;
    let odd = registry.push("odd")?;
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    // With a volume that has no name, and goes with its container.
    let create = ["create", "--name", "leak", "-v", "/data", BUSYBOX, "true"];
    // Records that are made with the first of a kind, and stay.
    docker.ok(&["pull", "-q", &odd])?;
    docker.ok(&["rmi", &odd])?;
    docker.ok(&["volume", "create", "named"])?;
    docker.ok(&["volume", "rm", "named"])?;
    let base = files(&vch.datastore())?;
    // A quarter of them is volumes.
    for round in 0..times(12, 68) {
        let part = if random.below(3) == 0 {
            "hostsim"
        } else {
            "endpoint"
        };
        let (kind, args): (&str, Vec<&str>) = match round % 4 {
            0 => ("pull", vec!["pull", "-q", &odd]),
            1 => ("create", create.to_vec()),
            2 => ("volume", vec!["volume", "create", "named"]),
            _ => {
                docker.ok(&create)?;
                ("rm", vec!["rm", "-v", "leak"])
            }
        };
        let child = docker.spawn(&args)?;
        std::thread::sleep(Duration::from_micros(random.below(if kind == "pull" {
            600_000
        } else {
            60_000
        }))); // the random moment
        vch.kill(part)?;
        let outcome = tests::command::finish(child, args.join(" "), b"", tests::command::DEADLINE)?;
        vch.up()?;
        // What the client was told stands; what it was not told is whole or not there.
        match kind {
            "pull" => {
                let there = docker.run(&["image", "inspect", &odd])?.code == 0;
                ensure!(
                    there || outcome.code != 0,
                    "round {round}: a pull that was confirmed is gone"
                );
                if there {
                    equal(
                        "the image",
                        docker.ok(&["run", "--rm", &odd, "cat", "/odd/repeated"])?,
                        "second".into(),
                    )?;
                    docker.ok(&["rmi", &odd])?;
                }
            }
            "volume" => {
                let there = docker.run(&["volume", "inspect", "named"])?.code == 0;
                ensure!(
                    there || outcome.code != 0,
                    "round {round}: a volume that was confirmed is gone"
                );
                if there {
                    docker.ok(&["run", "--rm", "-v", "named:/x", BUSYBOX, "true"])?;
                    docker.ok(&["volume", "rm", "named"])?;
                }
            }
            _ => {
                // One that had begun goes on by itself.
                let removing = ["ps", "-aq", "--filter", "status=removing"];
                tests::command::eventually("removals end", || {
                    Ok(docker.ok(&removing)?.is_empty())
                })?;
                let there = !docker
                    .ok(&["ps", "-aq", "--filter", "name=^leak$"])?
                    .is_empty();
                if outcome.code == 0 {
                    equal(
                        &format!("round {round}: {kind} was confirmed; container"),
                        there,
                        kind == "create",
                    )?;
                }
                if there {
                    docker.run(&["start", "-a", "leak"])?.ok()?;
                    docker.ok(&["rm", "-v", "leak"])?;
                }
                let volumes = || docker.ok(&["volume", "ls", "-q"]);
                tests::command::eventually("its volume is gone", || Ok(volumes()?.is_empty()))?;
            }
        }
        // What an upload that broke off has left goes once the hypervisor answers again.
        let left = || -> Result<Vec<String>> {
            let now = files(&vch.datastore())?;
            Ok(now.difference(&base).cloned().collect())
        };
        let what =
            format!("round {round}, {part} killed during {kind}: nothing is left on the datastore");
        if let Err(error) = tests::command::eventually(&what, || Ok(left()?.is_empty())) {
            anyhow::bail!("{error}: {:?}", left()?);
        }
    }
    Ok(())
}

/// The creation goes on in the hypervisor when the endpoint that asked for it is killed. The next endpoint finds its
/// folder, which has no VM yet, beside one that will never have one.
fn in_flight() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings
        .more
        .push("--endpoint-arg=--vm-key=hostsim.create.hold=[datastore1] hold".into());
    let vch = Vch::start(settings)?;
    load(&vch.docker, "busybox")?;
    let hold = vch.datastore().join("hold");
    nix::unistd::mkfifo(&hold, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let containers = vch.vch_folder()?.join("containers");
    let folders = || -> Result<Vec<std::path::PathBuf>> {
        let entries = std::fs::read_dir(&containers)?;
        Ok(entries
            .map(|e| Ok(e?.path()))
            .collect::<std::io::Result<_>>()?)
    };
    let create = vch
        .docker
        .spawn(&["create", "--name", "held", BUSYBOX, "echo", "whole"])?;
    tests::command::eventually("the creation has made its folder", || {
        Ok(folders()?.len() == 1)
    })?;
    let created = folders()?.remove(0);
    let orphan = containers.join("ab".repeat(32));
    std::fs::create_dir(&orphan)?;
    std::fs::write(orphan.join("leaf.vmdk"), "left")?;

    vch.kill("endpoint")?;
    tests::command::finish(
        create,
        "docker create".into(),
        b"",
        tests::command::DEADLINE,
    )?
    .exits(1)?;
    vch.up()?;
    let log = vch.state().join("endpoint/log");
    tests::command::eventually("the sweep has found the creation", || {
        Ok(std::fs::read_to_string(&log)?.contains("creations of VMs are under way"))
    })?;
    ensure!(created.is_dir(), "the folder of the creation was deleted");
    // The pipe gets a writer: the creation goes on.
    drop(std::fs::File::options().write(true).open(&hold)?);
    std::fs::remove_file(&hold)?;
    tests::command::eventually("the folder that is nobody's is swept away", || {
        Ok(!orphan.exists())
    })?;
    tests::command::eventually("the container is there", || {
        Ok(vch.docker.run(&["inspect", "held"])?.code == 0)
    })?;
    equal(
        "output",
        vch.docker.ok(&["start", "-a", "held"])?,
        "whole".into(),
    )?;
    vch.docker.ok(&["rm", "held"])?;
    equal("folders that are left", folders()?, Vec::new())
}
