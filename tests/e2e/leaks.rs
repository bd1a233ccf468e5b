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
    vec![alone(
        "leaks::kill_9_at_random_moments_of_pull_create_and_remove",
        random_moments,
    )]
}

/// Every file of the datastore, without logs.
fn files(datastore: &Path) -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, root: &Path, all: &mut BTreeSet<String>) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, root, all)?;
            } else {
                all.insert(path.strip_prefix(root)?.to_string_lossy().into_owned());
            }
        }
        Ok(())
    }
    let mut all = BTreeSet::new();
    walk(datastore, datastore, &mut all)?;
    Ok(all)
}

fn random_moments() -> Result<()> {
    let registry = Registry::start()?;
    let odd = registry.push("odd")?;
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let mut random = Random::seeded(5);
    let base = files(&vch.datastore())?;
    for round in 0..times(9, 50) {
        let part = if random.below(3) == 0 {
            "hostsim"
        } else {
            "endpoint"
        };
        let (kind, args): (&str, Vec<&str>) = match round % 3 {
            0 => ("pull", vec!["pull", "-q", &odd]),
            1 => ("create", vec!["create", "--name", "leak", BUSYBOX, "true"]),
            _ => {
                docker.ok(&["create", "--name", "leak", BUSYBOX, "true"])?;
                ("rm", vec!["rm", "leak"])
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
                    docker.ok(&["rm", "leak"])?;
                }
            }
        }
        // What an upload that broke off has left goes once the hypervisor answers again.
        let left = || -> Result<Vec<String>> {
            let now = files(&vch.datastore())?;
            Ok(now
                .difference(&base)
                .filter(|f| !f.ends_with(".json"))
                .cloned()
                .collect())
        };
        let what =
            format!("round {round}, {part} killed during {kind}: nothing is left on the datastore");
        if let Err(error) = tests::command::eventually(&what, || Ok(left()?.is_empty())) {
            anyhow::bail!("{error}: {:?}", left()?);
        }
    }
    Ok(())
}
